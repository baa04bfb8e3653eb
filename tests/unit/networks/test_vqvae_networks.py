"""VQ-VAE networks: Sonnet's arrangement, what each level reads, and sizes that do not fit."""

import pytest
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from lit_vae.networks.vqvae import HierarchicalEncoder, ResidualStack, VQVAEDecoder, VQVAEEncoder, join

EXACT = {"rtol": 1e-12, "atol": 1e-12}
TINY = {"width": 16, "residual_width": 8, "blocks": 1}  # any narrower and whole layers of ReLUs are dead by chance
THREE = [(2, 2, 2), (3, 4, 4), (1, 16, 16)]  # of a 32 x 32 image: halved three times, twice and once

pytestmark = pytest.mark.usefixtures("float64")


def reaches(output: Tensor, *inputs: Tensor) -> list[bool]:
    """Whether a random sum of ``output`` has a gradient to any entry of each input."""
    total = (output * torch.randn_like(output)).sum()
    grads = torch.autograd.grad(total, inputs, retain_graph=True, materialize_grads=True)
    return [bool((grad != 0.0).any()) for grad in grads]


# ---- one level ------------------------------------------------------------------------------------------------------


def residual_stack(h: Tensor, weights: list[Tensor]) -> Tensor:
    for w3, b3, w1, b1 in zip(*[iter(weights)] * 4, strict=True):
        h = h + F.conv2d(F.conv2d(h.relu(), w3, b3, padding=1).relu(), w1, b1)
    return h.relu()


def test_the_encoder_is_sonnets():
    """enc_1 and enc_2 (4x4, stride 2), enc_3 (3x3), two residual blocks, to_vq (1x1)."""
    encoder = VQVAEEncoder((3, 32, 32), (64, 8, 8))
    shapes = [
        (64, 3, 4, 4), (128, 64, 4, 4), (128, 128, 3, 3), (32, 128, 3, 3), (128, 32, 1, 1), (32, 128, 3, 3),
        (128, 32, 1, 1), (64, 128, 1, 1),
    ]  # fmt: skip
    weights = list(encoder.parameters())
    assert [tuple(w.shape) for w in weights[::2]] == shapes
    assert [tuple(b.shape) for b in weights[1::2]] == [shape[:1] for shape in shapes]
    x = torch.randn(2, 3, 32, 32)
    h = F.conv2d(x, *weights[0:2], stride=2, padding=1).relu()
    h = F.conv2d(h, *weights[2:4], stride=2, padding=1).relu()
    h = F.conv2d(h, *weights[4:6], padding=1).relu()
    expected = F.conv2d(residual_stack(h, weights[6:14]), *weights[14:])
    torch.testing.assert_close(encoder(x), expected, **EXACT)


def test_the_decoder_is_sonnets():
    """dec_1 (3x3), two residual blocks, dec_2 and dec_3 (transposed 4x4, stride 2)."""
    decoder = VQVAEDecoder((64, 8, 8), (3, 32, 32))
    shapes = [
        (128, 64, 3, 3), (32, 128, 3, 3), (128, 32, 1, 1), (32, 128, 3, 3), (128, 32, 1, 1), (128, 64, 4, 4),
        (64, 3, 4, 4),
    ]  # fmt: skip
    weights = list(decoder.parameters())
    assert [tuple(w.shape) for w in weights[::2]] == shapes
    assert [len(b) for b in weights[1::2]] == [128, 32, 128, 32, 128, 64, 3]
    z = torch.randn(2, 64, 8, 8)
    h = residual_stack(F.conv2d(z, *weights[0:2], padding=1), weights[2:10])
    h = F.conv_transpose2d(h, *weights[10:12], stride=2, padding=1).relu()
    expected = F.conv_transpose2d(h, *weights[12:], stride=2, padding=1)
    torch.testing.assert_close(decoder(z), expected, **EXACT)


@pytest.mark.parametrize(
    ("coarse", "down", "up"),
    [(8, [3, 8], [16, 3]), (4, [3, 8, 16], [16, 8, 3]), (2, [3, 8, 16, 16], [16, 16, 8, 3])],
)
def test_the_shapes_decide_how_often_it_halves(coarse, down, up):
    encoder = VQVAEEncoder((3, 16, 48), (5, coarse, 3 * coarse), **TINY)
    decoder = VQVAEDecoder((5, coarse, 3 * coarse), (3, 16, 48), **TINY)
    assert [conv.in_channels for conv in encoder.trunk.down] + [encoder.trunk.conv.in_channels] == down
    assert [conv.in_channels for conv in decoder.up] + [decoder.up[-1].out_channels] == up
    x = torch.randn(1, 3, 16, 48, requires_grad=True)
    z = encoder(x)
    assert z.shape == (1, 5, coarse, 3 * coarse)
    y = decoder(z)
    assert y.shape == x.shape
    (grad,) = torch.autograd.grad((y * torch.randn_like(y)).sum(), x)
    assert (grad != 0.0).all()


def test_residual_blocks_without_their_last_layers_are_the_identity_and_a_relu():
    stack, h = ResidualStack(4, 3, 2), torch.randn(2, 4, 5, 5)
    for block in stack.blocks:
        nn.init.zeros_(block.conv1.weight)
        nn.init.zeros_(block.conv1.bias)
    assert torch.equal(stack(h), h.relu())
    assert not torch.equal(h, h.relu())


@pytest.mark.parametrize("network", [VQVAEEncoder, VQVAEDecoder])
def test_a_condition_is_ignored_at_first_and_then_reaches_every_output(network):
    shapes = ((1, 8, 8), (2, 4, 4)) if network is VQVAEEncoder else ((2, 4, 4), (1, 8, 8))
    module, x = network(*shapes, 2, **TINY), torch.randn(1, *shapes[0])
    assert torch.equal(module(x, torch.zeros(1, 2)), module(x, torch.ones(1, 2)))

    for parameter in module.parameters():
        if (parameter == 0.0).all():
            nn.init.normal_(parameter)
    jacobian = torch.autograd.functional.jacobian(lambda cond: module(x, cond), torch.randn(1, 2))
    assert (jacobian != 0.0).all()


def test_a_missing_or_unexpected_condition_is_not_ignored():
    with pytest.raises(ValueError) as error:
        VQVAEEncoder((1, 8, 8), (2, 4, 4), 2, **TINY)(torch.randn(1, 1, 8, 8))
    assert str(error.value) == "ResidualStack: built with cond_dim (=2), but no condition came."
    with pytest.raises(ValueError) as error:
        VQVAEDecoder((2, 4, 4), (1, 8, 8), **TINY)(torch.randn(1, 2, 4, 4), torch.randn(1, 3))
    assert str(error.value) == "ResidualStack: built with cond_dim (=0), but a condition of 3 numbers came."


@pytest.mark.parametrize(
    ("image", "latent", "text"),
    [
        ((1, 28, 28), (8, 4, 4), "the latent is 4x4, but must be the image (28x28) halved once or more often. Sizes"
         " that fit: 14x14, 7x7."),
        ((1, 32, 16), (8, 8, 8), "the latent is 8x8, but must be the image (32x16) halved once or more often. Sizes"
         " that fit: 16x8, 8x4, 4x2, 2x1."),
        ((1, 27, 28), (8, 9, 14), "the latent is 9x14, but must be the image (27x28) halved once or more often. Sizes"
         " that fit: none, since a side is odd."),
        ((1, 8, 8), (8, 8, 8), "the latent is 8x8, but must be the image (8x8) halved once or more often. Sizes that"
         " fit: 4x4, 2x2, 1x1."),
        ((1, 8, 8), (8,), "the latent is a vector, but must be a map, [channels, height, width]."),
    ],
)  # fmt: skip
@pytest.mark.parametrize("network", [VQVAEEncoder, VQVAEDecoder])
def test_wrong_geometry(network, image, latent, text):
    with pytest.raises(ValueError) as error:
        network(*((image, latent) if network is VQVAEEncoder else (latent, image)))
    assert str(error.value) == f"{network.__name__}: {text}"


@pytest.mark.parametrize("own", [{"width": 3}, {"width": 0}, {"residual_width": 0}, {"blocks": 0}])
@pytest.mark.parametrize("name", ["VQVAEEncoder", "VQVAEDecoder", "HierarchicalEncoder"])
def test_wrong_widths(name, own):
    shapes = {
        "VQVAEEncoder": (VQVAEEncoder, (1, 8, 8), (2, 4, 4)),
        "VQVAEDecoder": (VQVAEDecoder, (2, 4, 4), (1, 8, 8)),
        "HierarchicalEncoder": (HierarchicalEncoder, (1, 8, 8), [(2, 4, 4)]),
    }
    network, *arguments = shapes[name]
    with pytest.raises(ValueError) as error:
        network(*arguments, **own)
    ((argument, value),) = own.items()
    must = "be even, since the convolution at the finest" if value % 2 else "be at least 1."
    assert str(error.value).startswith(f"{name}: {argument} (={value}) must {must}")


# ---- several levels -------------------------------------------------------------------------------------------------


def test_join_repeats_every_level_to_the_finest_grid():
    levels = [torch.randn(2, *shape) for shape in [(2, 2, 3), (3, 4, 6), (1, 16, 24)]]
    expected = [
        level.repeat_interleave(r, 2).repeat_interleave(r, 3) for level, r in zip(levels, (8, 4, 1), strict=True)
    ]
    assert torch.equal(join(levels), torch.cat(expected, 1))
    assert torch.equal(join(levels[:1]), levels[0])


def test_one_level_is_the_ordinary_encoder():
    """The same weights in the same order, whatever their names."""
    encoder, hierarchy = (
        VQVAEEncoder((3, 16, 16), (2, 4, 4), **TINY),
        HierarchicalEncoder((3, 16, 16), [(2, 4, 4)], **TINY),
    )
    hierarchy.load_state_dict(dict(zip(hierarchy.state_dict(), encoder.state_dict().values(), strict=True)))
    x = torch.randn(2, 3, 16, 16)
    assert torch.equal(hierarchy.latent(0, hierarchy.features(x), []), encoder(x))


def test_a_lower_level_merges_its_features_and_what_a_decoder_makes_of_those_above():
    encoder = HierarchicalEncoder((3, 32, 32), THREE, **TINY)
    features = encoder.features(torch.randn(1, 3, 32, 32))
    above = [torch.randn(1, *shape) for shape in THREE[:2]]
    decoder = VQVAEDecoder((5, 4, 4), (1, 16, 16), **TINY)
    decoder.load_state_dict(encoder.down[1].state_dict())
    both = torch.cat([features[2], decoder(torch.cat([F.interpolate(above[0], scale_factor=2.0), above[1]], 1))], 1)
    expected = torch.einsum("oc,bchw->bohw", encoder.heads[2].weight[:, :, 0, 0], both)
    expected = expected + encoder.heads[2].bias[:, None, None]
    torch.testing.assert_close(encoder.latent(2, features, above), expected, **EXACT)


@pytest.mark.parametrize("level", [0, 1, 2])
def test_a_level_reads_its_own_features_and_all_levels_above(level):
    encoder = HierarchicalEncoder((3, 32, 32), THREE, **TINY)
    features = [f.detach().requires_grad_() for f in encoder.features(torch.randn(1, 3, 32, 32))]
    assert [f.shape for f in features] == [(1, 16, 2, 2), (1, 16, 4, 4), (1, 16, 16, 16)]
    z_q = [torch.randn(1, *shape, requires_grad=True) for shape in THREE]
    z_e = encoder.latent(level, features, z_q[:level])
    assert z_e.shape == (1, *THREE[level])
    assert reaches(z_e, *features) == [other == level for other in range(3)]
    assert reaches(z_e, *z_q) == [other < level for other in range(3)]
    for above in z_q[:level]:  # all of it: no entry of a level above is lost on the way
        (grad,) = torch.autograd.grad((z_e * torch.randn_like(z_e)).sum(), above, retain_graph=True)
        assert (grad != 0.0).all()


def test_features_of_a_level_come_from_those_of_the_finer_one():
    """Of the image as a whole at the top, and nothing of a coarser trunk in a finer level."""
    encoder = HierarchicalEncoder((3, 32, 32), THREE, **TINY)
    x = torch.randn(1, 3, 32, 32, requires_grad=True)
    features = encoder.features(x)
    (grad,) = torch.autograd.grad((features[0] * torch.randn_like(features[0])).sum(), x, retain_graph=True)
    assert (grad != 0.0).all()
    for level, feature in enumerate(features):
        first_weights = [trunk.down[0].weight for trunk in encoder.trunks]
        assert reaches(feature, *first_weights) == [other >= level for other in range(3)]


def test_two_levels_train_end_to_end():
    """Algorithm 1 without quantizers: every parameter of encoder and decoder has a gradient."""
    shapes = [(2, 4, 4), (3, 8, 8)]
    encoder = HierarchicalEncoder((1, 16, 16), shapes, **TINY)
    decoder = VQVAEDecoder((5, 8, 8), (1, 16, 16), **TINY)
    x = torch.randn(4, 1, 16, 16)
    features = encoder.features(x)
    e_top = encoder.latent(0, features, [])
    e_bottom = encoder.latent(1, features, [e_top])
    (decoder(join([e_top, e_bottom])) - x).square().sum().backward()
    for name, parameter in [*encoder.named_parameters(), *decoder.named_parameters()]:
        assert (parameter.grad != 0.0).any(), name


@pytest.mark.parametrize(
    ("shapes", "text"),
    [
        ([(2, 8, 8), (2, 4, 4)], "level 0 of model.grids is 8x8, but must be level 1 (4x4) halved once or more often."
         " Sizes that fit: 2x2, 1x1."),
        ([(2, 4, 4), (2, 12, 12)], "level 0 of model.grids is 4x4, but must be level 1 (12x12) halved once or more"
         " often. Sizes that fit: 6x6, 3x3."),
        ([(2, 4, 4), (2, 32, 32)], "level 1 of model.grids is 32x32, but must be the image (32x32) halved once or"
         " more often. Sizes that fit: 16x16, 8x8, 4x4, 2x2, 1x1."),
        ([(2,), (2, 8, 8)], "level 0 of model.grids is a vector, but must be a map, [channels, height, width]."),
    ],
)  # fmt: skip
def test_levels_that_do_not_fit(shapes, text):
    with pytest.raises(ValueError) as error:
        HierarchicalEncoder((3, 32, 32), shapes)
    assert str(error.value) == f"HierarchicalEncoder: {text}"


def test_a_level_needs_all_levels_above():
    encoder = HierarchicalEncoder((3, 32, 32), THREE, **TINY)
    features = encoder.features(torch.randn(1, 3, 32, 32))
    with pytest.raises(ValueError) as error:
        encoder.latent(2, features, [torch.randn(1, *THREE[0])])
    assert str(error.value) == "HierarchicalEncoder: level 2 reads the z_q of 2 levels, but 1 came."
