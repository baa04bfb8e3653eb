"""When panels are drawn, from which weights, and what they leave behind: nothing but the picture."""

import numpy as np
import pytest
import torch
from lightning.pytorch import LightningModule
from PIL import Image

import callbacks
from callbacks import EMA, Panel, Periodic
from callbacks.panel import example_images
from callbacks.periodic import untouched


class Watch(Panel):
    """Records the trainer's epoch and the decoder's first weight at each drawing, and is careless with randomness."""

    name = "watch"

    def __init__(self, every_n_epochs: int = 1) -> None:
        super().__init__(every_n_epochs)
        self.seen = []

    def draw(self, model, images):
        assert not any(module.training for module in model.modules())
        assert not torch.is_grad_enabled()
        torch.rand(3)
        self.seen.append((model.current_epoch + 1, next(model.decoder.parameters()).detach().clone()))
        return Image.fromarray(np.zeros((4, 4), np.uint8))


def all_callbacks():
    return [
        callbacks.Samples(9),
        callbacks.Samples(9, pixels="both"),
        callbacks.Samples(9, pixels="sample"),
        callbacks.ClassSheet(3),
        callbacks.Reconstructions(4),
        callbacks.Traversals(dims=2, steps=3),
        callbacks.Traversals(dims=2, steps=3, num_images=2),
        callbacks.Interpolations(pairs=2, steps=3),
        callbacks.Interpolations(pairs=2, steps=3, path="slerp"),
        callbacks.LatentScatter(16),
        callbacks.Curves(),
        callbacks.LatentStatistics(every_n_epochs=1),
        callbacks.ImportanceSampledNLL(4, every_n_epochs=1),
        callbacks.ImageQuality(),
        EMA(0.9),
    ]


@pytest.mark.parametrize(("every", "epochs"), [(1, [1, 2, 3, 4, 5]), (2, [2, 4, 5]), (3, [3, 5]), (7, [5])])
def test_drawn_every_nth_epoch_and_at_the_last_but_not_in_the_sanity_check(every, epochs, new_model, new_trainer, data):
    watch = Watch(every)
    new_trainer(watch, max_epochs=5, limit_train_batches=1).fit(new_model("VAE"), datamodule=data)
    assert [epoch for epoch, _ in watch.seen] == epochs


def test_drawn_at_the_last_step_too(new_model, new_trainer, data, tmp_path):
    watch = Watch(10)
    new_trainer(watch, max_epochs=-1, max_steps=6).fit(new_model("VAE"), datamodule=data)
    assert [epoch for epoch, _ in watch.seen] == [2]
    assert [path.name for path in (tmp_path / "media" / "watch").iterdir()] == ["step_6.png"]


def test_a_validation_outside_training_draws_at_the_step_of_its_checkpoint(new_model, new_trainer, data, tmp_path):
    trainer = new_trainer(limit_train_batches=2)
    trainer.fit(new_model("VAE"), datamodule=data)
    trainer.save_checkpoint(tmp_path / "model.ckpt")
    watch = Watch(10)
    trainer = new_trainer(watch, default_root_dir=tmp_path / "validate")
    trainer.validate(new_model("VAE"), datamodule=data, ckpt_path=tmp_path / "model.ckpt", verbose=False)
    assert [path.name for path in (tmp_path / "validate/media/watch").iterdir()] == ["step_4.png"]
    trainer = new_trainer(watch, default_root_dir=tmp_path / "again")
    trainer.validate(new_model("VAE"), datamodule=data, verbose=False)
    assert [path.name for path in (tmp_path / "again/media/watch").iterdir()] == ["step_0.png"]


@pytest.mark.parametrize("first", ["ema", "panel"])
def test_panels_see_the_average_in_either_order_of_callbacks(first, new_model, new_trainer, data):
    watch, ema = Watch(), EMA(0.9)
    model = new_model("VAE")
    order = [ema, watch] if first == "ema" else [watch, ema]
    new_trainer(*order, max_epochs=1).fit(model, datamodule=data)
    average = next(model.decoder.parameters())  # what fit leaves in the model
    trained = next(ema._average.module.decoder.parameters())
    ((_, seen),) = watch.seen
    torch.testing.assert_close(seen, average, rtol=0, atol=0)
    assert not torch.equal(seen, trained)


def test_pictures_and_measurements_change_nothing_of_training(new_model, new_trainer, data, tmp_path):
    def train(*given):
        torch.manual_seed(3)
        model = new_model("CVAE")
        # dropout makes a wrong mode and a moved random state show in the weights
        model.encoder = torch.nn.ModuleList([model.encoder, torch.nn.Dropout(0.5)])
        model.encoder.forward = lambda x, cond: model.encoder[1](model.encoder[0](x, cond))
        new_trainer(*given, max_epochs=3).fit(model, datamodule=data)
        return model.state_dict(), torch.get_rng_state()

    plain, state = train()
    # without EMA, which is there to change the weights, and with a panel that takes numbers from the global generator
    drawn, drawn_state = train(*all_callbacks()[:-1], Watch())
    assert len(list((tmp_path / "media").iterdir())) == 13
    assert torch.equal(state, drawn_state)
    for name, value in plain.items():
        torch.testing.assert_close(drawn[name], value, rtol=0, atol=0, msg=name)


def test_modes_of_single_modules_survive(new_model):
    model = new_model("VAE")
    model.train()
    model.encoder.eval()
    before = {name: module.training for name, module in model.named_modules()}
    with untouched(model):
        assert not model.decoder.training
    assert {name: module.training for name, module in model.named_modules()} == before


def test_a_trial_run_passes_everything_and_leaves_nothing(new_model, new_trainer, data, tmp_path):
    new_trainer(*all_callbacks(), fast_dev_run=2).fit(new_model("CVAE"), datamodule=data)
    assert not (tmp_path / "media").exists()


def test_no_validation_no_pictures(new_model, new_trainer, data, tmp_path):
    new_trainer(*all_callbacks(), limit_val_batches=0, max_epochs=1).fit(new_model("CVAE"), datamodule=data)
    assert not (tmp_path / "media").exists()


def test_example_images_cross_batches_and_stop(new_model, data):
    data.setup("fit")
    batches = list(example_images(data, 11, new_model("VAE")))
    x = torch.cat([batch.x for batch in batches])
    torch.testing.assert_close(x, data.example_batch(11).x, rtol=0, atol=0)
    assert sum(len(batch.y) for batch in example_images(data, 1000, new_model("VAE"))) == 20


def test_a_panel_of_images_needs_a_data_module(new_model, new_trainer):
    batch = (torch.zeros(2, 1, 8, 8), torch.zeros(2, dtype=torch.int64))
    loader = torch.utils.data.DataLoader(torch.utils.data.TensorDataset(*batch), batch_size=2)
    message = r"Reconstructions: it needs validation images .* trainer.datamodule is NoneType\. Train on a lit_vae"
    with pytest.raises(ValueError, match=message):
        new_trainer(callbacks.Reconstructions(2)).fit(new_model("VAE"), loader, loader)
    new_trainer(callbacks.Samples(2)).validate(new_model("VAE"), loader, verbose=False)


def test_a_panel_shows_at_most_the_images_that_there_are(new_model, data):
    one = OneImage(data)
    for n in (1, 21):
        many = np.asarray(callbacks.Reconstructions(n).draw(new_model("VAE"), one))
        assert np.array_equal(many, np.asarray(callbacks.Reconstructions(1).draw(new_model("VAE"), one)))


class OneImage:
    """Data with one validation image."""

    def __init__(self, data):
        self.data = data

    def example_batch(self, n, split="val"):
        return self.data.example_batch(1)

    def example_dataloader(self, n, split="val"):
        return [self.data.example_batch(1)]


@pytest.mark.parametrize("family", ["VAE", "CVAE", "AE"])
def test_every_panel_draws_of_one_image(family, new_model, data):
    drawn = [
        *(callbacks.Interpolations(6), callbacks.Traversals(2, 3, num_images=4), callbacks.LatentScatter(5)),
        *(callbacks.LatentScatter(5, method="tsne"), callbacks.Traversals(2, 3)),
    ]
    for panel in drawn:
        assert np.isfinite(np.asarray(panel.draw(new_model(family), OneImage(data)))).all()


def test_only_an_autoencoder_has_panels(new_trainer):
    message = r"Samples: it needs a lit_vae.models.base.Autoencoder, the model is a LightningModule\. Remove callbacks"
    with pytest.raises(ValueError, match=message):
        callbacks.Samples().setup(new_trainer(), LightningModule(), "fit")


def test_an_impossible_period():
    with pytest.raises(ValueError, match=r"Periodic: every_n_epochs \(=0\) must be at least 1"):
        Periodic(0)


REQUIRED = {
    "DrawnReconstructions": {"measurements": [{"class_path": "callbacks.ImageQuality"}]},
    "GradientSkip": {"max_norm": 400.0},
    "PerceptualDistance": {"distance": {"class_path": "lit_vae.features.LPIPS"}},
    "ReconstructionFrechet": {"features": {"class_path": "lit_vae.features.FeatureNetFeatures",
                                           "init_args": {"checkpoint": "best.ckpt"}}},
    "SampleQuality": {"features": {"class_path": "lit_vae.features.Inception"},
                      "distances": [{"class_path": "lit_vae.metrics.DensityCoverage", "init_args": {"neighbours": 4}}]},
    "StartFrom": {"path": "last.ckpt"},
}  # fmt: skip
NOT_CALLBACKS = ("Panel", "Periodic", "Measurement", "ReconstructionMeasurement", "BackOff")


@pytest.mark.parametrize("name", [name for name in callbacks.__all__ if name not in NOT_CALLBACKS])
def test_each_is_made_from_plain_arguments_as_the_command_line_does(name):
    from jsonargparse import ArgumentParser
    from lightning.pytorch import Callback

    parser = ArgumentParser(exit_on_error=False)
    parser.add_subclass_arguments(Callback, "callback")
    instantiate = getattr(parser, "instantiate", None) or parser.instantiate_classes  # until jsonargparse 4.49
    given = {"class_path": f"callbacks.{name}", "init_args": REQUIRED.get(name, {})}
    made = instantiate(parser.parse_object({"callback": given})).callback
    assert type(made) is getattr(callbacks, name)
    wrong = {**REQUIRED.get(name, {}), "no_such_argument": 1}
    with pytest.raises(Exception, match="no_such_argument"):
        parser.parse_object({"callback": {"class_path": f"callbacks.{name}", "init_args": wrong}})
