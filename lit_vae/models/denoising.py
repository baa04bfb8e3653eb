"""What diffusion models of pixels and of latents share: the step, labels that may be hidden, and how they draw."""

from abc import abstractmethod
from collections.abc import Callable
from typing import Any

import torch
import torch.nn.functional as F
from torch import Generator, Tensor, nn

from lit_vae.diffusion import Bound, GaussianDiffusion, Sampling
from lit_vae.diffusion.samplers import Denoise
from lit_vae.distributions import Distribution
from lit_vae.images import Shape
from lit_vae.models.module import Model
from lit_vae.networks.clock import DenoiserFactory
from lit_vae.noise import Draws
from lit_vae.objectives import Step

NO_CLASS = -1
"""The label of what the network is told no class of."""


class DenoisingModel(Model):
    """A model of x ``(B, *shape)`` with a denoising network (Kingma et al., "Variational Diffusion Models", 2021).

    A family calls `add_network` in its constructor, and says what ``p(x | z_0)`` is.
    """

    diffused_shape: Shape
    network: nn.Module
    diffusion: GaussianDiffusion
    sampling: Sampling
    label_dropout: float

    def bound(self, x: Tensor, y: Tensor, training: bool, draws: Draws | None) -> tuple[Step, dict[str, Tensor]]:
        """Minus the bound, eq. 11: ``KL(q(z_1|x) || p(z_1)) - log p(x|z_0) + diffusion``, in nats per image.

        The first two terms depend on the ends of the schedule only. With an objective that is no bound, the loss is the
        objective, and an evaluation has the bound beside it.

        Returns:
            A step with the ``loss``, and ``p(x | z_0)``; and the terms of the bound, ``prior``, ``last`` and
            ``diffusion``, which are empty if the training step does not compute them.
        """
        u = torch.rand(len(x), device=x.device) if draws is None else draws.spread()
        eps, eps_0 = self._noise(x, draws)
        network = self.network_for(self._some_hidden(y, draws) if training else y)
        schedule, objective = self.diffusion.schedule, self.diffusion.objective
        loss = self.diffusion.diffusion_loss(network, x, objective(schedule, u), eps)
        if training and not objective.is_bound:
            return Step({"loss": loss}), {}
        diffusion = loss
        if not objective.is_bound:
            diffusion = self.diffusion.diffusion_loss(network, x, Bound()(schedule, u), eps)
        decoded = self.last_distribution(*self.diffusion.at_data(x, eps_0))
        terms = {"prior": self.diffusion.prior_loss(x), "last": -decoded.log_prob(x), "diffusion": diffusion}
        if objective.is_bound:
            loss = terms["prior"] + terms["last"] + diffusion
        return Step({"loss": loss}, decoded), terms

    @abstractmethod
    def last_distribution(self, mean: Tensor, log_var: Tensor) -> Distribution:
        """``p(x | z_0)``, given that ``x = mean + noise`` of this log-variance, ``(B, *shape)`` each."""

    def add_network(
        self,
        shape: Shape,
        network: DenoiserFactory,
        diffusion: GaussianDiffusion,
        sampling: Sampling | None,
        num_classes: int,
        label_dropout: float,
    ) -> None:
        """Build the network, with one more class for hidden labels."""
        self.diffused_shape, self.num_classes, self.label_dropout = shape, num_classes, label_dropout
        self.network = network(shape, num_classes + 1 if num_classes else 0)
        self.diffusion = diffusion
        self.sampling = sampling or Sampling()

    def condition(self, y: Tensor) -> Tensor | None:
        """Labels ``y (B,)``, of which -1 is none, as the network reads them: one-hot ``(B, num_classes + 1)``."""
        if not self.num_classes:
            return None
        return F.one_hot(torch.where(y == NO_CLASS, self.num_classes, y), self.num_classes + 1).to(self.dtype)

    def network_for(self, y: Tensor) -> Callable[[Tensor, Tensor], Tensor]:
        """The network with given labels: ``(z (B, *shape), lam (B,)) -> (B, *shape)``."""
        cond = self.condition(y)
        return lambda z, lam: self.network(z, lam, cond)

    def denoise(self, y: Tensor) -> Denoise:
        """The expected x, for samplers: ``(z (B, *shape), lam ()) -> x_hat``, all float64."""
        network, prediction = self.network_for(y), self.diffusion.prediction

        def x_hat(z: Tensor, lam: Tensor) -> Tensor:
            lam = lam.to(z.device)
            seen = prediction.network_input(z, lam).to(self.dtype)
            return prediction.x(z, network(seen, lam.to(self.dtype).expand(len(z))), lam)

        return x_hat

    @torch.no_grad()
    def draw(self, y: Tensor, temperature: float = 1.0, generator: Generator | None = None) -> Tensor:
        """One x for each label, by `sampling`: ``(n,) -> (n, *shape)``.

        Raises:
            ValueError: for a temperature other than 1.
        """
        if temperature != 1.0:
            raise ValueError(
                f"{type(self).__name__}: temperature (={temperature}) must be 1: a diffusion model has none. Guidance"
                " makes samples more typical."
            )
        drawn = self.sampling(
            self.denoise(y),
            lambda: self.denoise(torch.full_like(y, NO_CLASS)),
            self.diffusion.schedule,
            (len(y), *self.diffused_shape),
            self.device,
            generator,
        )
        return drawn.to(self.dtype)

    def as_images(self, x: Tensor, y: Tensor, stage1: Any) -> Tensor:
        """The images of x ``(B, *shape)``: x itself; of latents what their stage 1 decodes."""
        return x

    def sampling_problems(self) -> list[str]:
        """Guidance without classes, or by a network that never saw an image without its class."""
        if self.sampling.guidance is None or (self.num_classes and self.label_dropout):
            return []
        needs, setting = ("classes", "num_classes") if not self.num_classes else ("hidden labels", "label_dropout")
        return [
            f"{type(self).__name__}: model.sampling.guidance needs {needs}. Set model.init_args.{setting}, or"
            " guidance: null."
        ]

    def check_networks(self) -> list[str]:
        """Run one blank x through the network."""
        z, lam = torch.zeros(1, *self.diffused_shape, device=self.device), torch.zeros(1, device=self.device)
        try:
            with torch.no_grad(), torch.random.fork_rng(devices=[]):
                shape = tuple(self.network_for(self.labels_for(1, None))(z, lam).shape[1:])
        except RuntimeError as error:
            return [f"{type(self).__name__}: the network does not fit: {error}"]
        expected = list(self.diffused_shape)
        return [] if list(shape) == expected else [
            f"{type(self).__name__}: the network makes {list(shape)}, not {expected}. Take another network."
        ]  # fmt: skip

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
