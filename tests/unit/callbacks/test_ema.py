"""The average against a hand-made one, and where it and the trained weights are at every moment of a run."""

import warnings

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import ModelCheckpoint

from callbacks import EMA


def weights(model):
    return torch.cat([p.detach().flatten() for p in model.parameters()])


class Trail(Callback):
    """Remembers the trained weights after each step, and those that validation hooks see."""

    def __init__(self) -> None:
        self.trained, self.validated = [], []

    def on_train_batch_end(self, trainer, pl_module, *_):
        self.trained.append(weights(pl_module).clone())

    def on_validation_batch_end(self, trainer, pl_module, *_):
        self._see(trainer, pl_module)

    def on_validation_epoch_end(self, trainer, pl_module):
        self._see(trainer, pl_module)

    def _see(self, trainer, pl_module):
        if not trainer.sanity_checking:
            self.validated.append(weights(pl_module).clone())


def averages(trained, ema):
    """The definition: a copy at first, then ``a <- d a + (1 - d) w`` at every n-th step."""
    a, out, t = trained[0], [], 0
    for step, w in enumerate(trained):
        if step % ema.every_n_steps == 0:
            d = min(ema.decay, (1 + t) / (10 + t)) if ema.warmup else ema.decay
            a = w if t == 0 else d * a + (1 - d) * w
            t += 1
        out.append(a)
    return out


@pytest.mark.parametrize("given", [{"decay": 0.8, "warmup": False}, {"decay": 0.5}, {"decay": 0.9, "every_n_steps": 2}])
def test_the_average_is_the_exponential_one(given, new_model, new_trainer, data):
    ema, trail = EMA(**given), Trail()
    new_trainer(ema, trail, max_epochs=3).fit(new_model("VAE").double(), datamodule=_double(data))
    expected = averages(trail.trained, ema)
    for epoch in range(3):  # three steps each
        for seen in trail.validated[4 * epoch : 4 * epoch + 4]:  # three batches and the end
            torch.testing.assert_close(seen, expected[3 * epoch + 2])
    assert not torch.allclose(expected[-1], trail.trained[-1])


def _double(data):
    preprocess = data.preprocess

    class Double(type(preprocess)):
        def __call__(self, u, draws):
            return preprocess(u, draws).double()

    data.preprocess = Double.__new__(Double)
    data.preprocess.__dict__.update(preprocess.__dict__)
    return data


def test_warm_up_reaches_the_decay():
    ema = EMA(0.9)
    assert [ema.decay_at(t) for t in (0, 8, 80, 1000)] == [0.1, 0.5, 0.9, 0.9]


@pytest.mark.parametrize("order", [0, 1])
def test_a_checkpoint_of_the_validation_has_the_average_and_the_trained_weights(
    order, new_model, new_trainer, data, tmp_path
):
    ema, trail = EMA(0.8, warmup=False), Trail()
    best = ModelCheckpoint(tmp_path, "best", monitor="val/loss", save_last=True)
    pair = [ema, trail] if order == 0 else [trail, ema]
    model = new_model("VAE")
    new_trainer(best, *pair, max_epochs=1, enable_checkpointing=True).fit(model, datamodule=data)
    saved = torch.load(tmp_path / "best.ckpt", weights_only=True)
    names = [name for name, _ in model.named_parameters()]
    average = torch.cat([saved["state_dict"][name].flatten() for name in names])
    trained = torch.cat([saved["current_model_state"][name].flatten() for name in names])
    torch.testing.assert_close(average, trail.validated[-1], rtol=0, atol=0)
    torch.testing.assert_close(trained, trail.trained[-1], rtol=0, atol=0)
    torch.testing.assert_close(weights(model), average, rtol=0, atol=0)  # what fit leaves


class SaveInValidation(Callback):
    """What a job does that is told to go while it validates, or after it has trained."""

    def __init__(self, path) -> None:
        self.path = path

    def on_validation_batch_start(self, trainer, pl_module, *_):
        if not trainer.sanity_checking:
            trainer.save_checkpoint(self.path / "during.ckpt")

    def on_train_batch_end(self, trainer, pl_module, *_):
        if trainer.is_last_batch:
            trainer.save_checkpoint(self.path / "before.ckpt")

    def on_train_end(self, trainer, pl_module):
        trainer.save_checkpoint(self.path / "after.ckpt")


def test_a_checkpoint_is_the_same_whenever_it_is_written(new_model, new_trainer, data, tmp_path):
    trainer = new_trainer(EMA(0.8), SaveInValidation(tmp_path), max_epochs=1)
    trainer.fit(new_model("VAE"), datamodule=data)
    trainer.save_checkpoint(tmp_path / "outside.ckpt")
    before = torch.load(tmp_path / "before.ckpt", weights_only=True)
    assert any(not torch.equal(before["state_dict"][k], v) for k, v in before["current_model_state"].items())
    for moment in ("during", "after", "outside"):
        other = torch.load(tmp_path / f"{moment}.ckpt", weights_only=True)
        for part in ("state_dict", "current_model_state", "averaging_state"):
            assert before[part].keys() == other[part].keys()
            for name, value in before[part].items():
                torch.testing.assert_close(other[part][name], value, rtol=0, atol=0, msg=f"{moment} {part} {name}")


def test_resuming_goes_on_bit_by_bit(new_model, new_trainer, data, tmp_path):
    def fit(epochs, path, ckpt_path=None):
        trainer = new_trainer(EMA(0.8), max_epochs=epochs)
        trainer.fit(
            new_model("AE"), datamodule=type(data)(**data.hparams), ckpt_path=ckpt_path
        )  # its loss has no noise
        trainer.save_checkpoint(path)
        return torch.load(path, weights_only=True)

    whole = fit(4, tmp_path / "whole.ckpt")
    fit(2, tmp_path / "half.ckpt")
    resumed = fit(4, tmp_path / "resumed.ckpt", tmp_path / "half.ckpt")
    for part in ("state_dict", "current_model_state", "averaging_state"):
        for name, value in whole[part].items():
            torch.testing.assert_close(resumed[part][name], value, rtol=0, atol=0, msg=f"{part} {name}")
    assert int(whole["averaging_state"]["n_averaged"]) == 12


@pytest.mark.parametrize("same_trainer", [True, False])
def test_a_checkpoint_is_tested_with_the_average_and_without_a_warning(
    same_trainer, new_model, new_trainer, data, tmp_path
):
    class Watch(Callback):
        def on_test_epoch_end(self, trainer, pl_module):
            self.seen = weights(pl_module).clone()

        def on_validation_epoch_end(self, trainer, pl_module):
            self.seen = weights(pl_module).clone()

    watch = Watch()
    trainer, model = new_trainer(EMA(0.8), watch), new_model("VAE")
    trainer.fit(model, datamodule=data)
    trainer.save_checkpoint(tmp_path / "model.ckpt")
    average = weights(model).clone()
    if not same_trainer:
        trainer, model = new_trainer(EMA(0.8), watch), new_model("VAE")
    for evaluate in (trainer.test, trainer.validate):
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            warnings.filterwarnings("ignore", ".*LeafSpec.*is deprecated")
            evaluate(model, datamodule=data, ckpt_path=tmp_path / "model.ckpt", verbose=False)
        torch.testing.assert_close(watch.seen, average, rtol=0, atol=0)
        torch.testing.assert_close(weights(model), average, rtol=0, atol=0)


def test_counters_and_other_buffers_are_copied(new_model, new_trainer, data):
    class Count(Callback):
        def on_train_batch_end(self, trainer, pl_module, *_):
            pl_module.count += 10
            pl_module.level += 1.0

    model = new_model("AE")
    model.register_buffer("count", torch.tensor(0))
    model.register_buffer("level", torch.tensor(0.0))
    new_trainer(Count(), EMA(0.5, warmup=False), max_epochs=1).fit(model, datamodule=data)
    assert model.count == 30
    assert model.level == 3.0


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"decay": 1.0}, r"EMA: decay \(=1.0\) must be at least 0 and less than 1\."),
        ({"every_n_steps": 0}, r"EMA: every_n_steps \(=0\) must be at least 1"),
    ],
)
def test_impossible_arguments(given, message):
    with pytest.raises(ValueError, match=message):
        EMA(**given)
