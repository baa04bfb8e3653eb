"""A normalizing flow fitted to the latents of a trained run: a second stage with an exact density."""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from typing import Any

import torch
from torch import Generator, Tensor

from lit_vae.flows import MOST_VALUES, AffineFlow
from lit_vae.priors import FlowPrior

BATCH_SIZE = 256
LEARNING_RATE = 1e-3


@dataclass(frozen=True)
class FittedFlow:
    """``p(z | y)``: a `FlowPrior` of standardised latents, flattened to ``d``; in float64.

    Args:
        prior: of ``u = (z - mean) / std``.
        mean: ``(d,)``.
        std: ``(d,)``.
    """

    prior: FlowPrior
    mean: Tensor
    std: Tensor

    def sample(self, y: Tensor, temperature: float, seed: int) -> Tensor:
        """Labels ``y (n,) -> (n, d)``; the noise is a function of the seed and the row."""
        return self.mean + self.std * self.prior(y).sample(Generator().manual_seed(seed), temperature)

    @torch.no_grad()
    def log_prob(self, z: Tensor, y: Tensor) -> Tensor:
        """``log p(z | y)`` of latents ``(n, d)`` and labels ``(n,)``: ``-> (n,)`` nats."""
        u = (z.double() - self.mean) / self.std
        return self.prior(y).log_prob(u) - self.std.log().sum()

    @property
    def size(self) -> tuple[int, int]:
        """Groups of labels with a density of their own, and d."""
        return max(self.prior.num_classes, 1), len(self.mean)

    def state(self) -> dict[str, Any]:
        """All of it as tensors and numbers, for `flow_of`."""
        weights = self.prior.state_dict()
        return {"mean": self.mean, "std": self.std, "num_classes": self.prior.num_classes, "weights": weights}


def flow_of(state: dict[str, Any]) -> FittedFlow:
    """The flow whose `FittedFlow.state` this is.

    Raises:
        ValueError: it is none, with the reason: a file may hold anything.
    """
    mean, std, num_classes, weights = (state.get(name) for name in ("mean", "std", "num_classes", "weights"))
    if not (isinstance(mean, Tensor) and isinstance(std, Tensor) and isinstance(weights, dict)):
        raise ValueError("mean, std or weights are missing")
    if not isinstance(num_classes, int) or mean.ndim != 1 or std.shape != mean.shape:
        raise ValueError(f"num_classes, mean {list(mean.shape)} and std {list(std.shape)} do not fit each other")
    try:
        prior = _new(len(mean), num_classes).double()
        prior.load_state_dict(weights)
    except (AttributeError, RuntimeError) as error:
        raise ValueError(f"its weights are of another flow ({str(error).splitlines()[0]})") from error
    if not all(t.isfinite().all() for t in (mean, std, *prior.parameters())) or not (std > 0.0).all():
        raise ValueError("it has numbers that are not finite, or a scale that is not positive")
    return FittedFlow(prior.requires_grad_(False), mean.double(), std.double())


def fit_flow(draw: Callable[[int], tuple[Tensor, Tensor]], num_classes: int, steps: int, seed: int) -> FittedFlow:
    """Maximum likelihood by Adam.

    Args:
        draw: ``seed -> latents (N, d), labels (N,)``. Each epoch sees other draws of the posteriors: with one draw for
            each image, the flow would learn these points and not the aggregate posterior.
        num_classes: number of labels that the density depends on; 0: none.
        steps: optimizer steps.
        seed: of initial weights and order.

    Raises:
        ValueError: the latent is too large.
    """
    z, y = draw(seed)
    mean, std = z.mean(0), z.std(0).clamp_min(1e-6)
    if len(mean) > MOST_VALUES:
        raise ValueError(
            f"lit-vae fit-prior: --prior flow: the latent has {len(mean)} dimensions, flattened, and a flow takes at"
            f" most {MOST_VALUES}. Give --prior gmm --covariance diag."
        )
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        prior, taken, epoch = _new(len(mean), num_classes), 0, 0
        optimizer = torch.optim.Adam(prior.parameters(), lr=LEARNING_RATE)
        schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
        order = torch.randperm(len(z))
        for _ in range(steps):
            if taken >= len(z):
                taken, epoch = 0, epoch + 1
                (z, y), order = draw(seed + epoch), torch.randperm(len(z))
            rows = order[taken : taken + BATCH_SIZE]
            taken += BATCH_SIZE
            u = ((z[rows] - mean) / std).float()
            optimizer.zero_grad()
            with torch.enable_grad():  # of the flow alone: its caller draws latents without
                (-prior(y[rows]).log_prob(u).mean()).backward()
            optimizer.step()
            schedule.step()
    return FittedFlow(prior.double().requires_grad_(False), mean, std)


def _new(d: int, num_classes: int) -> FlowPrior:
    return FlowPrior([d], partial(AffineFlow, transforms=6, hidden=[128, 128], coupling=True), num_classes)
