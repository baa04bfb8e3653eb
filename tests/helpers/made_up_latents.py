"""Folders of latents that no model has made."""

from pathlib import Path

import torch
from torch import Tensor

from lit_vae.data.encoded_files import Manifest
from lit_vae.data.latent_files import LatentSummary, LatentWriter, Layout, shards_of
from lit_vae.latents import LatentSpec

SPEC = LatentSpec(
    checkpoint="runs/kl/checkpoints/last.ckpt",
    checkpoint_sha256="ab" * 32,
    model="lit_vae.models.KLAutoencoder",
    image_shape=(3, 8, 8),
    num_classes=100,
    class_names=(),
    bits_per_dim=(192, 7.0),
    shape=(2, 2, 3),
    mean=(0.5, -1.0),
    std=(2.0, 0.25),
    entropy={"train": 3.0, "val": 3.0, "test": 3.0},
    realism=("perceptual",),
)
SIZES = {"train": 20, "val": 7, "test": 5}


def made_up(n: int, seed: int, sides: tuple[str, ...], spec: LatentSpec = SPEC) -> dict[str, Tensor]:
    """Random posteriors; the label says which image it is."""
    generator = torch.Generator().manual_seed(seed)
    names = [f"{name}{side}" for name in ("mean", "log_var") for side in sides]
    labels = torch.arange(n) if spec.num_classes else torch.full((n,), -1)
    return {"labels": labels, **{name: torch.randn(n, *spec.shape, generator=generator) for name in names}}


def layout_of(split: str, mirrors: bool) -> Layout:
    return Layout(num_images=SIZES[split], shard_size=6, mirrors=mirrors, images=f"{split} images")


def write_latents(root: Path, spec: LatentSpec = SPEC, mirrors: bool = True) -> dict[str, dict[str, Tensor]]:
    """Write a folder and return what is in it."""
    writer, made, summaries, shards = LatentWriter(root), {}, {}, []
    for seed, (split, n) in enumerate(SIZES.items()):
        both = mirrors and split == "train"
        made[split] = made_up(n, seed, ("", "_mirrored") if both else ("",), spec)
        layout = layout_of(split, both)
        summaries[split] = LatentSummary(**vars(layout), mean=spec.mean, std=spec.std, entropy=3.0)
        for shard in shards_of(writer.partial, split, layout, spec.shape, spec.checkpoint_sha256):
            shard.write({name: tensor[shard.rows] for name, tensor in made[split].items()})
            shards.append(shard)
    writer.finish(Manifest(spec, summaries), shards)
    return made
