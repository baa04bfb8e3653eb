"""Diffusion in continuous time. One clock: the log signal-to-noise ratio. One state: ``z = alpha x + sigma eps``."""

from lit_vae.diffusion.gaussian import GaussianDiffusion
from lit_vae.diffusion.grids import Grid, Karras, UniformLogSNR, UniformTime, with_nodes
from lit_vae.diffusion.guidance import ClassifierFree, ClassifierGuidance
from lit_vae.diffusion.likelihood import ProbabilityFlow
from lit_vae.diffusion.noise_schedules import (
    Betas,
    Cosine,
    LearnedMonotone,
    LinearLogSNR,
    LinearPath,
    NoiseSchedule,
)
from lit_vae.diffusion.objectives import (
    Bound,
    BoundInSteps,
    DiffusionObjective,
    NoiseLevels,
    NormalLogSNRs,
    SquaredError,
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
from lit_vae.diffusion.samplers import DDIM, SAMPLERS, Denoise, DPMSolverPlusPlus2M, DrawNoise, Heun, Sampler
from lit_vae.diffusion.sampling import Sampling, Watch

__all__ = [
    "DDIM",
    "SAMPLERS",
    "Betas",
    "Bound",
    "BoundInSteps",
    "ClassifierFree",
    "ClassifierGuidance",
    "Cosine",
    "DPMSolverPlusPlus2M",
    "Denoise",
    "DiffusionObjective",
    "DrawNoise",
    "FlowVelocity",
    "GaussianDiffusion",
    "Grid",
    "Heun",
    "Karras",
    "LearnedMonotone",
    "LinearLogSNR",
    "LinearPath",
    "Noise",
    "NoiseLevels",
    "NoiseSchedule",
    "NormalLogSNRs",
    "Original",
    "PixelLevels",
    "Preconditioned",
    "Prediction",
    "ProbabilityFlow",
    "Sampler",
    "Sampling",
    "Score",
    "SquaredError",
    "UniformLogSNR",
    "UniformTime",
    "Velocity",
    "Watch",
    "with_nodes",
]
