"""Diffusion in continuous time. One clock: the log signal-to-noise ratio. One state: ``z = alpha x + sigma eps``."""

from lit_vae.diffusion.gaussian import GaussianDiffusion
from lit_vae.diffusion.noise_schedules import Cosine, LearnedMonotone, LinearLogSNR, LinearPath, NoiseSchedule
from lit_vae.diffusion.objectives import (
    Bound,
    BoundInSteps,
    DiffusionObjective,
    LogSNRs,
    NormalLogSNRs,
    SquaredError,
    UniformTimes,
)
from lit_vae.diffusion.pixel_levels import PixelLevels
from lit_vae.diffusion.predictions import (
    FlowVelocity,
    Noise,
    Original,
    Preconditioned,
    Prediction,
    Score,
    Velocity,
)

__all__ = [
    "Bound",
    "BoundInSteps",
    "Cosine",
    "DiffusionObjective",
    "FlowVelocity",
    "GaussianDiffusion",
    "LearnedMonotone",
    "LinearLogSNR",
    "LinearPath",
    "LogSNRs",
    "Noise",
    "NoiseSchedule",
    "NormalLogSNRs",
    "Original",
    "PixelLevels",
    "Preconditioned",
    "Prediction",
    "Score",
    "SquaredError",
    "UniformTimes",
    "Velocity",
]
