"""What a run logs is known before it starts, and what is waited for is compared with it."""

from functools import partial

import pytest
import torch
from lightning.pytorch import Callback
from lightning.pytorch.callbacks import EarlyStopping, LearningRateMonitor, ModelCheckpoint
from lightning.pytorch.cli import ReduceLROnPlateau

import callbacks
from lit_vae import features, metrics
from lit_vae.run.callbacks import duplicates, monitor_problems
from lit_vae.run.checkpoints import BestCheckpoint


class Brightness(features.ImageFeatures):
    name, num_features = "brightness", 2

    def forward(self, u):
        return u.double().flatten(1)[:, :2]

    def provenance(self):
        return {}


class Mine(Callback):
    """From elsewhere: what it logs nobody knows."""


def measurements():
    every = [metrics.Frechet(), metrics.Kernel(), metrics.PrecisionRecall(1), metrics.DensityCoverage(1)]
    return [
        callbacks.ImageQuality(),
        callbacks.LatentStatistics(every_n_epochs=1),
        callbacks.LatentReport(),
        callbacks.ImportanceSampledNLL(2, 2, every_n_epochs=1),
        callbacks.ReconstructionFrechet(Brightness()),
        callbacks.SampleQuality(Brightness(), every, num_images=8, every_n_epochs=1),
    ]


@pytest.mark.filterwarnings("ignore:.*fewer|.*bits")
def test_the_numbers_of_a_run_are_those_that_are_said_before(new_model, new_trainer, data):
    trainer = new_trainer(*measurements(), max_epochs=1)
    model = new_model("VAE")
    trainer.fit(model, datamodule=data)
    logged = {name for name in trainer.callback_metrics if name.startswith("val/")}
    said = [f"val/{name}" for callback in measurements() for name in callback.numbers(model, data)]
    assert logged == {*said, *model.evaluation_names(data.spec)}
    for name in logged:
        assert monitor_problems([*measurements(), ModelCheckpoint(monitor=name)], model, data, 1) == []


@pytest.mark.parametrize(
    ("given", "every", "words"),
    [
        (
            [BestCheckpoint("val/los")],
            1,
            "Checkpoint: monitor (='val/los') is not logged by this run. Did you mean 'val/loss'",
        ),
        ([EarlyStopping("val_loss")], 1, "Did you mean 'val/loss'"),
        ([EarlyStopping("test/loss")], 1, "Did you mean 'train/loss' or 'val/loss'"),
        ([EarlyStopping("xyz")], 1, "It logs train/distortion, train/elbo"),
        ([callbacks.ImageQuality(), ModelCheckpoint(monitor="val/psnrr")], 1, "Did you mean 'val/psnr'"),
        ([callbacks.ImageQuality(2), ModelCheckpoint(monitor="val/psnr")], 3, "measures it every 2 epochs only"),
        ([callbacks.ImageQuality(None), ModelCheckpoint(monitor="val/psnr")], 1, "measures it in tests only"),
        ([callbacks.ImageQuality(), callbacks.ImageQuality(2)], 1, "val/psnr is also logged by ImageQuality"),
    ],
)
def test_what_no_validation_will_have_is_named(new_model, data, given, every, words):
    assert words in "\n".join(monitor_problems(given, new_model("VAE"), data, every))


def test_what_will_be_there_is_no_problem(new_model, data):
    quality = callbacks.ImageQuality(2)
    rates = [LearningRateMonitor(), ModelCheckpoint(monitor="lr-Adam"), EarlyStopping("train/rate")]
    model = new_model("VAE", lr_scheduler=partial(ReduceLROnPlateau, monitor="val/elbo"))
    assert monitor_problems([*rates, quality, ModelCheckpoint(monitor="val/psnr")], model, data, 4) == []
    model = new_model("VAE", lr_scheduler=partial(ReduceLROnPlateau, monitor="val/elbow"))
    (problem,) = monitor_problems([], model, data, 1)
    assert "ReduceLROnPlateau: monitor (='val/elbow')" in problem
    model = new_model("VAE", lr_scheduler=torch.optim.lr_scheduler.ReduceLROnPlateau)
    with pytest.raises(ValueError, match=r"Take class_path: lightning.pytorch.cli.ReduceLROnPlateau"):
        monitor_problems([], model, data, 1)


def test_what_a_callback_from_elsewhere_may_log_is_a_warning(new_model, data):
    with pytest.warns(UserWarning, match=r"monitor \(='mine'\) is not logged .* since Mine may log it"):
        assert monitor_problems([Mine(), EarlyStopping("mine")], new_model("VAE"), data, 1) == []


@pytest.mark.parametrize(
    ("given", "words"),
    [
        (
            [EarlyStopping("val/loss"), EarlyStopping("val/loss", 0.1)],
            "Two may differ in {'monitor': 'val/loss', 'mode': 'min'}",
        ),
        ([callbacks.EMA(), callbacks.EMA()], "trainer.callbacks has EMA 2 times, and a run can have one"),
        ([callbacks.Curves(), callbacks.Curves(["loss"])], "Curves 2 times"),
        ([callbacks.StartFrom("a"), callbacks.StartFrom("b")], "StartFrom 2 times"),
    ],
)
def test_two_of_what_there_can_be_one_of_are_named(given, words):
    assert words in "\n".join(duplicates(given))


def test_two_of_what_there_can_be_two_of_are_no_problem():
    stopping = [EarlyStopping("val/loss"), EarlyStopping("val/elbo", mode="max")]
    assert duplicates([*stopping, callbacks.Samples(), callbacks.Samples(), Mine(), Mine(), *measurements()]) == []
