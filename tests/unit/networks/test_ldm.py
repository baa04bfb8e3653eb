"""The networks of latent diffusion: what each layer computes, what is computed again, and what does not fit."""

from collections.abc import Callable
from typing import Any

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lit_vae.networks import LDMDecoder, LDMEncoder
from lit_vae.networks.ldm import AttentionBlock, Downsample, Upsample

EXACT = {"rtol": 1e-12, "atol": 1e-12}
SMALL: dict[str, Any] = {"width": 4, "multipliers": [1, 2, 2], "blocks": 1, "norm_groups": 2}
NETWORKS: dict[type[nn.Module], tuple[tuple[int, ...], tuple[int, ...]]] = {
    LDMEncoder: ((3, 16, 16), (4, 4, 4)),
    LDMDecoder: ((4, 4, 4), (3, 16, 16)),
}

pytestmark = pytest.mark.usefixtures("float64")


def build(network: type[nn.Module], **init_args: Any) -> nn.Module:
    torch.manual_seed(1)
    return network(*NETWORKS[network], 0, **{**SMALL, **init_args})


def gradients(f: Callable[[Tensor], Tensor], h: Tensor, *parameters: Tensor) -> tuple[Tensor, ...]:
    y = f(h)
    towards = torch.linspace(-1.0, 1.0, y.numel()).view_as(y)
    return y, *torch.autograd.grad((y * towards).sum(), (h, *parameters))


# ---- layers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("memory_format", [torch.contiguous_format, torch.channels_last])
def test_upsample_is_nearest_neighbour_doubling_and_the_convolution(memory_format: torch.memory_format) -> None:
    """Also at the borders, and its gradients to features, weight and bias."""
    layer = Upsample(5).to(memory_format=memory_format)
    conv = layer.conv
    h = torch.randn(2, 5, 3, 4, requires_grad=True)

    def plain(h: Tensor) -> Tensor:
        return conv(F.interpolate(h, scale_factor=2.0, mode="nearest"))

    parameters = (conv.weight, conv.bias)
    for value, expected in zip(gradients(layer, h, *parameters), gradients(plain, h, *parameters), strict=True):
        torch.testing.assert_close(value, expected, **EXACT)
    assert list(layer.state_dict()) == ["conv.weight", "conv.bias"]


def test_downsample_reads_zeros_at_the_right_and_the_bottom_alone() -> None:
    layer = Downsample(1)
    with torch.no_grad():
        layer.conv.bias.zero_()
        layer.conv.weight.copy_(torch.arange(9.0).view(1, 1, 3, 3))
    h = torch.randn(1, 1, 4, 4)
    y = layer(h)
    torch.testing.assert_close(y[0, 0, 0, 0], (h[0, 0, :3, :3] * torch.arange(9.0).view(3, 3)).sum(), **EXACT)
    corner = h[0, 0, 2:, 2:] * torch.tensor([[0.0, 1.0], [3.0, 4.0]])
    torch.testing.assert_close(y[0, 0, 1, 1], corner.sum(), **EXACT)


def test_attention_is_a_softmax_over_all_pixels() -> None:
    layer = AttentionBlock(6, 3)
    h = torch.randn(2, 6, 3, 4)
    pixels = layer.norm(h).flatten(2).mT
    scores = layer.query(pixels) @ layer.key(pixels).mT / 6**0.5
    expected = h + layer.out(scores.softmax(-1) @ layer.value(pixels)).mT.unflatten(2, (3, 4))
    torch.testing.assert_close(layer(h), expected, **EXACT)


# ---- networks -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("network", NETWORKS)
def test_channels_last_gives_the_same_numbers(network: type[nn.Module]) -> None:
    module = build(network, attention=[8])
    h = torch.randn(2, *NETWORKS[network][0])
    expected = module(h)
    assert expected.shape == (2, *NETWORKS[network][1])
    actual = module.to(memory_format=torch.channels_last)(h.to(memory_format=torch.channels_last))
    torch.testing.assert_close(actual, expected, **EXACT)


@pytest.mark.parametrize("network", NETWORKS)
def test_checkpointing_keeps_less_and_changes_no_number(network: type[nn.Module]) -> None:
    h = torch.randn(2, *NETWORKS[network][0], requires_grad=True)
    found, kept = [], []
    for checkpointing in (False, True):
        module = build(network, attention=[8], checkpointing=checkpointing)
        sizes: list[int] = []

        def keep(saved: Tensor, sizes: list[int] = sizes) -> Tensor:
            sizes.append(saved.numel())
            return saved

        with torch.autograd.graph.saved_tensors_hooks(keep, lambda saved: saved):
            y = module(h)
        kept.append(sum(sizes))
        found.append(torch.autograd.grad(y.square().sum(), (h, *module.parameters())))
    assert kept[1] < 0.5 * kept[0]
    for plain, again in zip(*found, strict=True):
        torch.testing.assert_close(again, plain, rtol=0.0, atol=0.0)


@pytest.mark.parametrize("network", NETWORKS)
def test_attention_makes_distant_pixels_meet(network: type[nn.Module]) -> None:
    """At a height that is named; beside the middle, convolutions reach only so far."""
    plain, attentive = build(network), build(network, attention=[16])
    count = [sum(isinstance(m, AttentionBlock) for m in module.modules()) for module in (plain, attentive)]
    assert count == [1, 1 + (1 if network is LDMEncoder else 2)]
    level = attentive.levels[0 if network is LDMEncoder else -1]
    h = torch.randn(1, 4 if network is LDMEncoder else 8, 16, 16)
    moved = h.clone()
    moved[..., 0, 0] += torch.linspace(1.0, 2.0, h.shape[1])  # not the same for all channels of a group
    assert ((level(moved) - level(h)) != 0.0).all()


def test_the_decoder_has_a_block_more_and_multipliers_from_the_finest_resolution() -> None:
    encoder = build(LDMEncoder, multipliers=[1, 2, 3], blocks=2)
    decoder = build(LDMDecoder, multipliers=[1, 2, 3], blocks=2)
    channels = [[block.conv1.out_channels for block in level.blocks] for level in encoder.levels]
    assert channels == [[4, 4], [8, 8], [12, 12]]
    channels = [[block.conv1.out_channels for block in level.blocks] for level in decoder.levels]
    assert channels == [[12] * 3, [8] * 3, [4] * 3]


def test_the_last_layer_is_what_the_output_is_linear_in() -> None:
    decoder = build(LDMDecoder)
    z = torch.randn(1, 4, 4, 4)
    y = decoder(z)
    with torch.no_grad():
        decoder.last_layer.mul_(2.0)
        bias = decoder.head.bias.view(1, -1, 1, 1)
    torch.testing.assert_close(decoder(z) - bias, 2.0 * (y - bias), **EXACT)


@pytest.mark.parametrize(
    ("cond_dim", "latent", "init_args", "text"),
    [
        (2, (4, 4, 4), {}, "cond_dim (=2) must be 0: it takes no labels. Take lit_vae.networks.ConvX for a model"
         " with labels."),
        (0, (4,), {}, "the latent (=[4]) must be a map, [channels, height, width]. Set the shape of the model's"
         " latent."),
        (0, (4, 8, 8), {}, "multipliers (=[1, 2, 2]) bring 16x16 (model.image_shape) to 4x4, but the latent"
         " map is 8x8. Take a latent of"
         " shape [c, 4, 4], a vector [d], or other multipliers."),
        (0, (4, 4, 4), {"attention": [32]}, "attention (=[32]) must be of the heights of its feature maps, [16, 8, 4]."
         " Set attention in the init_args of the network."),
        (0, (4, 4, 4), {"norm_groups": 3}, "norm_groups (=3) must divide all numbers of channels, width times"
         " multipliers (=[4, 8, 8]). Set width or norm_groups in the init_args of the network."),
    ],
)  # fmt: skip
@pytest.mark.parametrize("network", NETWORKS)
def test_what_does_not_fit(
    network: type[nn.Module], cond_dim: int, latent: tuple[int, ...], init_args: dict[str, Any], text: str
) -> None:
    image = (3, 16, 16)
    shapes = (image, latent) if network is LDMEncoder else (latent, image)
    with pytest.raises(ValueError) as error:
        network(*shapes, cond_dim, **{**SMALL, **init_args})
    expected = text.replace("ConvX", "ConvEncoder" if network is LDMEncoder else "ConvDecoder")
    assert str(error.value) == f"{network.__name__}: {expected}"
