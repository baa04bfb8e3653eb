"""The causal transformer: what every autoregressive network keeps, its conditions, initialisation, and learning."""

import math

import autoregressive_checks as checks
import pytest
import torch
import torch.nn.functional as F
from torch import Tensor

from lit_vae.networks.autoregressive import generate
from lit_vae.networks.transformer import CausalTransformer

TINY = {"width": 8, "layers": 2, "heads": 2}
CONDITIONS = pytest.mark.parametrize("conditions", [(0, 0), (3, 0), (0, 2), (3, 2)])

pytestmark = pytest.mark.usefixtures("float64")


@CONDITIONS
def test_causality(conditions):
    checks.check_causality(CausalTransformer(2, 3, (3, 4), *conditions, **TINY))


@CONDITIONS
def test_probabilities_sum_to_one(conditions):
    checks.check_sums_to_one(CausalTransformer(1, 1, (2, 3), *conditions, **TINY))


@CONDITIONS
@pytest.mark.parametrize("grid", [(1, 1), (3, 5)])
def test_the_cache_answers_what_forward_does(grid, conditions):
    checks.check_incremental_equals_forward(CausalTransformer(2, 3, grid, *conditions, **TINY))


def test_the_cache_in_single_precision():
    network = CausalTransformer(4, 6, (4, 4), 3, 2, width=32, layers=4).float()
    checks.check_incremental_equals_forward(network, tolerance=1e-5)


@CONDITIONS
def test_samples_with_the_cache_are_those_without(conditions):
    checks.check_generate_equals_naive(CausalTransformer(2, 4, (3, 4), *conditions, **TINY))


@CONDITIONS
def test_conditions_are_required(conditions):
    checks.check_conditions_are_required(CausalTransformer(2, 3, (3, 4), *conditions, **TINY))


def test_the_spatial_condition_is_read_at_the_position_that_it_is_of():
    """Output i reads spatial at i directly, and at j < i by attention; of later positions it reads nothing."""
    network = checks.awake(CausalTransformer(2, 3, (2, 3), 0, 2, **TINY))
    h, spatial = torch.randn(1, 2, 2, 3), torch.randn(1, 2, 2, 3, requires_grad=True)
    out = network(h, None, spatial).flatten(2)
    for i in range(6):
        (by_spatial,) = checks.jacobian(out[0, :, i], spatial)
        assert ((by_spatial.flatten(2)[0].amax(0) > 0.0) == (torch.arange(6) <= i)).all()


def test_it_is_a_pre_norm_decoder_as_written_by_hand():
    """One layer, with an explicit mask and explicit modulations."""
    network = checks.awake(CausalTransformer(2, 3, (2, 3), 3, 2, width=8, layers=1, heads=2))
    h, cond, spatial = torch.randn(4, 2, 2, 3), torch.randn(4, 3), torch.randn(4, 2, 2, 3)
    modulation = network.modulation(cond).view(4, 3, 2, 8)

    def norm(layer: torch.nn.LayerNorm, x: Tensor, index: int) -> Tensor:
        x = F.layer_norm(x, (8,), layer.weight, layer.bias)
        return x * (1.0 + modulation[:, index, None, 0]) + modulation[:, index, None, 1]

    start = network.start[0, 0] + network.start_cond(cond)
    tokens = torch.stack([start, *(network.embed(h[:, :, i // 3, i % 3]) for i in range(5))], 1)
    places = [network.rows[i // 3, 0] + network.columns[0, i % 3] for i in range(6)]
    x = tokens + torch.stack(places) + network.spatial(spatial.flatten(2).transpose(1, 2))

    block = network.blocks[0]
    query, key, value = block.to_query_key_value(norm(block.norm1, x, 0)).split(8, 2)
    mask = torch.ones(6, 6).tril().log()
    heads = []
    for c in (slice(0, 4), slice(4, 8)):
        scores = query[..., c] @ key[..., c].transpose(1, 2) / math.sqrt(4)
        heads.append((scores + mask).softmax(2) @ value[..., c])
    x = x + block.from_heads(torch.cat(heads, 2))
    x = x + block.narrow(F.gelu(block.widen(norm(block.norm2, x, 1))))
    expected = network.head(norm(network.norm, x, 2)).transpose(1, 2).view(4, 3, 2, 3)
    torch.testing.assert_close(network(h, cond, spatial), expected, rtol=1e-12, atol=1e-12)


def test_initialisation_is_that_of_gpt2():
    network = CausalTransformer(64, 512, (8, 8), 10, 16, width=64, layers=8)
    for name, parameter in network.named_parameters():
        if "norm" in name:
            assert (parameter == float(name.endswith("weight"))).all(), name
        elif name.endswith("bias") or name.startswith("modulation"):
            assert (parameter == 0.0).all(), name
        else:
            residual = name.endswith(("from_heads.weight", "narrow.weight"))
            expected = 0.02 / 4.0 if residual else 0.02  # of 16 residual branches
            tolerance = 4.0 / math.sqrt(2 * parameter.numel())  # four standard deviations of the estimate
            assert parameter.std().item() == pytest.approx(expected, rel=tolerance), name


def test_at_first_a_condition_reaches_the_output_by_the_start_token_alone():
    network = CausalTransformer(2, 3, (2, 2), 3, **TINY)
    with torch.no_grad():
        network.start_cond.weight.zero_()
    h = torch.randn(1, 2, 2, 2)
    assert torch.equal(network(h, torch.zeros(1, 3)), network(h, torch.ones(1, 3)))
    network = CausalTransformer(2, 3, (2, 2), 3, **TINY)
    assert (network(h, torch.zeros(1, 3)) != network(h, torch.ones(1, 3))).all()


def test_dropout_is_of_training_alone():
    network = CausalTransformer(2, 3, (3, 3), dropout=0.5, **TINY)
    h = torch.randn(2, 2, 3, 3)
    assert not torch.equal(network(h), network(h))
    without = CausalTransformer(2, 3, (3, 3), **TINY)
    without.load_state_dict(network.state_dict())
    assert torch.equal(network.eval()(h), without.train()(h))
    checks.check_incremental_equals_forward(network)


def test_it_learns_four_images_by_heart():
    """To their entropy, log 4 nats an image; and then samples nothing else."""
    images = torch.randint(2, (4, 1, 4, 4)) * 2.0 - 1.0
    assert len(images.unique(dim=0)) == 4
    network = CausalTransformer(1, 1, (4, 4), width=32, layers=2, heads=2)
    # GPT-2's settings: with Adam's own, and no clipping, half of the random starts need longer
    optimizer = torch.optim.Adam(network.parameters(), lr=3e-3, betas=(0.9, 0.95))
    for _ in range(400):
        loss = -F.logsigmoid(images * network(images)).sum((1, 2, 3)).mean()
        assert loss.item() >= math.log(4)  # less would be a leak of the answer
        if loss.item() < math.log(4) + 0.02:
            break
        optimizer.zero_grad()
        loss.backward()
        torch.nn.utils.clip_grad_norm_(network.parameters(), 1.0)
        optimizer.step()
    assert loss.item() < math.log(4) + 0.02

    uniforms = iter(torch.rand(16, 100, 1))
    drawn = generate(network, lambda p: (p.sigmoid() > next(uniforms)) * 2.0 - 1.0, lambda value: value, 100)
    known = (drawn[:, None] == images[None]).flatten(2).all(2)
    assert known.any(1).float().mean() > 0.95
    assert known.any(0).all()


@pytest.mark.parametrize(
    ("wrong", "expected"),
    [
        ({"width": 10}, "width (=10) must be a multiple of heads (=4). Set them in the init_args of the network."),
        ({"layers": 0}, "layers (=0) must be at least 1."),
        ({"heads": 0}, "heads (=0) must be at least 1."),
        ({"width": 0}, "width (=0) must be at least 1."),
    ],
)
def test_wrong_sizes(wrong, expected):
    with pytest.raises(ValueError) as error:
        CausalTransformer(2, 3, (4, 4), **{"width": 8, "layers": 2, "heads": 4} | wrong)
    assert str(error.value) == f"CausalTransformer: {expected}"
