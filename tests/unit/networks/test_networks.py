"""Networks: sizes that fit and do not, what reaches what, and that conditions are heard."""

import pytest
import torch
from torch import nn

from lit_vae.networks import MLP, ConvDecoder, ConvEncoder
from lit_vae.networks.layers import FiLM, ResidualBlock, Upsample, group_norm

EXACT = {"rtol": 1e-12, "atol": 1e-12}
TINY = {"width": 4, "blocks": 1}


pytestmark = pytest.mark.usefixtures("float64")


def awake(network: nn.Module) -> nn.Module:
    """Gives the layers that start at zero some weight, as training does."""
    for parameter in network.parameters():
        if (parameter == 0.0).all():
            nn.init.normal_(parameter, std=0.2)
    return network


def multipliers_for(size: int) -> list[int]:
    """Down to a map of 4 x 4, or 7 x 7."""
    return [1] * {8: 2, 16: 3, 28: 3, 32: 4, 64: 5, 128: 6, 256: 7}[size]


# ---- sizes ----------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("size", [8, 16, 28, 32, 64, 128, 256])
@pytest.mark.parametrize("kind", ["vector", "map"])
def test_every_size_has_gradients_from_every_pixel_and_to_every_pixel(size, kind):
    """Of a vector: each latent number depends on each pixel. Of a map: all of it together does."""
    multipliers = multipliers_for(size)
    coarse = size // 2 ** (len(multipliers) - 1)
    latent = (3,) if kind == "vector" else (2, coarse, coarse)
    encoder = awake(ConvEncoder((1, size, size), latent, 0, multipliers=multipliers, **TINY))
    decoder = awake(ConvDecoder(latent, (2, size, size), 0, multipliers=multipliers, **TINY))

    x = torch.randn(1, 1, size, size, requires_grad=True)
    z = encoder(x)
    assert z.shape == (1, *latent)
    for output in (z * torch.randn_like(z)).sum()[None] if kind == "map" else z[0]:
        (grad,) = torch.autograd.grad(output, x, retain_graph=True)
        assert (grad != 0.0).all()

    z = torch.randn(1, *latent, requires_grad=True)
    y = decoder(z)
    assert y.shape == (1, 2, size, size)
    (grad,) = torch.autograd.grad((y * torch.randn_like(y)).sum(), z)
    assert (grad != 0.0).all()
    for index in range(latent[0]):  # every pixel moves with this one latent number, or channel of a map
        moved = z.detach().clone()
        moved[0, index] += 1.0
        assert (decoder(moved) != y).all()


def test_images_need_not_be_square():
    encoder = ConvEncoder((3, 8, 24), (2, 4, 12), 0, multipliers=[1, 2], **TINY)
    decoder = ConvDecoder((2, 4, 12), (3, 8, 24), 0, multipliers=[1, 2], **TINY)
    assert decoder(encoder(torch.randn(2, 3, 8, 24))).shape == (2, 3, 8, 24)


def test_an_image_of_the_batch_does_not_see_the_others():
    """No statistics of the batch, in training mode either."""
    encoder = awake(ConvEncoder((1, 8, 8), (3,), 0, multipliers=[1, 2], **TINY)).train()
    x = torch.randn(4, 1, 8, 8)
    torch.testing.assert_close(encoder(x)[:1], encoder(x[:1]), **EXACT)


@pytest.mark.parametrize("network", [ConvEncoder, ConvDecoder])
def test_channels_last_gives_the_same_numbers(network):
    shapes = ((3, 16, 16), (2, 4, 4)) if network is ConvEncoder else ((2, 4, 4), (3, 16, 16))
    module = awake(network(*shapes, 0, multipliers=[1, 2, 2], **TINY))
    x = torch.randn(2, *shapes[0])
    expected = module(x)
    actual = module.to(memory_format=torch.channels_last)(x.to(memory_format=torch.channels_last))
    torch.testing.assert_close(actual, expected, **EXACT)


def test_multipliers_are_given_from_the_finest_resolution_in_both_directions():
    encoder = ConvEncoder((1, 8, 8), (2,), 0, width=4, multipliers=[1, 3], blocks=2)
    decoder = ConvDecoder((2,), (1, 8, 8), 0, width=4, multipliers=[1, 3], blocks=2)
    assert encoder.stem.out_channels == decoder.head.in_channels == 4  # at full resolution
    assert encoder.norm.num_channels == 12  # at the coarsest
    assert decoder.stem[1].out_features == 12 * 4 * 4
    for network in (encoder, decoder):
        assert sum(isinstance(layer, ResidualBlock) for layer in network.body) == 4


@pytest.mark.parametrize(
    ("image", "latent", "multipliers", "blocks", "text"),
    [
        (
            (1, 28, 28), (8,), [1, 2, 4, 8], 1,
            "multipliers (=[1, 2, 4, 8]) halve an image 3 times, but 28x28 (model.image_shape) is not divisible by 8."
            " Take fewer multipliers or another image size.",
        ),
        (
            (1, 32, 32), (4, 4, 4), [1, 2, 4], 1,
            "multipliers (=[1, 2, 4]) bring 32x32 (model.image_shape) to 8x8, but the latent"
            " map is 4x4. Take a latent of shape [c, 8, 8],"
            " a vector [d], or other multipliers.",
        ),
        (
            (1, 32, 32), (8,), [], 1,
            "multipliers (=[]) must be one for each resolution, e.g. [1, 2, 4]. Set them in the init_args of the"
            " network.",
        ),
        (
            (1, 32, 32), (8,), [1, 2], 0,
            "blocks (=0) must be at least 1.",
        ),
    ],
)  # fmt: skip
@pytest.mark.parametrize("network", [ConvEncoder, ConvDecoder])
def test_wrong_geometry(network, image, latent, multipliers, blocks, text):
    shapes = (image, latent) if network is ConvEncoder else (latent, image)
    with pytest.raises(ValueError) as error:
        network(*shapes, 0, multipliers=multipliers, blocks=blocks)
    assert str(error.value) == f"{network.__name__}: {text}"


# ---- fully connected ------------------------------------------------------------------------------------------------


def test_without_hidden_layers_it_is_affine():
    network = MLP((1, 2, 3), (4,), 0, hidden=[])
    a, b, zero = torch.randn(1, 1, 2, 3), torch.randn(1, 1, 2, 3), torch.zeros(1, 1, 2, 3)
    torch.testing.assert_close(network(a + b) - network(b), network(a) - network(zero), **EXACT)
    weight, bias = network.layers[0].weight, network.layers[0].bias
    torch.testing.assert_close(network(a), a.flatten(1) @ weight.T + bias, **EXACT)


def test_mlp_is_its_layers_and_activations_in_order():
    network = MLP((1, 2, 3), (2, 2, 1), 2, hidden=[5, 7], activation=nn.Tanh)
    x, cond = torch.randn(4, 1, 2, 3), torch.randn(4, 2)
    first, second, last = (layer for layer in network.layers if isinstance(layer, nn.Linear))
    expected = last(second(first(torch.cat([x.flatten(1), cond], 1)).tanh()).tanh())
    torch.testing.assert_close(network(x, cond), expected.unflatten(1, (2, 2, 1)), rtol=0, atol=0)


def test_every_pixel_reaches_the_latent_and_every_latent_every_pixel():
    jacobian = torch.autograd.functional.jacobian(MLP((1, 4, 4), (3,), 0, hidden=[6]), torch.randn(1, 1, 4, 4))
    assert (jacobian != 0.0).all()
    jacobian = torch.autograd.functional.jacobian(MLP((3,), (1, 4, 4), 0, hidden=[6]), torch.randn(1, 3))
    assert (jacobian != 0.0).all()


# ---- conditions -----------------------------------------------------------------------------------------------------


def conditional(name: str) -> tuple[nn.Module, torch.Tensor]:
    image, latent = (1, 8, 8), (3,)
    network = {
        "MLP": lambda: MLP(image, latent, 2, hidden=[6]),
        "ConvEncoder": lambda: ConvEncoder(image, latent, 2, multipliers=[1, 2], **TINY),
        "ConvDecoder": lambda: ConvDecoder(latent, image, 2, multipliers=[1, 2], **TINY),
    }[name]()
    return network, torch.randn(1, *(latent if name == "ConvDecoder" else image))


@pytest.mark.parametrize("name", ["MLP", "ConvEncoder", "ConvDecoder"])
def test_every_entry_of_the_condition_reaches_every_output(name):
    network, x = conditional(name)
    jacobian = torch.autograd.functional.jacobian(lambda cond: awake(network)(x, cond), torch.randn(1, 2))
    assert (jacobian != 0.0).all()


@pytest.mark.parametrize("name", ["ConvEncoder", "ConvDecoder"])
def test_convolutions_ignore_the_condition_at_first_and_learn_to_hear_it(name):
    network, x = conditional(name)
    one, other = torch.eye(2)[:1], torch.eye(2)[1:]
    assert torch.equal(network(x, one), network(x, other))
    target = {id(one): torch.tensor(1.0), id(other): torch.tensor(-1.0)}
    optimizer = torch.optim.Adam(network.parameters(), lr=0.01)
    for _ in range(3):  # the zero convolution opens in the first step, FiLM in the second
        optimizer.zero_grad()
        sum((network(x, c).mean() - target[id(c)]).square() for c in (one, other)).backward()
        optimizer.step()
    assert (network(x, one) != network(x, other)).all()


@pytest.mark.parametrize("name", ["ConvEncoder", "ConvDecoder"])
def test_a_missing_or_unexpected_condition_is_not_ignored(name):
    network, x = conditional(name)
    with pytest.raises(ValueError) as error:
        network(x, None)
    assert str(error.value) == "ResidualBlock: built with cond_dim (=2), but no condition came."
    with pytest.raises(ValueError) as error:
        ResidualBlock(4, 4)(torch.randn(1, 4, 2, 2), torch.randn(1, 3))
    assert str(error.value) == "ResidualBlock: built with cond_dim (=0), but a condition of 3 numbers came."


# ---- layers ---------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(("channels", "groups"), [(1, 1), (4, 1), (6, 1), (8, 2), (20, 5), (128, 32), (192, 32)])
def test_group_norm_takes_groups_of_at_least_four_channels(channels, groups):
    norm = group_norm(channels)
    assert norm.num_groups == groups
    h = norm(3.0 + 5.0 * torch.randn(2, channels, 6, 6)).unflatten(1, (groups, -1)).flatten(2)
    torch.testing.assert_close(h.mean(2), torch.zeros(2, groups), rtol=0, atol=1e-10)
    torch.testing.assert_close(h.var(2, correction=0), torch.ones(2, groups), rtol=1e-5, atol=0)


@pytest.mark.parametrize("channels", [(4, 4), (4, 8)])
def test_residual_block_starts_as_its_shortcut_with_a_gradient_to_open_it(channels):
    block, h = ResidualBlock(*channels), torch.randn(2, channels[0], 4, 4)
    torch.testing.assert_close(block(h), block.shortcut(h), rtol=0, atol=0)
    (block(h) * torch.randn(2, channels[1], 4, 4)).sum().backward()
    assert (block.conv2.weight.grad != 0.0).any()


def test_film_scales_and_shifts_each_channel():
    film = FiLM(2, 3)
    h, cond = torch.randn(4, 2, 3, 3), torch.randn(4, 3)
    assert torch.equal(film(h, cond), h)
    nn.init.normal_(film.to_scale_shift.weight)
    numbers = cond @ film.to_scale_shift.weight.T
    expected = torch.stack(
        [h[:, c] * (1 + numbers[:, c, None, None]) + numbers[:, 2 + c, None, None] for c in (0, 1)], 1
    )
    torch.testing.assert_close(film(h, cond), expected, **EXACT)


def test_upsampling_repeats_each_value_before_the_convolution():
    layer = Upsample(2)
    nn.init.dirac_(layer.conv.weight)
    nn.init.zeros_(layer.conv.bias)
    h = torch.randn(1, 2, 3, 3)
    torch.testing.assert_close(layer(h), h.repeat_interleave(2, 2).repeat_interleave(2, 3), rtol=0, atol=0)
