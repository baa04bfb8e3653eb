"""Blocks of hierarchical VAEs against plain transcriptions of the papers' figures."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lit_vae.networks import NVAECell, ResidualBlock, VDVAEBlock
from lit_vae.networks.blocks import rescale

EXACT = {"rtol": 1e-12, "atol": 1e-12}
BLOCKS = [VDVAEBlock, NVAECell, ResidualBlock]

pytestmark = pytest.mark.usefixtures("float64")


def test_the_vdvae_block():
    block = VDVAEBlock(8, 8, 0)
    assert [tuple(p.shape) for p in block.parameters() if p.ndim == 4] == [
        (2, 8, 1, 1), (2, 2, 3, 3), (2, 2, 3, 3), (8, 2, 1, 1),
    ]  # fmt: skip
    x = torch.randn(3, 8, 4, 4)
    h, weights = x, iter(block.parameters())
    for padding in (0, 1, 1, 0):
        h = F.conv2d(F.gelu(h), next(weights), next(weights), padding=padding)
    torch.testing.assert_close(block(x), x + h, **EXACT)


def test_the_nvae_cell():
    cell = NVAECell(8, 8, 0, expansion=2)
    for parameter in cell.parameters():
        nn.init.normal_(parameter, std=0.5)
    x = torch.randn(3, 8, 6, 6)
    h = F.conv2d(F.group_norm(x, 2, cell.norm1.weight, cell.norm1.bias, 1e-6), cell.widen.weight, cell.widen.bias)
    h = F.silu(F.group_norm(h, 4, cell.norm2.weight, cell.norm2.bias, 1e-6))
    assert cell.depthwise.weight.shape == (16, 1, 5, 5)
    h = F.conv2d(h, cell.depthwise.weight, cell.depthwise.bias, padding=2, groups=16)
    h = F.silu(F.group_norm(h, 4, cell.norm3.weight, cell.norm3.bias, 1e-6))
    squeezed = F.silu(F.linear(h.mean((2, 3)), cell.excite[0].weight, cell.excite[0].bias))
    gate = torch.sigmoid(F.linear(squeezed, cell.excite[2].weight, cell.excite[2].bias))
    h = F.conv2d(h * gate[:, :, None, None], cell.narrow.weight, cell.narrow.bias)
    torch.testing.assert_close(cell(x), x + h, **EXACT)


@pytest.mark.parametrize("kind", BLOCKS)
def test_without_its_last_layer_a_block_is_its_shortcut(kind):
    x, cond = torch.randn(2, 8, 4, 4), torch.randn(2, 3)
    for out_channels in (8, 12):
        block = kind(8, out_channels, 3)
        rescale(block.last, 0.0)
        expected = x if out_channels == 8 else F.conv2d(x, block.shortcut.weight, block.shortcut.bias)
        torch.testing.assert_close(block(x, cond), expected, **EXACT)


@pytest.mark.parametrize("kind", BLOCKS)
def test_a_condition_is_the_identity_at_first_and_then_heard(kind):
    block = kind(8, 8, 3)
    nn.init.normal_(block.last.weight)
    x, cond = torch.randn(2, 8, 4, 4), torch.randn(2, 3)
    torch.testing.assert_close(block(x, cond), block(x, 2.0 * cond), **EXACT)
    nn.init.normal_(block.film.to_scale_shift.weight)
    assert (block(x, cond) != block(x, 2.0 * cond)).any()


@pytest.mark.parametrize("kind", BLOCKS)
def test_a_condition_that_is_missing_or_not_expected(kind):
    x = torch.randn(2, 8, 4, 4)
    for block, cond, given in (
        (kind(8, 8, 3), None, "built with cond_dim (=3), but no condition came."),
        (kind(8, 8, 0), torch.zeros(2, 5), "built with cond_dim (=0), but a condition of 5 numbers came."),
    ):
        with pytest.raises(ValueError) as error:
            block(x, cond)
        assert str(error.value) == f"{kind.__name__}: {given}"


def test_rescaling_a_layer_rescales_its_output():
    layer, x = nn.Conv2d(2, 3, 1), torch.randn(1, 2, 2, 2)
    before = layer(x)
    rescale(layer, 0.5)
    torch.testing.assert_close(layer(x), 0.5 * before, **EXACT)
