"""A shared top-down path: ladder VAE (Sonderby et al. 2016), NVAE (Vahdat and Kautz 2020), VDVAE (Child 2021)."""

import math
from collections.abc import Callable, Sequence
from itertools import pairwise

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lit_vae.distributions import DiagonalGaussian
from lit_vae.hierarchies.base import Hierarchy, Pick, at, for_each_draw
from lit_vae.hierarchies.posteriors import LevelPosterior, gaussian
from lit_vae.images import Shape
from lit_vae.networks.blocks import BlockFactory, rescale
from lit_vae.networks.layers import call
from lit_vae.objectives import Level
from lit_vae.ranges import PositiveInt, SmallCount, checked


class TopDown(Hierarchy):
    """``p(z) = prod p(z_l | z_<l)``, ``q(z | x) = prod q(z_l | z_<l, x)``, with one path for both.

    A bottom-up network computes features of the image on each grid. The top-down path starts at a learned map. At each
    level, a block gives ``p(z_l | z_<l)``; another, which also reads the features, gives ``q(z_l | z_<l, x)``; then z_l
    is added to the path. All p start as N(0, I). Pixels are moved into the channels of the finest grid
    (pixel-unshuffle), so no layer runs on a finer grid than the latents'.

    Args:
        in_shape: set by the model.
        latent_shapes: set by the model, ``(channels, height, width)`` each.
        out_shape: set by the model.
        cond_dim: set by the model; 0 for no condition.
        posterior: how q depends on p.
        block: `lit_vae.networks.VDVAEBlock` or `NVAECell`.
        widths: channels on each grid, from the coarsest.
        blocks: blocks after each latent.
        encoder_blocks: blocks of the bottom-up network on each grid.
        checkpointing: compute each block twice in a training step, to save memory.

    Raises:
        ValueError: grids that do not divide, or another number of widths than of grids.
    """

    @checked
    def __init__(
        self,
        in_shape: Shape,
        latent_shapes: Sequence[Shape],
        out_shape: Shape,
        cond_dim: int,
        posterior: LevelPosterior,
        block: BlockFactory,
        widths: list[PositiveInt],
        blocks: SmallCount = 1,
        encoder_blocks: SmallCount = 2,
        checkpointing: bool = False,
    ) -> None:
        super().__init__()
        grids = _grids(in_shape, latent_shapes)
        if len(widths) != len(grids):
            on = ", ".join(f"{h}x{w}" for h, w in grids)
            raise ValueError(
                f"TopDown: widths (={widths}) must be one for each grid, from the coarsest: the latents are on {on}."
                " Set model.init_args.hierarchy.init_args.widths."
            )
        width_on = dict(zip(grids, widths, strict=True))
        self.latent_shapes, self.posterior, self.checkpointing = latent_shapes, posterior, checkpointing
        self.factor = in_shape[1] // grids[-1][0]
        self.bottom_up = _BottomUp(in_shape[0] * self.factor**2, width_on, encoder_blocks, block, cond_dim)
        self.steps = nn.ModuleList()
        self.of_grid: list[int] = []  # of each level
        before: int | None = None
        for channels, height, width in latent_shapes:
            grid = height, width
            step = _Step(
                channels, width_on[grid], block, blocks, cond_dim, 1.0 / math.sqrt(len(latent_shapes) * blocks)
            )
            if not self.of_grid or grids[self.of_grid[-1]] != grid:
                step.enter = _Enter(before, width_on[grid], grid)
            self.steps.append(step)
            self.of_grid.append(grids.index(grid))
            before = width_on[grid]
        self.head = nn.Conv2d(widths[-1], out_shape[0] * self.factor**2, 3, padding=1)

    @property
    def _steps(self) -> "list[_Step]":
        return list(self.steps)  # type: ignore[arg-type]

    def encode(self, x: Tensor, cond: Tensor | None) -> list[Tensor]:
        """What each level reads of the image, ``(B, width, *grid)``."""
        features = self.bottom_up(F.pixel_unshuffle(x, self.factor), cond)
        return [step.evidence(features[grid]) for step, grid in zip(self._steps, self.of_grid, strict=True)]

    def infer(
        self, encoded: list[Tensor], cond: Tensor | None, num_samples: int, pick: Pick
    ) -> tuple[list[Level], Tensor]:
        """See `Hierarchy`."""
        levels: list[Level] = []
        size = num_samples, len(encoded[0])
        cond = for_each_draw(cond, num_samples)

        def from_posterior(index: int, h: Tensor, prior: DiagonalGaussian) -> Tensor:
            seen = (h.unflatten(0, size) + encoded[index]).flatten(0, 1)
            parameters = self._run(self._steps[index].posterior, seen, cond).unflatten(0, size)
            q = self.posterior(gaussian(parameters, 3), prior)
            levels.append(Level(q, prior, pick(index, q)))
            return levels[-1].z

        return levels, self._descend(cond, size, from_posterior)

    def generate(self, cond: Tensor | None, u: Sequence[Tensor]) -> Tensor:
        """See `Hierarchy`."""
        num_samples, batch = u[0].shape[:2]
        pick = at(u)
        return self._descend(
            for_each_draw(cond, num_samples), (num_samples, batch), lambda index, _, prior: pick(index, prior)
        )

    def _descend(
        self, cond: Tensor | None, size: tuple[int, int], choose: Callable[[int, Tensor, DiagonalGaussian], Tensor]
    ) -> Tensor:
        """The path from the top to the likelihood's parameters. ``choose`` gives z, given level, path and prior."""
        h = self.head.weight.new_zeros(math.prod(size), 0)
        for index, step in enumerate(self._steps):
            if step.enter is not None:
                h = step.enter(h)
            parameters, more = self._run(step.prior, h, cond).split([2 * step.channels, h.shape[1]], 1)
            z = choose(index, h, gaussian(parameters.unflatten(0, size), 3))
            h = h + more + step.merge(z.flatten(0, 1))
            h = self._run(step.blocks, h, cond)
        return F.pixel_shuffle(self.head(h), self.factor).unflatten(0, size)

    def _run(self, network: nn.Module, h: Tensor, cond: Tensor | None) -> Tensor:
        return call(network, h, cond, again=self.checkpointing)


class _Blocks(nn.Module):
    """Blocks of one width, whose residuals start small."""

    def __init__(self, number: int, width: int, block: BlockFactory, cond_dim: int, scale: float) -> None:
        super().__init__()
        blocks = [block(width, width, cond_dim) for _ in range(number)]
        for each in blocks:
            rescale(each.last, scale)
        self.blocks = nn.ModuleList(blocks)

    def forward(self, h: Tensor, cond: Tensor | None) -> Tensor:
        """``(N, width, *grid) -> (N, width, *grid)``."""
        for block in self.blocks:
            h = block(h, cond)
        return h


class _BottomUp(nn.Module):
    """Features on each grid: blocks on the finest, average pooling, blocks on the next, and so on."""

    def __init__(
        self, channels: int, width_on: dict[tuple[int, int], int], blocks: int, block: BlockFactory, cond_dim: int
    ) -> None:
        super().__init__()
        self.grids = list(width_on)[::-1]
        widths = [width_on[grid] for grid in self.grids]
        kernels = [3, *[1] * (len(widths) - 1)]
        self.enter = nn.ModuleList(
            nn.Conv2d(before, width, kernel, padding=kernel // 2)
            for before, width, kernel in zip([channels, *widths], widths, kernels, strict=False)
        )
        scale = 1.0 / math.sqrt(blocks * len(widths))
        self.stages = nn.ModuleList(_Blocks(blocks, width, block, cond_dim, scale) for width in widths)

    def forward(self, h: Tensor, cond: Tensor | None) -> list[Tensor]:
        """Features ``(B, width, *grid)``, from the coarsest grid to the finest."""
        features: list[Tensor] = []
        for grid, enter, stage in zip(self.grids, self.enter, self.stages, strict=True):
            h = stage(enter(_pooled(h, grid)), cond)
            features.append(h)
        return features[::-1]


class _Step(nn.Module):
    """The networks of one level."""

    def __init__(
        self, channels: int, width: int, block: BlockFactory, blocks: int, cond_dim: int, scale: float
    ) -> None:
        super().__init__()
        self.channels = channels
        self.enter: _Enter | None = None  # set where the path comes to another grid
        self.prior = block(width, 2 * channels + width, cond_dim)
        for layer in (self.prior.last, self.prior.shortcut):  # p starts as N(0, I)
            rescale(layer, 0.0)
        self.evidence = nn.Conv2d(width, width, 1)
        self.posterior = block(width, 2 * channels, cond_dim)
        self.merge = nn.Conv2d(channels, width, 1)
        rescale(self.merge, scale)
        self.blocks = _Blocks(blocks, width, block, cond_dim, scale)


class _Enter(nn.Module):
    """Brings the path to a grid, by repetition, and adds a learned map."""

    def __init__(self, before: int | None, width: int, grid: tuple[int, int]) -> None:
        super().__init__()
        self.conv = None if before is None else nn.Conv2d(before, width, 1)
        self.bias = nn.Parameter(torch.zeros(width, *grid))

    def forward(self, h: Tensor) -> Tensor:
        """``(N, before, *coarse) -> (N, width, *grid)``; for the first grid, only N is used."""
        if self.conv is None:
            return self.bias.expand(len(h), -1, -1, -1)
        return F.interpolate(self.conv(h), size=self.bias.shape[1:], mode="nearest") + self.bias


def _pooled(h: Tensor, grid: tuple[int, int]) -> Tensor:
    """Means over the positions of a finer grid that belong to each position of ``grid``."""
    ratio = h.shape[2] // grid[0], h.shape[3] // grid[1]
    return h if ratio == (1, 1) else F.avg_pool2d(h, ratio)


def _grids(in_shape: Shape, latent_shapes: Sequence[Shape]) -> list[tuple[int, int]]:
    """The grids of the latents, from the coarsest; raises ValueError for some that do not divide."""
    for index, shape in enumerate(latent_shapes):
        if len(shape) != 3:
            raise ValueError(
                f"TopDown: latent_shapes.{index} (={list(shape)}) must be a map [channels, height, width]; [d, 1, 1] is"
                " a vector. Set model.init_args.latent_shapes."
            )
    chain = [*(shape[1:] for shape in latent_shapes), in_shape[1:]]
    for index, ((height, width), (finer_height, finer_width)) in enumerate(pairwise(chain)):
        if finer_height % height or finer_width % width:
            below = "the image" if index == len(latent_shapes) - 1 else f"latent_shapes.{index + 1}"
            raise ValueError(
                f"TopDown: latent_shapes.{index} is on a grid of {height}x{width}, which does not divide"
                f" {finer_height}x{finer_width}, the grid of {below}. List the latents from the coarsest grid to the"
                " finest, each grid a divisor of the next and of the image. Set model.init_args.latent_shapes."
            )
    (height, width), (image_height, image_width) = chain[-2:]
    if image_height * width != image_width * height:
        raise ValueError(
            f"TopDown: the finest grid (={height}x{width}) must have the proportions of the image"
            f" (={image_height}x{image_width}). Set model.init_args.latent_shapes."
        )
    return list(dict.fromkeys((height, width) for height, width in chain[:-1]))
