"""Base of the families whose latents are codes: maps of indices on one or several grids, the coarsest first."""

import math
from abc import abstractmethod
from collections.abc import Sequence, Sized

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Generator, Tensor, nn

from lit_vae.codes import code_statistics
from lit_vae.distributions import Distribution
from lit_vae.images import Batch
from lit_vae.likelihoods import Likelihood
from lit_vae.models.abilities import HasCodes
from lit_vae.models.base import NetworkFactory
from lit_vae.models.with_realism import WithRealism
from lit_vae.networks.vqvae import join
from lit_vae.noise import Draws
from lit_vae.objectives import Step
from lit_vae.quantizers import Quantized, Quantizer, update_codebooks
from lit_vae.ranks import sum_over_ranks
from lit_vae.realism import Realism


class DiscreteAutoencoder(WithRealism, HasCodes):
    """A model that maps images to codes, one map of indices ``(B, h_l, w_l)`` int64 per level, and back.

    Its posterior puts all mass on one code per position and its prior is uniform, so the rate is a constant:
    ``sum_l h_l w_l log K_l`` nats. A `lit_vae.models.CodePrior` fitted to the codes afterwards gives a lower rate, and
    samples. The latent tensor of an image, ``(sum_l d_l, h, w)``, concatenates the codes' vectors of all levels,
    repeated to the finest grid.
    """

    term_names = ("loss", "elbo", "rate", "distortion", "quantization")
    sampling_caveat = "it has no prior: its codes are drawn uniformly. Fit lit_vae.models.CodePrior to them."

    def step(self, batch: Batch, step: int | None, draws: Draws | None) -> Step:
        """Van den Oord et al. 2017, eq. 3, in nats per image: ``-log p(x | e)`` plus the quantizers' losses."""
        x, y = batch
        quantized = self.quantize(x)  # z_e to codes e
        decoded = self.decode(join([level.z_q for level in quantized]), y)  # p(x | e)
        distortion = -decoded.log_prob(x)
        quantization = torch.stack([level.loss for level in quantized]).sum(0)
        rate = torch.full_like(distortion, self.code_length)
        terms = {
            "loss": distortion + quantization,
            "elbo": -(distortion + rate),
            "rate": rate,
            "distortion": distortion,
            "quantization": quantization,
        }
        if step is None:
            of_batch = {_level_name(k, i, quantized): v for i, q in enumerate(quantized) for k, v in q.of_batch.items()}
            return Step(terms, decoded, of_batch=of_batch)
        update_codebooks(self.quantizers, quantized)  # type: ignore[arg-type]
        raw = {_level_name(name, i, quantized): term for i, q in enumerate(quantized) for name, term in q.terms.items()}
        return Step({**terms, **raw}, decoded, self._scalars(quantized))

    def __init__(
        self,
        image_shape: list[int],
        grids: Sequence[Sequence[int]],
        quantizers: Sequence[Quantizer],
        decoder: NetworkFactory,
        likelihood: Likelihood,
        optimizer: OptimizerCallable,
        lr_scheduler: LRSchedulerCallable | None,
        realism: Realism | None = None,
    ) -> None:
        if len(grids) != len(quantizers) or any(len(grid) != 2 or min(grid) < 1 for grid in grids):
            raise ValueError(
                f"{type(self).__name__}: grids (={[list(grid) for grid in grids]}) must be one [height, width] for each"
                f" of the quantizers (={len(quantizers)} given). Set model.init_args.grids, or grid."
            )
        self.batch_terms = {
            _level_name(name, i, quantizers): shape
            for i, quantizer in enumerate(quantizers)
            for name, shape in quantizer.batch_terms.items()
        }
        latent_shape = (sum(quantizer.embedding_dim for quantizer in quantizers), *grids[-1])
        super().__init__(image_shape, latent_shape, likelihood, optimizer, lr_scheduler, realism)
        self.grids = tuple((height, width) for height, width in grids)
        self.num_embeddings = tuple(quantizer.num_embeddings for quantizer in quantizers)
        self.code_length = sum(math.prod(g) * math.log(k) for g, k in zip(self.grids, self.num_embeddings, strict=True))
        self.quantizers = nn.ModuleList(quantizers)
        self.decoder = decoder(latent_shape, (self.decoder_channels, *self.image_shape[1:]), 0)

    @abstractmethod
    def quantize(self, x: Tensor) -> list[Quantized]:
        """Results of the quantizers for images, the coarsest level first."""

    def encode_codes(self, x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        """Codes of images, ``(B, h_l, w_l)`` int64 each, the coarsest first."""
        return tuple(level.indices for level in self.quantize(x))

    def lookup(self, codes: Sequence[Tensor]) -> Tensor:
        """The decoder's input for given codes: ``-> (B, *latent_shape)``."""
        return join([quantizer.lookup(c) for quantizer, c in zip(self.quantizers, codes, strict=True)])  # type: ignore[operator]

    def decode_codes(self, codes: Sequence[Tensor], y: Tensor) -> Distribution:
        """``p(x | codes)``."""
        return self.decode(self.lookup(codes), y)

    def embed(self, x: Tensor, y: Tensor) -> Tensor:
        """The codes' vectors, ``(B, *latent_shape)``."""
        return join([level.z_q for level in self.quantize(x)])

    def batch_losses(self, means: dict[str, Tensor]) -> dict[str, Tensor | float]:
        """The quantizers' losses over the whole split, such as the entropy of code usage."""
        loss: Tensor | float = 0.0
        for i, quantizer in enumerate(self.quantizers):
            own = {name: means[_level_name(name, i, self.quantizers)] for name in quantizer.batch_terms}  # type: ignore[union-attr]
            loss = loss + quantizer.batch_loss(own)  # type: ignore[operator]
        return {"loss": loss, "quantization": loss}

    def _scalars(self, quantized: Sequence[Quantized]) -> dict[str, Tensor | float]:
        """On logging steps: perplexity of the codes of all ranks, and the quantizers' numbers."""
        if not self.logs_this_step:
            return {}
        levels = zip(quantized, self.num_embeddings, strict=True)
        counts = [torch.bincount(level.indices.flatten(), minlength=k) for level, k in levels]
        sum_over_ranks(*counts)
        found: dict[str, Tensor | float] = {}
        for i, quantizer in enumerate(self.quantizers):
            found[_level_name("perplexity", i, quantized)] = float(code_statistics(counts[i]).perplexity)
            found |= {_level_name(name, i, quantized): v for name, v in quantizer.scalars().items()}  # type: ignore[operator]
        return found

    def sample_latents(
        self, n: int, y: Tensor | None = None, temperature: float = 1.0, generator: Generator | None = None
    ) -> Tensor:
        """Vectors of uniformly drawn codes. Codes of images are not uniform; ``temperature`` is ignored."""
        device = self.device if generator is None else generator.device
        codes = [
            torch.randint(k, (n, *grid), generator=generator, device=device).to(self.device)
            for k, grid in zip(self.num_embeddings, self.grids, strict=True)
        ]
        return self.lookup(codes)


def _level_name(name: str, level: int, levels: Sized) -> str:
    return name if len(levels) == 1 else f"{name}_{level}"
