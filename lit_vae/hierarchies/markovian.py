"""A chain of latents: the Markovian hierarchical VAE, whose limit with many levels and a fixed q is diffusion."""

from collections.abc import Sequence

from torch import Tensor, nn

from lit_vae.distributions import DiagonalGaussian
from lit_vae.factories import NetworkFactory
from lit_vae.hierarchies.base import Hierarchy, Pick, at, for_each_draw
from lit_vae.hierarchies.posteriors import Absolute, LevelPosterior, gaussian
from lit_vae.images import Shape
from lit_vae.objectives import Level


class MarkovianBottomUp(Hierarchy):
    """``q(z | x) = q(z_1 | x) prod q(z_l | z_(l-1))``, ``p(x, z) = p(z_T) prod p(z_(l-1) | z_l) p(x | z_1)``.

    z_1 is the last of ``latent_shapes``, z_T the first, with the prior N(0, I). The posterior is drawn from the bottom
    to the top. So only the KL of z_T has a closed form; the rates of the others are log-ratios at the draws.

    Args:
        in_shape: set by the model.
        latent_shapes: set by the model; vectors ``(d,)`` or maps ``(c, h, w)``.
        out_shape: set by the model.
        cond_dim: set by the model; 0 for no condition.
        encoder: network of each ``q(z_l | z_(l-1))``.
        decoder: network of each ``p(z_(l-1) | z_l)``.
        posterior: `Absolute`, since no prior is known when z_l is drawn.

    Raises:
        ValueError: a posterior that depends on the prior.
    """

    def __init__(
        self,
        in_shape: Shape,
        latent_shapes: Sequence[Shape],
        out_shape: Shape,
        cond_dim: int,
        encoder: NetworkFactory,
        decoder: NetworkFactory,
        posterior: LevelPosterior = Absolute(),  # noqa: B008  (it has no state)
    ) -> None:
        super().__init__()
        if posterior.needs_prior:
            raise ValueError(
                f"MarkovianBottomUp: posterior (={type(posterior).__name__}) depends on p(z_l | z_(l+1)), but this"
                " wiring draws z_l before z_(l+1). Take lit_vae.hierarchies.Absolute, or the wiring"
                " lit_vae.hierarchies.TopDown."
            )
        self.latent_shapes = latent_shapes
        below = [*latent_shapes[1:], in_shape]  # of each level
        parameters = [(2 * shape[0], *shape[1:]) for shape in latent_shapes]
        self.encoders = nn.ModuleList(
            encoder(shape, own, cond_dim) for shape, own in zip(below, parameters, strict=True)
        )
        self.decoders = nn.ModuleList(
            decoder(shape, out, cond_dim)
            for shape, out in zip(latent_shapes, [*parameters[1:], out_shape], strict=True)
        )

    def encode(self, x: Tensor, cond: Tensor | None) -> list[Tensor]:
        """Parameters of ``q(z_1 | x)``."""
        return [self.encoders[-1](x, cond)]

    def infer(
        self, encoded: list[Tensor], cond: Tensor | None, num_samples: int, pick: Pick
    ) -> tuple[list[Level], Tensor]:
        """See `Hierarchy`."""
        (parameters,) = encoded
        parameters, size = parameters.expand(num_samples, *parameters.shape), (num_samples, len(parameters))
        cond = for_each_draw(cond, num_samples)
        drawn: list[tuple[DiagonalGaussian, Tensor]] = []
        for level in reversed(range(len(self.latent_shapes))):
            q = gaussian(parameters, len(self.latent_shapes[level]))
            drawn.append((q, pick(level, q)))
            if level:
                parameters = self.encoders[level - 1](drawn[-1][1].flatten(0, 1), cond).unflatten(0, size)
        levels: list[Level] = []

        def given(level: int, prior: DiagonalGaussian) -> Tensor:
            q, z = drawn.pop()
            levels.append(Level(q, prior, z, closed_form=level == 0))
            return z

        return levels, self._descend(cond, size, given)

    def generate(self, cond: Tensor | None, u: Sequence[Tensor]) -> Tensor:
        """See `Hierarchy`."""
        num_samples, batch = u[0].shape[:2]
        return self._descend(for_each_draw(cond, num_samples), (num_samples, batch), at(u))

    def _descend(self, cond: Tensor | None, size: tuple[int, int], pick: Pick) -> Tensor:
        """From z_T to the likelihood's parameters; ``cond`` is repeated for each draw."""
        top = self.latent_shapes[0]
        parameters = next(self.parameters()).new_zeros(()).expand(*size, 2 * top[0], *top[1:])
        for level, (shape, decoder) in enumerate(zip(self.latent_shapes, self.decoders, strict=True)):
            z = pick(level, gaussian(parameters, len(shape)))
            parameters = decoder(z.flatten(0, 1), cond).unflatten(0, size)
        return parameters
