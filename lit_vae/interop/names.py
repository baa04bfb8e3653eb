"""Names of weights in other libraries. Each list of rules translates from names of this project, in order."""

import re
from collections.abc import Callable

Rules = list[tuple[str, str]]

_SHARED: Rules = [
    (r"^encoder\.quant\.", "quant_conv."),
    (r"^decoder\.post_quant\.", "post_quant_conv."),
    (r"^quantizers\.0\.codebook\.", "quantize.embedding."),
    (r"\.stem\.", ".conv_in."),
    (r"coder\.head\.", "coder.conv_out."),
]

_DIFFUSERS: Rules = [
    *_SHARED,
    (r"^encoder\.levels\.", "encoder.down_blocks."),
    (r"^decoder\.levels\.", "decoder.up_blocks."),
    (r"(down|up)(_blocks\.\d+)\.resample\.", r"\1\2.\1samplers.0."),
    (r"\.blocks\.(\d+)\.", r".resnets.\1."),
    (r"\.attention\.(\d+)\.", r".attentions.\1."),
    (r"\.middle\.attention\.", ".mid_block.attentions.0."),
    (r"\.middle\.block1\.", ".mid_block.resnets.0."),
    (r"\.middle\.block2\.", ".mid_block.resnets.1."),
    (r"(attentions\.\d+)\.norm\.", r"\1.group_norm."),
    (r"\.query\.", ".to_q."),
    (r"\.key\.", ".to_k."),
    (r"\.value\.", ".to_v."),
    (r"\.out\.", ".to_out.0."),
    (r"coder\.norm\.", "coder.conv_norm_out."),
    (r"\.shortcut\.", ".conv_shortcut."),
]

_BEFORE_0_16: Rules = [
    (r"(attentions\.\d+)\.query\.", r"\1.to_q."),
    (r"(attentions\.\d+)\.key\.", r"\1.to_k."),
    (r"(attentions\.\d+)\.value\.", r"\1.to_v."),
    (r"(attentions\.\d+)\.proj_attn\.", r"\1.to_out.0."),
]

_COMPVIS: Rules = [
    *_SHARED,
    (r"^encoder\.levels\.", "encoder.down."),
    (r"\.down\.(\d+)\.resample\.", r".down.\1.downsample."),
    (r"\.up\.(\d+)\.resample\.", r".up.\1.upsample."),
    (r"\.blocks\.(\d+)\.", r".block.\1."),
    (r"\.attention\.(\d+)\.", r".attn.\1."),
    (r"\.middle\.attention\.", ".mid.attn_1."),
    (r"\.middle\.block(\d)\.", r".mid.block_\1."),
    (r"\.query\.", ".q."),
    (r"\.key\.", ".k."),
    (r"\.value\.", ".v."),
    (r"\.out\.", ".proj_out."),
    (r"coder\.norm\.", "coder.norm_out."),
    (r"\.shortcut\.", ".nin_shortcut."),
]

Translation = Callable[[str], str]


def to_diffusers(name: str) -> str:
    """Name of a weight of this project in ``diffusers.AutoencoderKL`` and ``VQModel``."""
    return _apply(_DIFFUSERS, name)


def to_todays_diffusers(name: str) -> str:
    """Current name of a weight of diffusers before 0.16, where attention had other names."""
    return _apply(_BEFORE_0_16, name)


def to_compvis(name: str, levels: int) -> str:
    """Name of a weight of this project in CompVis, where the decoder's levels count from the finest."""
    name = re.sub(r"^decoder\.levels\.(\d+)", lambda match: f"decoder.up.{levels - 1 - int(match[1])}", name)
    return _apply(_COMPVIS, name)


def _apply(rules: Rules, name: str) -> str:
    for pattern, replacement in rules:
        name = re.sub(pattern, replacement, name)
    return name
