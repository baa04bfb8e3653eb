"""Judgements of made-up histories, and one game that is really played."""

import math
import warnings
from types import SimpleNamespace

import pytest
import torch
from adversarial_models import new_autoencoder, new_realism
from lightning.pytorch import Callback
from PIL import Image

from callbacks import BackOff, GANHealth
from callbacks.drawing import rasterize
from callbacks.gan_health import NUMBERS
from lit_vae.schedules import LinearWarmup

DELAY = LinearWarmup(steps=1, end=0.5, delay=4)


def drive(health, rows, every=10, first=9, **adversary):
    """Let it see logged steps, one every ten: of each a few numbers. Returns the scale after each, and warnings."""
    model = new_autoencoder(new_realism(**adversary))
    model.log = lambda name, value: None
    scales = []
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        for i, row in enumerate(rows):
            step = first + every * i
            model.last_logged = step, {f"train/{name}": torch.tensor(value) for name, value in row.items()}
            health.on_train_batch_end(SimpleNamespace(global_step=step + 1), model, None, None, i)
            scales.append(float(model.realism.adversary.scale))
    return scales, [str(warning.message) for warning in caught]


def felt(accuracy, adaptive=3.0):
    return {"discriminator_accuracy": accuracy, "adversarial": 0.1, "adaptive_weight": adaptive}


def alone(accuracy):
    return {"discriminator_accuracy": accuracy}


def test_a_discriminator_that_wins_is_warned_of_once_a_window_after_it_is_felt():
    health = GANHealth(window=50)
    assert drive(health, [alone(1.0)] * 20 + [felt(0.999)] * 5)[1] == []  # 41 steps of feeling it
    _, (message,) = drive(health, [felt(0.999)] * 9, first=259)
    assert "GANHealth: over the last 50 steps the discriminator's accuracy was 0.999: it wins" in message
    assert "Lower its learning rate (adversary.optimizer), add augmentations or a penalty" in message


def test_the_mean_of_the_window_counts():
    assert drive(GANHealth(window=50), [felt(0.5)] + [felt(0.99)] * 4)[1] == []
    assert drive(GANHealth(window=50), [felt(0.9)] + [felt(1.0)] * 5 + [felt(0.9)] * 3)[1] != []


def test_a_discriminator_that_learns_nothing_is_warned_of_after_two_windows():
    assert drive(GANHealth(window=50), [felt(0.52)] * 9)[1] == []
    _, (message,) = drive(GANHealth(window=50), [felt(0.52)] * 20)
    assert "the discriminator's accuracy was 0.520, after 100 steps of training: it learns nothing" in message
    assert drive(GANHealth(window=50), [alone(0.52)] * 15, start_step=60)[1] == []  # 90 steps
    assert drive(GANHealth(window=50), [alone(0.52)] * 16, start_step=60)[1] != []


def test_a_lambda_at_its_cap_is_warned_of():
    rows = [felt(0.8, 100.0)] * 4 + [felt(0.8, 99.0)] + [felt(0.8, 100.0)] * 4
    assert drive(GANHealth(window=50), rows, max_adaptive_weight=100.0)[1] == []
    _, (message,) = drive(GANHealth(window=50), [felt(0.8, 100.0)] * 12, max_adaptive_weight=100.0)
    assert "for the last 50 steps lambda was at its largest (max_adaptive_weight = 100)" in message
    assert drive(GANHealth(window=50), [felt(0.8, 1.0)] * 12, max_adaptive_weight=None)[1] == []
    in_float32 = float(torch.tensor(5.0).clamp(max=0.7))  # less than 0.7
    assert len(drive(GANHealth(window=50), [felt(0.8, in_float32)] * 12, max_adaptive_weight=0.7)[1]) == 1


def test_backing_off_at_most_once_a_window():
    health = GANHealth(window=30, back_off=BackOff(0.95, factor=0.5, least=0.2))
    scales, _ = drive(health, [alone(1.0)] * 2 + [felt(0.96)] * 12)
    assert scales == pytest.approx([1.0] * 5 + [0.5] * 3 + [0.25] * 3 + [0.2] * 3)
    assert set(drive(GANHealth(window=30, back_off=BackOff(0.95)), [felt(0.94)] * 12)[0]) == {1.0}
    assert set(drive(GANHealth(window=30), [felt(1.0)] * 12)[0]) == {1.0}


def test_it_goes_on_with_its_state(tmp_path):
    rows = [alone(1.0)] * 2 + [felt(0.9941)] * 12
    whole = GANHealth(window=30, back_off=BackOff())
    expected, _ = drive(whole, rows)
    half, resumed = (GANHealth(window=30, back_off=BackOff()) for _ in range(2))
    _, said = drive(half, rows[:7])
    torch.save(half.state_dict(), tmp_path / "state.pt")
    resumed.load_state_dict(torch.load(tmp_path / "state.pt", weights_only=True))
    later, said_again = drive(resumed, rows[7:], first=79)
    assert [expected[6] * scale for scale in later] == pytest.approx(expected[7:])
    assert (len(said), said_again) == (1, [])
    assert resumed.steps == whole.steps
    for name in NUMBERS:
        torch.testing.assert_close(resumed.values[name], whole.values[name], equal_nan=True)


class Logged(Callback):
    def __init__(self):
        self.rows, self.weights = {}, {}

    def on_train_batch_end(self, trainer, pl_module, *_):
        step, values = pl_module.last_logged
        self.rows[step] = {name: float(value) for name, value in values.items()}
        self.weights[step] = float(pl_module.realism.adversary.scale)


def test_a_game_is_remembered_drawn_and_resumed(new_trainer, data, tmp_path):
    def play(epochs, logged, resume=None, **given):
        health = GANHealth(window=3, back_off=BackOff(0.51, least=0.01))
        model = new_autoencoder(new_realism(weight=DELAY, start_step=2, lr=1e-2))
        trainer = new_trainer(health, logged, max_epochs=epochs, accumulate_grad_batches=2, **given)
        with warnings.catch_warnings():
            warnings.filterwarnings("ignore", "GANHealth")
            warnings.filterwarnings("ignore", ".*weights_only")
            trainer.fit(model, datamodule=type(data)(**data.hparams), ckpt_path=resume)
        trainer.save_checkpoint(tmp_path / f"{epochs}.ckpt")
        return health, model

    logged = Logged()
    health, model = play(6, logged)
    assert health.steps == sorted(logged.rows) == list(range(12))
    assert health.felt_since == 5
    for name in NUMBERS:
        expected = [logged.rows[step].get(f"train/{name}", math.nan) for step in health.steps]
        torch.testing.assert_close(health.values[name], expected, equal_nan=True)
        assert any(map(math.isfinite, expected)), name
    assert logged.weights[11] < 1.0  # it wins
    assert logged.rows[11]["train/adversarial_scale"] == logged.weights[11]
    assert logged.rows[10]["train/adversarial_weight"] == pytest.approx(0.5 * logged.weights[9])  # and is felt less
    saved = torch.load(tmp_path / "6.ckpt", weights_only=True)["state_dict"]["realism.adversary.scale"]
    assert float(saved) == logged.weights[11]
    resumed, model = play(7, Logged(), tmp_path / "6.ckpt")
    assert resumed.steps == list(range(14))
    assert resumed.values["adversarial"][:12] == pytest.approx(health.values["adversarial"], nan_ok=True)
    assert float(model.realism.adversary.scale) <= logged.weights[11]
    assert sorted(p.name for p in (tmp_path / "media/gan_health").iterdir())[-1] == "step_8.png"
    with Image.open(tmp_path / "media/gan_health/step_14.png") as picture:
        assert "Accuracy and logits of the discriminator" in picture.text["Description"]


def test_the_picture_shows_what_was_remembered():
    health = GANHealth(window=50)
    rows = [alone(0.6)] * 3 + [
        {**felt(0.8), "logits_real": 1.0, "logits_fake": -1.0, "grad_norm_nll": 3.0, "adversarial_nats": 7.0}
    ] * 4
    drive(health, rows)
    figure = health.figure()
    accuracy, logits, norms, term, raw = figure.axes
    assert [axes.get_title() for axes in (accuracy, logits, norms, term)] == [
        "discriminator", "mean logits", "gradients at the decoder's last layer", "generator's term",
    ]  # fmt: skip
    assert accuracy.lines[0].get_ydata().tolist() == pytest.approx([0.6] * 3 + [0.8] * 4)
    assert [line.get_label() for line in logits.lines[:2]] == ["images", "reconstructions"]
    assert "adversarial term on" in [text.get_text() for text in accuracy.get_legend().get_texts()]
    assert norms.get_yscale() == "log"
    assert raw.lines[0].get_ydata()[-1] == pytest.approx(0.1)
    assert all(axes.lines[-1].get_xdata()[0] == 39 for axes in (accuracy, logits, norms, term))
    assert all(axes.get_ylabel() for axes in figure.axes)
    rasterize(figure)
    drive(empty := GANHealth(), [{"loss": 1.0}])
    rasterize(empty.figure())  # before the discriminator learns there is nothing to be seen, and no warning


def test_mistakes(new_model, new_trainer, data):
    with pytest.raises(ValueError, match=r"GANHealth: AE has no adversary. Set model.init_args.realism"):
        new_trainer(GANHealth()).fit(new_model("AE"), datamodule=data)
    with pytest.raises(ValueError, match=r"GANHealth: window \(=0\) must be at least 1."):
        GANHealth(window=0)
    for given in ({"threshold": 0.4}, {"factor": 1.0}, {"least": 1.5}):
        with pytest.raises(ValueError, match=r"BackOff: (threshold|factor|least) \(=.*\) must be "):
            BackOff(**given)
