"""Pictures, measurements and weight averaging, as Lightning callbacks: ``class_path: callbacks.Samples``."""

from callbacks.code_usage import CodeUsage
from callbacks.compile import Compile
from callbacks.curves import Curves
from callbacks.denoising import Denoising
from callbacks.drawn_reconstructions import DrawnReconstructions
from callbacks.draws import Draws
from callbacks.ema import EMA
from callbacks.frechet import ReconstructionFrechet
from callbacks.gan_health import BackOff, GANHealth
from callbacks.gradient_skip import GradientSkip
from callbacks.image_quality import ImageQuality
from callbacks.latent_report import LatentReport
from callbacks.latent_statistics import LatentStatistics
from callbacks.latent_structure import LatentStructure
from callbacks.level_statistics import LevelStatistics
from callbacks.levels import Levels
from callbacks.likelihood import ImportanceSampledNLL
from callbacks.loss_over_noise import LossOverNoise
from callbacks.memory_format import ChannelsLast
from callbacks.nan_guard import NaNGuard
from callbacks.ode_likelihood import ODELikelihood
from callbacks.panel import Panel
from callbacks.perceptual_distance import PerceptualDistance
from callbacks.periodic import Measurement, Periodic, ReconstructionMeasurement
from callbacks.rate_distortion import RateDistortion
from callbacks.reconstructions import Reconstructions
from callbacks.sample_quality import SampleQuality
from callbacks.samples import ClassSheet, Samples
from callbacks.scatter import LatentScatter
from callbacks.start_from import StartFrom
from callbacks.stop_when_flat import StopWhenFlat
from callbacks.walks import Interpolations, Traversals

__all__ = [
    "EMA",
    "BackOff",
    "ChannelsLast",
    "ClassSheet",
    "CodeUsage",
    "Compile",
    "Curves",
    "Denoising",
    "DrawnReconstructions",
    "Draws",
    "GANHealth",
    "GradientSkip",
    "ImageQuality",
    "ImportanceSampledNLL",
    "Interpolations",
    "LatentReport",
    "LatentScatter",
    "LatentStatistics",
    "LatentStructure",
    "LevelStatistics",
    "Levels",
    "LossOverNoise",
    "Measurement",
    "NaNGuard",
    "ODELikelihood",
    "Panel",
    "PerceptualDistance",
    "Periodic",
    "RateDistortion",
    "ReconstructionFrechet",
    "ReconstructionMeasurement",
    "Reconstructions",
    "SampleQuality",
    "Samples",
    "StartFrom",
    "StopWhenFlat",
    "Traversals",
]
