"""Read the YAML and JSON files of a run directory, checked against the forms in record_forms.py."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lit_vae.run.files import CONFIG_FILE, EVALUATION_FILE, RECORD_FILE, TEST_METRICS_FILE, read_json
from lit_vae.run.yaml_files import read_yaml

if TYPE_CHECKING:
    from lit_vae.run.forms import Form

PRIOR_RECORD_FILE = Path("priors") / "gmm.json"


@dataclass(frozen=True)
class Records:
    """The files of a run directory as dictionaries; a missing file is an empty dictionary.

    Args:
        directory: the run directory.
        config: ``config.yaml``, the complete configuration.
        run: ``run.json``: status and cost (`lit_vae.run.record`).
        test: ``test_metrics.json`` of ``lightning test``.
        prior: ``priors/gmm.json`` of ``lit-vae fit-prior``.
        evaluation: ``evaluation.json`` of ``lit-vae evaluate``, with keys ``model`` and ``gmm``.
    """

    directory: Path
    config: dict[str, Any]
    run: dict[str, Any]
    test: dict[str, Any]
    prior: dict[str, Any]
    evaluation: dict[str, Any]

    @property
    def model(self) -> str:
        """Name of the model class; blank if no file names it."""
        class_path = (self.config.get("model") or {}).get("class_path", "")
        return str(class_path).rpartition(".")[2] or str(self.run.get("model") or self.test.get("model") or "")


def read_records(directory: Path) -> Records:
    """Read all files.

    Raises:
        ValueError: a file is damaged.
    """
    from lit_vae.run.forms import fitting
    from lit_vae.tools import record_forms as forms

    config = directory / CONFIG_FILE
    return Records(
        directory,
        fitting(read_yaml(config), forms.Config, config) if config.is_file() else {},
        read_record(directory / RECORD_FILE, forms.RunRecord),
        read_record(directory / TEST_METRICS_FILE, forms.TestMetrics),
        read_record(directory / PRIOR_RECORD_FILE, forms.PriorRecord),
        read_record(directory / EVALUATION_FILE, forms.Evaluation),
    )


def read_record(path: Path, form: "type[Form]") -> dict[str, Any]:
    """A JSON file of this form; an empty dictionary if there is no file.

    Raises:
        ValueError: the file is damaged; it names the file and the key.
    """
    from lit_vae.run.forms import fitting

    return fitting(read_json(path), form, path) if path.is_file() else {}
