"""The networks that are timed against each other do the same work."""

from pathlib import Path

import pytest
import torch

from lit_vae.interop.names import to_diffusers


@pytest.fixture(autouse=True)
def repository_on_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[3]))


def test_both_give_the_same_outputs_and_gradients() -> None:
    pytest.importorskip("diffusers")
    from benchmarks.ldm import QUICK, ours, peer

    x = torch.rand(1, 3, QUICK.size, QUICK.size, generator=torch.Generator().manual_seed(1)) * 2 - 1
    networks, theirs = peer(QUICK, x)
    names = dict(networks.named_parameters())
    step, again = ours(QUICK, x), ours(QUICK, x, channels_last=True, checkpointing=True)
    order = []
    for part, network in zip(("encoder", "decoder"), step.networks, strict=True):
        for name, parameter in network.named_parameters():
            order.append(to_diffusers(f"{part}.{name}"))
            with torch.no_grad():
                names[order[-1]].copy_(parameter)
    assert set(order) == names.keys()
    expected, *gradients = theirs()
    by_name = dict(zip(names, gradients, strict=True))
    for found in (step(), again()):
        torch.testing.assert_close(found[0], expected, rtol=0.0, atol=1e-5)
        for name, gradient in zip(order, found[1:], strict=True):
            torch.testing.assert_close(gradient, by_name[name], rtol=1e-3, atol=1e-6)


def test_the_ways_differ() -> None:
    """Mixed precision is in bfloat16, channels-last features are."""
    from benchmarks.ldm import QUICK, ours

    x = torch.rand(1, 3, QUICK.size, QUICK.size)
    plain, mixed = ours(QUICK, x), ours(QUICK, x, mixed=True, channels_last=True)
    assert mixed.x.is_contiguous(memory_format=torch.channels_last)
    assert (plain()[0].dtype, mixed()[0].dtype) == (torch.float32, torch.bfloat16)
