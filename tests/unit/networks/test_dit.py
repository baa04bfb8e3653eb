"""The diffusion transformer: its positions, its initialisation, and what does not fit."""

import math

import pytest
import torch
from torch import nn

from lit_vae.networks import DiT
from lit_vae.networks.dit import positions

pytestmark = pytest.mark.usefixtures("float64")


def test_positions_are_sines_and_cosines_of_column_and_row():
    table = positions(3, 5, 8)
    for row in range(3):
        for column in range(5):
            waves = [f(place * rate) for place in (column, row) for f in (math.sin, math.cos) for rate in (1.0, 0.01)]
            torch.testing.assert_close(table[5 * row + column], torch.tensor(waves), rtol=0.0, atol=1e-12)


def test_a_new_network_has_the_initialisation_of_the_paper():
    network = DiT((4, 8, 8), 11, width=64, layers=2, heads=4)
    assert not network.modulation.weight.any()
    assert not network.head.weight.any()
    for name, parameter in network.named_parameters():
        if name.endswith("bias"):
            assert not parameter.any()
        elif name.startswith("clock."):
            assert abs(parameter.std() / 0.02 - 1.0) < 0.1
        elif name.startswith(("blocks.", "embed.")):
            fan_out, fan_in = parameter.flatten(1).shape
            limit = math.sqrt(6.0 / (fan_in + fan_out))
            assert 0.95 * limit < parameter.abs().max() <= limit, name
    tokens, modulation = torch.randn(2, 16, 64), torch.zeros(2, 6, 1, 64)
    torch.testing.assert_close(network.blocks[0](tokens, modulation), tokens, rtol=0.0, atol=0.0)


def test_a_patch_is_a_square_of_neighbours():
    """Without attention and MLP, a position is read and written in its own patch only."""
    network = DiT((1, 4, 6), 0, 2, 8, 1, 2)
    nn.init.normal_(network.head.weight)
    z = torch.randn(1, 1, 4, 6)
    moved = z.clone()
    moved[0, 0, 2, 5] += 1.0
    changed = (network(moved, torch.zeros(1)) != network(z, torch.zeros(1)))[0, 0]
    expected = torch.zeros(4, 6, dtype=torch.bool)
    expected[2:, 4:] = True
    assert torch.equal(changed, expected)


@pytest.mark.parametrize(
    ("init_args", "text"),
    [
        ({"patch": 3}, "patch (=3) must divide height and width of the states, 28x28. Set patch in the init_args of the"
         " network."),
        ({"width": 12, "heads": 5}, "width (=12) must be a multiple of heads (=5) and of 4. Set them in the init_args"
         " of the network."),
        ({"width": 6, "heads": 2}, "width (=6) must be a multiple of heads (=2) and of 4. Set them in the init_args"
         " of the network."),
    ],
)  # fmt: skip
def test_what_does_not_fit(init_args, text):
    with pytest.raises(ValueError) as error:
        DiT((1, 28, 28), 0, **init_args)
    assert str(error.value) == f"DiT: {text}"
