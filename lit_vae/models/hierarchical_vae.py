"""VAEs with several levels of latents: ladder VAE, NVAE, VDVAE, Markovian hierarchies."""

import math
from collections.abc import Sequence

import torch
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Generator, Tensor

from lit_vae.distributions import DiagonalGaussian, Distribution, standard_normal
from lit_vae.hierarchies import HierarchyFactory
from lit_vae.images import Batch
from lit_vae.likelihoods import Likelihood
from lit_vae.models.abilities import HasLevels
from lit_vae.models.vae import VariationalAutoencoder
from lit_vae.noise import Draws
from lit_vae.objectives import Level, Objective, SpectralPenalty, Step
from lit_vae.ranges import NotNegativeInt, PositiveInt, checked


class HierarchicalVAE(VariationalAutoencoder, HasLevels):
    """Several levels of latents, from the top: z_0, z_1, ... The hierarchy says which depends on which.

    For everything that reads or writes a latent, the latent is one vector u of all levels, in units of the prior:
    ``u_l = (z_l - mean_p) / std_p`` with p(z_l) given the levels above. So p(u) is N(0, I), and a change of an upper
    level takes the lower ones with it.

    Args:
        image_shape: ``[channels, height, width]`` of the images.
        latent_shapes: of the levels, from the top: ``[channels, height, width]``, or ``[d]`` in a wiring of vectors.
        hierarchy: the wiring and its networks, `lit_vae.hierarchies.TopDown`, `MarkovianBottomUp` or `VectorAndMap`.
        likelihood: ``p(x|z)``.
        objective: the bound, such as `ELBO` (beta, free bits) or `IWAE`.
        optimizer: over all parameters.
        lr_scheduler: stepped with every optimizer step.
        num_classes: number of labels that all networks see; 0: labels are ignored.
        spectral: penalty of the convolutions, added to the training loss alone; null: none.
    """

    @checked
    def __init__(
        self,
        image_shape: list[PositiveInt],
        latent_shapes: list[list[PositiveInt]],
        hierarchy: HierarchyFactory,
        likelihood: Likelihood,
        objective: Objective,
        optimizer: OptimizerCallable,
        lr_scheduler: LRSchedulerCallable | None = None,
        num_classes: NotNegativeInt = 0,
        spectral: SpectralPenalty | None = None,
    ) -> None:
        if not latent_shapes or not all(len(shape) in (1, 3) for shape in latent_shapes):
            raise ValueError(
                f"{type(self).__name__}: latent_shapes (={latent_shapes}) must be one or more shapes, from the top,"
                " each [channels, height, width] or [d]. Set model.init_args.latent_shapes."
            )
        shapes = [tuple(shape) for shape in latent_shapes]
        self.num_classes = num_classes
        super().__init__(image_shape, shapes, likelihood, objective, optimizer, lr_scheduler)
        self.level_sizes = tuple(math.prod(shape) for shape in shapes)
        self.latent_shape = (sum(self.level_sizes),)
        out_shape = self.decoder_channels, *self.image_shape[1:]
        self.hierarchy = hierarchy(self.image_shape, shapes, out_shape, num_classes)
        self.spectral = spectral
        if spectral is not None:
            self.has_added_terms = True
            spectral.build(self.hierarchy)

    def encode(self, x: Tensor, y: Tensor) -> list[Tensor]:
        """What the posteriors read of the images."""
        return self.hierarchy.encode(x, self.condition(y))

    def path(
        self, encoded: list[Tensor], y: Tensor, num_samples: int, draws: Draws | None = None, first: int = 0
    ) -> tuple[list[Level], Distribution]:
        """A draw of each level from its posterior, with noise of its own; and ``p(x|z)``."""

        def draw(level: int, posterior: DiagonalGaussian) -> Tensor:
            return posterior.rsample(num_samples, draws and draws.level(level), first)

        levels, parameters = self.hierarchy.infer(encoded, self.condition(y), num_samples, draw)
        return levels, self.distribution(parameters)

    def embed(self, x: Tensor, y: Tensor) -> Tensor:
        """U ``(B, d)`` where each level is at its posterior mean."""
        levels, _ = self.hierarchy.infer(self.encode(x, y), self.condition(y), 1, lambda _, posterior: posterior.mean)
        return torch.cat([_standardised(level)[0].flatten(1) for level in levels], 1)

    def decode(self, z: Tensor, y: Tensor) -> Distribution:
        """``p(x | z)`` for u ``(B, d)``, or for L draws of each ``(L, B, d)``."""
        parts = z.reshape(-1, *z.shape[-2:]).split(self.level_sizes, 2)
        u = [part.unflatten(2, shape) for part, shape in zip(parts, self.hierarchy.latent_shapes, strict=True)]
        parameters = self.hierarchy.generate(self.condition(y), u)
        return self.distribution(parameters.reshape(*z.shape[:-1], *parameters.shape[2:]))

    def sample_latents(
        self,
        n: int,
        y: Tensor | None = None,
        temperature: float | Sequence[float] = 1.0,
        generator: Generator | None = None,
    ) -> Tensor:
        """``n`` draws of u ``(n, d)``; ``temperature`` may be one number for each level, from the top."""
        u = standard_normal((n, *self.latent_shape), next(self.parameters()), generator)
        scales = [temperature] * self.num_levels if isinstance(temperature, int | float) else temperature
        of_each = [part * scale for part, scale in zip(u.split(self.level_sizes, 1), scales, strict=True)]
        return torch.cat(of_each, 1)

    def add_terms(self, result: Step, batch: Batch, step: int | None) -> Step:
        """Add the penalty in training. An evaluation is without it, since it is no part of the bound."""
        if self.spectral is None or step is None:
            return result
        penalty = self.spectral(self.hierarchy)
        return result._replace(scalars={**result.scalars, "spectral": penalty.detach()}, other_loss=penalty)


def _standardised(level: Level) -> Tensor:
    """Z in units of its prior."""
    assert isinstance(level.prior, DiagonalGaussian)
    return (level.z - level.prior.mean) / level.prior.std
