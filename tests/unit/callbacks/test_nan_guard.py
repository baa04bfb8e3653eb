"""Poison in data, terms, the loss and gradients: each is named, at its step, and nothing that is kept is spoilt."""

import re
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
import torch.distributed as dist
import torch.multiprocessing as mp
import yaml
from lightning.pytorch import Callback
from lightning.pytorch.strategies import DDPStrategy

from callbacks import EMA, NaNGuard
from lit_vae.models.module import Model
from lit_vae.run.checkpoints import LastCheckpoint


class Poison(Callback):
    """Spoils the first image of the batch that arrives at a step."""

    def __init__(self, step=2, batch_idx=None):
        self.step, self.batch_idx = step, batch_idx

    def on_train_batch_start(self, trainer, pl_module, batch, batch_idx):
        if trainer.global_step == self.step and self.batch_idx in (None, batch_idx):
            batch.x[0, 0, 0, 0] = torch.nan


class InfiniteGradient(Callback):
    def __init__(self, step=2, value=torch.inf):
        self.step, self.value = step, value

    def on_after_backward(self, trainer, pl_module):
        if trainer.global_step == self.step:
            next(iter(pl_module.decoder.parameters())).grad[0] = self.value


def fails(trainer, model, data):
    with pytest.raises(ValueError, match="NaNGuard: not finite") as info:
        trainer.fit(model, datamodule=data)
    assert all(bool(p.isfinite().all()) for p in model.parameters())
    return str(info.value)


@pytest.mark.parametrize("family", ["VAE", "AE"])
def test_a_poisoned_image_is_named(family, new_model, new_trainer, data):
    guards = [Poison(), NaNGuard()]
    message = fails(new_trainer(*guards), new_model(family), data)
    assert "at step 2, before the optimizer changed a weight: the images themselves (1 of 8 images); " in message
    assert re.search(r"; distortion \(\d of 8 images\)", message)
    assert "gradients of " in message
    assert "Try: repair or remove those images" in message


def test_a_term_is_named_with_its_number_of_images(new_model, new_trainer, data, monkeypatch):
    model = new_model("VAE")
    objective = type(model.objective).__call__

    def poisoned(self, *args):
        step = objective(self, *args)
        if model.training and model.global_step == 1:
            step.terms["rate"][:3] = torch.nan
        return step

    monkeypatch.setattr(type(model.objective), "__call__", poisoned)
    message = fails(new_trainer(NaNGuard()), model, data)
    assert "before the optimizer changed a weight: rate (3 of 8 images).\n" in message  # the loss was made before
    assert "Try: a lower or warmed up learning rate." in message


def test_a_gradient_is_named_where_the_loss_is_finite(new_model, new_trainer, data):
    message = fails(new_trainer(InfiniteGradient(), NaNGuard()), new_model("AE"), data)
    assert "a weight: gradients of decoder.layers.0.weight.\n" in message
    assert (
        "Try: a lower or warmed up learning rate; trainer.gradient_clip_val, since only gradients are not finite."
        in message
    )


def test_clipping_comes_after_it(new_model, new_trainer, data):
    trainer = new_trainer(InfiniteGradient(), NaNGuard(), gradient_clip_val=1.0)
    assert "gradients of decoder.layers.0.weight.\n" in fails(trainer, new_model("AE"), data)


def test_a_large_gradient_is_finite(new_model, new_trainer, data):
    """Its square is not."""
    new_trainer(InfiniteGradient(value=1e30), NaNGuard(), max_epochs=1).fit(new_model("AE"), datamodule=data)


def test_without_gradients_only_terms_are_looked_at(new_model, new_trainer, data):
    trainer = new_trainer(InfiniteGradient(1), NaNGuard(check_gradients=False), max_steps=2)
    trainer.fit(new_model("AE"), datamodule=data)
    assert trainer.global_step == 2


def test_a_loss_scaler_looks_after_its_gradients(new_model, new_trainer, data):
    trainer = new_trainer(InfiniteGradient(1), NaNGuard(), max_steps=2)
    trainer.precision_plugin.scaler = object()  # float16 needs a GPU; the plug-in of this trainer does not look at it
    trainer.fit(new_model("AE"), datamodule=data)
    assert trainer.global_step == 2
    trainer = new_trainer(Poison(), NaNGuard())
    trainer.precision_plugin.scaler = object()
    assert "the images themselves (1 of 8 images)" in fails(trainer, new_model("AE"), data)


def test_a_loss_that_is_no_term_is_named(new_model, new_trainer, data, monkeypatch):
    model = new_model("AE")
    step = model.training_step
    monkeypatch.setattr(model, "training_step", lambda *args: step(*args) * (torch.nan if model.global_step else 1.0))
    message = fails(new_trainer(NaNGuard()), model, data)
    assert "at step 1, before the optimizer changed a weight: the loss, but none of its per-image terms" in message


def test_an_earlier_batch_of_an_accumulated_step(new_model, new_trainer, data):
    trainer = new_trainer(Poison(1, batch_idx=0), NaNGuard(), accumulate_grad_batches=3, max_epochs=3)
    message = fails(trainer, new_model("AE"), data)
    assert "at step 1, before the optimizer changed a weight: the images themselves (1 of 24 images)" in message


@pytest.mark.parametrize("averages", [True, False])
def test_the_checkpoint_that_it_names_is_finite_and_resumes(averages, new_model, new_trainer, data, tmp_path):
    others = [EMA()] if averages else []
    given = {"enable_checkpointing": True, "max_epochs": 3}
    trainer = new_trainer(*others, Poison(4), NaNGuard(), LastCheckpoint(), **given)
    message = fails(trainer, new_model("VAE"), data)
    path = tmp_path / "checkpoints" / "last.ckpt"
    assert f"{path} of step 3 has finite weights: resume with --ckpt_path {path}." in message
    assert all(bool(value.isfinite().all()) for value in torch.load(path, weights_only=True)["state_dict"].values())
    resumed = new_trainer(*others, NaNGuard(), LastCheckpoint(), **given)
    resumed.fit(new_model("VAE"), datamodule=data, ckpt_path=path)
    assert resumed.global_step == 9


def test_a_spoilt_checkpoint_is_not_recommended(new_model, new_trainer, data, tmp_path):
    folder = tmp_path / "checkpoints"
    trainer = new_trainer(Poison(), NaNGuard())
    assert f"No checkpoint to resume from in {folder}.\n" in fails(trainer, new_model("AE"), data)
    folder.mkdir()
    spoilt = {"state_dict": {"a": torch.tensor([1.0, torch.nan])}, "global_step": 1}
    torch.save(spoilt, folder / "last.ckpt")
    data = type(data)(**data.hparams)
    message = fails(new_trainer(Poison(), NaNGuard()), new_model("AE"), data)
    assert f"No checkpoint to resume from in {folder}: not finite are last.ckpt.\n" in message


def work(rank, folder, model):
    """A step whose second image, on rank 1, is spoilt."""
    torch.set_num_threads(1)
    dist.init_process_group("gloo", init_method=f"file://{folder}/store", rank=rank, world_size=2)
    trainer = SimpleNamespace(
        strategy=DDPStrategy(), world_size=2, precision_plugin=None, precision="32-true", global_step=7,
        default_root_dir=folder,
    )  # fmt: skip
    guard, distortion = NaNGuard(), torch.ones(8)
    distortion[1] += torch.nan if rank == 1 else 1.0
    model.last_terms = {"rate": torch.ones(8), "distortion": distortion}
    guard.on_before_backward(trainer, model, distortion.mean())
    try:
        guard.on_before_optimizer_step(trainer, model, torch.optim.SGD(model.parameters()))
    except ValueError as error:
        (Path(folder) / f"{rank}.txt").write_text(str(error))
    dist.destroy_process_group()


@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")  # nothing is left running here
def test_all_ranks_stop_at_the_same_step_for_the_same_reason(new_model, tmp_path):
    mp.start_processes(work, args=(str(tmp_path), new_model("VAE")), nprocs=2, start_method="fork")
    first, second = ((tmp_path / f"{rank}.txt").read_text() for rank in range(2))
    assert "at step 7, before the optimizer changed a weight: distortion (1 of 16 images, on rank 1)." in first
    assert first == second


def test_the_command_line_shows_the_reason_alone(lightning, digits_config, tmp_path, capsys):
    config = yaml.safe_load(digits_config.read_text())
    config["trainer"] |= {"max_epochs": 1, "logger": False, "callbacks": [{"class_path": "callbacks.NaNGuard"}]}
    config["model"]["init_args"]["optimizer"]["init_args"] = {"lr": 1e30}
    (tmp_path / "wild.yaml").write_text(yaml.safe_dump(config))
    with pytest.raises(SystemExit) as info:
        lightning("fit", "--config", tmp_path / "wild.yaml", "--run_dir", tmp_path / "run")
    assert info.value.code == 1
    said = capsys.readouterr().err
    assert "error: NaNGuard: not finite at step 1, before" in said
    assert "Traceback" not in said


def test_another_kind_of_model_is_refused(new_trainer):
    from lightning.pytorch.demos.boring_classes import BoringModel

    assert not issubclass(BoringModel, Model)
    with pytest.raises(ValueError, match=r"NaNGuard: it needs a lit_vae.models.module.Model, the model is a Boring"):
        new_trainer(NaNGuard()).fit(BoringModel())
