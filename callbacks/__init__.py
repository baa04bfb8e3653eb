"""Pictures, measurements and weight averaging, as Lightning callbacks: ``class_path: callbacks.Samples``."""

from callbacks.code_usage import CodeUsage
from callbacks.curves import Curves
from callbacks.draws import Draws
from callbacks.ema import EMA
from callbacks.image_quality import ImageQuality
from callbacks.latent_statistics import LatentStatistics
from callbacks.likelihood import ImportanceSampledNLL
from callbacks.memory_format import ChannelsLast
from callbacks.panel import Panel
from callbacks.periodic import Measurement, Periodic
from callbacks.reconstructions import Reconstructions
from callbacks.samples import ClassSheet, Samples
from callbacks.scatter import LatentScatter
from callbacks.walks import Interpolations, Traversals

__all__ = [
    "EMA",
    "ChannelsLast",
    "ClassSheet",
    "CodeUsage",
    "Curves",
    "Draws",
    "ImageQuality",
    "ImportanceSampledNLL",
    "Interpolations",
    "LatentScatter",
    "LatentStatistics",
    "Measurement",
    "Panel",
    "Periodic",
    "Reconstructions",
    "Samples",
    "Traversals",
]
