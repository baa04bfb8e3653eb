"""The network that is timed and its transcription are the same, and sampling runs only what it needs."""

from pathlib import Path

import pytest
import torch
from torch import nn


@pytest.fixture(autouse=True)
def repository_on_the_path(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.syspath_prepend(str(Path(__file__).resolve().parents[3]))


def test_both_have_the_same_loss_and_gradients_at_the_same_noise(float64: None) -> None:
    from benchmarks.hierarchy import QUICK, Step, new_model, ordered, transcribed

    case, device = QUICK._replace(latents=((2, 2), (4, 2)), encoder_blocks=2), torch.device("cpu")
    model = new_model(case)
    for parameter in model.parameters():
        if (parameter == 0.0).all():  # the priors' last layers
            nn.init.normal_(parameter, std=0.2)
    plain = transcribed(case, model)
    x, y = (torch.rand(3, 1, 4, 4) < 0.3) * 2.0 - 1.0, torch.full((3,), -1)
    noise = [torch.randn(3, case.channels, side, side) for side, levels in case.latents for _ in range(levels)]

    def ours() -> torch.Tensor:
        encoded = model.encode(x, y)
        levels, parameters = model.hierarchy.infer(encoded, None, 1, lambda i, q: q.mean + q.std * noise[i])
        return model.objective(x, levels, model.distribution(parameters), 0).terms["loss"].mean()

    def theirs() -> torch.Tensor:
        left = iter(noise)
        return plain(x, lambda _: next(left))

    loss, *gradients = Step(model, ours, device)()
    expected = theirs()
    torch.testing.assert_close(loss, expected, rtol=1e-12, atol=0.0)
    for got, gradient in zip(gradients, torch.autograd.grad(expected, list(ordered(plain))), strict=True):
        torch.testing.assert_close(got, gradient, rtol=1e-9, atol=1e-11)


def test_sampling_runs_no_encoder_no_posterior_and_keeps_no_graph() -> None:
    from benchmarks.hierarchy import QUICK, new_model

    model, run = new_model(QUICK), set()
    for name, module in model.hierarchy.named_modules():
        module.register_forward_hook(lambda *_, name=name: run.add(name))
    images = model.sample(2)
    assert not images.requires_grad
    ran = {name for name in run if name}
    assert ran
    assert not [name for name in ran if any(part in name for part in ("bottom_up", "evidence", "posterior"))]
    assert {f"steps.{level}.prior" for level in range(3)} <= ran
