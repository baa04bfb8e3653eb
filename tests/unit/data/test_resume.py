"""A resumed run sees the batches that the run would have seen: through Lightning's own loops."""

from multiprocessing import active_children
from pathlib import Path

import pytest
import torch
from data_helpers import digest, write_image
from lightning.pytorch import Callback, LightningModule, Trainer
from lightning.pytorch.callbacks import ModelCheckpoint

from lit_vae.data import CelebA, FakeImages, ImageDataModule, ImageFolder
from lit_vae.images import Batch

# Lightning 2.6 under torch >= 2.13 warns of its own use of LeafSpec.
pytestmark = pytest.mark.filterwarnings("ignore:.*LeafSpec:FutureWarning")


class Line(LightningModule):
    def __init__(self) -> None:
        super().__init__()
        self.scale = torch.nn.Parameter(torch.zeros(()))
        self.seen: list[str] = []

    def training_step(self, batch: Batch, batch_idx: int) -> torch.Tensor:
        self.seen.append(f"{self.current_epoch}.{batch_idx} {digest(batch)}")
        return (self.scale * batch.x).mean()

    def validation_step(self, batch: Batch, batch_idx: int) -> None:
        pass

    def configure_optimizers(self) -> torch.optim.Optimizer:
        return torch.optim.SGD(self.parameters(), 0.1)


class SaveEverywhere(Callback):
    """Saves a checkpoint at each hook at which callbacks save, named by the hook and the batches seen."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def _save(self, trainer: Trainer, hook: str) -> None:
        seen = len(trainer.lightning_module.seen)  # type: ignore[arg-type]
        if not trainer.sanity_checking:
            trainer.save_checkpoint(self.folder / f"{hook}-{seen}.ckpt")

    def on_train_batch_end(self, trainer: Trainer, *args: object) -> None:
        self._save(trainer, "batch_end")

    def on_validation_end(self, trainer: Trainer, *args: object) -> None:
        self._save(trainer, "validation_end")

    def on_train_epoch_end(self, trainer: Trainer, *args: object) -> None:
        self._save(trainer, "epoch_end")


def fit(data: ImageDataModule, ckpt_path: Path | None = None, **options: object) -> list[str]:
    model = Line()
    trainer = Trainer(
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=options.pop("enable_checkpointing", False),
        **{"max_epochs": 3, **options},  # type: ignore[arg-type]
    )
    trainer.fit(model, data, ckpt_path=ckpt_path, weights_only=True)
    return model.seen


def fake() -> FakeImages:
    return FakeImages(num_train=26, num_val=4, num_test=4, size=8, values="dequantized", batch_size=6)  # 4 batches


@pytest.mark.parametrize("options", [{}, {"limit_train_batches": 3}, {"val_check_interval": 2}])
def test_resume_goes_on_with_the_next_batch_from_any_checkpoint(tmp_path: Path, options: dict) -> None:
    straight = fit(fake(), callbacks=[SaveEverywhere(tmp_path)], **options)
    assert len(straight) == len(set(straight)) == 3 * options.get("limit_train_batches", 4)
    checkpoints = sorted(tmp_path.glob("*.ckpt"))
    assert len(checkpoints) >= len(straight) + 3 + 2
    for checkpoint in checkpoints:
        done = int(checkpoint.stem.rpartition("-")[2])
        assert fit(fake(), checkpoint, **options) == straight[done:], checkpoint.name


@pytest.mark.filterwarnings("ignore:Checkpoint directory .* exists and is not empty")
def test_resume_after_max_steps_in_mid_epoch(tmp_path: Path) -> None:
    straight = fit(fake())
    first, second = (
        {"enable_checkpointing": True, "callbacks": [ModelCheckpoint(tmp_path, save_last=True, every_n_train_steps=1)]}
        for _ in range(2)
    )
    seen = fit(fake(), max_steps=6, **first)
    assert seen == straight[:6]
    assert fit(fake(), tmp_path / "last.ckpt", **second) == straight[6:]


def test_resume_with_worker_processes_and_random_crops(tmp_path: Path) -> None:
    for i in range(8):
        write_image(tmp_path / "photos" / f"{i}.png", level=30 * i)

    def folder() -> ImageFolder:
        return ImageFolder(
            str(tmp_path / "photos"),
            size=8,
            crop="random",
            crops_per_image=2,
            num_val=1,
            num_test=1,
            dequantize=True,
            batch_size=4,  # 6 images x 2 crops: 3 batches
            num_workers=1,
        )

    others = set(active_children())
    straight = fit(folder(), max_epochs=2, callbacks=[SaveEverywhere(tmp_path)])
    assert len(set(straight)) == 6
    for done in (2, 3, 4):
        assert fit(folder(), tmp_path / f"batch_end-{done}.ckpt", max_epochs=2) == straight[done:]
    assert others.issuperset(active_children()), "workers outlive the training"


def test_training_twice_with_the_same_data_starts_the_workers_again(tmp_path: Path) -> None:
    for i in range(8):
        write_image(tmp_path / "photos" / f"{i}.png", level=30 * i)
    split = {"num_val": 1, "num_test": 1, "batch_size": 3}
    data = ImageFolder(str(tmp_path / "photos"), size=8, in_memory_mb=0, num_workers=1, **split)
    assert fit(data, max_epochs=1) == fit(data, max_epochs=1) != []


def test_training_again_with_more_epochs_goes_on() -> None:
    straight = fit(fake())
    model = Line()
    trainer = Trainer(
        accelerator="cpu",
        logger=False,
        enable_progress_bar=False,
        enable_model_summary=False,
        enable_checkpointing=False,
        max_epochs=1,
    )
    data = fake()
    trainer.fit(model, data)
    trainer.fit_loop.max_epochs = 3
    trainer.fit(model, data)
    assert model.seen == straight


def test_overfit_batches_repeat() -> None:
    data = FakeImages(num_train=26, num_val=4, num_test=4, size=8, batch_size=6)
    seen = [line.split(" ")[1] for line in fit(data, overfit_batches=2)]
    assert seen[:2] == seen[2:4] == seen[4:]
    assert seen[0] != seen[1]


def test_hyperparameters_in_a_checkpoint_are_plain_data(tmp_path: Path) -> None:
    fit(fake(), max_steps=1, callbacks=[SaveEverywhere(tmp_path)])
    saved = torch.load(tmp_path / "batch_end-1.ckpt", weights_only=True)["datamodule_hyper_parameters"]
    assert saved["num_train"] == 26
    assert saved["values"] == "dequantized"
    assert set(saved) == {
        *("num_train", "num_val", "num_test", "channels", "size"),
        *("num_classes", "values", "batch_size", "seed"),
    }
    assert CelebA("nowhere", attribute="Smiling").hparams["attribute"] == "Smiling"
