"""Likelihoods ``p(x | z)``: from the decoder's output to a distribution over images.

A likelihood states the number of output channels that it needs (`num_parameters`), holds its own parameters such as a
variance, and knows for which images its values are probabilities. Every family takes any of them, by ``class_path``.
"""

import math
from abc import ABC, abstractmethod
from typing import Annotated

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lit_vae import distributions as D
from lit_vae.images import ImageSpec, Values
from lit_vae.ranges import SmallCount, Within, checked

Variance = Annotated[float, Within(ge=1e-13, le=4e8)]
Deviation = Annotated[float, Within(ge=1e-6, le=2e4)]
"""Of values in [-1, 1], within `lit_vae.distributions.LOG_SCALES`."""

LogScale = Annotated[float, Within(ge=-30.0, le=0.0)]

_LEVELS_REMEDY = "It gives a mass to each of the 256 levels: turn dequantize and binarization off in data.init_args."


class Likelihood(nn.Module, ABC):
    """Maps decoder outputs ``(..., num_parameters(C), H, W)`` to a `Distribution` over images ``(..., C, H, W)``."""

    expects: tuple[Values, ...] = ("uint8", "dequantized", "binary")
    """Values of images that it can be trained on."""

    bits_per_dim_values: Values | None = None
    """Values for which its ``log_prob`` bounds the log-probability of eight-bit images, if any."""

    remedy: str = "Change the data's values or take another likelihood."

    @abstractmethod
    def num_parameters(self, channels: int) -> int:
        """Number of decoder output channels for images with ``channels`` channels."""

    @abstractmethod
    def forward(self, parameters: Tensor) -> D.Distribution:
        """``(..., num_parameters(C), H, W)`` to a distribution over ``(..., C, H, W)``."""

    @property
    def temperature(self) -> Tensor:
        """The divisor t of the squared or absolute error of an image: ``-log p = error / t + normaliser``.

        1 for likelihoods without this form. Terms with a weight relative to the error are divided by it, too.
        """
        return torch.ones(())

    def problems(self, spec: ImageSpec) -> list[str]:
        """Reasons why it does not fit the data; empty if it does."""
        if spec.values in self.expects:
            return []
        return [
            f"{type(self).__name__}: model.likelihood is for {' or '.join(self.expects)} values,"
            f" the data are {spec.values!r}. {self.remedy}"
        ]

    def is_probability(self, spec: ImageSpec) -> bool:
        """Whether ``log_prob`` is a log-probability or log-density of these data."""
        return True

    def bits_per_dim(self, nats: Tensor, spec: ImageSpec) -> Tensor | None:
        """Bits per dimension of the eight-bit image from nats per image; None if the nats do not bound them.

        A discrete likelihood: ``nats / (D ln 2)``. A density of dequantised values on [-1, 1): ``+ log2 128``, since a
        level is 1/128 wide (Theis et al. 2016, sec. 3.1). A density of values that were *not* dequantised can be
        arbitrarily high, so it has no bits per dimension.
        """
        if spec.values != self.bits_per_dim_values:
            return None
        offset = math.log2(128.0) if spec.values == "dequantized" else 0.0
        return nats / (math.prod(spec.shape) * math.log(2.0)) + offset


class Bernoulli(Likelihood):
    """Independent Bernoulli variables, for binary images.

    Args:
        soft_targets: accept grey values in [0, 1] as probabilities. The distortion is then a cross-entropy instead of
            a likelihood of the images, so no log-likelihood and no bits per dimension are reported.
    """

    expects: tuple[Values, ...] = ("binary",)
    remedy = (
        "Binarise the data (e.g. data.init_args.binarization: dynamic), set"
        " model.init_args.likelihood.init_args.soft_targets: true (a cross-entropy, no likelihood), or take a Gaussian."
    )

    def __init__(self, soft_targets: bool = False) -> None:
        super().__init__()
        self.soft_targets = soft_targets
        if soft_targets:
            self.expects = ("binary", "uint8", "dequantized")

    def is_probability(self, spec: ImageSpec) -> bool:
        """Only for binary images."""
        return spec.values == "binary"

    def num_parameters(self, channels: int) -> int:
        """One logit for each value."""
        return channels

    def forward(self, parameters: Tensor) -> D.Bernoulli:
        """``(..., C, H, W)`` logits."""
        return D.Bernoulli(parameters)


class _OneVariance(Likelihood):
    """``N(x_hat, v I)``, with one variance ``v`` for all values."""

    bits_per_dim_values = "dequantized"
    log_var: Tensor

    @property
    def temperature(self) -> Tensor:
        """Twice the variance."""
        return 2.0 * self.log_var.clamp(*D.LOG_SCALES).exp()

    def num_parameters(self, channels: int) -> int:
        """One mean for each value."""
        return channels

    def forward(self, parameters: Tensor) -> D.DiagonalGaussian:
        """``(..., C, H, W)`` means."""
        return D.DiagonalGaussian(parameters, self.log_var, event_ndim=3)


class FixedGaussian(_OneVariance):
    """``N(x_hat, variance I)``: the squared error divided by ``2 variance``, plus a normaliser.

    With ``variance: 0.5`` the distortion is the squared error summed over pixels, plus a constant. A beta-VAE with this
    variance has the same optimum as a VAE with variance ``beta / 2``.

    >>> x, x_hat = torch.ones(1, 1, 2, 2), torch.zeros(1, 1, 2, 2)
    >>> -FixedGaussian(0.5)(x_hat).log_prob(x)  # 4 + 2 log pi
    tensor([6.2895])
    """

    @checked
    def __init__(self, variance: Variance = 0.5) -> None:
        super().__init__()
        log_var = torch.tensor(math.log(variance))
        self.register_buffer("log_var", log_var, persistent=False)  # a setting that a checkpoint must not override


class LearnedGaussian(_OneVariance):
    """``N(x_hat, v I)`` with one learned variance ``v``: no weight between rate and distortion needs tuning.

    The optimal v is the mean squared error (Rybkin et al., "Simple and Effective VAE Training with Calibrated
    Decoders", 2021, eq. 5).

    >>> LearnedGaussian(0.1).temperature  # what divides the squared error
    tensor(0.2000, grad_fn=<MulBackward0>)
    """

    @checked
    def __init__(self, initial_variance: Variance = 1.0) -> None:
        super().__init__()
        self.log_var = nn.Parameter(torch.tensor(math.log(initial_variance)))


class PixelGaussian(Likelihood):
    """``N(x_hat, diag sigma^2(z))``: the decoder gives every value its own variance.

    Args:
        min_std: smallest standard deviation in units of [-1, 1]; one grey level is 2 / 255. Without it the density of
            a constant pixel grows without bound. A soft limit, so that there is a gradient everywhere.
    """

    bits_per_dim_values = "dequantized"

    @checked
    def __init__(self, min_std: Deviation = 1.0 / 255.0) -> None:
        super().__init__()
        self.min_log_var = 2.0 * math.log(min_std)

    def num_parameters(self, channels: int) -> int:
        """A mean and a log-variance for each value."""
        return 2 * channels

    def forward(self, parameters: Tensor) -> D.DiagonalGaussian:
        """``(..., 2 C, H, W)``: means, then raw log-variances."""
        mean, raw = parameters.chunk(2, -3)
        return D.DiagonalGaussian(mean, self.min_log_var + F.softplus(raw - self.min_log_var), event_ndim=3)


class Laplace(Likelihood):
    """``Laplace(x_hat, scale)`` with one scale, learned by default: an absolute error plus a normaliser."""

    bits_per_dim_values = "dequantized"
    log_scale: Tensor

    @checked
    def __init__(self, scale: Variance = 1.0, learned: bool = True) -> None:
        super().__init__()
        log_scale = torch.tensor(math.log(scale))
        if learned:
            self.log_scale = nn.Parameter(log_scale)
        else:  # a setting that a checkpoint must not override
            self.register_buffer("log_scale", log_scale, persistent=False)

    @property
    def temperature(self) -> Tensor:
        """The scale."""
        return self.log_scale.clamp(*D.LOG_SCALES).exp()

    def num_parameters(self, channels: int) -> int:
        """One mean for each value."""
        return channels

    def forward(self, parameters: Tensor) -> D.Laplace:
        """``(..., C, H, W)`` means."""
        return D.Laplace(parameters, self.log_scale)


class Categorical(Likelihood):
    """A softmax over the 256 levels of each value: the most flexible likelihood, but without an order of levels.

    Given the decoder's input, the channels of a pixel are independent; `DiscretizedLogisticMixture` relates them.
    """

    expects = ("uint8",)
    bits_per_dim_values = "uint8"
    remedy = _LEVELS_REMEDY

    def num_parameters(self, channels: int) -> int:
        """256 logits for each value."""
        return 256 * channels

    def forward(self, parameters: Tensor) -> D.Categorical:
        """``(..., 256 C, H, W)`` logits, level by level."""
        return D.Categorical(parameters.unflatten(-3, (256, -1)))


class DiscretizedLogisticMixture(Likelihood):
    """Mixture of logistics over the 256 levels: a probability of the eight-bit image.

    Salimans et al., "PixelCNN++", 2017.

    Args:
        num_mixtures: number ``K`` of components per pixel.
        min_log_scale: smallest log-scale, a soft limit.
    """

    expects = ("uint8",)
    bits_per_dim_values = "uint8"
    remedy = _LEVELS_REMEDY

    @checked
    def __init__(self, num_mixtures: SmallCount = 10, min_log_scale: LogScale = -7.0) -> None:
        super().__init__()
        self.num_mixtures = num_mixtures
        self.min_log_scale = min_log_scale

    def num_parameters(self, channels: int) -> int:
        """``K (1 + 2 C + C (C - 1) / 2)``: 3 K for grey images, 10 K for colour."""
        return self.num_mixtures * (1 + 2 * channels + channels * (channels - 1) // 2)

    def forward(self, parameters: Tensor) -> D.DiscretizedLogisticMixture:
        """``(..., K (1 + 2 C + C (C - 1) / 2), H, W)``: logit, means, log-scales, coefficients of each component."""
        per_component = parameters.unflatten(-3, (self.num_mixtures, -1))
        # 1 + 2 C + C (C - 1) / 2 = (C + 1) (C + 2) / 2, solved for C
        channels = (math.isqrt(8 * per_component.shape[-3] + 1) - 3) // 2
        sizes = [1, channels, channels, channels * (channels - 1) // 2]
        logits, means, raw_scales, coefficients = per_component.split(sizes, -3)
        return D.DiscretizedLogisticMixture(
            logits.squeeze(-3),
            means,
            self.min_log_scale + F.softplus(raw_scales - self.min_log_scale),
            torch.tanh(coefficients),
        )
