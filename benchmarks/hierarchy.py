"""What a training step of a hierarchical VAE costs, against a plain transcription of the same network.

The transcription is what a reader of "Very Deep VAEs" (Child 2021) and its code would write: blocks of the path that
compute q and p, draw, and sum the KL by its formula. Both have the same parameters and, given the same noise, the same
loss and gradients. Convolutions and GELU, four fifths of the time, are the same in both. The transcription runs in
float32 only: the row of ``configs/overlays/bf16.yaml`` says what the overlay gains, not how the two compare in bf16.
Sampling, measured beside it, runs neither the encoder nor the posteriors.
"""

from collections.abc import Callable, Iterator
from functools import partial
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.quantizer import MIB, peak_bytes
from benchmarks.timing import Row, interleave, now, ratio, spread
from lit_vae.hierarchies import Absolute, TopDown
from lit_vae.images import Batch
from lit_vae.likelihoods import Bernoulli
from lit_vae.models import HierarchicalVAE
from lit_vae.networks import VDVAEBlock
from lit_vae.noise import Draws
from lit_vae.objectives import ELBO

PLAIN, OURS, MIXED = "plain transcription", "lit_vae", "lit_vae, bf16-mixed, channels_last"
TARGET = 0.95  # of the transcription's time, on a CPU
Noise = Callable[[Tensor], Tensor]
"""Standard normal numbers in the shape of a tensor."""


class Case(NamedTuple):
    """Binary images, and the network that they go through."""

    batch: int
    size: int
    latents: tuple[tuple[int, int], ...]  # side of the grid, levels on it
    width: int
    channels: int
    encoder_blocks: int
    rounds: int

    @property
    def name(self) -> str:
        grids = ", ".join(f"{levels} at {side}x{side}" for side, levels in self.latents)
        return f"hierarchy, width {self.width}, levels {grids}, batch {self.batch}"


CASE = Case(batch=16, size=28, latents=((7, 3), (14, 3), (28, 2)), width=64, channels=16, encoder_blocks=2, rounds=7)
QUICK = Case(batch=2, size=4, latents=((2, 2), (4, 1)), width=8, channels=2, encoder_blocks=1, rounds=1)


# ---- the transcription ----------------------------------------------------------------------------------------------


class Block(nn.Module):
    """GELU and convolution, four times, with a shortcut."""

    def __init__(self, width: int, out: int) -> None:
        super().__init__()
        middle = width // 4
        self.c1 = nn.Conv2d(width, middle, 1)
        self.c2 = nn.Conv2d(middle, middle, 3, padding=1)
        self.c3 = nn.Conv2d(middle, middle, 3, padding=1)
        self.c4 = nn.Conv2d(middle, out, 1)
        self.shortcut = nn.Identity() if width == out else nn.Conv2d(width, out, 1)

    def forward(self, x: Tensor) -> Tensor:
        h = self.c1(F.gelu(x))
        h = self.c2(F.gelu(h))
        h = self.c3(F.gelu(h))
        return self.shortcut(x) + self.c4(F.gelu(h))


class DecBlock(nn.Module):
    """One level: p from the path, q from path and features, a draw, its KL, and a block."""

    def __init__(self, width: int, channels: int, side: int, first: bool, new_grid: bool) -> None:
        super().__init__()
        self.channels, self.side, self.first, self.new_grid = channels, side, first, new_grid
        if new_grid:
            self.bias = nn.Parameter(torch.zeros(width, side, side))
        if new_grid and not first:
            self.up = nn.Conv2d(width, width, 1)
        self.prior = Block(width, 2 * channels + width)
        self.features = nn.Conv2d(width, width, 1)
        self.posterior = Block(width, 2 * channels)
        self.z_proj = nn.Conv2d(channels, width, 1)
        self.resnet = Block(width, width)

    def forward(self, x: Tensor, features: Tensor, noise: Noise) -> tuple[Tensor, Tensor]:
        if self.first:
            x = self.bias.expand(len(features), -1, -1, -1)
        elif self.new_grid:
            x = F.interpolate(self.up(x), size=(self.side, self.side)) + self.bias
        out = self.prior(x)
        pm, pv, more = out.split([self.channels, self.channels, out.shape[1] - 2 * self.channels], dim=1)
        qm, qv = self.posterior(x + self.features(features)).chunk(2, dim=1)
        pv, qv = 5.0 * torch.tanh(pv / 5.0), 5.0 * torch.tanh(qv / 5.0)
        z = qm + torch.exp(qv) * noise(qm)
        kl = -0.5 + pv - qv + 0.5 * (qv.exp() ** 2 + (qm - pm) ** 2) / pv.exp() ** 2
        return self.resnet(x + more + self.z_proj(z)), kl.sum(dim=(1, 2, 3))


class PlainVAE(nn.Module):
    """Encoder, path and decoder in one module."""

    def __init__(self, case: Case) -> None:
        super().__init__()
        sides = [side for side, _ in case.latents]
        self.grids = sides[::-1]
        self.enter = nn.ModuleList(
            nn.Conv2d(case.width if index else 1, case.width, 1 if index else 3, padding=0 if index else 1)
            for index in range(len(sides))
        )
        self.encoder = nn.ModuleList(
            nn.Sequential(*[Block(case.width, case.width) for _ in range(case.encoder_blocks)]) for _ in sides
        )
        levels = [(side, index == 0) for side, count in case.latents for index in range(count)]
        self.decoder = nn.ModuleList(
            DecBlock(case.width, case.channels, side, first=index == 0, new_grid=new)
            for index, (side, new) in enumerate(levels)
        )
        self.out = nn.Conv2d(case.width, 1, 3, padding=1)

    def forward(self, x: Tensor, noise: Noise) -> Tensor:
        """Minus the ELBO of binary images in {-1, 1}, nats per image."""
        features, h = {}, x
        for side, enter, blocks in zip(self.grids, self.enter, self.encoder, strict=True):
            if h.shape[2] != side:
                h = F.avg_pool2d(h, h.shape[2] // side)
            features[side] = h = blocks(enter(h))
        rate = torch.zeros(len(x), dtype=x.dtype, device=x.device)
        for block in self.decoder:
            h, kl = block(h, features[block.side], noise)
            rate = rate + kl
        targets = (x + 1.0) / 2.0
        distortion = F.binary_cross_entropy_with_logits(self.out(h), targets, reduction="none").sum(dim=(1, 2, 3))
        return (distortion + rate).mean()


# ---- both, measured -------------------------------------------------------------------------------------------------


def new_model(case: Case, checkpointing: bool = False) -> HierarchicalVAE:
    """The same network of this package."""
    torch.manual_seed(0)
    shapes = [[case.channels, side, side] for side, levels in case.latents for _ in range(levels)]
    hierarchy: Any = partial(
        TopDown,
        posterior=Absolute(),
        block=VDVAEBlock,
        widths=[case.width] * len(case.latents),
        encoder_blocks=case.encoder_blocks,
        checkpointing=checkpointing,
    )
    image_shape = [1, case.size, case.size]
    return HierarchicalVAE(image_shape, shapes, hierarchy, Bernoulli(), ELBO(), partial(torch.optim.Adam, lr=1e-3))


def transcribed(case: Case, model: HierarchicalVAE) -> PlainVAE:
    """The transcription with the weights of ``model``."""
    plain = PlainVAE(case).to(next(model.parameters()))
    with torch.no_grad():
        for theirs, weight in zip(ordered(plain), model.hierarchy.parameters(), strict=True):
            theirs.copy_(weight)
    return plain


def ordered(plain: PlainVAE) -> Iterator[Tensor]:
    """The parameters in the order of `TopDown`'s."""
    for part in (plain.enter, plain.encoder):
        yield from part.parameters()
    for block in plain.decoder:
        names = ("prior", "features", "posterior", "z_proj", "resnet", "bias", "up")
        for found in (getattr(block, name, None) for name in names):
            yield from found.parameters() if isinstance(found, nn.Module) else [] if found is None else [found]
    yield from plain.out.parameters()


class Step:
    """Loss and gradients of all parameters, at the same images each time."""

    def __init__(self, network: nn.Module, loss: Callable[[], Tensor], device: torch.device) -> None:
        self.parameters, self.loss, self.device = list(network.parameters()), loss, device

    def __call__(self) -> tuple[Tensor, ...]:
        """The loss, then the gradients."""
        loss = self.loss()
        return loss, *torch.autograd.grad(loss, self.parameters)

    def seconds(self) -> float:
        """Of one step."""
        start = now(self.device)
        self()
        return now(self.device) - start


def steps(case: Case, device: torch.device) -> dict[str, Step]:
    """A step of each way, on the same images, with the noise that training has."""
    x = (torch.rand(case.batch, 1, case.size, case.size, generator=torch.Generator().manual_seed(0)) < 0.2) * 2.0 - 1.0
    batch = Batch(x.to(device), torch.full((case.batch,), -1, device=device))

    def ours(checkpointing: bool = False, mixed: bool = False) -> Step:
        model = new_model(case, checkpointing).to(device)
        if mixed:
            model.to(memory_format=torch.channels_last)

        def loss() -> Tensor:
            noise = Draws(0, 0, torch.arange(case.batch, device=device))
            with torch.autocast(device.type, torch.bfloat16, enabled=mixed):
                return model.step(batch, 0, noise).terms["loss"].mean()

        return Step(model, loss, device)

    plain = transcribed(case, new_model(case).to(device))
    return {
        PLAIN: Step(plain, lambda: plain(batch.x, torch.randn_like), device),
        OURS: ours(),
        f"{OURS}, checkpointing": ours(checkpointing=True),
        MIXED: ours(mixed=True),
    }


def run(device: torch.device, quick: bool) -> list[Row]:
    """Time and peak memory of each way, then of sampling as many images."""
    case = QUICK if quick else CASE
    ways, model = steps(case, device), new_model(case).to(device)

    def sampling() -> float:
        start = now(device)
        model.sample(case.batch)
        return now(device) - start

    sampled = f"{OURS}, sampling as many images"
    seconds = interleave({**{name: step.seconds for name, step in ways.items()}, sampled: sampling}, case.rounds)
    rows = []
    for name, values in seconds.items():
        milliseconds, has_target = 1e3 * spread(values).median, name == OURS and device.type == "cpu" and not quick
        against = {} if name == PLAIN else {"baseline": PLAIN, "ratio": ratio(seconds, name, PLAIN)}
        rows.append(Row(case.name, name, milliseconds, "ms", **against, target=TARGET if has_target else None))
        what: Callable[[], object] = ways[name] if name in ways else lambda: model.sample(case.batch)
        rows.append(Row(case.name, f"{name}, peak memory", peak_bytes(what, device) / MIB, "MiB"))
    return rows
