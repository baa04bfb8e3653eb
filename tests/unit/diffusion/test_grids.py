"""Grids: the formulas, the ends, and what no network could tell apart."""

import math

import pytest
import torch
from diffusion_helpers import EDM, edm_grid, linear

from lit_vae.diffusion import Cosine, LearnedMonotone, LinearPath
from lit_vae.diffusion.grids import Karras, UniformLogSNR, UniformTime, with_nodes

pytestmark = pytest.mark.usefixtures("float64")

GRIDS = [UniformTime(), UniformLogSNR(), Karras(), Karras(rho=1.0), Karras(rho=1000.0)]
every_grid = pytest.mark.parametrize("grid", GRIDS, ids=lambda g: f"{type(g).__name__}{getattr(g, 'rho', '')}")


def cosine(t):
    return -2.0 * torch.log(torch.tan(torch.pi / 2 * (0.01 + 0.98 * t)))


SCHEDULES = [Cosine(), LinearPath(shift=3.0), LearnedMonotone(), linear(20.0, -20.0), lambda t: cosine(t.float())]


@every_grid
@pytest.mark.parametrize("schedule", SCHEDULES)
def test_nodes_are_as_many_as_steps_from_the_schedules_lowest_to_its_highest(grid, schedule):
    for steps in (2, 3, 50):
        lams = grid(schedule, steps)
        assert lams.dtype == torch.float64
        assert lams.shape == (steps,)
        assert (lams.diff() > 0).all()
        assert not lams.requires_grad
        torch.testing.assert_close(lams[[0, -1]], schedule(torch.tensor([1.0, 0.0])).double().detach(), rtol=0, atol=0)


def test_formulas():
    t = torch.arange(100, -1, -1) / 100
    torch.testing.assert_close(UniformTime()(cosine, 101), cosine(t), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(UniformLogSNR()(cosine, 5), cosine(torch.tensor(1.0)) * torch.arange(1, -1.1, -0.5))
    i = torch.arange(18)
    power = 80.0 ** (1 / 7) + i / 17 * (0.002 ** (1 / 7) - 80.0 ** (1 / 7))  # Karras et al. 2022, eq. 5
    torch.testing.assert_close(torch.exp(-edm_grid(18) / 2), power**7, rtol=1e-12, atol=0)


def test_a_shift_acts_once_and_no_step_is_a_stub():
    """``t' = k t / (1 + (k - 1) t)`` at equal steps of t, the last one, too."""
    lams = UniformTime()(LinearPath(shift=3.0), 11)
    shifted = torch.sigmoid(-lams / 2)  # share of noise on the path
    t = shifted / (3.0 - 2.0 * shifted)
    torch.testing.assert_close(-t.diff(), (t[0] - t[-1]).expand(10) / 10, rtol=1e-9, atol=0)


def test_the_limit_of_a_large_rho_is_equal_steps_of_log_snr():
    apart = [(Karras(rho=rho)(EDM, 20) - UniformLogSNR()(EDM, 20)).abs().max().item() for rho in (100.0, 1000.0)]
    assert apart[1] == pytest.approx(apart[0] / 10, rel=0.02)


@every_grid
def test_a_grid_of_fewer_than_two_nodes_or_of_twins_is_refused_with_the_remedy(grid):
    for steps in (1, 0, -3):
        with pytest.raises(ValueError, match=rf"{type(grid).__name__}: steps \(={steps}\) must be at least 2"):
            grid(EDM, steps)
    near = linear(10.0 + 1e-5, 10.0)  # 10 numbers of float32
    with pytest.raises(ValueError, match=r"steps \(=100\) must be fewer: .* same number in float32"):
        grid(near, 100)
    for schedule in (torch.ones_like, lambda t: t, lambda t: t * math.nan):
        with pytest.raises(ValueError, match="the schedule does not decrease"):
            grid(schedule, 4)


def test_rho_is_in_range():
    for rho in (0.0, 0.5, math.inf, math.nan):
        with pytest.raises(ValueError, match="Karras: rho"):
            Karras(rho=rho)


def test_the_ends_of_an_interval_become_nodes_once():
    lams = torch.tensor([-4.0, -2.0, 0.0, 2.0])
    assert with_nodes(lams, ()).equal(lams)
    assert with_nodes(lams, (0.5, -3.0)).tolist() == [-4.0, -3.0, -2.0, 0.0, 0.5, 2.0]
    assert with_nodes(lams, (-4.0, 2.0, -5.0, 9.0)).equal(lams)
    close = -2.0 + 1e-9
    assert with_nodes(lams, (close, 0.0)).tolist() == [-4.0, close, 0.0, 2.0]
    assert with_nodes(lams, (2.0 - 1e-9,)).equal(lams)
