"""Exploding gradients are skipped in full, counted and bounded."""

import copy
from functools import partial
from itertools import pairwise
from types import SimpleNamespace

import pytest
import torch
from lightning.pytorch import Callback

from callbacks import GradientSkip
from lit_vae.run.errors import TrainingStopped


class Explode(Callback):
    """Multiplies the gradients of some steps, and keeps the weights before each step."""

    def __init__(self, steps, factor=1e9):
        self.steps, self.factor, self.weights, self.norms = steps, factor, [], []

    def on_after_backward(self, trainer, pl_module):
        self.weights.append(copy.deepcopy(pl_module.state_dict()))
        if trainer.global_step in self.steps:
            for parameter in pl_module.parameters():
                parameter.grad *= self.factor
        grads = [parameter.grad.flatten() for parameter in pl_module.parameters()]
        self.norms.append(torch.cat(grads).norm().item())


def moved(before, after):
    return [name for name in before if not torch.equal(before[name], after[name])]


@pytest.fixture
def model(new_model):
    adam = partial(torch.optim.AdamW, lr=1e-2, weight_decay=0.1)
    schedule = partial(torch.optim.lr_scheduler.ExponentialLR, gamma=0.5)
    return new_model("VAE", optimizer=adam, lr_scheduler=schedule)


@pytest.mark.parametrize("factor", [1e9, torch.inf, torch.nan])
def test_a_skipped_step_changes_nothing_but_the_learning_rate(factor, model, new_trainer, data):
    explode, skip = Explode({1, 3}, factor), GradientSkip(1e5)
    trainer = new_trainer(explode, skip, gradient_clip_val=1.0)
    with pytest.warns(
        UserWarning, match=r"GradientSkip: step 1 was skipped.*at most max_norm \(=100000\)\. train/skipped"
    ):
        trainer.fit(model, datamodule=data)  # 6 steps
    weights = [*explode.weights, model.state_dict()]
    changed = [bool(moved(*pair)) for pair in pairwise(weights)]
    assert changed == [True, False, True, False, True, True]
    (optimizer,) = trainer.optimizers
    assert {float(state["step"]) for state in optimizer.state.values()} == {4.0}
    assert optimizer.param_groups[0]["lr"] == pytest.approx(1e-2 * 0.5**6)
    assert trainer.global_step == 6
    assert skip.num_skipped == 2
    assert trainer.callback_metrics["train/skipped_steps"] == 2.0
    assert trainer.callback_metrics["train/grad_norm"] == pytest.approx(explode.norms[-1], rel=1e-5)


def test_without_large_gradients_training_is_as_without_it(model, new_trainer, data):
    alone, watched = copy.deepcopy(model), model
    new_trainer().fit(alone, datamodule=data)
    new_trainer(GradientSkip(1e9)).fit(watched, datamodule=data)
    assert moved(alone.state_dict(), watched.state_dict()) == []


@pytest.mark.filterwarnings("ignore:GradientSkip")
def test_a_gradient_that_stays_large_ends_the_run(model, new_trainer, data):
    """Trap of VDVAE's code, which skips for ever while the learning-rate schedule runs on."""
    skip = GradientSkip(1e-9, max_skips=3, window=100)
    trainer = new_trainer(skip, max_epochs=100)
    with pytest.raises(TrainingStopped) as error:
        trainer.fit(model, datamodule=data)
    assert str(error.value) == (
        "GradientSkip: 4 of the last 4 steps were skipped, more than max_skips (=3); at step 3 the norm of the gradient"
        f" was {skip._norm:.3g}, and max_norm (=1e-09). Raise max_norm, lower the learning rate, or warm it up."
    )


@pytest.mark.filterwarnings("ignore:GradientSkip")
def test_rare_skips_never_end_it(model, new_trainer, data):
    skip = GradientSkip(1e5, max_skips=1, window=2)
    new_trainer(Explode({0, 2, 4}), skip).fit(model, datamodule=data)
    assert skip.num_skipped == 3
    with pytest.raises(TrainingStopped, match="2 of the last 3 steps"):
        new_trainer(Explode({0, 2, 4}), GradientSkip(1e5, max_skips=1, window=3)).fit(model, datamodule=data)


@pytest.mark.filterwarnings("ignore:GradientSkip")
def test_a_resumed_run_goes_on_counting(model, new_trainer, data, tmp_path):
    trainer = new_trainer(Explode({1, 2}), GradientSkip(1e5, max_skips=2), max_epochs=1)
    trainer.fit(model, datamodule=data)
    trainer.save_checkpoint(tmp_path / "last.ckpt")
    trainer = new_trainer(Explode({3}), GradientSkip(1e5, max_skips=2))
    with pytest.raises(TrainingStopped, match=r"3 of the last 4 steps were skipped, more than max_skips \(=2\)"):
        trainer.fit(model, datamodule=data, ckpt_path=tmp_path / "last.ckpt")


def test_a_bound_that_never_holds():
    with pytest.raises(ValueError, match=r"GradientSkip: max_skips \(=5\) must be less than window \(=5\)"):
        GradientSkip(1.0, max_skips=5, window=5)


def test_float16_scales_what_it_would_measure():
    trainer = SimpleNamespace(precision_plugin=SimpleNamespace(scaler=object()), precision="16-mixed")
    with pytest.raises(ValueError, match=r"GradientSkip: trainer\.precision \(=16-mixed\) scales .* Take bf16-mixed"):
        GradientSkip(1.0).setup(trainer, None, "fit")
