"""Diffusion of pixels with a bound of log p(x): Kingma et al., "Variational Diffusion Models", 2021."""

from collections.abc import Callable

import torch
import torch.nn.functional as F
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Generator, Tensor, nn

from lit_vae.diffusion import Bound, GaussianDiffusion, Sampling
from lit_vae.diffusion.samplers import Denoise
from lit_vae.images import Batch, ImageSpec
from lit_vae.likelihoods import Likelihood
from lit_vae.models.base import ImageModel
from lit_vae.networks.clock import DenoiserFactory
from lit_vae.noise import Draws
from lit_vae.objectives import Step
from lit_vae.ranges import BelowOne, NotNegativeInt, PositiveInt, checked

NO_CLASS = -1
"""The label of images whose class the network is not told."""


class VariationalDiffusion(ImageModel):
    """A hierarchy of infinitely many noisy images, whose encoder is fixed: it only adds noise.

    Args:
        image_shape: ``[channels, height, width]`` of the images.
        network: a denoising network, such as `lit_vae.networks.UNet`.
        diffusion: noise schedule, meaning of the network's output, and what it is trained on.
        likelihood: ``p(x | z_0)``, `lit_vae.diffusion.PixelLevels`.
        optimizer: over all parameters.
        lr_scheduler: stepped with every optimizer step.
        sampling: how images are drawn; null: 50 steps of `DDIM`.
        num_classes: number of labels that it is conditioned on; 0: none.
        label_dropout: share of the training images whose label is hidden, so that samples can be guided.
    """

    term_names = ("loss", "elbo", "rate", "distortion", "prior", "diffusion")

    def step(self, batch: Batch, step: int | None, draws: Draws | None) -> Step:
        """Minus the bound, eq. 11: ``KL(q(z_1|x) || p(z_1)) - log p(x|z_0) + diffusion``, in nats per image.

        The first and the last term depend on the ends of the schedule only. With an objective that is no bound, the
        loss is the objective, and an evaluation has the bound beside it.
        """
        x, y = batch
        u = torch.rand(len(x), device=x.device) if draws is None else draws.spread()
        eps, eps_0 = self._noise(x, draws)
        network, objective = (
            self.network_for(y if step is None else self._some_hidden(y, draws)),
            self.diffusion.objective,
        )
        loss = self.diffusion.diffusion_loss(network, x, objective(self.diffusion.schedule, u), eps)
        if not objective.is_bound and step is not None:
            return Step({"loss": loss})
        levels = Bound()(self.diffusion.schedule, u)
        diffusion = loss if objective.is_bound else self.diffusion.diffusion_loss(network, x, levels, eps)
        prior = self.diffusion.prior_loss(x)
        decoded = self.likelihood(torch.cat(self.diffusion.at_data(x, eps_0), 1))
        distortion, rate = -decoded.log_prob(x), prior + diffusion
        bound = {"elbo": -(rate + distortion), "rate": rate, "distortion": distortion}
        loss = rate + distortion if objective.is_bound else loss
        return Step({"loss": loss, **bound, "prior": prior, "diffusion": diffusion}, decoded)

    @checked
    def __init__(
        self,
        image_shape: list[PositiveInt],
        network: DenoiserFactory,
        diffusion: GaussianDiffusion,
        likelihood: Likelihood,
        optimizer: OptimizerCallable,
        lr_scheduler: LRSchedulerCallable | None = None,
        sampling: Sampling | None = None,
        num_classes: NotNegativeInt = 0,
        label_dropout: BelowOne = 0.1,
    ) -> None:
        super().__init__(image_shape, likelihood, optimizer, lr_scheduler)
        self.num_classes, self.label_dropout = num_classes, label_dropout
        self.network: nn.Module = network(self.image_shape, num_classes + 1 if num_classes else 0)
        self.diffusion = diffusion
        self.sampling = sampling or Sampling()

    def condition(self, y: Tensor) -> Tensor | None:
        """Labels ``y (B,)``, of which -1 is none, as the network reads them: one-hot ``(B, num_classes + 1)``."""
        if not self.num_classes:
            return None
        return F.one_hot(torch.where(y == NO_CLASS, self.num_classes, y), self.num_classes + 1).to(self.dtype)

    def network_for(self, y: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
        """The network with given labels: ``(z (B, C, H, W), lam (B,)) -> (B, C, H, W)``."""
        cond = self.condition(y)
        return lambda z, lam: self.network(z, lam, cond)

    def denoise(self, y: Tensor) -> Denoise:
        """The expected image, for samplers: ``(z (B, C, H, W), lam ()) -> x_hat``, all float64."""
        network, prediction = self.network_for(y), self.diffusion.prediction

        def x_hat(z: Tensor, lam: Tensor) -> Tensor:
            lam = lam.to(z.device)
            seen = prediction.network_input(z, lam).to(self.dtype)
            return prediction.x(z, network(seen, lam.to(self.dtype).expand(len(z))), lam)

        return x_hat

    @torch.no_grad()
    def sample(
        self, n: int, y: Tensor | None = None, temperature: float = 1.0, generator: Generator | None = None
    ) -> Tensor:
        """``n`` images by `sampling`, clamped to [-1, 1], ``(n, C, H, W)``.

        Raises:
            ValueError: for a temperature other than 1.
        """
        if temperature != 1.0:
            raise ValueError(
                f"{type(self).__name__}: temperature (={temperature}) must be 1: a diffusion model has none. Guidance"
                " makes samples more typical."
            )
        y = self.labels_for(n, y)
        drawn = self.sampling(
            self.denoise(y),
            lambda: self.denoise(torch.full_like(y, NO_CLASS)),
            self.diffusion.schedule,
            (n, *self.image_shape),
            self.device,
            generator,
        )
        return drawn.to(self.dtype).clamp(-1.0, 1.0)

    def problems(self, spec: ImageSpec) -> list[str]:
        """Also: labels that do not fit, guidance without classes, and ends of the schedule that cost much."""
        found = super().problems(spec)
        if self.sampling.guidance is not None and not self.num_classes:
            found.append(
                f"{type(self).__name__}: model.sampling.guidance needs classes. Set model.init_args.num_classes, or"
                " guidance: null."
            )
        return found + (self._label_problems(spec.num_classes) if isinstance(spec, ImageSpec) else [])

    def check_networks(self) -> list[str]:
        """Run one blank image through the network."""
        try:
            with torch.no_grad(), torch.random.fork_rng(devices=[]):
                z, lam = (
                    torch.zeros(2, 1, *self.image_shape).to(self.device).unbind()[0],
                    torch.zeros(1).to(self.device),
                )
                shape = tuple(self.network_for(self.labels_for(1, None))(z, lam).shape[1:])
        except RuntimeError as error:
            return [f"{type(self).__name__}: the network does not fit the images: {error}"]
        return [] if shape == self.image_shape else [f"{type(self).__name__}: the network makes {list(shape)}."]

    def _noise(self, x: Tensor, draws: Draws | None) -> tuple[Tensor, Tensor]:
        """The noise of the drawn level, and that of z_0."""
        if draws is None:
            return torch.randn_like(x), torch.randn_like(x)
        first, last = (draws.level(k).normal(1, tuple(x.shape[1:]))[0].to(x) for k in range(2))
        return first, last

    def _some_hidden(self, y: Tensor, draws: Draws | None) -> Tensor:
        if not self.num_classes or not self.label_dropout:
            return y
        u = torch.rand(len(y), device=y.device) if draws is None else draws.next_uniform((len(y), 1))[:, 0]
        return torch.where(u < self.label_dropout, NO_CLASS, y)
