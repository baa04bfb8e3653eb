"""GroupNorm keeps its precision under autocast."""

import torch
from torch import nn

from lit_vae.networks.layers import group_norm


def test_under_autocast_it_is_computed_in_float32() -> None:
    torch.manual_seed(0)
    norm, reference = group_norm(16), nn.GroupNorm(4, 16, eps=1e-6)
    h = 100.0 + torch.randn(4, 16, 8, 8)  # a large mean: bf16 statistics would keep nothing of the deviations
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = norm(h)
    assert out.dtype == torch.float32
    torch.testing.assert_close(out, reference(h), rtol=1e-5, atol=1e-5)
    assert norm.state_dict().keys() == reference.state_dict().keys()


def test_it_keeps_the_dtype_of_what_comes() -> None:
    norm, h = group_norm(16), torch.randn(2, 16, 4, 4)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        out = norm(h.bfloat16())
    assert out.dtype == torch.bfloat16
    torch.testing.assert_close(out, norm(h.bfloat16().float()).bfloat16(), rtol=0.0, atol=0.0)
