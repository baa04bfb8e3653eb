"""`UNet` and `DiT` against the networks of diffusers with the same weights."""

from typing import Any

import pytest
import torch
import torch.nn.functional as F

from benchmarks.denoisers import CLASSES, QUICK, Case, new, peer
from lit_vae.diffusion import Betas, LinearLogSNR, LinearPath, NoiseSchedule
from lit_vae.networks import UNet
from lit_vae.networks.clock import FEATURES, clock_features
from lit_vae.networks.dit import positions

pytest.importorskip("diffusers")
pytestmark = pytest.mark.usefixtures("float64")
DEEPER: dict[str, Any] = {"patch": 1, "width": 8, "multipliers": [1, 2, 3], "blocks": 2, "attention": [8, 4]}
CASES = (*QUICK, Case(UNet, DEEPER, (2, 16, 16), 1, 1))


@pytest.mark.parametrize("case", CASES, ids=lambda case: case.name)
def test_outputs_and_gradients_are_theirs(case):
    ours = new(case)
    with torch.no_grad():
        for parameter in ours.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    theirs = peer(ours, case).eval()
    sizes = [sum(p.numel() for p in network.parameters()) for network in (ours, theirs)]
    assert sizes[0] == sizes[1]
    z, lam, classes = torch.randn(3, *case.shape), torch.tensor([-7.0, 0.3, 9.0]), torch.tensor([4, 10, 0])
    z = z.requires_grad_()
    found, expected = ours(z, lam, F.one_hot(classes, CLASSES).double()), theirs(z, lam, classes)
    torch.testing.assert_close(found, expected, rtol=1e-10, atol=1e-10)
    weight = torch.randn_like(found)
    by_norm = []
    for network, y in ((ours, found), (theirs, expected)):
        of_z, *of_parameters = torch.autograd.grad((weight * y).sum(), [z, *network.parameters()])
        by_norm.append((of_z, torch.stack([g.square().sum() for g in of_parameters]).sum()))
    for value, reference in zip(*by_norm, strict=True):
        torch.testing.assert_close(value, reference, rtol=1e-9, atol=1e-9)


@pytest.mark.parametrize("schedule", [LinearLogSNR(), Betas(), LinearPath()], ids=lambda s: type(s).__name__)
def test_no_first_layer_of_theirs_can_read_our_clock(schedule: NoiseSchedule):
    """Why there is no export: on their 1000 steps, our waves are not affine in theirs."""
    from diffusers.models.embeddings import Timesteps

    t = torch.arange(1000)
    waves = Timesteps(FEATURES, flip_sin_to_cos=True, downscale_freq_shift=1)(t).double()
    theirs = torch.cat([waves, torch.ones(1000, 1)], 1)

    def distance(ours):
        return (theirs @ torch.linalg.lstsq(theirs, ours, driver="gelsd").solution - ours).abs().max()

    assert distance(waves @ torch.randn(FEATURES, 3)) < 1e-6
    assert distance(clock_features(schedule(t / 999.0))) > 1.0


def test_positions_are_those_of_the_paper():
    from diffusers.models.embeddings import get_2d_sincos_pos_embed

    theirs = get_2d_sincos_pos_embed(12, 5, base_size=5)
    torch.testing.assert_close(positions(5, 5, 12).float(), theirs.float(), rtol=0.0, atol=1e-6)
