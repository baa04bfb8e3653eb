"""Both stages of a VQ-VAE, stopped and resumed, equal the uninterrupted run bit by bit."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from two_stages_helpers import CONFIGS, TwoStages

Lightning = Callable[..., None]
STEPS = 26  # of 22 steps an epoch
COMMON = ["--trainer.log_every_n_steps=1", "--trainer.max_epochs=-1", "--trainer.check_val_every_n_epoch=1"]


def final_state(run: Path) -> dict[str, Any]:
    content: dict[str, Any] = torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)
    return content


def assert_same_run(first: Path, second: Path) -> None:
    a, b = final_state(first), final_state(second)
    assert a["global_step"] == b["global_step"] == STEPS
    assert a["state_dict"].keys() == b["state_dict"].keys()
    for name, value in a["state_dict"].items():
        assert torch.equal(value, b["state_dict"][name]), name
    states = [content["optimizer_states"][0]["state"].values() for content in (a, b)]
    for p, q in zip(*states, strict=True):
        assert all(torch.equal(p[name], q[name]) for name in p)
    assert a["lr_schedulers"] == b["lr_schedulers"]
    assert a.get("stage1") == b.get("stage1")
    assert (first / "metrics.csv").read_text() == (second / "metrics.csv").read_text()


def fit(lightning: Lightning, config: Path, run: Path, stop_at: int, *args: Any) -> None:
    lightning("fit", "--config", config, "--run_dir", run, *COMMON, f"--trainer.max_steps={stop_at}", *args)


def test_a_codebook_goes_on_in_the_middle_of_its_start_and_of_its_revivals(
    lightning: Lightning, tmp_path: Path
) -> None:
    config = CONFIGS / "vqvae" / "digits.yaml"
    quantizer = "--model.init_args.quantizer.init_args"
    lively = [
        "--trainer.callbacks=[]",
        f"{quantizer}.num_embeddings=256",
        f"{quantizer}.start.init_args.batches=5",
        f"{quantizer}.codebook=lit_vae.quantizers.EMACodebook",
        f"{quantizer}.codebook.init_args.decay=0.5",
        f"{quantizer}.revival.init_args.threshold=0.9",
        f"{quantizer}.revival.init_args.every_n_steps=4",
    ]
    fit(lightning, config, tmp_path / "straight", STEPS, *lively)
    run, revivals = tmp_path / "resumed", []
    for stop_at in (3, 14):
        resume = ["--ckpt_path", "last"] if stop_at > 3 else []
        fit(lightning, config, run, stop_at, *lively, *resume)
        revivals.append(int(final_state(run)["state_dict"]["quantizers.0.revivals"]))
    fit(lightning, config, run, STEPS, *lively, "--ckpt_path", "last")
    revivals.append(int(final_state(run)["state_dict"]["quantizers.0.revivals"]))
    assert revivals[0] == 0
    assert revivals[1] < revivals[-1]  # there were some after the last stop
    assert int(final_state(run)["state_dict"]["quantizers.0.step"]) == STEPS
    assert_same_run(tmp_path / "straight", run)


@pytest.mark.slow
def test_a_prior_goes_on_and_its_pictures_change_nothing(
    lightning: Lightning, two_stages: TwoStages, tmp_path: Path
) -> None:
    """With dropout, and with pictures in the interrupted run alone."""
    config, data = CONFIGS / "prior" / "digits.yaml", ["--data.root", two_stages.codes]
    fit(lightning, config, tmp_path / "straight", STEPS, *data, "--trainer.callbacks=[]")
    run = tmp_path / "resumed"
    fit(lightning, config, run, 9, *data)
    for stop_at in (22, STEPS):
        fit(lightning, config, run, stop_at, *data, "--ckpt_path", "last")
    assert (run / "media" / "draws" / "step_22.png").is_file()
    assert_same_run(tmp_path / "straight", run)
