"""A vector and a map with an autoregressive prior: the latents of the hierarchical PixelVAE."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager

import torch
from torch import Tensor, nn

from lit_vae.distributions import DiagonalGaussian
from lit_vae.factories import NetworkFactory
from lit_vae.hierarchies.base import Hierarchy, Pick, for_each_draw
from lit_vae.hierarchies.posteriors import gaussian
from lit_vae.images import Shape
from lit_vae.networks.autoregressive import AutoregressiveFactory, generate
from lit_vae.objectives import Level
from lit_vae.ranges import PositiveInt, checked


class VectorAndMap(Hierarchy):
    """``p(z_0) = N(0, I)``, ``p(z_1 | z_0) = prod_i p(z_1i | z_1,<i, f(z_0))``, ``q(z | x) = q(z_0 | x) q(z_1 | x)``.

    z_0 is a vector, z_1 a map whose positions i are visited in raster order, and the channels of a position are
    independent Gaussians. Gulrajani et al., "PixelVAE", 2017, sec. 3.2: as there, q(z_1 | x) does not see z_0.

    q factorises over positions, so each has a KL in closed form given the draws before it:
    ``KL(q(z_1 | x) || p(z_1 | z_0)) = E_q sum_i KL(q(z_1i | x) || p(z_1i | z_1,<i, z_0))``.

    Args:
        in_shape: set by the model.
        latent_shapes: set by the model, ``(d,)`` and ``(channels, height, width)``.
        out_shape: set by the model.
        cond_dim: set by the model; 0 for no condition.
        encoder: network of each ``q(z_l | x)``.
        decoder: network from z_1 to what ``p(x | z_1)`` reads.
        top_decoder: network from z_0 to ``f(z_0)``, one vector for each position of the map.
        network: autoregressive network over the map, conditioned on ``f(z_0)``.
        features: channels of ``f(z_0)``.

    Raises:
        ValueError: other latents, or a network that does not fit them.
    """

    @checked
    def __init__(
        self,
        in_shape: Shape,
        latent_shapes: Sequence[Shape],
        out_shape: Shape,
        cond_dim: int,
        encoder: NetworkFactory,
        decoder: NetworkFactory,
        top_decoder: NetworkFactory,
        network: AutoregressiveFactory,
        features: PositiveInt = 32,
    ) -> None:
        super().__init__()
        if [len(shape) for shape in latent_shapes] != [1, 3]:
            raise ValueError(
                f"VectorAndMap: latent_shapes (={[list(shape) for shape in latent_shapes]}) must be a vector and a map,"
                " [[d], [channels, height, width]]. Set model.init_args.latent_shapes."
            )
        self.latent_shapes = latent_shapes
        vector, (channels, height, width) = latent_shapes
        with _building("encoder", f"from the image to the map {height}x{width}"):
            self.encoders = nn.ModuleList(
                encoder(in_shape, (2 * shape[0], *shape[1:]), cond_dim) for shape in latent_shapes
            )
        with _building("top_decoder", f"from the vector to the map {height}x{width}, which it takes for an image"):
            self.top_decoder = top_decoder(vector, (features, height, width), cond_dim)
        with _building("network", f"over the map {height}x{width}"):
            self.network = network(channels, 2 * channels, (height, width), 0, features)
        with _building("decoder", f"from the map {height}x{width} to the image"):
            self.decoder = decoder(latent_shapes[1], out_shape, cond_dim)

    def encode(self, x: Tensor, cond: Tensor | None) -> list[Tensor]:
        """Parameters of ``q(z_0 | x)`` and ``q(z_1 | x)``."""
        return [encoder(x, cond) for encoder in self.encoders]

    def infer(
        self, encoded: list[Tensor], cond: Tensor | None, num_samples: int, pick: Pick
    ) -> tuple[list[Level], Tensor]:
        """See `Hierarchy`. All positions of the map at once, since their draws are known."""
        size, cond = (num_samples, len(encoded[0])), for_each_draw(cond, num_samples)
        q_vector, q_map = (
            gaussian(parameters.expand(num_samples, *parameters.shape), parameters.ndim - 1) for parameters in encoded
        )
        vector, z = pick(0, q_vector), pick(1, q_map)
        of_map = self.network(z.flatten(0, 1), None, self.top_decoder(vector.flatten(0, 1), cond)).unflatten(0, size)
        zeros = torch.zeros_like(vector)
        levels = [Level(q_vector, DiagonalGaussian(zeros, zeros, 1), vector), Level(q_map, gaussian(of_map, 3), z)]
        return levels, self.decoder(z.flatten(0, 1), cond).unflatten(0, size)

    def generate(self, cond: Tensor | None, u: Sequence[Tensor]) -> Tensor:
        """See `Hierarchy`. The map position by position, at the cost of one pass."""
        vector, noise = (part.flatten(0, 1) for part in u)
        cond = for_each_draw(cond, len(u[0]))
        of_each = iter(noise.flatten(2).unbind(2))

        def place(parameters: Tensor) -> Tensor:
            prior = gaussian(parameters, 1)
            return prior.mean + prior.std * next(of_each)

        z = generate(self.network, place, lambda value: value, len(vector), None, self.top_decoder(vector, cond))
        return self.decoder(z, cond).unflatten(0, u[0].shape[:2])


@contextmanager
def _building(setting: str, task: str) -> Iterator[None]:
    """Say for which setting a network was built that does not fit."""
    try:
        yield
    except ValueError as error:
        raise ValueError(f"VectorAndMap: model.init_args.hierarchy.init_args.{setting}, {task}: {error}") from error
