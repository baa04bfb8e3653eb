"""How a diffusion model draws: solver, grid, number of steps and guidance."""

from collections.abc import Callable

import torch
from torch import Generator, Tensor

from lit_vae.diffusion.grids import Grid, UniformTime, with_nodes
from lit_vae.diffusion.guidance import ClassifierFree
from lit_vae.diffusion.noise_schedules import NoiseSchedule
from lit_vae.diffusion.samplers import DDIM, Denoise, Sampler
from lit_vae.images import Shape
from lit_vae.noise import FIXED, Draws
from lit_vae.ranges import Steps, checked

Watch = Callable[[int, Tensor, Tensor], None]
"""``(k, lams (S,), x_hat (n, ...))``: told what the network, guided or not, expects at node k of S, from noise on."""


class Sampling:
    """Draws from noise, along the log signal-to-noise ratios of a grid.

    Args:
        steps: nodes of the grid. Most samplers call the network once at each. The ends of an interval of guidance are
            nodes beside them.
        sampler: null: `DDIM`, deterministic.
        grid: null: `UniformTime`, the schedule's own time.
        guidance: for a model with classes; null: none.
    """

    @checked
    def __init__(
        self,
        steps: Steps = 50,
        sampler: Sampler | None = None,
        grid: Grid | None = None,
        guidance: ClassifierFree | None = None,
    ) -> None:
        self.steps = steps
        self.sampler, self.grid, self.guidance = sampler or DDIM(), grid or UniformTime(), guidance
        self.watch: Watch | None = None

    def __str__(self) -> str:
        return ", ".join(map(str, filter(None, (f"{self.steps} steps of {self.sampler}", self.guidance))))

    def __call__(
        self,
        denoise: Denoise,
        without_class: Callable[[], Denoise],
        schedule: NoiseSchedule,
        shape: Shape,
        device: torch.device,
        generator: Generator | None = None,
    ) -> Tensor:
        """Draw ``shape (n, ...)``, float64. The noise of an image does not depend on the others.

        ``denoise`` is the network with the classes of the images, if it has classes; ``without_class`` makes the one
        without, for guidance. ``generator`` draws one number for each image, the seed of its noise; None: torch's.
        """
        where = torch.device("cpu") if generator is None else generator.device
        ids = torch.randint(2**62, shape[:1], generator=generator, device=where).to(device)
        noise = Draws(0, FIXED, ids).next_normal
        lams = self.grid(schedule, self.steps, device)
        if self.guidance is not None:
            denoise = self.guidance(denoise, without_class())
            lams = with_nodes(lams, self.guidance.interval or ())
        if self.watch is not None:
            denoise = _watched(denoise, lams, self.watch)
        return self.sampler(denoise, noise(shape), lams, noise)


def _watched(denoise: Denoise, lams: Tensor, watch: Watch) -> Denoise:
    def watched(z: Tensor, lam: Tensor) -> Tensor:
        x_hat = denoise(z, lam)
        for node in (lams == lam).nonzero().flatten().tolist():  # none where `Heun` corrects
            watch(node, lams, x_hat)
        return x_hat

    return watched
