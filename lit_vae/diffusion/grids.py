"""Where a sampler calls the network: log-SNRs ``lam (steps,)`` from a schedule's lowest to its highest.

Nodes are float64, because samplers subtract neighbours, and on the CPU, because guidance branches on them.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Sequence
from typing import Annotated

import torch
from torch import Tensor

from lit_vae.ranges import Within, checked

Exponent = Annotated[float, Within(ge=1.0, le=1000.0)]


class Grid(ABC):
    """``(schedule, steps) -> lam (steps,)``, strictly increasing: from noise, time 1, to data, time 0."""

    def __call__(
        self, schedule: Callable[[Tensor], Tensor], steps: int, device: torch.device | str | None = None
    ) -> Tensor:
        """The nodes for ``steps`` calls of the network, float64 on the CPU.

        The schedule is a decreasing ``lam(t)``, on ``device``, for float64 times ``t (n,)`` in [0, 1].

        Raises:
            ValueError: fewer than 2 steps, or more than float32 can separate.
        """
        name = type(self).__name__
        if steps < 2:
            raise ValueError(f"{name}: steps (={steps}) must be at least 2, one for each end of the schedule.")
        with torch.no_grad():
            lams = self.nodes(lambda t: schedule(t.to(device)).cpu().double(), steps)
        if not (lams.float().diff() > 0.0).all():  # also true of NaN
            raise ValueError(
                f"{name}: steps (={steps}) must be fewer: two neighbours among the nodes from {lams[0]:g} to"
                f" {lams[-1]:g} are the same number in float32, so a network cannot tell them apart. If fewer steps"
                " do not help, the schedule does not decrease."
            )
        return lams

    @abstractmethod
    def nodes(self, schedule: Callable[[Tensor], Tensor], steps: int) -> Tensor:
        """The nodes, for a schedule from and to float64 on the CPU."""


class UniformTime(Grid):
    """Equal steps of the schedule's own time, as in DDPM and VDM."""

    def nodes(self, schedule: Callable[[Tensor], Tensor], steps: int) -> Tensor:
        """``lam(t)`` at ``t = 1, ..., 0``."""
        return schedule(torch.linspace(1.0, 0.0, steps, dtype=torch.float64))


class UniformLogSNR(Grid):
    """Equal steps of log-SNR, as in "DPM-Solver" (Lu et al. 2022)."""

    def nodes(self, schedule: Callable[[Tensor], Tensor], steps: int) -> Tensor:
        """``lam_min, ..., lam_max``."""
        lowest, highest = _ends(schedule)
        return torch.lerp(lowest, highest, torch.linspace(0.0, 1.0, steps, dtype=torch.float64))


class Karras(Grid):
    """Equal steps of ``a^(1 / rho)`` between the schedule's ends, ``a = sigma / alpha``: Karras et al. 2022, eq. 5.

    Args:
        rho: 1: equal steps of a; the larger, the closer to `UniformLogSNR`, and the more steps are near the data.
    """

    @checked
    def __init__(self, rho: Exponent = 7.0) -> None:
        self.rho = rho

    def nodes(self, schedule: Callable[[Tensor], Tensor], steps: int) -> Tensor:
        """``-2 ln a`` in units of the largest a, so that no power overflows."""
        lowest, highest = _ends(schedule)
        share = torch.linspace(0.0, 1.0, steps, dtype=torch.float64)
        smallest = torch.exp((lowest - highest) / (2.0 * self.rho))
        lams = lowest - 2.0 * self.rho * torch.log(share.flip(0) + share * smallest)
        lams[-1] = highest  # exactly
        return lams


def with_nodes(lams: Tensor, at: Sequence[float]) -> Tensor:
    """The grid with more nodes, of which those outside of its ends are left out.

    For the ends of `ClassifierFree.interval`. Otherwise the interval begins and ends at the nodes after its ends, so it
    changes with the number of steps, and an error of order 1 does not fall smoothly.
    """
    for node in torch.tensor(at, dtype=torch.float64):
        if lams[0].float() < node.float() < lams[-1].float():
            others = lams[lams.float() != node.float()]  # a twin would be a step that float32 cannot separate
            lams = torch.cat([others, node[None]]).sort().values
    return lams


def _ends(schedule: Callable[[Tensor], Tensor]) -> Tensor:
    """``lam_min, lam_max``."""
    return schedule(torch.tensor([1.0, 0.0], dtype=torch.float64))
