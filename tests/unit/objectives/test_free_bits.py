"""Free bits: the equation of the paper, its gradient, and a batch that is spread over ranks."""

import pytest
import torch
import torch.multiprocessing as mp

from lit_vae.distributions import DiagonalGaussian
from lit_vae.objectives import ELBO, FreeBits, Level

MINIMUM = 0.7
FREE_BITS = FreeBits(MINIMUM)


def posterior(rows: int = 8) -> DiagonalGaussian:
    """Dimensions on both sides of the minimum, two of them on another side in each half of the batch."""
    generator = torch.Generator().manual_seed(0)
    halves = torch.tensor([[0.1, 0.2, 0.6, 3.0], [0.1, 1.5, 3.0, 3.0]], dtype=torch.float64)
    mean = halves.repeat_interleave(rows // 2, 0) * torch.randn(rows, 4, dtype=torch.float64, generator=generator)
    return DiagonalGaussian(mean.requires_grad_(), torch.zeros(rows, 4, dtype=torch.float64).requires_grad_())


def test_batch_mean_is_the_equation_of_the_paper():
    """Kingma et al. 2016, eq. 15: sum_j max(lambda, E_batch KL_j)."""
    kl = posterior().kl_per_dim()
    assert 0 < (kl.mean(0) > MINIMUM).sum() < 4
    expected = kl.mean(0).clamp_min(MINIMUM).sum()
    torch.testing.assert_close(FREE_BITS.paid(kl).mean(), expected, rtol=1e-14, atol=0)


def test_gradient_is_zero_below_the_minimum_and_that_of_the_rate_above():
    q = posterior()
    kl = q.kl_per_dim()
    (actual,) = torch.autograd.grad(FREE_BITS.paid(kl).mean(), q.mean, retain_graph=True)
    (rate,) = torch.autograd.grad(kl.sum(1).mean(), q.mean)
    above = kl.mean(0) > MINIMUM
    assert (actual[:, ~above] == 0.0).all()
    torch.testing.assert_close(actual[:, above], rate[:, above], rtol=0, atol=0)


def test_maps_have_free_bits_for_every_position():
    kl = posterior().kl_per_dim()
    torch.testing.assert_close(FREE_BITS.paid(kl.unflatten(1, (1, 2, 2))), FREE_BITS.paid(kl), rtol=0, atol=0)


def evaluate(q):
    """Terms of an evaluation, as training's when it is over."""

    blank = DiagonalGaussian(torch.zeros(1, len(q.mean), 1, 1, 1), torch.zeros(()), event_ndim=3)
    prior = DiagonalGaussian(torch.zeros_like(q.mean), torch.zeros_like(q.mean))
    level = Level(q, prior, q.rsample(1))
    return ELBO(free_bits=MINIMUM, beta=0.5)(torch.zeros(len(q.mean), 1, 1, 1), [level], blank, step=None)


@pytest.mark.parametrize("size", [8, 3, 1])
def test_an_evaluation_decides_on_the_whole_split(size):
    """Whatever the batches: beta sum_j max(lambda, E_split KL_j) beside the distortion."""
    q, objective = posterior(), ELBO(free_bits=MINIMUM, beta=0.5)
    assert objective.batch_terms([(4,)]) == {"kl_per_dim": (4,)}
    assert ELBO().batch_terms([(4,)]) == {}
    parts = zip(q.mean.split(size), q.log_var.split(size), strict=True)
    terms = [evaluate(DiagonalGaussian(*part)) for part in parts]
    loss, distortion = (torch.cat([part.terms[name] for part in terms]).mean() for name in ("loss", "distortion"))
    kl = torch.cat([part.of_batch["kl_per_dim"] for part in terms]).mean(0)
    expected = distortion + 0.5 * q.kl_per_dim().mean(0).clamp_min(MINIMUM).sum()
    torch.testing.assert_close(loss + objective.batch_loss({"kl_per_dim": kl}), expected, rtol=1e-14, atol=0)


def _rank(rank: int, file: str, results: "mp.SimpleQueue") -> None:
    torch.distributed.init_process_group("gloo", init_method=f"file://{file}", rank=rank, world_size=2)
    q = posterior()
    mine = DiagonalGaussian(q.mean[4 * rank : 4 * rank + 4], q.log_var[4 * rank : 4 * rank + 4])
    loss = FREE_BITS.paid(mine.kl_per_dim()).mean()
    (grad,) = torch.autograd.grad(loss, q.mean)

    if rank == 0:  # an evaluation that only one rank makes must not wait for the other
        evaluate(mine)
    results.put((rank, loss.item(), grad.tolist()))
    torch.distributed.barrier()
    torch.distributed.destroy_process_group()


@pytest.mark.filterwarnings("ignore:.*use of fork:DeprecationWarning")  # nothing is left running here
def test_two_ranks_are_one_process_of_the_double_batch(tmp_path):
    results = mp.get_context("fork").SimpleQueue()
    mp.start_processes(_rank, (str(tmp_path / "store"), results), nprocs=2, start_method="fork")
    _, losses, grads = zip(*sorted(results.get() for _ in range(2)), strict=True)

    q = posterior()
    loss = FREE_BITS.paid(q.kl_per_dim()).mean()
    (grad,) = torch.autograd.grad(loss, q.mean)
    per_rank = torch.stack([q.kl_per_dim()[:4].mean(0), q.kl_per_dim()[4:].mean(0)]) > MINIMUM
    assert (per_rank[0] != per_rank[1]).any()  # or this would show nothing
    assert sum(losses) / 2 == pytest.approx(loss.item(), rel=1e-14)
    averaged = torch.tensor(grads, dtype=torch.float64).mean(0)  # as DDP does
    torch.testing.assert_close(averaged, grad, rtol=1e-14, atol=0)
