"""How a diffusion model draws: solver, grid, number of steps and guidance."""

from collections.abc import Callable

import torch
from torch import Generator, Tensor

from lit_vae.diffusion.grids import Grid, UniformTime
from lit_vae.diffusion.guidance import ClassifierFree
from lit_vae.diffusion.noise_schedules import NoiseSchedule
from lit_vae.diffusion.samplers import DDIM, Denoise, Sampler
from lit_vae.images import Shape
from lit_vae.noise import FIXED, Draws
from lit_vae.ranges import Steps, checked


class Sampling:
    """Draws from noise, along the log signal-to-noise ratios of a grid.

    Args:
        steps: nodes of the grid. Most samplers call the network once at each.
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

        Args:
            denoise: the network with the classes of the images, if it has classes.
            without_class: makes the network without a class, for guidance.
            schedule: of the model.
            shape: ``(n, ...)``.
            device: of the network.
            generator: draws one number for each image, the seed of its noise; None: torch's generator.
        """
        where = torch.device("cpu") if generator is None else generator.device
        ids = torch.randint(2**62, shape[:1], generator=generator, device=where).to(device)
        noise = Draws(0, FIXED, ids).next_normal
        if self.guidance is not None:
            denoise = self.guidance(denoise, without_class())
        lams = self.grid(schedule, self.steps, device)
        return self.sampler(denoise, noise(shape), lams, noise)
