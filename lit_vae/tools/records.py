"""What a run directory says of itself: read here for every verb that puts runs side by side."""

from dataclasses import dataclass
from pathlib import Path
from typing import Any

from lit_vae.run.files import read_json

CONFIG_FILE = "config.yaml"
RUN_RECORD_FILE = "run.json"
TEST_METRICS_FILE = "test_metrics.json"
PRIOR_RECORD_FILE = Path("priors") / "gmm.json"
EVALUATION_FILE = "evaluation.json"


@dataclass(frozen=True)
class Records:
    """The records in a run directory, each empty where there is no such file.

    Args:
        directory: of the run.
        config: the complete configuration.
        run: what became of it and what it cost (`lit_vae.run.record`).
        test: what ``lightning test`` measured.
        prior: what ``lit-vae fit-prior`` measured.
        evaluation: of samples, by what they were drawn from: ``model``, ``gmm``.
    """

    directory: Path
    config: dict[str, Any]
    run: dict[str, Any]
    test: dict[str, Any]
    prior: dict[str, Any]
    evaluation: dict[str, Any]

    @property
    def model(self) -> str:
        """The family, by the configuration or by what was recorded; blank where nothing says it."""
        class_path = (self.config.get("model") or {}).get("class_path", "")
        return str(class_path).rpartition(".")[2] or str(self.run.get("model") or self.test.get("model") or "")


def read_records(directory: Path) -> Records:
    """Read what is there.

    Raises:
        ValueError: a file is broken.
    """
    return Records(
        directory,
        _read_config(directory / CONFIG_FILE),
        read_json(directory / RUN_RECORD_FILE),
        read_json(directory / TEST_METRICS_FILE),
        read_json(directory / PRIOR_RECORD_FILE),
        read_json(directory / EVALUATION_FILE),
    )


def _read_config(path: Path) -> dict[str, Any]:
    import yaml

    if not path.is_file():
        return {}
    try:
        config = yaml.safe_load(path.read_text())
    except yaml.YAMLError as error:
        raise ValueError(f"{path} is not YAML ({str(error).partition(chr(10))[0]}). Put the run's own back.") from error
    return config if isinstance(config, dict) else {}
