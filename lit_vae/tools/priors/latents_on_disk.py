"""Writing the posteriors, or the latents, of all images of a run."""

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from itertools import chain, islice
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lit_vae.tools.output import progress_bar
from lit_vae.tools.runs import SPLITS, Split

if TYPE_CHECKING:
    from torch import Tensor

    from lit_vae.data import ImageDataModule
    from lit_vae.data.latent_files import LatentSummary, Layout, Shard
    from lit_vae.images import Batch
    from lit_vae.models.base import Autoencoder

_AT_ONCE = 1024  # images whose statistics are computed together, in float64


def write_latents(
    root: Path,
    model: "Autoencoder",
    data: "ImageDataModule",
    common: dict[str, Any],
    mirrors: bool,
    shard_size: int,
    rank: int,
    world_size: int,
) -> None:
    """Write the posteriors of all splits into a new folder, and print their statistics.

    The latent of a model without a posterior is written with the smallest log-variance that a posterior can have. With
    ``mirrors``, those of the mirrored training images are written, too. Of several processes, this one writes the files
    ``rank, rank + world_size, ...``; the last to end completes the folder. ``common`` are arguments of `EncodedSpec`.
    """
    from filelock import FileLock

    from callbacks.periodic import untouched
    from lit_vae.data.encoded_files import Manifest
    from lit_vae.data.latent_files import LatentWriter, Layout, shards_of, spec_of
    from lit_vae.models.abilities import HasPosterior

    writer = LatentWriter(root)
    layouts = {
        split: Layout(
            num_images=len(data.source(split)),
            shard_size=shard_size,
            mirrors=mirrors and split == "train",
            images=data.fingerprint(split),
        )
        for split in SPLITS
        if len(data.source(split))
    }
    if "train" not in layouts:
        raise ValueError(f"lit-vae encode: {data.why_empty('train')}")
    shards = {
        split: shards_of(writer.partial, split, layout, model.latent_shape, common["checkpoint_sha256"])
        for split, layout in layouts.items()
    }
    with untouched(model):
        for split, files in shards.items():
            with progress_bar(f"encoding {split}") as progress:
                missing = [shard for shard in files[rank::world_size] if not shard.is_written]
                _write(model, data, split, missing, progress)
    lock = root.with_name(f".{root.name}.lock")
    with FileLock(lock):
        if not root.exists():
            if left := [shard for shard in chain(*shards.values()) if not shard.is_written]:
                print(
                    f"{writer.partial}: {len(left)} files are still missing; the process that writes the last of them"
                    " completes the folder."
                )
                return
            has_posterior = isinstance(model, HasPosterior)
            summaries: dict[str, LatentSummary] = {
                split: _summary(split, layout, shards[split], has_posterior) for split, layout in layouts.items()
            }
            spec = spec_of(summaries, shape=model.latent_shape, realism=_realism(model), **common)
            writer.finish(Manifest(spec, summaries), chain(*shards.values()))
            _print(summaries)
    lock.unlink(missing_ok=True)
    print(root)


def _write(
    model: "Autoencoder",
    data: "ImageDataModule",
    split: Split,
    shards: Sequence["Shard"],
    progress: Callable[[int, int], None],
) -> None:
    """Encode the images of some files, and write each file when its images are encoded."""
    import torch

    from lit_vae.data.orders import FixedOrder

    if not shards:
        return
    rows = [torch.arange(shard.rows.start, shard.rows.stop).split(data.batch_size) for shard in shards]
    order = FixedOrder([batch for batches in rows for batch in batches])
    batches = _counted(data.make_loader(data.source(split), order, training=False), len(order), progress)
    for shard, own in zip(shards, rows, strict=True):
        found = [_posteriors(model, batch, shard.sides) for batch in islice(batches, len(own))]
        shard.write({name: torch.cat([part[name] for part in found]) for name in found[0]})


def _counted(batches: Any, total: int, progress: Callable[[int, int], None]) -> Iterator[Any]:
    for done, batch in enumerate(batches, start=1):
        yield batch
        progress(done, total)


def _posteriors(model: "Autoencoder", batch: "Batch", sides: Sequence[str]) -> dict[str, "Tensor"]:
    """The tensors of a `Shard` for a batch of images."""
    import torch
    from torch import Tensor

    from callbacks.latent_report import latents_of
    from callbacks.panel import to_model
    from lit_vae.distributions import DiagonalGaussian

    x, y = to_model(batch, model)
    found = {"labels": batch.y.cpu()}
    for side in sides:
        q = latents_of(model, type(batch)(x.flip(-1) if side else x, y))
        if isinstance(q, Tensor):
            q = DiagonalGaussian(q, torch.full_like(q, -math.inf))  # which it clamps
        found[f"mean{side}"] = q.mean.float().cpu()
        found[f"log_var{side}"] = q.log_var.expand_as(q.mean).float().cpu()
    return found


def _print(summaries: "Mapping[str, LatentSummary]") -> None:
    for split, summary in summaries.items():
        images = f"{summary.num_images} images{' and their mirror images' if summary.mirrors else ''}"
        std = f"std of a channel {min(summary.std):.4f} to {max(summary.std):.4f}"
        entropy = "" if summary.entropy is None else f"  entropy {summary.entropy:.2f} nats"
        print(f"{split:5}  {images}  {std}{entropy}")


def _summary(split: Split, layout: "Layout", shards: Sequence["Shard"], has_posterior: bool) -> "LatentSummary":
    """The statistics of posterior draws, in closed form, with sums in float64."""
    from lit_vae.data.latent_files import LatentSummary
    from lit_vae.distributions import DiagonalGaussian
    from lit_vae.distributions.continuous import LOG_2PI
    from lit_vae.metrics import LatentChannels

    channels, log_vars, posteriors = LatentChannels(), 0.0, 0
    for shard in shards:
        tensors = shard.read()
        for side in shard.sides:
            parts = (tensors[f"{name}{side}"].split(_AT_ONCE) for name in ("mean", "log_var"))
            for q in map(DiagonalGaussian, *parts):
                channels.update(q)
                log_vars += float(q.log_var.double().sum())
                posteriors += len(q.mean)
    moments = channels.compute().report()
    entropy = 0.5 * (log_vars / posteriors + math.prod(shards[0].shape) * (1.0 + LOG_2PI))
    if not math.isfinite(sum(moments["std"]) + entropy):
        raise ValueError(
            f"lit-vae encode: latents of {split} images are not finite: the model has diverged. Give another."
        )
    return LatentSummary(
        **vars(layout),
        mean=tuple(moments["mean"]),
        std=tuple(moments["std"]),
        entropy=entropy if has_posterior else None,
    )


def _realism(model: "Autoencoder") -> tuple[str, ...]:
    """The terms beside the likelihood that the model was trained with."""
    from lit_vae.models.with_realism import WithRealism

    realism = model.realism if isinstance(model, WithRealism) else None
    if realism is None:
        return ()
    parts = {"perceptual": realism.perceptual, "adversarial": realism.adversary}
    return tuple(name for name, part in parts.items() if part is not None)
