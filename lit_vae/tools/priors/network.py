"""A density of latents that is a network: trained on draws of the posteriors, kept in a file, evaluated in float64."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator
from dataclasses import dataclass
from itertools import count, islice
from typing import Any, ClassVar, Self

import torch
from torch import Tensor, nn

from lit_vae.noise import FIXED, Draws
from lit_vae.tools.records import NOUNS, PriorKind

BATCH_SIZE = 256
LEARNING_RATE = 1e-3

Draw = Callable[[int], tuple[Tensor, Tensor]]
"""``seed -> latents (N, d), labels (N,)``: one draw from the posterior of each image."""


@dataclass(frozen=True)
class FittedNetwork(ABC):
    """``p(z | y)``: a density of latents, flattened to ``d``, in float64.

    The network is one of ``u = (z - mean) / std``, with ``mean (d,)`` and ``std (d,)``; it has ``num_classes``.
    """

    network: Any
    mean: Tensor
    std: Tensor

    kind: ClassVar[PriorKind]
    is_bound: ClassVar[bool] = False

    @classmethod
    @abstractmethod
    def new(cls, d: int, num_classes: int) -> nn.Module:
        """A network with initial weights."""

    @staticmethod
    @abstractmethod
    def loss(network: Any, u: Tensor, y: Tensor) -> Tensor:
        """``-log p(u | y)`` or an upper bound of it, ``(n,)`` nats, with gradients."""

    @abstractmethod
    def _log_prob(self, u: Tensor, y: Tensor, draws: Draws) -> Tensor:
        """``log p(u | y)`` or a lower bound of it, ``(n,)`` nats."""

    @abstractmethod
    def _sample(self, y: Tensor, temperature: float, draws: Draws) -> Tensor:
        """Standardised latents ``(n, d)``."""

    def sample(self, y: Tensor, temperature: float, seed: int) -> Tensor:
        """Labels ``y (n,) -> (n, d)``; the noise is a function of the seed and the row."""
        return self.mean + self.std * self._sample(y, temperature, Draws(seed, FIXED, torch.arange(len(y))))

    @torch.no_grad()
    def log_prob(self, z: Tensor, y: Tensor) -> Tensor:
        """``log p(z | y)`` of latents ``(n, d)`` and labels ``(n,)``: ``-> (n,)`` nats; a lower bound if `is_bound`."""
        # the noise of level 0 may be in z itself, and a bound holds for independent noise only
        draws = Draws(0, FIXED, torch.arange(len(z))).level(1)
        return self._log_prob((z.double() - self.mean) / self.std, y, draws) - self.std.log().sum()

    @property
    def size(self) -> tuple[int, int]:
        """Groups of labels with a density of their own, and d."""
        return max(self.network.num_classes, 1), len(self.mean)

    def state(self) -> dict[str, Any]:
        """All of it as tensors and numbers, for `of`."""
        weights = self.network.state_dict()
        return {"mean": self.mean, "std": self.std, "num_classes": self.network.num_classes, "weights": weights}

    @classmethod
    def of(cls, state: dict[str, Any]) -> Self:
        """The density whose `state` this is.

        Raises:
            ValueError: it is none, with the reason: a file may hold anything.
        """
        mean, std, num_classes, weights = (state.get(name) for name in ("mean", "std", "num_classes", "weights"))
        if not (isinstance(mean, Tensor) and isinstance(std, Tensor) and isinstance(weights, dict)):
            raise ValueError("mean, std or weights are missing")
        if not isinstance(num_classes, int) or mean.ndim != 1 or std.shape != mean.shape:
            raise ValueError(f"num_classes, mean {list(mean.shape)} and std {list(std.shape)} do not fit each other")
        try:
            network = cls.new(len(mean), num_classes).double()
            network.load_state_dict(weights)
        except (AttributeError, RuntimeError) as error:
            raise ValueError(f"its weights are of another {NOUNS[cls.kind]} ({str(error).splitlines()[0]})") from error
        if not all(t.isfinite().all() for t in (mean, std, *network.parameters())) or not (std > 0.0).all():
            raise ValueError("it has numbers that are not finite, or a scale that is not positive")
        return cls(network.requires_grad_(False), mean.double(), std.double())

    @classmethod
    def fit(cls, draw: Draw, num_classes: int, steps: int, seed: int) -> Self:
        """Minimise `loss` at draws of the posteriors. With ``num_classes``, the density depends on the label.

        Raises:
            ValueError: the latent is too large.
        """
        z, y = draw(seed)
        mean, std = z.mean(0), z.std(0).clamp_min(1e-6)
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(seed)
            network = cls.new(len(mean), num_classes)
            batches = ((((z - mean) / std).float(), y) for z, y in epochs(z, y, draw, seed))
            descend(lambda u, y: cls.loss(network, u, y), network.parameters(), batches, steps)
        return cls(network.double().requires_grad_(False), mean, std)


def epochs(z: Tensor, y: Tensor, draw: Draw, seed: int) -> Iterator[tuple[Tensor, Tensor]]:
    """Endless batches, in random order: of ``z (N, d)`` and ``y (N,)`` first.

    Each later epoch sees other draws of the posteriors. With one draw for each image, a network would learn these
    points and not the aggregate posterior.
    """
    for epoch in count(1):
        for rows in torch.randperm(len(z)).split(BATCH_SIZE):
            yield z[rows], y[rows]
        z, y = draw(seed + epoch)


def descend(
    loss: Callable[[Tensor, Tensor], Tensor],
    parameters: Iterable[nn.Parameter],
    batches: Iterator[tuple[Tensor, Tensor]],
    steps: int,
    learning_rate: float = LEARNING_RATE,
) -> None:
    """Minimise the mean of ``loss`` by Adam, and nothing but these parameters."""
    trained = list(parameters)
    optimizer = torch.optim.Adam(trained, lr=learning_rate)
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    for z, y in islice(batches, steps):
        optimizer.zero_grad()
        with torch.enable_grad():  # of the network alone: its caller draws latents without
            loss(z, y).mean().backward(inputs=trained)
        optimizer.step()
        schedule.step()
