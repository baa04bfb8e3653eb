"""The codes of a trained model, as a data set for a prior."""

from functools import cached_property

from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor

from lit_vae.codes import CodeBatch
from lit_vae.data.code_files import CodeFiles, CodeManifest, open_split, read_manifest
from lit_vae.data.encoded_module import EncodedDataModule
from lit_vae.data.loader import Loader, Source
from lit_vae.data.orders import Order
from lit_vae.data.splits import Part, Split
from lit_vae.noise import FIXED
from lit_vae.ranges import PositiveInt, Seed, UnitInterval, checked


class CodeLoader(Loader[CodeBatch, CodeBatch]):
    """Batches of codes."""

    def make(self, stored: CodeBatch, epoch: int) -> CodeBatch:
        """Move the codes to ``device``."""
        y = stored.y.to(self.device, non_blocking=True)
        return CodeBatch(tuple(level.to(self.device, non_blocking=True) for level in stored.codes), y)


class Codes(EncodedDataModule[CodeBatch, CodeBatch]):
    """Codes that ``lit-vae encode RUN --out DIR`` wrote, in batches of :class:`lit_vae.codes.CodeBatch`.

    The codes stay on disk; a batch reads only its rows. Shuffling, sharding and resuming are those of images
    (:class:`~lit_vae.data.splits.SplitDataModule`).

    Args:
        root: the folder.
        batch_size: images in a batch of one process.
        seed: of the shuffling.
        collapse_threshold: warn before training if a level's perplexity is below this share of its codes, or if it uses
            a smaller share of them: a prior trained on collapsed codes samples noise.
    """

    what = "codes"

    @checked
    def __init__(
        self, root: str, batch_size: PositiveInt = 64, seed: Seed = 0, collapse_threshold: UnitInterval = 0.1
    ) -> None:
        super().__init__(root, batch_size, seed)
        self.save_hyperparameters()
        self.collapse_threshold = collapse_threshold

    @cached_property
    def manifest(self) -> CodeManifest:
        """The description in the folder."""
        return read_manifest(self.root)

    def open_split(self, split: str) -> CodeFiles:
        """See `EncodedDataModule`."""
        return open_split(self.root, self.manifest, split)

    def load(self, part: Part) -> dict[Split, Source[CodeBatch]]:
        """Open the splits of a part, and warn if the training codes are collapsed."""
        files = super().load(part)
        if part == "fit":
            self._warn_of_collapse()
        return files

    def make_loader(self, source: Source[CodeBatch], order: Order, training: bool) -> CodeLoader:
        """Return the loader of a split, on the trainer's device."""
        return CodeLoader(source, order, self._device())

    def make_example(self, source: Source[CodeBatch], indices: Tensor) -> CodeBatch:
        """Return the codes at ``indices``, on the CPU."""
        return source.read(indices, FIXED)

    def _warn_of_collapse(self) -> None:
        train = self.manifest.splits["train"]
        levels = zip(self.spec.num_embeddings, train.perplexity, train.code_usage, strict=True)
        collapsed = [
            f"level {i} (perplexity {perplexity:.1f} of num_embeddings {k}, code usage {usage:.3f})"
            for i, (k, perplexity, usage) in enumerate(levels)
            if perplexity < self.collapse_threshold * k or usage < self.collapse_threshold
        ]
        if collapsed:
            rank_zero_warn(
                f"Codes: the training codes in root (={self.root!r}) are collapsed: {', '.join(collapsed)}. Perplexity "
                f"/ num_embeddings and code usage must be at least collapse_threshold (={self.collapse_threshold}), or "
                "the prior samples noise. Train the model that made the codes with fewer codes or with revival of dead "
                "ones, or lower data.init_args.collapse_threshold."
            )
