"""A run with a prior or a posterior that has a state of its own is resumed bit by bit."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from exact_helpers import COMMON, assert_same_run, schedule_and_ema

Lightning = Callable[..., None]
FLOW = {"class_path": "lit_vae.flows.AffineFlow", "init_args": {"hidden": [8], "transforms": 2}}
PARTS: dict[str, dict[str, Any]] = {
    "vamp": {"prior": {"class_path": "lit_vae.priors.VampPrior", "init_args": {"shape": [4], "num_pseudo_inputs": 20}}},
    "flows": {
        "prior": {"class_path": "lit_vae.priors.FlowPrior", "init_args": {"shape": [4], "flow": FLOW}},
        "posterior": {"class_path": "lit_vae.posteriors.FlowPosterior", "init_args": {"flow": FLOW, "context": 3}},
    },
}


@pytest.mark.parametrize(
    "parts", [PARTS["vamp"], pytest.param(PARTS["flows"], marks=pytest.mark.slow)], ids=["vamp", "flows"]
)
def test_stopped_and_resumed_equals_uninterrupted(
    lightning: Lightning, digits_config: Path, tmp_path: Path, parts: dict[str, Any]
) -> None:
    config = schedule_and_ema(digits_config, tmp_path, 1)
    settings = yaml.safe_load(config.read_text())
    settings["model"]["init_args"] |= parts
    settings["trainer"]["callbacks"].append({"class_path": "callbacks.Samples"})
    config.write_text(yaml.safe_dump(settings))
    lightning("fit", "--config", config, "--run_dir", tmp_path / "straight", *COMMON)
    run = tmp_path / "resumed"
    lightning("fit", "--config", config, "--run_dir", run, *COMMON, "--trainer.max_steps=9")
    lightning("fit", "--config", config, "--run_dir", run, "--ckpt_path", "last", *COMMON)
    assert_same_run(tmp_path / "straight", run)
