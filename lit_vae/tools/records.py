"""Read the YAML and JSON files of a run directory, checked against the forms in record_forms.py."""

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, get_args

from lit_vae.run.files import CONFIG_FILE, EVALUATION_FILE, RECORD_FILE, TEST_METRICS_FILE, read_json
from lit_vae.run.yaml_files import read_yaml

if TYPE_CHECKING:
    from lit_vae.run.forms import Form

PriorKind = Literal["gmm", "flow", "vamp", "vae"]
PRIOR_KINDS: tuple[PriorKind, ...] = get_args(PriorKind)
"""What ``lit-vae fit-prior --prior`` fits, and the part after ``@`` in RUN@gmm."""

DrawnFrom = Literal["model", PriorKind]
"""The model's own prior, or a fitted one."""

NOUNS: dict[str, str] = {"gmm": "mixture", "flow": "flow", "vamp": "VampPrior", "vae": "second stage"}
"""What a fitted prior is called."""


def prior_file(kind: PriorKind, suffix: str = ".json") -> Path:
    """Within a run, the record of a fitted prior; with ``.pt`` the prior itself."""
    return Path("priors") / f"{kind}{suffix}"


@dataclass(frozen=True)
class Records:
    """The files of a run directory as dictionaries; a missing file is an empty dictionary.

    Args:
        directory: the run directory.
        config: ``config.yaml``, the complete configuration.
        run: ``run.json``: status and cost (`lit_vae.run.record`).
        test: ``test_metrics.json`` of ``lightning test``.
        priors: ``priors/<kind>.json`` of ``lit-vae fit-prior``, by kind, those that there are.
        evaluation: ``evaluation.json`` of ``lit-vae evaluate``, by prior: ``model`` or the kind. Under ``samplings``, a
            diffusion model that was drawn in other ways than in its run.
    """

    directory: Path
    config: dict[str, Any]
    run: dict[str, Any]
    test: dict[str, Any]
    priors: dict[PriorKind, dict[str, Any]]
    evaluation: dict[str, Any]

    def prior(self, kind: str = "") -> dict[str, Any]:
        """The record of a fitted prior; without a kind of any, because each also measures the model's own prior."""
        found = [record for name, record in self.priors.items() if name == kind or kind not in PRIOR_KINDS]
        return found[0] if found else {}

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
    priors = {kind: read_record(directory / prior_file(kind), forms.PriorRecord) for kind in PRIOR_KINDS}
    return Records(
        directory,
        fitting(read_yaml(config), forms.Config, config) if config.is_file() else {},
        read_record(directory / RECORD_FILE, forms.RunRecord),
        read_record(directory / TEST_METRICS_FILE, forms.TestMetrics),
        {kind: record for kind, record in priors.items() if record},
        read_record(directory / EVALUATION_FILE, forms.Evaluation),
    )


def read_record(path: Path, form: "type[Form]") -> dict[str, Any]:
    """A JSON file of this form; an empty dictionary if there is no file.

    Raises:
        ValueError: the file is damaged; it names the file and the key.
    """
    from lit_vae.run.forms import fitting

    return fitting(read_json(path), form, path) if path.is_file() else {}
