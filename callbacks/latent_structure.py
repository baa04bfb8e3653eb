"""How hard the latents of a model will be for a prior, such as a diffusion model."""

from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch import Trainer
from torch import Tensor

from callbacks.drawing import new_figure, rasterize
from callbacks.latent_report import latents_of
from callbacks.periodic import Measurement, data_spec
from lit_vae.images import Batch
from lit_vae.metrics import LatentStructureMetric, above_half_nyquist, mean_by_frequency
from lit_vae.models.abilities import HasBound, HasPosterior
from lit_vae.models.base import Autoencoder
from lit_vae.ranges import PositiveInt, checked
from lit_vae.run.panels import log_panel

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from lit_vae.metrics import LatentStructure as Structure


class LatentStructure(Measurement):
    """Logs what a prior on the latents will have to learn, and draws their spectrum and the std of each channel.

    ``{val,test}/latent_high_frequency`` (of maps), ``latent_noise``, ``latent_std_ratio``, ``latent_probe_accuracy``
    (of data with labels) and ``latent_gaussian_nats``; the last two up to 1024 dimensions. All but ``latent_std_ratio``
    are of latents as `lit_vae.data.Latents` scales them. For definitions see `lit_vae.metrics.latent_structure`. The
    panel is ``latent_structure`` (in validations ``latent_structure_val``).

    The latents are those of a Gaussian posterior or of a model without a posterior. The encoder of a CVAE sees the
    label, so the accuracy of the probe says little about its latents.

    Args:
        every_n_epochs: see `Periodic`; null: in tests only.
    """

    @checked
    def __init__(self, every_n_epochs: PositiveInt | None = None) -> None:
        super().__init__(every_n_epochs)

    def check_model(self, model: Autoencoder) -> None:
        """Refuse a posterior whose variance is not known: that of a flow or of a hierarchy."""
        if isinstance(model, HasBound) and not (isinstance(model, HasPosterior) and model.gaussian_posterior):
            raise self._refuse(
                f"it needs the variances of latents, and the posterior of {type(model).__name__} is not one Gaussian.",
                "Remove it from trainer.callbacks, or remove model.init_args.posterior.",
            )

    def numbers(self, model: Autoencoder, data: Any) -> list[str]:
        """Those of the shape of the latents and of the data."""
        return LatentStructureMetric(model.latent_shape, data.spec.num_classes).names

    def start(self, trainer: Trainer, model: Autoencoder) -> None:
        """Start new sums."""
        spec = data_spec(trainer)
        num_classes = 0 if spec is None else spec.num_classes
        self.metric = LatentStructureMetric(model.latent_shape, num_classes).to(model.device)

    def update(self, model: Autoencoder, batch: Batch) -> None:
        """Add the latents of a batch."""
        self.metric.update(latents_of(model, batch), batch.y, self.index)

    def compute(self) -> dict[str, Tensor]:
        """The numbers above."""
        self.structure: Structure = self.metric.compute()
        return self.structure.numbers

    def report(self, trainer: Trainer, split: str) -> None:
        """Draw the spectrum and the std of each channel."""
        if trainer.is_global_zero:
            name = "latent_structure" if split == "test" else f"latent_structure_{split}"
            caption = f"Spectrum and channels of the latents of the {split} images"
            log_panel(trainer, name, rasterize(structure_figure(self.structure)), caption, self.step(trainer))


def structure_figure(structure: "Structure") -> "Figure":
    """Mean energy over the spatial frequency, of maps; and the std of each channel."""
    std = torch.atleast_1d(structure.std).cpu()
    spectrum = torch.atleast_2d(structure.spectrum).cpu()
    is_map = "latent_high_frequency" in structure.numbers
    figure = new_figure(7.0 if is_map else 3.5, 2.9)
    of_energy, of_channels = figure.subplots(1, 2) if is_map else (None, figure.subplots())
    if of_energy is not None:
        _draw_spectrum(of_energy, spectrum, structure.numbers["latent_high_frequency"])
    of_channels.bar(range(1, len(std) + 1), std.tolist(), width=0.8 if len(std) <= 64 else 1.0, color="tab:blue")
    if len(std) <= 16:
        of_channels.set_xticks(range(1, len(std) + 1))
    of_channels.set_xlabel("channel" if is_map else "dimension")
    of_channels.set_ylabel("standard deviation")
    of_channels.set_title(f"largest / smallest {float(std.max() / std.min()):.3g}", fontsize=10)
    for axes in figure.axes:
        axes.spines[["top", "right"]].set_visible(False)
    return figure


def _draw_spectrum(axes: Any, spectrum: Tensor, high_frequency: Tensor) -> None:
    from matplotlib.ticker import LogFormatter

    frequency, energy = mean_by_frequency(spectrum)
    axes.plot(frequency.tolist(), energy.tolist(), color="tab:blue", marker="o", markersize=3)
    axes.axhline(1.0, color="tab:gray", linewidth=1, linestyle=":")
    axes.annotate("white noise", (1.0, 1.0), xycoords=("axes fraction", "data"), ha="right", va="bottom", fontsize=8)
    axes.axvline(0.25, color="tab:gray", linewidth=1, linestyle="--")
    axes.set_yscale("log")
    axes.yaxis.set_major_formatter("{x:g}")
    axes.yaxis.set_minor_formatter(LogFormatter(minor_thresholds=(2.0, 0.5)))
    axes.set_xlabel("cycles per position")
    axes.set_ylabel("energy of a coefficient")
    share = float(torch.atleast_1d(high_frequency)[0])
    white = float(above_half_nyquist(*spectrum.shape).double().mean())
    axes.set_title(f"above 1/4 cycle {share:.1%}, white noise {white:.1%}", fontsize=10)
