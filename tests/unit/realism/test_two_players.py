"""Both players in one optimizer, through a Trainer: counting, accumulation, clipping, precision."""

from functools import partial

import pytest
import torch
from lightning.pytorch import Trainer
from realism_helpers import gradients, new_autoencoder, new_realism

from lit_vae.data import FakeImages
from lit_vae.distributions import DiagonalGaussian
from lit_vae.networks import PatchDiscriminator
from lit_vae.noise import Draws
from lit_vae.realism import R1, Color, LeCAM
from lit_vae.schedules import LinearWarmup

STEPS = 6


def fit(model, batch_size=4, steps=STEPS, **given):
    data = FakeImages(channels=1, size=8, num_train=4 * STEPS, num_val=8, num_test=8, batch_size=batch_size)
    trainer = Trainer(
        max_steps=steps, logger=False, enable_checkpointing=False, enable_progress_bar=False,
        enable_model_summary=False, limit_val_batches=0, accelerator="cpu", log_every_n_steps=1, **given,
    )  # fmt: skip
    trainer.fit(model, data)
    return trainer


class Watched:
    """Keeps what a model's parts were before each step, and which had gradients."""

    def __init__(self, model):
        self.weights, self.had = [], []
        original = model.optimizer_step

        def step(epoch, batch_idx, optimizer, closure):
            before = {name: p.detach().clone() for name, p in model.named_parameters()}
            original(epoch, batch_idx, optimizer, closure)
            self.had.append(set(gradients(model)))
            self.weights.append({n: not torch.equal(p, before[n]) for n, p in model.named_parameters()})

        model.optimizer_step = step

    def moved(self, step, prefix):
        return any(moved for name, moved in self.weights[step].items() if name.startswith(prefix))


def test_a_batch_is_one_step_and_each_player_begins_when_it_should():
    realism = new_realism(weight=LinearWarmup(steps=1, end=0.5, delay=3), start_step=2)
    model = new_autoencoder(realism)
    watched = Watched(model)
    trainer = fit(model)
    assert trainer.global_step == STEPS
    for step in range(STEPS):
        assert watched.moved(step, "encoder")
        assert watched.moved(step, "realism.adversary.discriminator") == (step >= 2)
    state = trainer.optimizers[0].state
    counts = [int(state[p]["step"]) for p in realism.adversary.discriminator.parameters()]
    assert counts == [STEPS - 2] * len(counts)  # bias correction starts with its first step


def test_the_learned_scale_moves():
    model = new_autoencoder(new_realism())
    before = model.likelihood.log_scale.item()
    fit(model)
    assert abs(model.likelihood.log_scale.item() - before) > 1e-3


def test_the_discriminator_has_settings_of_its_own():
    model = new_autoencoder(new_realism(optimizer={"lr": 0.0, "betas": [0.5, 0.9]}))
    watched = Watched(model)
    trainer = fit(model, steps=1)
    ours, theirs = trainer.optimizers[0].param_groups
    assert (ours["lr"], theirs["lr"], theirs["betas"]) == (1e-3, 0.0, [0.5, 0.9])
    assert watched.moved(0, "decoder")
    assert not watched.moved(0, "realism.adversary.discriminator")


class Point(DiagonalGaussian):
    """A posterior whose samples are its mean."""

    std = property(lambda self: torch.zeros_like(self.mean))


def without_noise(model, x, y):
    mean = type(model).encode(model, x, y).mean
    return Point(mean, torch.zeros_like(mean))


def test_accumulated_halves_are_the_whole_batch():
    found = []
    for batch_size, parts in ((4, 1), (2, 2)):
        model = new_autoencoder(new_realism(max_adaptive_weight=None)).double()
        model.encode = partial(without_noise, model)
        trainer = fit(model, batch_size, steps=3, accumulate_grad_batches=parts, precision="64-true")
        assert trainer.global_step == 3
        found.append({name: p.detach().clone() for name, p in model.named_parameters()})
    for name in found[0]:
        torch.testing.assert_close(found[0][name], found[1][name], rtol=0, atol=1e-9, msg=name)


@pytest.mark.parametrize(
    ("algorithm", "precision"), [("norm", "32-true"), ("value", "32-true"), ("norm", "bf16-mixed")]
)
def test_each_player_is_clipped_by_itself(algorithm, precision):
    """Also with a fused optimizer, which has no loss scaling to undo in bfloat16."""
    model = new_autoencoder(new_realism(), optimizer=partial(torch.optim.Adam, lr=1e-3, fused=True))
    norms = []
    original = model.configure_gradient_clipping

    def clip(optimizer, *args, **kwargs):
        original(optimizer, *args, **kwargs)
        order = 2 if algorithm == "norm" else float("inf")
        every = [torch.cat([p.grad.flatten() for p in g["params"]]) for g in optimizer.param_groups]
        norms.append([float(torch.linalg.vector_norm(gradient, order)) for gradient in every])

    model.configure_gradient_clipping = clip
    fit(model, steps=2, gradient_clip_val=1e-3, gradient_clip_algorithm=algorithm, precision=precision)
    for pair in norms:
        assert pair == pytest.approx([1e-3, 1e-3], rel=1e-3)


def test_everything_at_once_in_bf16_stays_finite_and_trains_both():
    discriminator = partial(PatchDiscriminator, width=4, layers=1, normalization="batch", spectral=True)
    realism = new_realism(
        discriminator=discriminator, penalties=[R1(every=2), LeCAM()], augmentations=[Color()]
    )  # fmt: skip
    model = new_autoencoder(realism)
    watched = Watched(model)
    trainer = fit(model, precision="bf16-mixed")
    assert all(torch.isfinite(p).all() for p in model.parameters())
    assert all(watched.moved(step, "realism.adversary.discriminator") for step in range(STEPS))
    assert "train/adversarial_nats" in trainer.callback_metrics
    assert "train/grad_norm_adversarial" in trainer.callback_metrics


@pytest.mark.gpu
def test_fp16_with_loss_scaling_trains_both_on_a_gpu():
    model = new_autoencoder(new_realism())
    watched = Watched(model)
    data = FakeImages(channels=1, size=8, num_train=80, num_val=8, num_test=8, batch_size=4)
    trainer = Trainer(max_steps=20, logger=False, enable_checkpointing=False, limit_val_batches=0, accelerator="gpu",
                      precision="16-mixed", log_every_n_steps=1)  # fmt: skip
    trainer.fit(model, data)
    assert all(torch.isfinite(p).all() for p in model.parameters())
    assert watched.moved(19, "encoder")
    assert watched.moved(19, "realism.adversary.discriminator")
    assert trainer.callback_metrics["train/grad_norm_adversarial"] > 0


def test_the_best_is_chosen_once_the_decoder_feels_the_adversary_in_full():
    """Distortion is best just before; a best checkpoint of then would have no part of the game."""
    weight = LinearWarmup(steps=4, end=0.5, delay=10)
    model = new_autoencoder(new_realism(weight=weight))
    assert [model.is_settled(step) for step in (0, 10, 13, 14, 100)] == [False, False, False, True, True]
    assert new_autoencoder(None).is_settled(0)


def test_evaluation_has_the_perceptual_term_and_no_game():
    model = new_autoencoder(new_realism()).eval()
    x = torch.rand(4, 1, 8, 8)
    terms = model.evaluation_terms((x, torch.full((4,), -1)), Draws(0, 0, torch.arange(4)))
    plain = 1e-3 * terms["rate"] + terms["distortion"]
    torch.testing.assert_close(terms["loss"], plain + terms["perceptual_nats"])
    torch.testing.assert_close(terms["elbo"], -(terms["rate"] + terms["distortion"]))
    assert set(terms) == {"loss", "elbo", "rate", "distortion", "perceptual", "perceptual_nats"}
