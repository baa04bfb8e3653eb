"""The two adversarial steps that are timed against each other make the same step."""

import pytest
import torch


def test_both_ways_of_writing_the_step_have_the_same_loss_and_gradients() -> None:
    from benchmarks.adversarial import QUICK, autoencoder, loss, usual_loss

    x = torch.rand(2, 3, 16, 16) * 2 - 1
    found = []
    for compute in (loss, usual_loss):
        model = autoencoder(QUICK, True, True).double()
        torch.manual_seed(1)  # of the posterior's sample
        value = compute(model, x.double())
        value.backward()
        found.append((value.detach(), {name: p.grad for name, p in model.named_parameters()}))
    torch.testing.assert_close(found[0][0], found[1][0], rtol=1e-9, atol=0)
    assert found[0][1].keys() == found[1][1].keys()
    for name, gradient in found[0][1].items():
        if gradient is None:
            assert found[1][1][name] is None
        else:
            torch.testing.assert_close(gradient, found[1][1][name], rtol=1e-6, atol=1e-9, msg=name)


@pytest.mark.slow
def test_the_section_has_a_row_for_each_part() -> None:
    from benchmarks import adversarial

    rows = adversarial.run(torch.device("cpu"), quick=True)
    assert [row.variant for row in rows] == [
        "autoencoder alone",
        "+ LPIPS",
        "+ discriminator, fixed weight",
        "+ LPIPS + discriminator, fixed weight",
        "+ LPIPS + discriminator, adaptive weight",
        "the same as usually written",
    ]
    assert rows[-1].baseline == "+ LPIPS + discriminator, adaptive weight"
