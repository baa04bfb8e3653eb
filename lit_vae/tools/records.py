"""What a run directory says of itself: read here for every verb that puts runs side by side."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lit_vae.run.files import read_json
from lit_vae.run.yaml_files import read_yaml

if TYPE_CHECKING:
    from lit_vae.run.forms import Form

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
    from lit_vae.run.forms import fitting
    from lit_vae.tools import record_forms as forms

    config = directory / CONFIG_FILE
    return Records(
        directory,
        fitting(read_yaml(config), forms.Config, config) if config.is_file() else {},
        read_record(directory / RUN_RECORD_FILE, forms.RunRecord),
        read_record(directory / TEST_METRICS_FILE, forms.TestMetrics),
        read_record(directory / PRIOR_RECORD_FILE, forms.PriorRecord),
        read_record(directory / EVALUATION_FILE, forms.Evaluation),
    )


def read_record(path: Path, form: "type[Form]") -> dict[str, Any]:
    """A file of JSON that has this form; nothing where there is no file.

    Raises:
        ValueError: naming the file and the key.
    """
    from lit_vae.run.forms import fitting

    return fitting(read_json(path), form, path) if path.is_file() else {}
