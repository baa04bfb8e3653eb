"""The U-Net: its Fourier features, its grids, dropout, and what does not fit."""

from typing import Any

import pytest
import torch
from torch import nn

from lit_vae.networks import UNet
from lit_vae.networks.ldm import AttentionBlock
from lit_vae.networks.unet import fourier_features

SMALL: dict[str, Any] = {"width": 8, "multipliers": [1, 2], "blocks": 1}


@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_the_last_bit_of_a_level_is_a_fourier_feature(dtype):
    levels = torch.arange(256, dtype=dtype) / 127.5 - 1.0
    features = fourier_features(levels.view(1, 1, 16, 16), [6, 7]).flatten(2)[0]
    assert features.shape == (5, 256)
    bits = 1.0 - 2.0 * (torch.arange(256) % 2)
    expected = torch.stack([levels, bits, torch.zeros(256), torch.zeros(256), -torch.ones(256)]).to(dtype)
    torch.testing.assert_close(features, expected, rtol=0.0, atol=2e-4 if dtype == torch.float32 else 1e-12)


def test_without_octaves_the_state_is_as_it_was():
    z = torch.randn(2, 3, 4, 4)
    torch.testing.assert_close(fourier_features(z, []), z, rtol=0.0, atol=0.0)


def test_every_resolution_has_its_channels_blocks_and_attention():
    network = UNet((1, 24, 16), 0, 2, 8, [1, 2, 3], blocks=2, attention=[6])
    ways = (network.down, network.middle, network.up)
    channels = [[unit.block.conv1.out_channels for unit in way if hasattr(unit, "block")] for way in ways]
    assert channels == [[8, 8, 16, 16, 24, 24], [24, 24], [24, 24, 24, 16, 16, 16, 8, 8, 8]]
    attends = [[isinstance(unit.attention, AttentionBlock) for unit in way if hasattr(unit, "block")] for way in ways]
    assert attends == [[False] * 2 + [True] * 2 + [False] * 2, [True, False], [False] * 3 + [True] * 3 + [False] * 3]


def test_one_resolution_is_a_network_without_downsampling():
    network = UNet((1, 5, 7), 0, 1, 4, [1], blocks=1)
    assert not [m for m in network.modules() if isinstance(m, nn.Conv2d) and m.stride != (1, 1)]
    assert network(torch.randn(2, 1, 5, 7), torch.zeros(2)).shape == (2, 1, 5, 7)


def test_dropout_is_for_training_only_and_the_same_when_computed_again():
    z, lam = torch.randn(2, 1, 4, 4), torch.zeros(2)
    found = []
    for checkpointing in (False, True):
        torch.manual_seed(0)
        network = UNet((1, 4, 4), **SMALL, dropout=0.5, checkpointing=checkpointing)
        for parameter in network.parameters():
            nn.init.normal_(parameter, std=0.3)
        torch.manual_seed(1)
        y = network(z, lam)
        found.append((y, *torch.autograd.grad(y.square().sum(), list(network.parameters()))))
    for plain, again in zip(*found, strict=True):
        torch.testing.assert_close(again, plain, rtol=0.0, atol=0.0)
    assert (network(z, lam) != network(z, lam)).any()
    network.eval()
    torch.testing.assert_close(network(z, lam), network(z, lam), rtol=0.0, atol=0.0)


@pytest.mark.parametrize(
    ("init_args", "text"),
    [
        ({"multipliers": []}, "multipliers (=[]) must be one for each resolution, e.g. [1, 2]. Set them in the"
         " init_args of the network."),
        ({"patch": 2, "multipliers": [1, 2, 2]}, "patch (=2) and multipliers (=[1, 2, 2]) need states whose height and"
         " width are divisible by 8, but they are 28x28. Take fewer multipliers or another patch in the init_args of"
         " the network, or another image size."),
        ({"patch": 2, "attention": [28]}, "attention (=[28]) must be of the heights of its feature maps, [14, 7]. Set"
         " attention in the init_args of the network."),
    ],
)  # fmt: skip
def test_what_does_not_fit(init_args, text):
    with pytest.raises(ValueError) as error:
        UNet((1, 28, 28), 0, **{**SMALL, **init_args})
    assert str(error.value) == f"UNet: {text}"
