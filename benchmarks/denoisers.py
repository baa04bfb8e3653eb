"""What a training step of `UNet` and `DiT` costs, against diffusers' of the same layers: forward and backward.

Both have equal parameters and compute the same numbers. The peers run as their users train them: float32, contiguous.
They are given our embedding of the clock, since their own is of integers from 0 to 999.
"""

from collections.abc import Iterator
from typing import Any, NamedTuple

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from benchmarks.ldm import MIXED, PLAIN, Step, compared, installed_peer
from benchmarks.timing import Row
from lit_vae.networks import DiT, UNet
from lit_vae.networks.clock import FEATURES, clock_features
from lit_vae.networks.layers import GroupNorm, Upsample

TARGETS = {PLAIN: 0.95}  # of the peer's time, on a CPU
CLASSES = 11


class Case(NamedTuple):
    """A network, and the states that it is given."""

    network: type[nn.Module]
    init_args: dict[str, Any]
    shape: tuple[int, int, int]
    batch: int
    rounds: int

    @property
    def name(self) -> str:
        return f"{self.network.__name__}, {self.batch} states of {'x'.join(map(str, self.shape))}"


UNET = {"patch": 2, "width": 64, "multipliers": [1, 2], "blocks": 2, "attention": [8]}
DIT = {"patch": 2, "width": 192, "layers": 6, "heads": 3}
CASES = (Case(UNet, UNET, (3, 32, 32), 16, 9), Case(DiT, DIT, (4, 16, 16), 32, 9))
QUICK = (
    Case(UNet, UNET | {"width": 8, "blocks": 1}, (3, 32, 32), 1, 1),
    Case(DiT, DIT | {"width": 24, "layers": 2}, (4, 16, 16), 1, 1),
)


def new(case: Case, **init_args: Any) -> nn.Module:
    """Our network."""
    torch.manual_seed(0)
    return case.network(case.shape, CLASSES, **case.init_args, **init_args)


# ---- the networks of diffusers, with the weights of ours ------------------------------------------------------------


class ClockFeatures(nn.Module):
    """In place of the features of an integer."""

    def forward(self, lam: Tensor) -> Tensor:
        return clock_features(lam)


class UNetPeer(nn.Module):
    """``z, lam, classes (B,) -> (B, C, H, W)`` by diffusers.UNet2DModel."""

    def __init__(self, ours: UNet, case: Case) -> None:
        super().__init__()
        from diffusers import UNet2DModel

        self.patch = ours.patch
        channels = [case.init_args["width"] * m for m in case.init_args["multipliers"]]
        heights = [case.shape[1] // ours.patch >> level for level in range(len(channels))]
        attends = ["Attn" * (height in case.init_args["attention"]) for height in heights]
        self.network = UNet2DModel(
            in_channels=ours.stem.in_channels,
            out_channels=ours.head.out_channels,
            down_block_types=tuple(f"{attn}DownBlock2D" for attn in attends),
            up_block_types=tuple(f"{attn}UpBlock2D" for attn in reversed(attends)),
            block_out_channels=tuple(channels),
            layers_per_block=case.init_args["blocks"],
            attention_head_dim=None,
            norm_num_groups=1,
            attn_norm_num_groups=1,  # otherwise the attention in the middle has no norm
            norm_eps=1e-6,
            resnet_time_scale_shift="scale_shift",
            num_class_embeds=CLASSES,
        )
        self.network.time_proj = ClockFeatures()
        self.network.time_embedding.linear_1 = nn.Linear(FEATURES, 4 * channels[0])
        self.to(ours.head.weight)
        self.network.class_embedding.weight.data.copy_(ours.clock.cond.weight.T)
        for theirs, layer in self.pairs(ours):
            theirs.load_state_dict(layer.state_dict())
            if isinstance(layer, GroupNorm):
                theirs.num_groups = layer.num_groups

    def pairs(self, ours: UNet) -> Iterator[tuple[nn.Module, nn.Module]]:
        """Their layers, and ours."""
        net = self.network
        yield from zip(net.time_embedding.children(), (ours.clock.hidden, nn.Identity(), ours.clock.out), strict=True)
        yield from ((net.conv_in, ours.stem), (net.conv_norm_out, ours.norm), (net.conv_out, ours.head))
        theirs = list(self.layers())
        for layer, mine in zip(theirs, (*ours.down, *ours.middle, *ours.up), strict=True):
            if not isinstance(layer, tuple):
                yield layer, mine.conv if isinstance(mine, Upsample) else mine
                continue
            resnet, attention = layer
            for name, its in (
                ("norm1", "norm1"), ("conv1", "conv1"), ("time_emb_proj", "film.to_scale_shift"), ("norm2", "norm2"),
                ("conv2", "conv2"), ("conv_shortcut", "shortcut"),
            ):  # fmt: skip
                if getattr(resnet, name) is not None:
                    yield getattr(resnet, name), mine.block.get_submodule(its)
            if attention is not None:
                yield attention.group_norm, mine.attention.norm
                yield attention.to_q, mine.attention.query
                yield attention.to_k, mine.attention.key
                yield attention.to_v, mine.attention.value
                yield attention.to_out[0], mine.attention.out

    def layers(self) -> Iterator[Any]:
        """Pairs of a residual block and its attention or None, and convolutions that change the grid."""
        net = self.network
        for block in net.down_blocks:
            yield from with_attention(block)
            yield from (each.conv for each in block.downsamplers or ())
        yield from ((net.mid_block.resnets[0], net.mid_block.attentions[0]), (net.mid_block.resnets[1], None))
        for block in net.up_blocks:
            yield from with_attention(block)
            yield from (each.conv for each in block.upsamplers or ())

    def forward(self, z: Tensor, lam: Tensor, classes: Tensor) -> Tensor:
        return F.pixel_shuffle(self.network(F.pixel_unshuffle(z, self.patch), lam, classes).sample, self.patch)


def with_attention(block: nn.Module) -> Iterator[tuple[nn.Module, nn.Module | None]]:
    attentions = getattr(block, "attentions", [None] * len(block.resnets))
    return zip(block.resnets, attentions, strict=True)


class DiTPeer(nn.Module):
    """``z, lam, classes (B,) -> (B, C, H, W)`` by diffusers.DiTTransformer2DModel."""

    def __init__(self, ours: DiT, case: Case) -> None:
        super().__init__()
        from diffusers import DiTTransformer2DModel

        width, heads = case.init_args["width"], case.init_args["heads"]
        self.network = net = DiTTransformer2DModel(
            num_attention_heads=heads,
            attention_head_dim=width // heads,
            in_channels=case.shape[0],
            num_layers=case.init_args["layers"],
            sample_size=case.shape[1],
            patch_size=ours.patch,
            num_embeds_ada_norm=CLASSES - 1,  # it adds one for "no class"
            norm_eps=1e-6,
        )
        embedding = net.transformer_blocks[0].norm1.emb
        embedding.time_proj = ClockFeatures()
        for block in net.transformer_blocks:  # each has its own, but equal parameters need one
            block.norm1.emb = embedding
        self.to(ours.head.weight)
        net.pos_embed.pos_embed.copy_(ours.positions[None])
        embedding.class_embedder.embedding_table.weight.data.copy_(ours.clock.cond.weight.T)
        embedding.timestep_embedder.linear_1.load_state_dict(ours.clock.hidden.state_dict())
        embedding.timestep_embedder.linear_2.load_state_dict(ours.clock.out.state_dict())
        net.pos_embed.proj.load_state_dict(ours.embed.state_dict())
        *of_blocks, of_norm = zip(*(p.split(6 * width) for p in ours.modulation.parameters()), strict=True)
        fill(net.proj_out_1, of_norm)
        fill(
            net.proj_out_2,
            [p.unflatten(0, (-1, ours.patch**2)).transpose(0, 1).flatten(0, 1) for p in ours.head.parameters()],
        )
        for theirs, block, modulation in zip(net.transformer_blocks, ours.blocks, of_blocks, strict=True):
            fill(theirs.norm1.linear, modulation)
            attention, projections = theirs.attn1, block.to_query_key_value.parameters()
            by_part = zip(*(p.chunk(3) for p in projections), strict=True)
            for layer, part in zip((attention.to_q, attention.to_k, attention.to_v), by_part, strict=True):
                fill(layer, part)
            fill(attention.to_out[0], block.from_heads.parameters())
            fill(theirs.ff.net[0].proj, block.widen.parameters())
            fill(theirs.ff.net[2], block.narrow.parameters())

    def forward(self, z: Tensor, lam: Tensor, classes: Tensor) -> Tensor:
        return self.network(z, lam, classes).sample


@torch.no_grad()
def fill(layer: nn.Module, values: Any) -> None:
    """Give a layer these parameters."""
    for parameter, value in zip(layer.parameters(), values, strict=True):
        parameter.copy_(value)


def peer(ours: nn.Module, case: Case) -> nn.Module:
    """The network of diffusers with the weights of ours."""
    return UNetPeer(ours, case) if isinstance(ours, UNet) else DiTPeer(ours, case)


# ---- both, measured -------------------------------------------------------------------------------------------------


def steps(case: Case, peer_name: str | None, device: torch.device) -> dict[str, Step]:
    """A step of each way, on the same states."""
    generator = torch.Generator().manual_seed(0)
    z = torch.randn(case.batch, *case.shape, generator=generator).to(device)
    lam = torch.linspace(-9.0, 9.0, case.batch, device=device)
    classes = torch.arange(case.batch, device=device) % CLASSES
    cond = F.one_hot(classes, CLASSES).float()

    def ours(mixed: bool = False, channels_last: bool = False, checkpointing: bool = False) -> Step:
        network = new(case, checkpointing=checkpointing).to(device)
        form = torch.channels_last if channels_last else torch.contiguous_format
        network.to(memory_format=form)
        return Step(network, lambda z: network(z, lam, cond), z.contiguous(memory_format=form), mixed)

    ways = {}
    if peer_name:
        theirs = peer(new(case), case).to(device)
        ways[peer_name] = Step(theirs, lambda z: theirs(z, lam, classes), z, False)
    return ways | {
        PLAIN: ours(),
        "fp32, channels_last": ours(channels_last=True),
        MIXED: ours(mixed=True, channels_last=True),
        "fp32, checkpointing": ours(checkpointing=True),
    }


def run(device: torch.device, quick: bool) -> list[Row]:
    """Time and peak memory of each way, with the ratio of its time to the peer's."""
    peer_name = installed_peer()
    targets = TARGETS if device.type == "cpu" and not quick else {}
    rows = []
    for case in QUICK if quick else CASES:
        rows += compared(case.name, steps(case, peer_name, device), case.rounds, peer_name, device, targets)
    return rows
