"""The conditioning stack: what reaches what, on grids of any integer ratio."""

import pytest
import torch
import torch.nn.functional as F
from torch import nn

from lit_vae.networks.conditioning import ConditioningStack

pytestmark = pytest.mark.usefixtures("float64")


@pytest.mark.parametrize(
    ("in_grid", "out_grid", "factors"),
    [
        ((4, 4), (4, 4), []),
        ((4, 4), (8, 8), [(2, 2)]),
        ((2, 3), (12, 3), [(2, 1), (3, 1)]),
        ((2, 3), (8, 18), [(2, 2), (2, 3)]),
        ((1, 1), (5, 7), [(5, 7)]),
    ],
)
def test_it_is_blocks_at_the_coarse_grid_and_repetition_with_a_convolution_by_each_prime(in_grid, out_grid, factors):
    stack = ConditioningStack(3, 2, in_grid, out_grid, width=8, blocks=2)
    for block in stack.blocks:
        nn.init.normal_(block.conv2.weight, std=0.2)
    h = torch.randn(2, 3, *in_grid)
    expected = F.conv2d(h, stack.stem.weight, stack.stem.bias, padding=1)
    for block in stack.blocks:
        expected = block(expected)
    convolutions = [layer for layer in stack.up if isinstance(layer, nn.Conv2d)]
    for (rows, columns), conv in zip(factors, convolutions, strict=True):
        repeated = expected.repeat_interleave(rows, 2).repeat_interleave(columns, 3)
        expected = F.conv2d(repeated, conv.weight, conv.bias, padding=1)
    expected = stack.head(F.silu(stack.norm(expected)))
    assert expected.shape == (2, 2, *out_grid)
    torch.testing.assert_close(stack(h), expected, rtol=1e-12, atol=1e-12)


def test_every_coarse_code_reaches_every_position_below_it_at_once():
    """At initialisation, too: blocks that start as their shortcuts do not hold the condition back."""
    stack = ConditioningStack(3, 2, (4, 4), (8, 8), width=8, blocks=1)
    h = torch.randn(1, 3, 4, 4)
    jacobian = torch.autograd.functional.jacobian(stack, h)[0, :, :, :, 0]  # (out, H, W, in, h, w)
    for row in range(8):
        for column in range(8):
            assert (jacobian[:, row, column, :, row // 2, column // 2] != 0.0).all()


def test_positions_under_one_code_can_differ():
    """A convolution after each doubling tells the four corners of a code from one another."""
    out = ConditioningStack(1, 1, (4, 4), (16, 16), width=8, blocks=1)(torch.randn(1, 1, 4, 4))
    inner = out[0, 0, 4:8, 4:8].flatten()
    assert len(inner.unique()) == 16


@pytest.mark.parametrize("out_grid", [(6, 8), (8, 6), (2, 2)])
def test_grids_of_no_integer_ratio(out_grid):
    with pytest.raises(ValueError) as error:
        ConditioningStack(3, 2, (4, 4), out_grid)
    assert str(error.value) == (
        f"ConditioningStack: out_grid (={out_grid[0]}x{out_grid[1]}) must be a multiple of in_grid (=4x4) in each"
        " direction. Order the levels from the coarsest to the finest, or train their codes on other grids."
    )


@pytest.mark.parametrize(("width", "blocks"), [(0, 1), (8, 0)])
def test_wrong_sizes(width, blocks):
    with pytest.raises(ValueError) as error:
        ConditioningStack(3, 2, (4, 4), (8, 8), width=width, blocks=blocks)
    assert str(error.value) == f"ConditioningStack: {'width' if width == 0 else 'blocks'} (=0) must be at least 1."
