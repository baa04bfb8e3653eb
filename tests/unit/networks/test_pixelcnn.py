"""The gated PixelCNN: exactly causal, without a blind spot, and the same network when its activations are cached."""

import math
from functools import partial

import autoregressive_checks as checks
import pytest
import torch
import torch.nn.functional as F

from lit_vae.networks.pixelcnn import GatedPixelCNN
from lit_vae.networks.pixelcnn_layers import CausalAttention, GatedLayer, gate

EXACT = {"rtol": 1e-12, "atol": 1e-12}
TINY = {"width": 4, "layers": 3, "kernel_size": 3, "head_width": 8, "heads": 2}
ATTENTION = [{"attention_every": 0}, {"attention_every": 1}, {"attention_every": 2}]
CONDITIONS = [{}, {"cond_dim": 2}, {"spatial_channels": 3}, {"cond_dim": 2, "spatial_channels": 3}]

tiny = partial(GatedPixelCNN, **TINY)
pytestmark = pytest.mark.usefixtures("float64")


# ---- what holds for every autoregressive network -------------------------------------------------------------------


@pytest.mark.parametrize("attention", ATTENTION)
@pytest.mark.parametrize("conditions", CONDITIONS)
def test_causal_and_without_a_blind_spot(attention, conditions):
    checks.check_causality(tiny(2, 3, (3, 4), **conditions, **attention))


@pytest.mark.parametrize(("layers", "kernel_size"), [(1, 3), (2, 3), (1, 5)])
def test_sees_the_receptive_field_that_it_says_and_no_more(layers, kernel_size):
    reach = layers * (kernel_size // 2)

    def sees(i: checks.Position, j: checks.Position) -> bool:
        up, left = i[0] - j[0], i[1] - j[1]
        return left <= 1 + reach if up == 0 else up <= 1 + reach and abs(left) <= reach

    checks.check_causality(tiny(1, 2, (5, 6), layers=layers, kernel_size=kernel_size), sees)


def test_attention_sees_all_that_convolutions_do_not():
    network = tiny(1, 2, (5, 6), layers=1, attention_every=1)
    checks.check_causality(network)


@pytest.mark.parametrize("attention", ATTENTION)
@pytest.mark.parametrize("conditions", CONDITIONS)
def test_probabilities_of_all_images_sum_to_one(attention, conditions):
    checks.check_sums_to_one(tiny(1, 1, (2, 2), **conditions, **attention))


@pytest.mark.parametrize("attention", ATTENTION)
@pytest.mark.parametrize("conditions", CONDITIONS)
@pytest.mark.parametrize(("grid", "kernel_size"), [((4, 6), 3), ((6, 3), 5), ((1, 5), 3), ((5, 1), 3)])
def test_cached_equals_forward(attention, conditions, grid, kernel_size):
    own = {**TINY, **conditions, **attention, "kernel_size": kernel_size, "dropout": 0.5}
    checks.check_incremental_equals_forward(GatedPixelCNN(3, 5, grid, **own))


def test_cached_equals_forward_in_float32():
    torch.set_default_dtype(torch.float32)
    network = GatedPixelCNN(8, 16, (8, 8), cond_dim=3, spatial_channels=2, attention_every=4)
    checks.check_incremental_equals_forward(network, tolerance=1e-5)


@pytest.mark.parametrize("attention", ATTENTION)
@pytest.mark.parametrize("conditions", CONDITIONS)
def test_generated_codes_are_those_of_the_naive_loop(attention, conditions):
    checks.check_generate_equals_naive(tiny(3, 5, (4, 6), **conditions, **attention))


@pytest.mark.parametrize("conditions", CONDITIONS)
def test_conditions_are_required(conditions):
    checks.check_conditions_are_required(tiny(3, 5, (4, 6), **conditions))


# ---- layers against what they stand for ----------------------------------------------------------------------------


@pytest.mark.parametrize("first", [True, False])
@pytest.mark.parametrize("kernel_size", [3, 5])
def test_layer_equals_full_kernels_with_masks(first, kernel_size):
    """Square kernels with zeros at what is not to be seen, padded on all sides, as the paper has it."""
    width = 4
    layer = GatedLayer(width, width, kernel_size, first, cond_dim=0, spatial_channels=0)
    vertical, horizontal, context = torch.randn(2, 4, 5, 6), torch.randn(2, 4, 5, 6), torch.randn(2, 16, 5, 6)
    reach = kernel_size // 2
    size = reach + 1  # a kernel of 2 size + 1 also holds the first layer's, moved away from the centre by one
    end = size if first else size + 1
    full_vertical, full_horizontal = (torch.zeros(8, 4, 2 * size + 1, 2 * size + 1) for _ in range(2))
    full_vertical[:, :, end - reach - 1 : end, 1:-1] = layer.vertical.weight
    full_horizontal[:, :, size, end - reach - 1 : end] = layer.horizontal.weight[:, :, 0]

    v = F.conv2d(vertical, full_vertical, padding=size) + context[:, :8]
    across = torch.einsum("oi,bihw->bohw", layer.across.weight[:, :, 0, 0], v)
    h = F.conv2d(horizontal, full_horizontal, padding=size) + across + context[:, 8:]
    gated = torch.tanh(h[:, :4]) * torch.sigmoid(h[:, 4:])
    update = torch.einsum("oi,bihw->bohw", layer.residual.weight[:, :, 0, 0], gated)
    expected = torch.tanh(v[:, :4]) * torch.sigmoid(v[:, 4:]), update if first else horizontal + update
    torch.testing.assert_close(layer(vertical, horizontal, context, torch.nn.Identity()), expected, **EXACT)


def test_attention_equals_a_softmax_over_what_came_before():
    grid, heads, width = (2, 3), 2, 4
    attention = CausalAttention(3, width, heads, grid)
    torch.nn.init.normal_(attention.out.weight)
    h, x = torch.randn(1, width, *grid), torch.randn(1, 3, *grid)
    features, inputs = h[0].flatten(1).T, x[0].flatten(1).T
    n = attention.norm(features) + torch.stack([attention.rows[r, 0] + attention.columns[0, c] for r, c in
                                                [(0, 0), (0, 1), (0, 2), (1, 0), (1, 1), (1, 2)]])  # fmt: skip
    own = n @ attention.key_value.weight.T + inputs @ attention.key_value_input.weight.T
    rows = []
    for i in range(6):
        keys, values = torch.cat([attention.nothing[None], own[:i]]).chunk(2, 1)
        query = n[i] @ attention.query.weight.T
        each = []
        for part in (slice(0, 2), slice(2, 4)):
            scores = keys[:, part] @ query[part] / math.sqrt(2)
            each.append(scores.softmax(0) @ values[:, part])
        rows.append(features[i] + torch.cat(each) @ attention.out.weight.T)
    expected = torch.stack(rows, 1).view(1, width, *grid)
    torch.testing.assert_close(attention(h, x), expected, **EXACT)


# ---- training ------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("layers", [8, 32])
def test_no_layer_of_a_deep_network_starts_faint_or_loud(layers):
    network = GatedPixelCNN(4, 2, (20, 20), width=32, layers=layers, kernel_size=3)
    vertical = horizontal = torch.randn(2, 4, 20, 20)
    for index, layer in enumerate(network.body):
        vertical, horizontal = layer(vertical, horizontal, layer.context(None, None), network.dropout)
        assert 0.3 < vertical[:, :, 8:].std() < 0.4, index  # 1 / 2.94, where the padding above is out of sight
    assert 0.7 < horizontal[:, :, 8:].std() < 1.1


def test_the_gain_is_that_of_the_gate():
    a, b = torch.randn(2, 1_000_000, 1)
    assert gate(torch.cat([a, b], 1)).square().mean().rsqrt() == pytest.approx(2.94, rel=0.01)


@pytest.mark.slow
@pytest.mark.parametrize("attention", [{"attention_every": 0}, {"attention_every": 2}])
def test_learns_a_few_images_down_to_their_entropy(attention):
    """Eight different images, equally often: no code takes fewer than log 8 nats."""
    torch.set_default_dtype(torch.float32)
    torch.manual_seed(0)
    x = torch.randint(0, 2, (8, 1, 5, 5)) * 2.0 - 1.0
    assert len(x.unique(dim=0)) == 8
    network = GatedPixelCNN(1, 1, (5, 5), width=16, layers=4, kernel_size=3, head_width=16, **attention)
    optimizer = torch.optim.Adam(network.parameters(), 1e-2)
    for _ in range(250):
        loss = -F.logsigmoid(x * network(x)).sum((1, 2, 3)).mean()
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
    assert math.log(8) - 1e-3 < loss < math.log(8) + 0.05


def test_dropout_is_off_by_default_and_acts_in_training_only():
    h = torch.randn(1, 2, 3, 4)
    for rate, acts in [(0.0, False), (0.5, True)]:
        network = tiny(2, 3, (3, 4), dropout=rate)
        assert torch.equal(network(h), network(h)) != acts
        network.eval()
        assert torch.equal(network(h), network(h))
    assert tiny(2, 3, (3, 4)).dropout.p == 0.0


# ---- errors --------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize(
    ("wrong", "message"),
    [
        ({"kernel_size": 4}, r"kernel_size \(=4\) must be odd\. Set kernel_size in the init_args of the network\.$"),
        ({"kernel_size": 1}, r"kernel_size \(=1\) must be at least 3"),
        ({"layers": 0}, r"layers \(=0\) must be at least 1\."),
        (
            {"attention_every": 4},
            r"attention_every \(=4\) must be from 1 to layers \(=3\), or 0 .*attention_every in the init",
        ),
        ({"attention_every": -1}, r"attention_every \(=-1\) must be at least 0"),
        (
            {"attention_every": 1, "heads": 3},
            r"width \(=4\) must be divisible by heads \(=3\)\. Set heads in",
        ),
    ],
)
def test_errors_name_the_argument(wrong, message):
    with pytest.raises(ValueError, match=r"^GatedPixelCNN: " + message):
        tiny(2, 3, (3, 4), **wrong)
