"""Writing the codes of all images of a run."""

from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lit_vae.tools.output import progress_bar
from lit_vae.tools.runs import SPLITS, Split

if TYPE_CHECKING:
    from lit_vae.data import ImageDataModule
    from lit_vae.models.discrete import DiscreteAutoencoder


def write_codes(root: Path, model: "DiscreteAutoencoder", data: "ImageDataModule", common: dict[str, Any]) -> None:
    """Write the codes of all splits into a new folder, and print how they are used.

    ``common`` are arguments of `EncodedSpec`.
    """
    from callbacks.periodic import untouched
    from lit_vae.codes import CodeSpec
    from lit_vae.data.code_files import CodeWriter, read_manifest

    spec = CodeSpec(**common, grids=model.grids, num_embeddings=model.num_embeddings, distortion={})
    with CodeWriter(root, spec) as writer, untouched(model):
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
