"""Gaussian data, whose best network is known, and what samplers are called with."""

import math

import torch

from lit_vae.diffusion.grids import Karras
from lit_vae.diffusion.log_snr import alpha, sigma


def linear(lam_max, lam_min):
    """VDM's schedule before training."""
    return lambda t: lam_max + (lam_min - lam_max) * t


EDM = linear(-2 * math.log(0.002), -2 * math.log(80.0))
"""The ends of Karras et al. 2022: ``a = sigma / alpha`` from 0.002 to 80."""


def edm_grid(steps):
    return Karras()(EDM, steps)


def best(mean=0.0, variance=1.0):
    """``E[x | z]`` for ``x ~ N(mean, variance)``, elementwise."""

    def denoise(z, lam):
        a, s = alpha(lam), sigma(lam)
        return mean + a * variance / (a * a * variance + s * s) * (z - a * mean)

    return denoise


def variance_of_states(variance, lam):
    return torch.sigmoid(lam) * variance + torch.sigmoid(-lam)


def no_noise(shape):
    raise AssertionError("a deterministic sampler asks for no noise")


def order(errors):
    """The order of convergence between the last two of a list of errors, each with twice the steps."""
    return math.log2(abs(errors[-2]) / abs(errors[-1]))


class Counted:
    """A network that counts its calls."""

    def __init__(self, denoise):
        self.denoise, self.calls = denoise, 0

    def __call__(self, z, lam):
        self.calls += 1
        return self.denoise(z, lam)
