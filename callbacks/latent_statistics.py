"""Use of the latent dimensions by a variational autoencoder."""

from typing import TYPE_CHECKING, Any

import torch
from lightning.pytorch import Trainer
from torch import Tensor

from callbacks.drawing import new_figure, rasterize
from callbacks.periodic import Measurement
from lit_vae.distributions import DiagonalGaussian
from lit_vae.images import Batch
from lit_vae.metrics.latents import LatentSummary, PosteriorStatistics
from lit_vae.models.abilities import HasPosterior
from lit_vae.noise import FIXED, Draws
from lit_vae.ranges import AtLeastTwo, PositiveInt, checked
from lit_vae.run.panels import log_panel

if TYPE_CHECKING:
    from matplotlib.figure import Figure

SEED = 2**31 - 31


class LatentStatistics(Measurement):
    """Logs active units, mutual information, aggregate-posterior KL and the rate of each dimension.

    ``{val,test}/active_units``, ``mutual_information`` (nats, at most log N for N images), ``aggregate_kl`` (nats; the
    two add up to the rate). For a Gaussian prior also ``kl_per_dim_max`` and ``kl_per_dim_mean`` (nats), and the panel
    ``kl_per_dim`` of all dimensions (in validations ``kl_per_dim_val``). For definitions, bias and class-conditional
    priors see `lit_vae.metrics.latents`. Only for models with a Gaussian posterior.

    Args:
        every_n_epochs: see `Periodic`; null: in tests only.
        max_images: largest number N of images.
    """

    accepts = HasPosterior

    @checked
    def __init__(self, every_n_epochs: PositiveInt | None = None, max_images: AtLeastTwo = 10_000) -> None:
        super().__init__(every_n_epochs)
        self.max_images = max_images

    def check_model(self, model: HasPosterior) -> None:
        """Only models with a Gaussian posterior."""
        if not model.gaussian_posterior:
            raise self._refuse(
                "it compares the posteriors of all images with one another, which takes Gaussians.",
                "Remove it from trainer.callbacks, or remove model.init_args.posterior.",
            )

    def numbers(self, model: HasPosterior, data: Any) -> list[str]:
        """The numbers above."""
        of_dims = ["kl_per_dim_max", "kl_per_dim_mean"] if model.gaussian_prior else []
        return ["active_units", "mutual_information", "aggregate_kl", *of_dims]

    def start(self, trainer: Trainer, model: HasPosterior) -> None:
        """Start new statistics."""
        self.metric = PosteriorStatistics(self.max_images).to(model.device)

    def update(self, model: HasPosterior, batch: Batch) -> None:
        """Add the posteriors of a batch."""
        posterior = model.encode(*batch)
        assert isinstance(posterior, DiagonalGaussian)  # by `check_model`
        self.metric.update(posterior, model.prior(batch.y), Draws(SEED, FIXED, self.index))

    def compute(self) -> dict[str, Tensor]:
        """The numbers above."""
        self.summary: LatentSummary = self.metric.compute()
        kl = self.summary.kl_per_dim
        return {
            "active_units": self.summary.active_units,
            "mutual_information": self.summary.mutual_information,
            "aggregate_kl": self.summary.aggregate_kl,
        } | ({} if kl is None else {"kl_per_dim_max": kl.max(), "kl_per_dim_mean": kl.mean()})

    def report(self, trainer: Trainer, split: str) -> None:
        """Draw the rate of each dimension, if it has one."""
        if trainer.is_global_zero and self.summary.kl_per_dim is not None:
            name = "kl_per_dim" if split == "test" else f"kl_per_dim_{split}"
            caption = f"Mean KL of each latent dimension to its prior, over {self.summary.num_images} {split} images"
            log_panel(trainer, name, rasterize(kl_figure(self.summary)), caption, self.step(trainer))


def kl_figure(summary: LatentSummary) -> "Figure":
    """One bar per dimension, most used first."""
    assert summary.kl_per_dim is not None
    kl, dims = summary.kl_per_dim.cpu().sort(descending=True, stable=True)
    figure = new_figure(5.0, 3.0)
    axes = figure.add_subplot()
    axes.bar(range(1, len(kl) + 1), kl.tolist(), width=0.8 if len(kl) <= 64 else 1.0, color="tab:blue")
    if len(kl) <= 32:
        axes.set_xticks(range(1, len(kl) + 1), [str(dim + 1) for dim in dims.tolist()], fontsize=7)
        axes.set_xlabel("latent dimension, most used first")
    else:
        axes.set_xlabel("rank of the latent dimension")
    axes.set_ylabel("KL to the prior (nats)")
    total, active = float(torch.sum(kl)), int(summary.active_units)
    axes.set_title(f"rate {total:.2f} nats, {active} of {len(kl)} units active", fontsize=10)
    axes.spines[["top", "right"]].set_visible(False)
    return figure
