"""Vector quantization: each vector becomes the nearest of K learned vectors."""

from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lit_vae.quantizers.base import Estimator, Quantized, StraightThrough, VectorwiseQuantizer
from lit_vae.quantizers.codebook import CodebookFactory, EMACodebook, nearest_codes, squared_error
from lit_vae.quantizers.entropy import USAGE, EntropyPenalty, diversity
from lit_vae.quantizers.revival import KMeans, Revival
from lit_vae.ranges import NotNegativeFloat, PositiveInt, checked


class VectorQuantizer(VectorwiseQuantizer):
    """Each vector ``z_e`` becomes the code ``e`` nearest to it.

    van den Oord et al., "Neural Discrete Representation Learning", 2017, eq. 3, without the reconstruction: the loss is

        commitment_cost ||z_e - sg(e)||^2  [+ ||sg(z_e) - e||^2]  [+ weight entropy],

    named ``commitment``, ``codebook`` (with a `GradientCodebook` only) and ``entropy`` in ``terms``.

    W ranks train the codebook as one process with the W batches concatenated. Random choices depend only on a seed and
    on the number of steps, which checkpoints save.

    Args:
        num_embeddings: number K of codes.
        embedding_dim: channels d.
        commitment_cost: beta, weight of the commitment.
        normalize: project ``z_e`` and the codes to the unit sphere, so that the nearest code has the largest cosine
            (Yu et al., "Vector-quantized Image Modeling with Improved VQGAN", 2022, sec. 3.2).
        codebook: how the codes are trained.
        estimator: the gradient from ``z_q`` to ``z_e``.
        start: initial codes from the first batches; by default random normal vectors.
        revival: replacement of unused codes; none by default.
        entropy: penalty for uncertain or uneven choices; none by default.
    """

    step: Tensor
    revivals: Tensor

    @checked
    def __init__(
        self,
        num_embeddings: PositiveInt,
        embedding_dim: PositiveInt,
        commitment_cost: NotNegativeFloat = 0.25,
        normalize: bool = False,
        codebook: CodebookFactory = EMACodebook,
        estimator: Estimator = StraightThrough(),  # noqa: B008, it has no state
        start: KMeans | None = None,
        revival: Revival | None = None,
        entropy: EntropyPenalty | None = None,
    ) -> None:
        super().__init__(num_embeddings, embedding_dim)
        self.commitment_cost, self.normalize = commitment_cost, normalize
        self.codebook = codebook(num_embeddings, embedding_dim)
        self.estimator, self.start, self.revival, self.entropy = estimator, start, revival, entropy
        self.register_buffer("step", torch.zeros((), dtype=torch.int64))
        self.register_buffer("revivals", torch.zeros((), dtype=torch.int64))
        self._steps = -1  # copy of `step`, since reading a buffer waits for the GPU. -1: not read yet

    @property
    def codes(self) -> Tensor:
        """The vectors that the indices stand for, ``(K, d)``."""
        weight = self.codebook.weight
        return F.normalize(weight, dim=1) if self.normalize else weight

    def quantize(self, z: Tensor) -> Quantized:
        """``z (B, P, d)``; see `VectorwiseQuantizer`."""
        if self.normalize:
            z = F.normalize(z, dim=-1)
        rows = z.detach().flatten(0, 1)
        if self.training and (self.start is not None or self.revival is not None):
            self._maintain_codebook(rows)
        codes = self.codes.to(z.dtype)
        center = self.codebook.center(codes)
        indices = nearest_codes(rows, codes, center)
        e = F.embedding(indices, codes).view_as(z)

        commitment = squared_error(z, e.detach())
        codebook_terms = self.codebook.terms(z, e)
        terms = {"commitment": commitment} | codebook_terms
        of_batch: dict[str, Tensor] = {}
        loss = self.commitment_cost * commitment + sum(codebook_terms.values())
        if self.entropy is not None:
            # a copy, since the codebook may change before the backward pass reads the codes again
            choice = self.entropy(z, codes.clone(), center)
            terms["entropy"] = choice.penalty() if self.training else choice.entropy
            loss = loss + self.entropy.weight * terms["entropy"]
            of_batch = {} if self.training else {USAGE: choice.usage[None]}

        sums = self.codebook.sums_of(rows, indices) if self.training else ()
        return Quantized(self.estimator(z, e), indices.view(z.shape[:2]), loss, terms, of_batch, sums)

    def update(self, *sums: Tensor) -> None:
        """See `Quantizer`; also counts the step."""
        self.codebook.update(*sums)
        self.step += 1

    @property
    def batch_terms(self) -> dict[str, tuple[int, ...]]:
        """With an entropy penalty, the use of each code."""
        return {} if self.entropy is None else {USAGE: (1, self.num_embeddings)}

    def batch_loss(self, means: dict[str, Tensor]) -> Tensor | float:
        """Minus the weighted entropy of the mean choice."""
        return 0.0 if self.entropy is None else -self.entropy.weight * diversity(means[USAGE])

    @torch.compiler.disable  # the number of dead codes depends on data, so a compiled step breaks here anyway
    @torch.no_grad()
    def _maintain_codebook(self, rows: Tensor) -> None:
        """Initialise or revive codes before they are chosen, from this rank's vectors ``rows (N, d)``."""
        self._steps = self._steps + 1 if self._steps >= 0 else int(self.step)
        if self.start is not None and self._steps < self.start.batches:
            every = torch.arange(self.num_embeddings, device=rows.device)
            self.codebook.replace(every, self.start(rows, self.num_embeddings, self._steps, self.normalize))
        elif self.revival is not None and self._steps % self.revival.every_n_steps == 0:
            dead, vectors = self.revival(rows, self.codebook.counts, self._steps)
            self.codebook.replace(dead, vectors)
            self.revivals += len(dead)

    def vectors(self, indices: Tensor) -> Tensor:
        """``(...) -> (..., d)``."""
        return F.embedding(indices, self.codes)

    def scalars(self) -> dict[str, float]:
        """``revivals``: number of codes revived so far, if there is a `Revival`."""
        return {} if self.revival is None else {"revivals": float(self.revivals)}

    def _load_from_state_dict(self, *args: Any, **kwargs: Any) -> None:
        super()._load_from_state_dict(*args, **kwargs)
        self._steps = -1
