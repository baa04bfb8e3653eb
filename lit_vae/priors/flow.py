"""Normalizing flows as priors."""

from torch import Tensor
from torch.nn.functional import one_hot

from lit_vae.distributions import FlowedGaussian
from lit_vae.flows import FlowFactory
from lit_vae.priors.base import Prior
from lit_vae.priors.gaussian import StandardNormal
from lit_vae.ranges import NotNegativeInt, PositiveInt, checked


class FlowPrior(Prior):
    """``p(z) = N(f(z); 0, I) |det df/dz|`` with a learned flow f, for each class or for all. Initially N(0, I).

    The density, which training needs, is a forward pass of the flow; draws invert it.

    Args:
        shape: of the latent.
        flow: a class of `lit_vae.flows`.
        num_classes: number of labels that the flow depends on; 0: one density for all.
    """

    @checked
    def __init__(self, shape: list[PositiveInt], flow: FlowFactory, num_classes: NotNegativeInt = 0) -> None:
        super().__init__(shape)
        self.num_classes = num_classes
        self.base = StandardNormal(shape)
        self.flow = flow(self.shape, num_classes)

    def forward(self, y: Tensor) -> FlowedGaussian:
        """``p(z | y)`` of shape ``(B, *shape)``."""
        cond = one_hot(y, self.num_classes).to(self.base.zero) if self.num_classes else None
        return FlowedGaussian(self.base(y), self.flow(cond).inv)
