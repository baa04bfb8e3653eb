"""Another way of drawing, given on a command line."""

from functools import partial
from typing import Any

import pytest
import torch

from lit_vae.diffusion import (
    DDIM,
    Bound,
    ClassifierFree,
    DPMSolverPlusPlus2M,
    GaussianDiffusion,
    LinearLogSNR,
    Noise,
    PixelLevels,
    Sampling,
    UniformLogSNR,
)
from lit_vae.models import VariationalDiffusion
from lit_vae.networks import UNet
from lit_vae.tools.solvers import change_sampling

GUIDED = Sampling(9, DDIM(1.0), UniformLogSNR(), ClassifierFree(1.5, (0.0, 1.0)))
NOT_GIVEN = {"steps": None, "sampler": None, "guidance": None, "guidance_interval": None}


def diffusion(**given: Any) -> VariationalDiffusion:
    process = GaussianDiffusion(LinearLogSNR(), Noise(), Bound())
    network, adam = partial(UNet, width=8, multipliers=[1], blocks=1), partial(torch.optim.Adam, lr=1e-3)
    return VariationalDiffusion([1, 4, 4], network, process, PixelLevels(), adam, **{"num_classes": 2, **given})


@pytest.mark.parametrize(
    ("given", "steps", "sampler", "guidance"),
    [
        ({}, 9, "DDIM (eta 1)", "guidance 1.5 at log-SNR 0 to 1"),
        ({"steps": 20}, 20, "DDIM (eta 1)", "guidance 1.5 at log-SNR 0 to 1"),
        ({"sampler": "ddim"}, 9, "DDIM", "guidance 1.5 at log-SNR 0 to 1"),
        ({"guidance": 1.0}, 9, "DDIM (eta 1)", "guidance 1 at log-SNR 0 to 1"),
        ({"guidance": 0.0, "guidance_interval": (-3.0, 5.0)}, 9, "DDIM (eta 1)", "guidance 0 at log-SNR -3 to 5"),
        ({"guidance_interval": (-3.0, 5.0)}, 9, "DDIM (eta 1)", "guidance 1.5 at log-SNR -3 to 5"),
    ],
)
def test_what_is_not_given_stays(given: dict[str, Any], steps: int, sampler: str, guidance: str) -> None:
    model = diffusion(sampling=GUIDED)
    change_sampling("sample", model, **{**NOT_GIVEN, **given})
    assert str(model.sampling) == f"{steps} steps of {sampler}, {guidance}"
    assert model.sampling.grid is GUIDED.grid
    assert (model.sampling is GUIDED) == (not given)
    assert str(GUIDED) == "9 steps of DDIM (eta 1), guidance 1.5 at log-SNR 0 to 1"


def test_a_run_without_guidance_can_be_guided() -> None:
    model = diffusion(sampling=Sampling(9, DPMSolverPlusPlus2M()))
    change_sampling("sample", model, **{**NOT_GIVEN, "guidance": 3.0})
    assert str(model.sampling) == "9 steps of DPMSolverPlusPlus2M, guidance 3"


@pytest.mark.parametrize(
    ("made", "given", "expected"),
    [
        ({"num_classes": 0}, {"guidance": 2.0}, "--guidance leads to a class, and this VariationalDiffusion is not"),
        ({"num_classes": 0}, {"guidance_interval": (0.0, 1.0)}, "--guidance leads to a class"),
        ({"label_dropout": 0.0}, {"guidance": 2.0}, "was trained with label_dropout: 0. Leave it out."),
        ({}, {"guidance_interval": (0.0, 1.0)}, "--guidance_interval is where --guidance acts. Give both."),
        ({}, {"steps": 0}, "Sampling: steps (=0) must be at least 2."),
        ({}, {"steps": 1}, "Sampling: steps (=1) must be at least 2."),
        ({}, {"guidance": -1.0}, "ClassifierFree: scale (=-1.0) must be at least 0."),
        ({}, {"guidance": 2.0, "guidance_interval": (3.0, -2.0)},
         "ClassifierFree: interval (=[3.0, -2.0]) must be [lo, hi] with lo < hi"),
    ],
)  # fmt: skip
def test_a_mistake_is_one_clear_error(made: dict[str, Any], given: dict[str, Any], expected: str) -> None:
    with pytest.raises(ValueError) as error:
        change_sampling("sample", diffusion(**made), **{**NOT_GIVEN, **given})
    assert str(error.value).startswith("lit-vae sample: ")
    assert expected in str(error.value)
