"""Posteriors on disk: those of the model, with exact statistics, the same in any number of processes and attempts."""

import json
import math
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Trainer
from torch import Tensor

from lit_vae.data import FakeImages, Latents
from lit_vae.data.latent_files import Shard
from lit_vae.data.orders import TrainOrder
from lit_vae.diffusion import Bound, GaussianDiffusion, LinearLogSNR, Original
from lit_vae.likelihoods import Laplace
from lit_vae.models import AE, KLAutoencoder, LatentDiffusion
from lit_vae.models.base import Autoencoder
from lit_vae.networks import ConvDecoder, ConvEncoder, DiT
from lit_vae.objectives import ELBO
from lit_vae.tools.priors.latents_on_disk import write_latents

COMMON: dict[str, Any] = {
    "checkpoint": "runs/kl/checkpoints/last.ckpt",
    "checkpoint_sha256": "ab" * 32,
    "model": "lit_vae.models.KLAutoencoder",
    "image_shape": (1, 8, 8),
    "num_classes": 3,
    "bits_per_dim": None,
}
MIRRORED = ("mean_mirrored", "log_var_mirrored")
SIZES = {"train": 50, "val": 9, "test": 4}


def networks() -> tuple[Any, Any]:
    torch.manual_seed(0)

    def network(kind: Any) -> Any:
        return lambda *shapes: kind(*shapes, width=4, multipliers=[1, 1])

    return network(ConvEncoder), network(ConvDecoder)


@pytest.fixture(scope="module")
def model() -> KLAutoencoder:
    return KLAutoencoder([1, 8, 8], [2, 4, 4], *networks(), Laplace(), ELBO(beta=1e-6), torch.optim.Adam)


def write(root: Path, model: Autoencoder, rank: int = 0, world_size: int = 1, **given: Any) -> None:
    images = FakeImages(*SIZES.values(), channels=1, size=8, num_classes=3, batch_size=4)
    options = {"mirrors": True, "shard_size": 10, **given}
    write_latents(root, model, images, COMMON, rank=rank, world_size=world_size, **options)


def content(root: Path) -> dict[str, bytes]:
    return {path.name: path.read_bytes() for path in root.iterdir()}


@torch.no_grad()
def test_the_files_hold_the_posteriors_and_exact_statistics(model: KLAutoencoder, tmp_path: Path) -> None:
    write(tmp_path / "latents", model)
    data = Latents(str(tmp_path / "latents"))
    images = FakeImages(*SIZES.values(), channels=1, size=8, num_classes=3)
    assert sorted(content(tmp_path / "latents")) == [
        "latents.json", "test-00000.safetensors", *(f"train-0000{i}.safetensors" for i in range(5)),
        "val-00000.safetensors",
    ]  # fmt: skip
    for split, n in SIZES.items():
        (batch,) = images.ordered_dataloader(split)  # type: ignore[arg-type]
        files, summary = data.open_split(split), data.manifest.splits[split]
        stored = files.read(torch.arange(n))
        assert torch.equal(stored.y, batch.y)
        posteriors = [model.encode(batch.x.flip(-1) if side else batch.x, batch.y) for side in range(files.mirrors + 1)]
        torch.testing.assert_close(stored.mean, posteriors[0].mean)
        torch.testing.assert_close(stored.log_var, posteriors[0].log_var)
        if split == "train":
            mirrored = [torch.cat([shard[name] for shard in files.shards]) for name in MIRRORED]
            torch.testing.assert_close(mirrored, [posteriors[1].mean, posteriors[1].log_var])
        mean = torch.cat([q.mean for q in posteriors]).double()
        var = torch.cat([q.log_var for q in posteriors]).double().exp()
        of_draws = mean.var((0, 2, 3), correction=0) + var.mean((0, 2, 3))
        assert summary.mean == pytest.approx(mean.mean((0, 2, 3)).tolist(), rel=1e-6, abs=1e-7)
        assert summary.std == pytest.approx(of_draws.sqrt().tolist(), rel=1e-6)
        entropy = 0.5 * (2 * math.pi * math.e * var).log().flatten(1).sum(1).mean()
        assert summary.entropy == pytest.approx(float(entropy), rel=1e-6)
        assert summary.images == images.fingerprint(split)  # type: ignore[arg-type]
    spec, train = data.spec, data.manifest.splits["train"]
    assert (spec.shape, spec.mean, spec.std, spec.realism) == ((2, 4, 4), train.mean, train.std, ())
    assert not spec.has_meaningful_likelihood


def test_batches_are_of_mean_zero_and_variance_one(model: KLAutoencoder, tmp_path: Path) -> None:
    write(tmp_path / "latents", model)
    loader = Latents(str(tmp_path / "latents"), batch_size=10).train_dataloader()
    z = torch.cat([batch.z for _ in range(40) for batch in loader]).double().transpose(0, 1).flatten(1)
    error = z.shape[1] ** -0.5  # at most: a part of the variance is that of the images, each of which came 40 times
    assert float(z.mean(1).abs().max()) < 4 * error
    assert float((z.var(1) - 1.0).abs().max()) < 4 * 2**0.5 * error


@torch.no_grad()
def test_a_model_without_posterior_has_exact_latents_and_no_entropy(tmp_path: Path) -> None:
    ae = AE([1, 8, 8], [2, 4, 4], *networks(), Laplace(), torch.optim.Adam)
    write(tmp_path / "latents", ae, mirrors=False)
    data = Latents(str(tmp_path / "latents"), batch_size=SIZES["train"])
    (images,) = FakeImages(*SIZES.values(), channels=1, size=8, num_classes=3).ordered_dataloader("train")
    stored, z = data.open_split("train").read(torch.arange(SIZES["train"])), ae.embed(*images)
    torch.testing.assert_close(stored.mean, z)
    assert (stored.log_var == -30.0).all()
    assert data.spec.std == pytest.approx(z.double().std((0, 2, 3), correction=0).tolist(), rel=1e-6)
    (batch,) = data.train_dataloader()
    drawn = z[TrainOrder(50, 50, seed=0).indices(0, 0)]
    torch.testing.assert_close(batch.z, data.spec.scaled(drawn), rtol=0, atol=1e-5)
    record = json.loads((tmp_path / "latents" / "latents.json").read_text())
    assert [split["entropy"] for split in record["splits"].values()] == [None] * 3
    assert data.spec.entropy is None
    assert not replace(data.spec, bits_per_dim=(64, 7.0)).has_meaningful_likelihood


def test_diffusion_of_exact_latents_has_a_bound_and_no_rate(tmp_path: Path) -> None:
    write(tmp_path / "latents", AE([1, 8, 8], [2, 4, 4], *networks(), Laplace(), torch.optim.Adam), mirrors=False)
    process = GaussianDiffusion(LinearLogSNR(), Original(), Bound())
    denoiser = partial(DiT, patch=2, width=8, layers=1, heads=1)
    diffusion = LatentDiffusion([2, 4, 4], denoiser, process, torch.optim.Adam)
    trainer = Trainer(fast_dev_run=True, accelerator="cpu", enable_progress_bar=False, enable_model_summary=False)
    trainer.fit(diffusion, datamodule=Latents(str(tmp_path / "latents"), batch_size=50))
    numbers = {name: float(value) for name, value in trainer.callback_metrics.items()}
    assert "val/rate" not in numbers
    assert numbers["val/latent_nll"] == pytest.approx(numbers["val/loss"] + float(diffusion.log_scale), rel=1e-5)


def test_a_killed_process_goes_on_with_the_next_file(
    model: KLAutoencoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "whole", model)
    whole_write, written, encoded = Shard.write, [], []

    def killed(shard: Shard, tensors: dict[str, Tensor]) -> None:
        if len(written) == 2:
            raise KeyboardInterrupt
        written.append(shard.path.name)
        whole_write(shard, tensors)

    with monkeypatch.context() as patch:
        patch.setattr(Shard, "write", killed)
        with pytest.raises(KeyboardInterrupt):
            write(tmp_path / "latents", model)
    assert not (tmp_path / "latents").exists()
    assert sorted(content(tmp_path / "latents.partial")) == written
    damaged = tmp_path / "latents.partial" / written[1]
    damaged.write_bytes(damaged.read_bytes()[:-1])
    (tmp_path / "latents.partial" / "train-00099.safetensors").write_bytes(b"of another attempt")

    def counted(shard: Shard, tensors: dict[str, Tensor]) -> None:
        encoded.append(shard.path.name)
        whole_write(shard, tensors)

    monkeypatch.setattr(Shard, "write", counted)
    write(tmp_path / "latents", model)
    assert len(encoded) == 6  # of 7
    assert written[0] not in encoded
    assert content(tmp_path / "latents") == content(tmp_path / "whole")
    assert sorted(path.name for path in tmp_path.iterdir()) == ["latents", "whole"]


def test_files_of_another_checkpoint_are_written_again(
    model: KLAutoencoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    write(tmp_path / "latents", model, rank=1, world_size=2)
    before = content(tmp_path / "latents.partial")
    monkeypatch.setitem(COMMON, "checkpoint_sha256", "cd" * 32)
    write(tmp_path / "latents", model)
    after = content(tmp_path / "latents")
    assert all(after[name] != file for name, file in before.items())
    Latents(str(tmp_path / "latents")).setup()


def test_several_processes_write_what_one_writes(
    model: KLAutoencoder, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    write(tmp_path / "one", model)
    capsys.readouterr()
    write(tmp_path / "two", model, rank=1, world_size=2)
    assert not (tmp_path / "two").exists()
    assert capsys.readouterr().out == (
        f"{tmp_path / 'two.partial'}: 5 files are still missing; the process that writes the last of them completes the"
        " folder.\n"
    )
    write(tmp_path / "two", model, rank=0, world_size=2)
    assert content(tmp_path / "two") == content(tmp_path / "one")
    assert "train  50 images and their mirror images  std of a channel" in capsys.readouterr().out


def test_without_mirror_images(model: KLAutoencoder, tmp_path: Path) -> None:
    write(tmp_path / "latents", model, mirrors=False, shard_size=8192)
    files = Latents(str(tmp_path / "latents")).open_split("train")
    assert not files.mirrors
    assert torch.equal(files.read(torch.arange(50), epoch=0).mean, files.shards[0]["mean"])


def test_a_diverged_model_is_told(model: KLAutoencoder, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    encode = KLAutoencoder.encode

    def diverged(model: KLAutoencoder, x: Tensor, y: Tensor) -> Any:
        q = encode(model, x, y)
        q.mean[0, 0, 0, 0] = math.nan
        return q

    monkeypatch.setattr(KLAutoencoder, "encode", diverged)
    with pytest.raises(ValueError, match="latents of train images are not finite: the model has diverged"):
        write(tmp_path / "latents", model)
    assert not (tmp_path / "latents").exists()
