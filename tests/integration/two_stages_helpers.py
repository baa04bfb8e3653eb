"""What the tests of the two-stage path share."""

from dataclasses import dataclass
from pathlib import Path

CONFIGS = Path(__file__).resolve().parents[2] / "configs"
QUIET = [
    "--trainer.check_val_every_n_epoch=1",
    "--trainer.logger=false",
    "--trainer.enable_progress_bar=false",
    "--trainer.enable_model_summary=false",
]


@dataclass(frozen=True)
class TwoStages:
    """A run of stage 1, the codes of its images, and a run of a prior of them.

    Nobody writes into them but their numbers, and pictures below ``sheets``.
    """

    stage1: Path
    codes: Path
    prior: Path
