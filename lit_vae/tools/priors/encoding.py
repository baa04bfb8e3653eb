"""``lit-vae encode``: the codes of all images, for a prior to be trained on."""

import math
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lit_vae.tools.output import progress_bar
from lit_vae.tools.runs import (
    Checkpoint,
    Split,
    choose_device,
    find_run,
    load_autoencoder,
    load_data,
)

if TYPE_CHECKING:
    from lit_vae.data import ImageDataModule
    from lit_vae.models.discrete import DiscreteAutoencoder

SPLITS: tuple[Split, ...] = ("train", "val", "test")


def encode(
    run: str,
    out: str | None = None,
    data_root: str | None = None,
    checkpoint: Checkpoint = "best",
    device: str | None = None,
) -> None:
    """Write the codes of all images, for a prior to be trained on (data: lit_vae.data.Codes).

    The folder also holds labels, the usage of the codes, the mean distortion of each split, and the SHA-256 of the
    checkpoint. A prior that is trained on these codes decodes with this checkpoint only.

    Args:
        run: Run directory or .ckpt file of an autoencoder with codes.
        out: Folder to write; it must not exist. Default: RUN/codes.
        data_root: Folder of the data, if it is not where it was in training. Nothing is downloaded.
        checkpoint: Which checkpoint of a run directory.
        device: cpu, cuda or cuda:N. Default: the GPU if there is one.
    """
    from callbacks.periodic import untouched
    from lit_vae.codes import CodeSpec
    from lit_vae.data.code_files import CodeWriter, read_manifest
    from lit_vae.models.discrete import DiscreteAutoencoder

    found = find_run(run, checkpoint)
    model = load_autoencoder("encode", found, choose_device(device))
    if not isinstance(model, DiscreteAutoencoder):
        raise ValueError(
            f"lit-vae encode: {type(model).__name__} has no codes. Give a run of a VQ-VAE; for a Gaussian latent, see"
            " lit-vae fit-prior."
        )
    data = load_data(found, model, data_root, SPLITS)
    spec = CodeSpec(
        grids=model.grids,
        num_embeddings=model.num_embeddings,
        num_classes=data.spec.num_classes,
        checkpoint=str(found.checkpoint.resolve()),
        checkpoint_sha256=found.identity,
        distortion={},
        bits_per_dim=_bits_per_dim(model, data),
        class_names=data.spec.class_names,
    )
    root = found.directory / "codes" if out is None else Path(out)
    path = f"{type(model).__module__}.{type(model).__name__}"
    with CodeWriter(root, spec, data.spec.shape, path) as writer, untouched(model):
        for split in SPLITS:
            if total := len(data.source(split)):
                with progress_bar(f"encoding {split}") as progress:
                    writer.write(split, total, _encoded(model, data, split, progress))
    for name, summary in read_manifest(root).splits.items():
        levels = zip(summary.perplexity, summary.code_usage, spec.num_embeddings, strict=True)
        use = ", ".join(f"perplexity {p:.1f} and {100 * u:.0f} % used of {k}" for p, u, k in levels)
        print(f"{name:5}  {summary.num_images} images  distortion {summary.distortion:.2f} nats  codes: {use}")
    print(root)


def _encoded(
    model: "DiscreteAutoencoder", data: "ImageDataModule", split: Split, progress: Callable[[int, int], None]
) -> Iterator[Any]:
    """Codes of each batch of a split, and the distortion ``-log p(x | codes)`` of each image in nats."""
    from callbacks.panel import to_model
    from lit_vae.codes import CodeBatch

    done, total = 0, len(data.source(split))
    for batch in data.ordered_dataloader(split):
        x, y = to_model(batch, model)
        codes = model.encode_codes(x, y)
        distortion = -model.decode_codes(codes, y).log_prob(x)
        done += len(x)
        progress(done, total)
        yield CodeBatch(codes, y), distortion


def _bits_per_dim(model: "DiscreteAutoencoder", data: "ImageDataModule") -> tuple[int, float] | None:
    """``(D, offset)`` of `CodeSpec`, from the likelihood's own conversion."""
    import torch

    offset = model.likelihood.bits_per_dim(torch.zeros((), dtype=torch.float64), data.spec)
    return None if offset is None else (math.prod(data.spec.shape), float(offset))
