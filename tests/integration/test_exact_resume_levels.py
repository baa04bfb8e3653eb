"""A hierarchy is resumed bit by bit, and drawn from by the tools."""

from collections.abc import Callable
from pathlib import Path

import yaml
from exact_helpers import COMMON, assert_same_run, schedule_and_ema

from lit_vae.tools.pictures import sample

Lightning = Callable[..., None]
HVAE = Path(__file__).resolve().parents[2] / "configs" / "hvae" / "digits.yaml"


def test_stopped_and_resumed_equals_uninterrupted(lightning: Lightning, digits_config: Path, tmp_path: Path) -> None:
    config = schedule_and_ema(digits_config, tmp_path, 1)
    settings = yaml.safe_load(config.read_text())
    settings["model"] = yaml.safe_load(HVAE.read_text())["model"]
    settings["model"]["init_args"]["hierarchy"]["init_args"]["widths"] = [8, 8]
    config.write_text(yaml.safe_dump(settings))
    lightning("fit", "--config", config, "--run_dir", tmp_path / "straight", *COMMON)
    run = tmp_path / "resumed"
    lightning("fit", "--config", config, "--run_dir", run, *COMMON, "--trainer.max_steps=9")
    lightning("fit", "--config", config, "--run_dir", run, "--ckpt_path", "last", *COMMON)
    assert_same_run(tmp_path / "straight", run)
    sample(str(run), n=4, checkpoint="last", temperature=0.5, out=str(tmp_path / "sheet.png"))
    assert (tmp_path / "sheet.png").stat().st_size > 0
