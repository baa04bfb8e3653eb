"""The table of all metrics: which value is better, and what each is, in words."""

from collections.abc import Callable
from fnmatch import fnmatchcase
from typing import NamedTuple

GROUPS = ("reconstruction", "samples", "likelihood", "latents", "codes", "cost", "other")
RECONSTRUCTION, SAMPLES, LIKELIHOOD = GROUPS[:3]

Score = Callable[[float], float]
"""A function of a value; larger results are better."""


def _high(value: float) -> float:
    return value


def _low(value: float) -> float:
    return -value


def _near_one(value: float) -> float:
    return -abs(value - 1.0)


class Metric(NamedTuple):
    """One line of the table below."""

    pattern: str
    group: str
    score: Score | None
    """None: no value is better than another."""

    words: str
    decides: bool = False
    """Whether it is among the few that the page shows at first."""

    @property
    def direction(self) -> str:
        """Which value is better, in words; blank if none is."""
        return {_high: "higher is better", _low: "lower is better", _near_one: "best at 1"}.get(self.score, "")  # type: ignore[arg-type]


_TABLE = (
    Metric("psnr", "reconstruction", _high, "peak signal-to-noise ratio, dB", decides=True),
    Metric("ssim*", "reconstruction", _high, "structural similarity"),
    Metric("ms_ssim", "reconstruction", _high, "structural similarity over five scales"),
    Metric("mse", "reconstruction", _low, "squared error of a value in [-1, 1]"),
    Metric("lpips*", "reconstruction", _low, "perceptual distance to the original", decides=True),
    Metric("rfid", "reconstruction", _low, "Fréchet distance to the originals, Inception", decides=True),
    Metric("rfd_*", "reconstruction", _low, "Fréchet distance to the originals", decides=True),
    Metric("sharpness", "reconstruction", _near_one, "high frequencies beside the originals'", decides=True),
    Metric("laplacian_ratio", "reconstruction", _near_one, "variance of the Laplacian beside that of the originals"),
    Metric("fid", "samples", _low, "Fréchet distance of samples to images, Inception", decides=True),
    Metric("fd_*", "samples", _low, "Fréchet distance of samples to images", decides=True),
    Metric("kid*", "samples", _low, "kernel distance of samples to images"),
    Metric("kd_*", "samples", _low, "kernel distance of samples to images"),
    Metric("precision*", "samples", _high, "share of samples that lie among the images"),
    Metric("recall*", "samples", _high, "share of images that lie among the samples"),
    Metric("density*", "samples", _high, "how densely images lie around samples"),
    Metric("coverage*", "samples", _high, "share of images that have a sample near them"),
    Metric("elbo", "likelihood", _high, "lower bound of log p(x), nats per image", decides=True),
    Metric("bits_per_dim*", "likelihood", _low, "bits per value of an image", decides=True),
    Metric("nll*", "likelihood", _low, "-log p(x), nats per image"),
    Metric("rate_at_*db", "likelihood", _low, "progressive code of an image up to this PSNR, nats per image"),
    Metric("rate*", "likelihood", None, "information in the latent, nats per image", decides=True),
    Metric("distortion", "likelihood", None, "-log p(x | z), nats per image"),
    Metric("active_units", "latents", None, "dimensions of the latent that images move"),
    Metric("mutual_information", "latents", None, "between image and latent, nats"),
    Metric("aggregate_kl", "latents", None, "of the aggregate posterior to the prior, nats"),
    Metric("kl_per_dim*", "latents", None, "rate of a dimension of the latent, nats"),
    Metric("latent_high_frequency", "latents", None, "share of the latent's energy in detail, above half of Nyquist"),
    Metric("latent_noise", "latents", None, "share of the latent's variance that is noise of the posterior"),
    Metric("latent_std_ratio", "latents", None, "largest standard deviation of a channel over the smallest"),
    Metric("latent_probe_accuracy", "latents", _high, "share of labels that a linear map of the latent tells"),
    Metric("latent_gaussian_nats", "latents", None, "nats that a Gaussian prior gains by covariances of dimensions"),
    Metric("latent_nll", "latents", None, "bound of -log p(z) by the prior, nats per image"),
    Metric("latent*", "latents", None, "of the channels of the latent"),
    Metric("perplexity*", "codes", None, "how many codes are in use, evenly counted", decides=True),
    Metric("code_usage*", "codes", None, "share of the codes that occur"),
    Metric("bits_per_code", "codes", None, "length of a code"),
    Metric("commitment*", "codes", None, "distance of latents to their codes"),
    Metric("quantization*", "codes", None, "distance of latents to their codes"),
    Metric("seconds", "cost", None, "of training, by the clock"),
    Metric("parameters", "cost", None, "of the autoencoder, without a discriminator"),
    Metric("peak_memory_bytes", "cost", None, "the most that training took"),
)


def metric(name: str) -> Metric:
    """The first line of the table whose pattern fits. Unknown metrics are in the group "other"; they have no best."""
    return next((line for line in _TABLE if fnmatchcase(name, line.pattern)), Metric(name, "other", None, ""))


def ordered(names: set[str]) -> list[str]:
    """Names in the order of the table above."""
    lines = [line.pattern for line in _TABLE]

    def place(name: str) -> tuple[int, int, str]:
        known = metric(name)
        return GROUPS.index(known.group), lines.index(known.pattern) if known.pattern in lines else 0, name

    return sorted(names, key=place)
