"""Latents in batches: fresh draws that depend on seed, epoch and image alone, in the units of the training set."""

import shutil
from dataclasses import replace
from pathlib import Path

import pytest
import torch
from made_up_latents import SIZES, SPEC, made_up, write_latents
from test_codes_module import as_process

from lit_vae.data import Latents
from lit_vae.data.orders import TrainOrder, example_order
from lit_vae.latents import LatentBatch
from lit_vae.run.loading import identity


@pytest.fixture
def root(tmp_path: Path) -> str:
    write_latents(tmp_path / "latents", mirrors=False)
    return str(tmp_path / "latents")


def epochs(data: Latents, n: int) -> list[LatentBatch]:
    """Whole epochs of training, in the order of the images."""
    loader, found = data.train_dataloader(), []
    for _ in range(n):
        z, y = (torch.cat(parts) for parts in zip(*loader, strict=True))
        found.append(LatentBatch(z[y.argsort()], y.sort().values))
    return found


def test_draws_have_the_moments_of_the_posteriors_and_are_new_in_each_epoch(root: str) -> None:
    made, n = made_up(20, 0, ("",)), 400
    z = torch.stack([SPEC.unscaled(batch.z.double()) for batch in epochs(Latents(root, batch_size=5), n)])
    eps = (z - made["mean"].double()) * torch.exp(-0.5 * made["log_var"].double())
    count = eps.numel()
    assert abs(float(eps.mean())) < 4 / count**0.5
    assert abs(float(eps.var()) - 1.0) < 4 * (2 / count) ** 0.5
    for other in (eps[1:] * eps[:-1], eps[:, 1:] * eps[:, :-1], eps[..., 1:] * eps[..., :-1]):  # epochs, images, places
        assert abs(float(other.mean())) < 4 / other.numel() ** 0.5
    means = eps.mean(0) * n**0.5  # N(0, 1) for each of the 240 numbers
    assert float(means.abs().max()) < 5.0


def test_scaling_is_by_channel_and_can_be_undone() -> None:
    z = torch.tensor([0.5, -1.0]).view(1, 2, 1, 1) + torch.tensor([2.0, 0.25]).view(1, 2, 1, 1)
    assert torch.equal(SPEC.scaled(z), torch.ones(1, 2, 1, 1))
    assert torch.equal(SPEC.unscaled(torch.ones(1, 2, 1, 1)), z)
    vectors = replace(SPEC, shape=(2,))
    assert torch.equal(vectors.scaled(z.flatten(1)), torch.ones(1, 2))


def test_an_epoch_is_repeated_exactly_and_depends_on_the_seed(root: str) -> None:
    first, second = epochs(Latents(root, batch_size=5), 2)
    again = epochs(Latents(root, batch_size=4), 2)  # in batches of another size
    assert torch.equal(first.z, again[0].z)
    assert torch.equal(second.z, again[1].z)
    assert not (first.z == second.z).any()
    assert not (epochs(Latents(root, batch_size=5, seed=1), 1)[0].z == first.z).any()


def test_two_processes_see_what_one_sees(tmp_path: Path) -> None:
    write_latents(tmp_path / "latents")  # with mirror images
    root = str(tmp_path / "latents")
    alone = Latents(root, batch_size=6).train_dataloader()
    ranks = [as_process(Latents(root, batch_size=3), rank, 2).train_dataloader() for rank in range(2)]
    for _ in range(2):
        for whole, *parts in zip(alone, *ranks, strict=True):
            assert torch.equal(whole.z, torch.cat([part.z for part in parts]))
            assert torch.equal(whole.y, torch.cat([part.y for part in parts]))


def test_a_resumed_epoch_goes_on_with_the_next_batch(tmp_path: Path) -> None:
    write_latents(tmp_path / "latents")
    straight, resumed = (Latents(str(tmp_path / "latents"), batch_size=6).train_dataloader() for _ in range(2))
    batches = [batch for _ in range(2) for batch in straight]
    for _ in zip(range(1), resumed, strict=False):
        pass
    resumed.load_state_dict({**straight.state_dict(), "epoch": 1, "batches": 1})
    for got, expected in zip(resumed, batches[4:], strict=True):
        assert all(map(torch.equal, got, expected))


def test_evaluation_is_in_order_and_the_same_each_time(root: str) -> None:
    data = Latents(root, batch_size=3)
    for split, loader in (("val", data.val_dataloader()), ("train", data.ordered_dataloader("train"))):
        z, y = (torch.cat(parts) for parts in zip(*loader, strict=True))
        assert torch.equal(y, torch.arange(SIZES[split]))
        order = example_order(y)[:4]
        example = data.example_batch(4, split)  # type: ignore[arg-type]
        assert torch.equal(example.z, z[order])
        assert torch.equal(example.y, y[order])


def test_training_comes_in_the_order_of_images(root: str) -> None:
    for i, batch in enumerate(Latents(root, batch_size=6, seed=5).train_dataloader()):
        assert torch.equal(batch.y, TrainOrder(20, 6, seed=5).indices(0, i))


def test_the_spec_is_read_from_the_manifest_alone(root: str) -> None:
    for path in Path(root).glob("*.safetensors"):
        path.unlink()
    data = Latents(root)
    data.prepare_data()
    assert data.spec == SPEC
    assert dict(data.hparams) == {"root": root, "batch_size": 64, "seed": 0}


def test_latents_need_the_very_checkpoint_that_made_them(tmp_path: Path) -> None:
    (folder,) = Latents(str(tmp_path / "none")).needs()
    assert "contains no latents.json. Write it with: lit-vae encode RUN --out DIR." in str(folder.problem())

    checkpoint = tmp_path / "stage1.ckpt"
    checkpoint.write_text("weights")
    spec = replace(SPEC, checkpoint=str(checkpoint), checkpoint_sha256=identity(checkpoint))
    write_latents(tmp_path / "latents", spec)
    folder, stage1 = Latents(str(tmp_path / "latents")).needs()
    assert (folder.what, stage1.what) == ("latents", "stage 1 of the latents")
    assert folder.problem() is stage1.problem() is None
    assert folder.measure().size == sum(path.stat().st_size for path in (tmp_path / "latents").iterdir())
    checkpoint.write_text("other weights")
    assert f"the SHA-256 of {checkpoint} begins with" in str(stage1.problem())
    checkpoint.unlink()
    assert str(stage1.problem()).startswith(f"there is no {checkpoint}. Restore it, or encode again with another")
    (tmp_path / "latents" / "test-00000.safetensors").unlink()
    assert "test-00000.safetensors: the file is missing" in str(folder.problem())
    shutil.rmtree(tmp_path / "latents")
