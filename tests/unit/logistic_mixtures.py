"""Random mixtures of discretised logistics, for the tests of distributions."""

import torch

from lit_vae.distributions import DiscretizedLogisticMixture


def mixture(channels=1, batch=(), size=(1, 1), components=3, dtype=torch.float64) -> DiscretizedLogisticMixture:
    return DiscretizedLogisticMixture(
        torch.randn(*batch, components, *size, dtype=dtype),
        torch.randn(*batch, components, channels, *size, dtype=dtype),
        torch.randn(*batch, components, channels, *size, dtype=dtype) - 2.0,
        torch.randn(*batch, components, channels * (channels - 1) // 2, *size, dtype=dtype).tanh(),
    )
