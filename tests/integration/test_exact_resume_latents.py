"""Runs with richer latents are resumed bit by bit: priors and posteriors that have a state, and hierarchies."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from exact_helpers import schedule_and_ema, stopped_and_resumed
from fake_configs import narrowed

from lit_vae.tools.pictures import sample

Lightning = Callable[..., None]
CONFIGS = Path(__file__).resolve().parents[2] / "configs"
FLOW = {"class_path": "lit_vae.flows.AffineFlow", "init_args": {"hidden": [8], "transforms": 2}}
PARTS: dict[str, dict[str, Any]] = {
    "vamp": {"prior": {"class_path": "lit_vae.priors.VampPrior", "init_args": {"shape": [4], "num_pseudo_inputs": 20}}},
    "flows": {
        "prior": {"class_path": "lit_vae.priors.FlowPrior", "init_args": {"shape": [4], "flow": FLOW}},
        "posterior": {"class_path": "lit_vae.posteriors.FlowPosterior", "init_args": {"flow": FLOW, "context": 3}},
    },
}


@pytest.mark.slow
@pytest.mark.parametrize("parts", PARTS.values(), ids=PARTS)
def test_a_prior_or_posterior_with_a_state_is_resumed(
    lightning: Lightning, digits_config: Path, tmp_path: Path, parts: dict[str, Any]
) -> None:
    config = schedule_and_ema(digits_config, tmp_path, 1)
    settings = yaml.safe_load(config.read_text())
    settings["model"]["init_args"] |= parts
    settings["trainer"]["callbacks"].append({"class_path": "callbacks.Samples"})
    config.write_text(yaml.safe_dump(settings))
    stopped_and_resumed(lightning, config, tmp_path)


HIERARCHIES: dict[str, dict[str, Any]] = {
    "hvae/digits": {},
    "pixelvae/mnist_two_grids": {
        "image_shape": [1, 8, 8],
        "latent_shapes": [[4], [2, 2, 2]],
        "likelihood": {"class_path": "lit_vae.likelihoods.LearnedGaussian"},
    },
}


@pytest.mark.parametrize("name", HIERARCHIES)
def test_a_hierarchy_is_resumed_and_drawn_from(
    name: str, lightning: Lightning, digits_config: Path, tmp_path: Path
) -> None:
    config = schedule_and_ema(digits_config, tmp_path, 1)
    settings = yaml.safe_load(config.read_text())
    settings["model"] = narrowed(yaml.safe_load((CONFIGS / f"{name}.yaml").read_text())["model"])
    settings["model"]["init_args"] |= HIERARCHIES[name]
    config.write_text(yaml.safe_dump(settings))
    run = stopped_and_resumed(lightning, config, tmp_path)
    sample(str(run), n=4, checkpoint="last", temperature=0.5, out=str(tmp_path / "sheet.png"))
    assert (tmp_path / "sheet.png").stat().st_size > 0


@pytest.mark.slow
def test_a_diffusion_model_is_resumed(lightning: Lightning, digits_config: Path, tmp_path: Path) -> None:
    """With hidden labels and a learned schedule."""
    config = schedule_and_ema(digits_config, tmp_path, 1)
    settings = yaml.safe_load(config.read_text())
    settings["model"] = narrowed(yaml.safe_load((CONFIGS / "diffusion" / "digits.yaml").read_text())["model"])
    settings["data"]["init_args"]["dequantize"] = False
    config.write_text(yaml.safe_dump(settings))
    stopped_and_resumed(lightning, config, tmp_path)
