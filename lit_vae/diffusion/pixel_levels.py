"""The last term of a diffusion model of pixels."""

from typing import Literal

from torch import Tensor

from lit_vae.distributions import GaussianLevels
from lit_vae.images import Values
from lit_vae.likelihoods import Likelihood
from lit_vae.ranges import checked


class PixelLevels(Likelihood):
    """``p(x | z_0)``: a softmax over the levels of a pixel, by their distance from ``z_0 / alpha_0``.

    Kingma et al., "Variational Diffusion Models", 2021, eq. 9. A probability of the image; no network is involved.

    Args:
        num_levels: 2 for binary images, 256 for eight-bit images.
    """

    remedy = "Set num_levels: 2 for binary and 256 for eight-bit images, or change the data's values."

    @checked
    def __init__(self, num_levels: Literal[2, 256] = 256) -> None:
        super().__init__()
        self.num_levels = num_levels
        values: Values = "binary" if num_levels == 2 else "uint8"
        self.expects = (values,)
        self.bits_per_dim_values = "uint8"

    def num_parameters(self, channels: int) -> int:
        """A mean and a log-variance for each value."""
        return 2 * channels

    def forward(self, parameters: Tensor) -> GaussianLevels:
        """``(..., 2 C, H, W)``: ``z_0 / alpha_0`` and ``-lam_0``."""
        mean, log_var = parameters.chunk(2, -3)
        return GaussianLevels(mean, log_var, self.num_levels)
