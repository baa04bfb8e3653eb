"""Normalizing flows: invertible maps of a latent with a known log-determinant, for `FlowPrior` and `FlowPosterior`.

The layers are those of zuko (https://github.com/probabilists/zuko). Every flow starts as the identity.
"""

import math
from collections.abc import Callable
from functools import partial
from typing import Any

from torch import Tensor, nn
from torch.distributions import Distribution

from lit_vae.distributions.flowed import InvertibleMap
from lit_vae.images import Shape
from lit_vae.ranges import AtLeastTwo, PositiveFloat, PositiveInt, SmallCount, checked

MOST_VALUES = 1024
"""A flow has at least this number squared of weights in each transform, and no notion of a position."""


class Flow(nn.Module):
    """``z -> f(z | cond)`` of flattened latents: ``(..., d)`` with d the number of values of ``in_shape``.

    Value i of the output is an increasing function of value i of the input; its parameters depend on ``cond`` and on
    the values before i, by a masked network (Germain et al., "MADE", 2015). So the Jacobian is triangular. The order of
    the values is reversed after each transform. The inverse takes one pass for each value, with ``coupling`` two.

    Args:
        in_shape: shape of the latent, set by the prior or the posterior.
        cond_dim: length of the condition, set by the prior or the posterior; 0: none.
        transforms: number of such maps in a row.
        hidden: widths of the hidden layers of each network; ``[]``: parameters are affine in the values before.
        coupling: the second half of the values depends on the first half only, and the first on none.
    """

    @checked
    def __init__(
        self,
        in_shape: Shape,
        cond_dim: int,
        transforms: SmallCount,
        hidden: list[PositiveInt],
        coupling: bool,
        **univariate: Any,
    ) -> None:
        super().__init__()
        values, name = math.prod(in_shape), type(self).__name__
        if values > MOST_VALUES:
            raise ValueError(
                f"{name}: the latent {list(in_shape)} has {values} values, and a flow connects each with every other:"
                f" at most {MOST_VALUES}. Set a smaller model.init_args.prior.init_args.shape, or take no flow."
            )
        if hidden and min(hidden) < values and not coupling:
            raise ValueError(
                f"{name}: hidden (={hidden}) must be at least {values} wide, as many as the latent {list(in_shape)} has"
                " values: a narrower layer loses some of their dependences. Set wider layers in flow.init_args.hidden,"
                " or flow.init_args.coupling: true."
            )
        passes = 2 if coupling else values
        zuko = _zuko()
        self.map = zuko.flows.MAF(
            values, cond_dim, transforms, passes=passes, hidden_features=hidden, activation=nn.SiLU, **univariate
        ).transform
        for transform in self.map.transforms:
            last = getattr(transform, "hyper", [transform])[-1]  # a single value without condition has no network
            for parameter in last.parameters():
                nn.init.zeros_(parameter)

    def forward(self, cond: Tensor | None = None) -> InvertibleMap:
        """The map for conditions ``(..., cond_dim)``."""
        return self.map(cond)


FlowFactory = Callable[[Shape, int], Flow]
"""``(in_shape, cond_dim) -> flow``: a class of this module with its other arguments filled in."""


class AffineFlow(Flow):
    """`Flow` of maps ``z_i -> exp(a_i) z_i + b_i`` with ``|a_i| < log 1000``.

    As a posterior an inverse autoregressive flow (Kingma et al., "Improved Variational Inference with Inverse
    Autoregressive Flow", 2016), as a prior a masked autoregressive flow (Papamakarios et al. 2017); with ``coupling``
    RealNVP (Dinh et al. 2017). For the arguments see `Flow`.
    """

    @checked
    def __init__(
        self,
        in_shape: Shape,
        cond_dim: int = 0,
        transforms: SmallCount = 4,
        hidden: list[PositiveInt] = [128, 128],  # noqa: B006  (never mutated; a YAML list has no tuples)
        coupling: bool = False,
    ) -> None:
        super().__init__(in_shape, cond_dim, transforms, hidden, coupling)


class SplineFlow(Flow):
    """`Flow` of monotonic rational-quadratic splines: Durkan et al., "Neural Spline Flows", 2019.

    Args:
        in_shape: see `Flow`.
        cond_dim: see `Flow`.
        transforms: see `Flow`.
        hidden: see `Flow`.
        coupling: see `Flow`.
        bins: number of pieces of each spline.
        bound: the splines are on ``[-bound, bound]``; a value outside keeps its size.
    """

    @checked
    def __init__(
        self,
        in_shape: Shape,
        cond_dim: int = 0,
        transforms: SmallCount = 4,
        hidden: list[PositiveInt] = [128, 128],  # noqa: B006  (never mutated; a YAML list has no tuples)
        coupling: bool = False,
        bins: AtLeastTwo = 8,
        bound: PositiveFloat = 5.0,
    ) -> None:
        univariate = partial(_zuko().transforms.MonotonicRQSTransform, bound=bound)
        spline = {"univariate": univariate, "shapes": [(bins,), (bins,), (bins - 1,)]}
        super().__init__(in_shape, cond_dim, transforms, hidden, coupling, **spline)


def _zuko() -> Any:
    """The package, imported when the first flow is built.

    Its import turns off the validation of arguments for all of torch.distributions; this turns it on again.
    """
    validates = Distribution._validate_args
    import zuko

    Distribution.set_default_validate_args(validates)
    return zuko
