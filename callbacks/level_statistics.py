"""Use of the latent dimensions of each level of a hierarchy."""

from typing import Any

from lightning.pytorch import Trainer
from torch import Tensor

from callbacks.periodic import Measurement
from lit_vae.distributions import DiagonalGaussian
from lit_vae.images import Batch
from lit_vae.metrics.level_use import LevelUse
from lit_vae.models.abilities import HasLevels
from lit_vae.noise import FIXED, Draws
from lit_vae.ranges import PositiveInt, checked

SEED = 2**31 - 39


class LevelStatistics(Measurement):
    """Logs, for each level l from the top, ``active_units_<l>``, ``kl_per_dim_max_<l>`` and ``kl_per_dim_mean_<l>``.

    All are for val and test, the KLs in nats. A unit is active if its posterior mean varies over the images by more
    than 0.01 (Burda et al., "Importance Weighted Autoencoders", 2016, sec. 5.2). The mean is in units of the prior,
    given a draw of the other levels. ``active_units`` is the sum over levels.

    Args:
        every_n_epochs: see `Periodic`; null: in tests only.
    """

    accepts = HasLevels

    @checked
    def __init__(self, every_n_epochs: PositiveInt | None = None) -> None:
        super().__init__(every_n_epochs)

    def numbers(self, model: HasLevels, data: Any) -> list[str]:
        """Three for each level, and the sum."""
        names = ("active_units", "kl_per_dim_max", "kl_per_dim_mean")
        return ["active_units", *(f"{name}_{level}" for level in range(len(model.level_sizes)) for name in names)]

    def start(self, trainer: Trainer, model: HasLevels) -> None:
        """Start new sums."""
        self.metric = LevelUse(model.level_sizes).to(model.device)

    def update(self, model: HasLevels, batch: Batch) -> None:
        """Add one draw of each image."""
        x, y = batch
        levels, _ = model.path(model.encode(x, y), y, 1, Draws(SEED, FIXED, self.index))
        means = []
        for level in levels:
            assert isinstance(level.posterior, DiagonalGaussian)
            assert isinstance(level.prior, DiagonalGaussian)
            means.append(((level.posterior.mean - level.prior.mean) / level.prior.std)[0].flatten(1))
        self.metric.update([level.kl_per_dim().flatten(1) for level in levels], means)

    def compute(self) -> dict[str, Tensor]:
        """See the class."""
        use = self.metric.compute()
        found = {"active_units": sum((active for _, active in use[1:]), use[0][1])}
        for level, (kl, active) in enumerate(use):
            found |= {
                f"active_units_{level}": active,
                f"kl_per_dim_max_{level}": kl.max(),
                f"kl_per_dim_mean_{level}": kl.mean(),
            }
        return found
