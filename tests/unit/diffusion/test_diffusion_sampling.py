"""The way from noise to image: what is told of it, its nodes, and its names."""

from itertools import pairwise
from typing import Any, get_args

import pytest
import torch
from diffusion_helpers import best
from torch import Generator, Tensor

from lit_vae.diffusion import (
    DDIM,
    SAMPLERS,
    ClassifierFree,
    DPMSolverPlusPlus2M,
    Heun,
    LinearLogSNR,
    Sampling,
    UniformTime,
)
from lit_vae.tools.solvers import SamplerName

SCHEDULE = LinearLogSNR(6.0, -6.0)


def drawn(sampling: Sampling, shape: tuple[int, ...] = (3, 2)) -> Tensor:
    strong, weak = best(0.5, 0.1), best(0.0, 1.0)
    return sampling(strong, lambda: weak, SCHEDULE, shape, torch.device("cpu"), Generator().manual_seed(0))


def seen_by(sampling: Sampling) -> tuple[Tensor, list[int], Tensor, list[Tensor]]:
    """What is drawn; the nodes that are told, all nodes, and what is expected at the told ones."""
    told: list[tuple[int, Tensor, Tensor]] = []
    sampling.watch = lambda *what: told.append(what)
    x = drawn(sampling)
    return x, [node for node, _, _ in told], told[0][1], [x_hat for _, _, x_hat in told]


@pytest.mark.parametrize("name", SAMPLERS)
def test_each_node_is_told_once_and_the_last_is_the_image(name: str) -> None:
    plain = drawn(Sampling(7, SAMPLERS[name], guidance=ClassifierFree(2.0)))
    x, nodes, lams, expected = seen_by(Sampling(7, SAMPLERS[name], guidance=ClassifierFree(2.0)))
    assert torch.equal(x, plain)
    assert nodes == list(range(7))
    assert torch.equal(lams, UniformTime()(SCHEDULE, 7))
    assert torch.equal(expected[-1], x)
    assert not any(torch.equal(*pair) for pair in pairwise(expected))


def test_guidance_begins_and_ends_at_nodes_of_the_grid() -> None:
    """Whatever the number of steps: otherwise it would act from the next node on."""
    _, nodes, lams, _ = seen_by(Sampling(5, guidance=ClassifierFree(2.0, (-1.25, 20.0))))
    assert lams.tolist() == [-6.0, -3.0, -1.25, 0.0, 3.0, 6.0]
    assert nodes == list(range(6))


def test_a_sampling_says_what_it_does() -> None:
    assert str(Sampling()) == "50 steps of DDIM"
    assert str(Sampling(9, DDIM(0.5), guidance=ClassifierFree(1.5))) == "9 steps of DDIM (eta 0.5), guidance 1.5"
    guided = Sampling(20, DPMSolverPlusPlus2M(), guidance=ClassifierFree(3.0, (-3.0, 5.0)))
    assert str(guided) == "20 steps of DPMSolverPlusPlus2M, guidance 3 at log-SNR -3 to 5"


def test_short_names_are_those_of_the_command_line() -> None:
    assert get_args(SamplerName) == tuple(SAMPLERS)
    kinds: dict[str, Any] = {"ddim": DDIM, "ancestral": DDIM, "heun": Heun, "dpmpp_2m": DPMSolverPlusPlus2M}
    assert {name: type(sampler) for name, sampler in SAMPLERS.items()} == kinds
    assert [SAMPLERS[name].eta for name in ("ddim", "ancestral")] == [0.0, 1.0]  # type: ignore[attr-defined]
