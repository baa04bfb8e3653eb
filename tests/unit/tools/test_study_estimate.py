"""The estimate of a study's time, from the steps of its models and a line of the first log."""

from pathlib import Path
from typing import Any

import pytest
from torch import Tensor

from lit_vae.features import FeatureNetDistance
from lit_vae.realism import Adversary
from lit_vae.tools.study import estimate
from lit_vae.tools.study.estimate import Estimate, seconds_of_a_step
from lit_vae.tools.study.experiments import Experiment

ROOT = Path(__file__).resolve().parents[3]
LINE = "epoch 1  step 680/10000  loss 653.61  rate 147.06  distortion 653.61  25.0 it/s  0:04:35 left"


def experiment(name: str, tmp_path: Path) -> Experiment:
    return Experiment(ROOT / "configs" / f"{name}.yaml", (), tmp_path / name, "last")


def of(monkeypatch: pytest.MonkeyPatch, tmp_path: Path, seconds: dict[str, float]) -> Estimate:
    monkeypatch.setattr(estimate, "seconds_of_a_step", lambda experiment: seconds[experiment.name])
    return Estimate([experiment(name, tmp_path) for name in seconds])


def test_each_training_has_the_excess_of_the_first(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """25 steps a second are 40 ms, 10 more than the model's own; so the second takes 60 ms: 1,000 s in all."""
    time = of(monkeypatch, tmp_path, {"first": 0.03, "second": 0.05})
    assert time.after(59.0, LINE) is None
    assert time.after(61.0, "Seed set to 0") is None
    assert time.after(62.0, LINE) == "about 0:17 h for 2 trainings, their tests not counted"
    assert time.after(63.0, LINE) is None  # it is said once


def test_a_single_training_says_its_own_time_left(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    assert of(monkeypatch, tmp_path, {"first": 0.03}).after(61.0, LINE) is None


def test_a_model_without_images_or_a_missing_file_leaves_the_estimate_out(tmp_path: Path) -> None:
    for other in ("prior/mnist", "compare/mnist/perceptual"):
        assert Estimate([experiment("ae/digits", tmp_path), experiment(other, tmp_path)]).after(61.0, LINE) is None


def test_what_a_step_costs_has_the_terms_of_its_end(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    """The adversary of this configuration joins after some hundred steps."""
    steps = []
    judge = Adversary.judge

    def noted(self: Adversary, x: Tensor, x_hat: Tensor, step: int) -> Any:
        steps.append(step)
        return judge(self, x, x_hat, step)

    monkeypatch.setattr(Adversary, "judge", noted)
    monkeypatch.setattr(FeatureNetDistance, "forward", lambda self, x, x_hat: (x - x_hat).square().mean((1, 2, 3)))
    monkeypatch.setattr(FeatureNetDistance, "problems", lambda self, shape: [])
    assert seconds_of_a_step(experiment("kl_autoencoder/digits", tmp_path)) > 0.0
    assert steps == [estimate.LATE] * estimate.TIMED_STEPS
