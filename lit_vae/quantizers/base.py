"""Base classes of quantizers, which map the encoder's vectors to entries of a finite codebook, and their gradients."""

from abc import ABC, abstractmethod
from collections.abc import Iterable, Sequence
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lit_vae.ranges import PositiveInt, checked
from lit_vae.ranks import sum_over_ranks

MOST_EMBEDDINGS = 2**24


class Quantized(NamedTuple):
    """A quantized batch.

    Attributes:
        z_q: ``(B, d, *grid)``, the codes' vectors, with the estimator's gradient to ``z_e``.
        indices: ``(B, *grid)`` int64, the codes.
        loss: ``(B,)``, weighted terms, summed over positions and channels. An evaluation leaves out the part that
            depends on all images together (`Quantizer.batch_loss`).
        terms: ``(B,)`` each, the unweighted terms.
        of_batch: in an evaluation, sums over the batch's images, ``(1, *shape)`` for each of `Quantizer.batch_terms`.
        sums: in training, this rank's sums over the batch from which `update_codebooks` trains a codebook.
    """

    z_q: Tensor
    indices: Tensor
    loss: Tensor
    terms: dict[str, Tensor]
    of_batch: dict[str, Tensor] = {}  # noqa: RUF012  (never mutated)
    sums: tuple[Tensor, ...] = ()


class Quantizer(nn.Module, ABC):
    """Maps vectors to codes and back.

    Attributes:
        num_embeddings: number K of codes.
        embedding_dim: number d of input and output channels.
    """

    @checked
    def __init__(self, num_embeddings: PositiveInt, embedding_dim: PositiveInt) -> None:
        super().__init__()
        if num_embeddings > MOST_EMBEDDINGS:
            raise ValueError(
                f"{type(self).__name__}: num_embeddings (={num_embeddings}) must be at most {MOST_EMBEDDINGS}, because"
                " the use of each is counted. Take fewer codes, levels or dimensions."
            )
        self.num_embeddings, self.embedding_dim = num_embeddings, embedding_dim

    @abstractmethod
    def forward(self, z_e: Tensor) -> Quantized:
        """Quantize ``z_e (B, d, *grid)``. A training step ends with `update_codebooks`."""

    def update(self, *sums: Tensor) -> None:
        """Train the codebook on a batch, from the `Quantized.sums` of all ranks; by default there is nothing to do."""

    @abstractmethod
    def lookup(self, indices: Tensor) -> Tensor:
        """Vectors of codes: ``(B, *grid)`` int64 ``-> (B, d, *grid)``."""

    @property
    def batch_terms(self) -> dict[str, tuple[int, ...]]:
        """Shapes, by name, of the means over the whole split that `batch_loss` needs in an evaluation."""
        return {}

    def batch_loss(self, means: dict[str, Tensor]) -> Tensor | float:
        """Part of the loss that depends on all images of a split together, in nats, from the means of `batch_terms`."""
        return 0.0

    def scalars(self) -> dict[str, float]:
        """Totals for the log, by name."""
        return {}

    def extra_repr(self) -> str:
        """The sizes, for ``repr``."""
        return f"num_embeddings={self.num_embeddings}, embedding_dim={self.embedding_dim}"

    def _check_channels(self, z_e: Tensor) -> None:
        if z_e.ndim < 2 or z_e.shape[1] != self.embedding_dim:
            raise ValueError(
                f"{type(self).__name__}: z_e (={tuple(z_e.shape)}) must be (B, embedding_dim, *grid) with embedding_dim"
                f" (={self.embedding_dim}). Let the encoder give that many channels, or wrap the quantizer in"
                " lit_vae.quantizers.Projected."
            )


def update_codebooks(quantizers: Iterable[Quantizer], quantized: Sequence[Quantized]) -> None:
    """Train all codebooks on a batch of all ranks with one all-reduce, given each quantizer's results."""
    sum_over_ranks(*(tensor for level in quantized for tensor in level.sums))
    for quantizer, level in zip(quantizers, quantized, strict=True):
        if level.sums:
            quantizer.update(*level.sums)


class VectorwiseQuantizer(Quantizer):
    """A quantizer that treats the vectors at all positions alike.

    It always computes in float32 (or float64 for float64 inputs): distances in bfloat16 would give other codes.
    """

    @abstractmethod
    def quantize(self, z: Tensor) -> Quantized:
        """`forward` with channels last: ``z (B, P, d)`` gives ``z_q (B, P, d)`` and ``indices (B, P)``."""

    @abstractmethod
    def vectors(self, indices: Tensor) -> Tensor:
        """`lookup` with channels last: ``(...) -> (..., d)``."""

    def forward(self, z_e: Tensor) -> Quantized:
        """See `Quantizer`. ``z_q`` has the dtype of ``z_e``, all else is float32 or float64."""
        self._check_channels(z_e)
        shape = z_e.shape[:1] + z_e.shape[2:]
        with torch.autocast(z_e.device.type, enabled=False):
            z = z_e.to(torch.promote_types(z_e.dtype, torch.float32)).reshape(len(z_e), self.embedding_dim, -1)
            quantized = self.quantize(z.mT.contiguous())
        z_q = quantized.z_q.to(z_e.dtype).view(*shape, self.embedding_dim).movedim(-1, 1)
        return quantized._replace(z_q=z_q, indices=quantized.indices.view(shape))

    def lookup(self, indices: Tensor) -> Tensor:
        """See `Quantizer`."""
        return self.vectors(indices).movedim(-1, 1)


class _Replace(torch.autograd.Function):
    """``value`` with the gradient of ``path``: ``path + sg(value - path)`` without the rounding error."""

    @staticmethod
    def forward(ctx: Any, path: Tensor, value: Tensor) -> Tensor:
        return value.clone()

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor, None]:
        return grads[0], None


class Estimator(ABC):
    """Replaces the gradient of ``z_q`` with respect to ``z_e``. The value of ``z_q`` does not change."""

    def __call__(self, z_e: Tensor, z_q: Tensor) -> Tensor:
        """The value of ``z_q`` with a gradient to ``z_e`` only: ``z_e, z_q (..., d) -> (..., d)``."""
        z_q = z_q.detach()
        replaced: Tensor = _Replace.apply(self.path(z_e, z_q), z_q)
        return replaced

    @abstractmethod
    def path(self, z_e: Tensor, z_q: Tensor) -> Tensor:
        """The function ``(..., d)`` whose gradient is used; its value is ignored."""


class StraightThrough(Estimator):
    """``z_q = z_e + sg(z_q - z_e)``: the gradient is copied (van den Oord et al. 2017, sec. 3.2)."""

    def path(self, z_e: Tensor, z_q: Tensor) -> Tensor:
        """``z_e`` itself."""
        return z_e


class RotationTrick(Estimator):
    """``z_q = sg(||z_q|| / ||z_e|| R) z_e``, R the rotation that turns ``z_e`` into the direction of ``z_q``.

    The gradient is rotated and scaled with the code, which keeps the angle between gradient and vector. Fifty et al.,
    "Restructuring Vector Quantization with the Rotation Trick", 2024, sec. 4: with unit vectors a of ``z_e`` and b of
    ``z_q``, and ``r = (a + b) / ||a + b||``, ``R = I - 2 r r^T + 2 b a^T``. If ``z_e`` is shorter than 1e-6, it has no
    direction and the gradient is copied.
    """

    def path(self, z_e: Tensor, z_q: Tensor) -> Tensor:
        """``||z_q|| / ||z_e|| (z_e - 2 r (r.z_e) + 2 b (a.z_e))``."""
        length = z_e.detach().norm(dim=-1, keepdim=True)
        defined = length > 1e-6
        a = z_e.detach() / length.clamp_min(1e-6)
        b = F.normalize(z_q, dim=-1)
        r = F.normalize(a + b, dim=-1)
        rotated = z_e - 2 * r * (r * z_e).sum(-1, keepdim=True) + 2 * b * (a * z_e).sum(-1, keepdim=True)
        scale = z_q.norm(dim=-1, keepdim=True) / length.clamp_min(1e-6)
        return torch.where(defined, scale * rotated, z_e)
