"""What the networks of latent diffusion cost, against diffusers.AutoencoderKL of the same layers: forward and backward.

Both have equal parameters and compute the same numbers. The peer runs as its users train it: float32, contiguous. The
target in bfloat16 is for a processor with a matrix unit for it (AMX); others halve the time of a convolution at best.
"""

from collections.abc import Callable
from importlib import metadata
from typing import Any, NamedTuple

import torch
from torch import Tensor, nn

from benchmarks.quantizer import MIB, peak_bytes
from benchmarks.timing import Row, interleave, now, ratio, spread
from lit_vae.networks import LDMDecoder, LDMEncoder

PEER = "diffusers"
INSTALL = f"{PEER} is not installed: pip install -e '.[bench]'"
PLAIN, MIXED = "fp32", "bf16-mixed, channels_last"
TARGETS = {PLAIN: 0.95, MIXED: 0.33}  # of the peer's time in fp32, on a CPU
LATENT_CHANNELS = 4


class Case(NamedTuple):
    """Images, and the networks that they go through."""

    batch: int
    size: int
    width: int
    multipliers: tuple[int, ...]
    norm_groups: int
    rounds: int

    @property
    def name(self) -> str:
        channels = "-".join(str(self.width * m) for m in self.multipliers)
        return f"ldm, {channels}, {self.batch} images of {self.size}x{self.size}"


CASE = Case(batch=2, size=128, width=64, multipliers=(1, 2, 4), norm_groups=32, rounds=5)
QUICK = Case(batch=1, size=16, width=4, multipliers=(1, 2), norm_groups=2, rounds=1)


class Step:
    """Encoding, decoding the mean, and the gradients of all parameters, at the same images each time.

    Args:
        networks: whose parameters these are.
        autoencode: images ``(B, 3, H, W)`` to outputs of the same shape.
        x: the images.
        mixed: under bfloat16 autocast.
    """

    def __init__(self, networks: nn.Module, autoencode: Callable[[Tensor], Tensor], x: Tensor, mixed: bool) -> None:
        self.networks, self.autoencode, self.x, self.mixed = networks, autoencode, x, mixed

    def __call__(self) -> tuple[Tensor, ...]:
        """Outputs, then the gradients of the mean square of what they miss."""
        with torch.autocast(self.x.device.type, torch.bfloat16, enabled=self.mixed):
            y = self.autoencode(self.x)
        return y, *torch.autograd.grad((y.float() - self.x).square().mean(), list(self.networks.parameters()))

    def seconds(self) -> float:
        """Of one step."""
        start = now(self.x.device)
        self()
        return now(self.x.device) - start


def ours(
    case: Case,
    x: Tensor,
    mixed: bool = False,
    channels_last: bool = False,
    checkpointing: bool = False,
    compiled: bool = False,
) -> Step:
    """`LDMEncoder` and `LDMDecoder`."""
    init_args: dict[str, Any] = {
        "width": case.width,
        "multipliers": list(case.multipliers),
        "norm_groups": case.norm_groups,
        "checkpointing": checkpointing,
    }
    side = case.size >> (len(case.multipliers) - 1)
    torch.manual_seed(0)
    encoder = LDMEncoder((3, case.size, case.size), (2 * LATENT_CHANNELS, side, side), **init_args)
    decoder = LDMDecoder((LATENT_CHANNELS, side, side), (3, case.size, case.size), **init_args)
    networks = nn.ModuleList([encoder, decoder]).to(x.device)
    if channels_last:
        networks.to(memory_format=torch.channels_last)
        x = x.contiguous(memory_format=torch.channels_last)

    def autoencode(x: Tensor) -> Tensor:
        return decoder(encoder(x).chunk(2, 1)[0])

    return Step(networks, torch.compile(autoencode) if compiled else autoencode, x, mixed)


def peer(case: Case, x: Tensor) -> tuple[nn.Module, Step]:
    """The same of diffusers."""
    import diffusers

    levels = len(case.multipliers)
    networks = diffusers.AutoencoderKL(
        down_block_types=("DownEncoderBlock2D",) * levels,
        up_block_types=("UpDecoderBlock2D",) * levels,
        block_out_channels=tuple(case.width * m for m in case.multipliers),
        layers_per_block=2,
        latent_channels=LATENT_CHANNELS,
        norm_num_groups=case.norm_groups,
    ).to(x.device)
    return networks, Step(networks, lambda x: networks.decode(networks.encode(x).latent_dist.mean).sample, x, False)


def installed_peer() -> str | None:
    """Its name and version."""
    try:
        return f"{PEER} {metadata.version(PEER)}"
    except metadata.PackageNotFoundError:
        return None


def run(device: torch.device, quick: bool) -> list[Row]:
    """Time and peak memory of each way, with the ratio of its time to the peer's."""
    case = QUICK if quick else CASE
    peer_name = installed_peer()
    x = torch.rand(case.batch, 3, case.size, case.size, generator=torch.Generator().manual_seed(0)).to(device) * 2 - 1
    steps = {
        PLAIN: ours(case, x),
        "fp32, channels_last": ours(case, x, channels_last=True),
        MIXED: ours(case, x, mixed=True, channels_last=True),
        "fp32, checkpointing": ours(case, x, checkpointing=True),
    }
    if not quick:
        steps[f"{MIXED}, compiled"] = ours(case, x, mixed=True, channels_last=True, compiled=True)
    if peer_name:
        steps = {peer_name: peer(case, x)[1], **steps}
    return compared(
        case.name, steps, case.rounds, peer_name, device, TARGETS if device.type == "cpu" and not quick else {}
    )


def compared(
    section: str,
    steps: dict[str, Step],
    rounds: int,
    peer_name: str | None,
    device: torch.device,
    targets: dict[str, float],
) -> list[Row]:
    """Time and peak memory of each step, with the ratio of its time to the peer's, or to `PLAIN` without a peer."""
    seconds = interleave({name: step.seconds for name, step in steps.items()}, rounds)
    baseline = peer_name or PLAIN
    rows = []
    for name, step in steps.items():
        label = name if peer_name or name != PLAIN else f"{name} ({INSTALL})"
        milliseconds = 1e3 * spread(seconds[name]).median
        if name == baseline:
            rows.append(Row(section, label, milliseconds, "ms"))
        else:
            target = targets.get(name) if peer_name else None
            rows.append(Row(section, label, milliseconds, "ms", baseline, ratio(seconds, name, baseline), target))
        rows.append(Row(section, f"{label}, peak memory", peak_bytes(step, device) / MIB, "MiB"))
    return rows
