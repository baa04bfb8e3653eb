"""Whose weights a fit begins with, what stays what it was, and what is said of weights that do not fit."""

import logging
from functools import partial

import pytest
import torch
from lightning.pytorch import Callback

from callbacks import EMA, StartFrom
from lit_vae.likelihoods import FixedGaussian
from lit_vae.models import VQVAE
from lit_vae.networks import MLP, VQVAEDecoder, VQVAEEncoder
from lit_vae.quantizers import VectorQuantizer
from lit_vae.run.random_state import RandomState


class First(Callback):
    """The model's weights before the first step."""

    def on_train_start(self, trainer, pl_module):
        self.state = {name: value.clone() for name, value in pl_module.state_dict().items()}


@pytest.fixture
def trained(new_model, new_trainer, data, tmp_path):
    """A checkpoint of a trained VAE whose weights are an average."""
    trainer = new_trainer(EMA(0.5))
    trainer.fit(new_model("VAE"), datamodule=data)
    trainer.save_checkpoint(tmp_path / "trained.ckpt")
    return tmp_path / "trained.ckpt"


def weights_of(path):
    return torch.load(path, weights_only=True)["state_dict"]


def test_a_fit_begins_with_the_weights_of_a_checkpoint(trained, new_model, new_trainer, data):
    first, model = First(), new_model("VAE")
    new_trainer(EMA(0.5), StartFrom(str(trained)), first, max_epochs=1).fit(model, datamodule=data)
    expected = weights_of(trained)
    assert first.state.keys() == expected.keys()
    for name, value in expected.items():
        assert torch.equal(first.state[name], value), name
    assert not torch.equal(model.encoder.layers[0].weight, expected["encoder.layers.0.weight"])
    assert any(p.requires_grad for p in model.encoder.parameters())


def test_a_resumed_run_goes_on_with_its_own_weights(trained, new_model, new_trainer, data, tmp_path):
    def fit(epochs, resume=None):
        trainer = new_trainer(StartFrom(str(trained)), RandomState(), first := First(), max_epochs=epochs)
        trainer.fit(new_model("VAE"), datamodule=type(data)(**data.hparams), ckpt_path=resume)
        trainer.save_checkpoint(tmp_path / f"{epochs}.ckpt")
        return first.state

    torch.manual_seed(0)
    fit(1)
    trained.rename(tmp_path / "moved.ckpt")  # nothing is read of it any more
    resumed = fit(3, tmp_path / "1.ckpt")
    for name, value in weights_of(tmp_path / "1.ckpt").items():
        assert torch.equal(resumed[name], value), name


class Latents(Callback):
    def __init__(self, x, y):
        self.x, self.y, self.seen = x, y, []

    def look(self, trainer, pl_module):
        with torch.no_grad():
            self.seen.append(pl_module.embed(self.x, self.y))

    on_train_start = on_train_end = look


def codes_model():
    torch.manual_seed(0)
    network = {"width": 8, "residual_width": 4, "blocks": 1}
    encoder, decoder = partial(VQVAEEncoder, **network), partial(VQVAEDecoder, **network)
    quantizer = VectorQuantizer(8, 4)
    return VQVAE([1, 8, 8], [2, 2], quantizer, encoder, decoder, FixedGaussian(), partial(torch.optim.AdamW, lr=1e-2))


@pytest.mark.parametrize("family", ["VAE", "VQVAE"])
@pytest.mark.parametrize("resumes", [False, True])
def test_the_decoder_alone_is_trained(family, resumes, new_model, new_trainer, data, tmp_path):
    def new():
        return codes_model() if family == "VQVAE" else new_model("VAE", optimizer=partial(torch.optim.AdamW, lr=1e-2))

    trainer = new_trainer(max_epochs=1)
    trainer.fit(new(), datamodule=data)
    trainer.save_checkpoint(tmp_path / "start.ckpt")
    start = weights_of(tmp_path / "start.ckpt")
    latents = Latents(*data.example_batch(20))
    model, halves = new(), [2, 4] if resumes else [3]
    for epochs in halves:
        callbacks = [StartFrom(str(tmp_path / "start.ckpt"), train="decoder"), latents]
        trainer = new_trainer(*callbacks, max_epochs=epochs)
        trainer.fit(model := new(), datamodule=data, ckpt_path=tmp_path / "half.ckpt" if epochs == 4 else None)
        trainer.save_checkpoint(tmp_path / "half.ckpt")
    frozen = ("encoder.", "quantizers.", "prior.")
    for name, value in model.state_dict().items():
        assert torch.equal(value, start[name]) == name.startswith(frozen), name
    assert len(latents.seen) == 2 * len(halves)
    assert all(torch.equal(z, latents.seen[0]) for z in latents.seen)
    assert not any(p.requires_grad for name, p in model.named_parameters() if name.startswith(frozen))


def test_a_likelihood_of_another_kind_starts_anew(trained, new_model, new_trainer, data, caplog):
    model, first = new_model("VAE", likelihood=FixedGaussian()), First()
    with caplog.at_level(logging.INFO):
        new_trainer(StartFrom(str(trained)), first, max_epochs=1).fit(model, datamodule=data)
    assert torch.equal(first.state["encoder.layers.0.weight"], weights_of(trained)["encoder.layers.0.weight"])
    assert f"StartFrom: weights of {trained}.\n" in caplog.text  # of a fixed variance there is nothing to start anew


def test_a_discriminator_starts_anew_where_there_was_none(new_trainer, data, tmp_path, caplog):
    from adversarial_models import new_autoencoder, new_realism

    trainer = new_trainer(max_epochs=1)
    trainer.fit(new_autoencoder(None), datamodule=data)
    trainer.save_checkpoint(tmp_path / "plain.ckpt")
    first, start = First(), weights_of(tmp_path / "plain.ckpt")
    fresh = new_autoencoder(new_realism()).state_dict()
    with caplog.at_level(logging.INFO):
        trainer = new_trainer(StartFrom(str(tmp_path / "plain.ckpt")), first, max_epochs=1)
        trainer.fit(new_autoencoder(new_realism()), datamodule=data)
    assert "plain.ckpt; anew: realism." in caplog.text
    for name, value in first.state.items():
        assert torch.equal(value, start.get(name, fresh[name])), name
    trainer.lightning_module.realism.adversary.scale.fill_(0.01)  # as if that run had backed off
    trainer.save_checkpoint(tmp_path / "adversarial.ckpt")
    new_trainer(StartFrom(str(tmp_path / "adversarial.ckpt")), first).fit(new_autoencoder(None), datamodule=data)
    caplog.clear()
    trainer = new_trainer(StartFrom(str(tmp_path / "adversarial.ckpt")), first, max_epochs=1)
    trainer.fit(new_autoencoder(new_realism()), datamodule=data)  # and where there was one, it goes on
    for name, value in weights_of(tmp_path / "adversarial.ckpt").items():
        expected = torch.ones(()) if name.endswith("adversary.scale") else value
        assert torch.equal(first.state[name], expected), name


@pytest.mark.parametrize("kind", ["folder", "file"])
def test_weights_of_others(kind, new_trainer, tmp_path):
    from lit_vae.data import FakeImages
    from lit_vae.interop import export_diffusers
    from lit_vae.interop.names import to_compvis
    from lit_vae.likelihoods import Laplace
    from lit_vae.models import KLAutoencoder
    from lit_vae.networks import LDMDecoder, LDMEncoder
    from lit_vae.objectives import ELBO

    def new():
        network = {"width": 32, "multipliers": [1, 1], "blocks": 1}
        networks = partial(LDMEncoder, **network), partial(LDMDecoder, **network)
        return KLAutoencoder([1, 8, 8], [2, 4, 4], *networks, Laplace(), ELBO(beta=1e-6), torch.optim.Adam)

    torch.manual_seed(1)
    source, path = new(), tmp_path / "theirs"
    if kind == "folder":
        export_diffusers(source, path, 1.0, None, "")
    else:
        path = path.with_suffix(".ckpt")
        state = {
            to_compvis(name, 2): value for name, value in source.state_dict().items() if name[:3] in ("enc", "dec")
        }
        state = {n: v[..., None, None] if v.ndim == 2 and ".attn_" in n else v for n, v in state.items()}
        torch.save({"state_dict": state}, path)
    data, first = FakeImages(num_train=8, num_val=8, num_test=8, size=8, batch_size=8), First()
    torch.manual_seed(2)
    new_trainer(StartFrom(str(path), train="decoder"), first, max_epochs=1).fit(model := new(), datamodule=data)
    for name, value in source.state_dict().items():
        assert torch.equal(first.state[name], value), name
        assert torch.equal(model.state_dict()[name], value) == name.startswith(("encoder", "prior")), name


def test_what_does_not_fit_is_named(trained, new_model, new_trainer, data):
    other = new_model("VAE", encoder=partial(MLP, hidden=[16, 8]), decoder=partial(MLP, hidden=[8]))
    before = {name: value.clone() for name, value in other.state_dict().items()}
    with pytest.raises(ValueError, match="StartFrom: ") as info:
        new_trainer(StartFrom(str(trained))).fit(other, datamodule=data)
    message = str(info.value)
    assert "trained.ckpt is not of this VAE: 2 missing: encoder.layers.4.weight, encoder.layers.4.bias; " in message
    assert "3 of another shape: decoder.layers.0.weight (16, 4) for (8, 4), decoder.layers.0.bias" in message
    assert message.endswith("Take the model.init_args of its run (config.yaml), or another checkpoint.")
    assert all(torch.equal(value, before[name]) for name, value in other.state_dict().items())


def test_mistakes(new_model, new_trainer, data, tmp_path):
    with pytest.raises(ValueError, match=r"StartFrom: train \(='encoder'\) must be one of all, decoder\."):
        StartFrom("x.ckpt", train="encoder")
    with pytest.raises(ValueError, match=r"path \(='nowhere.ckpt'\) must be a .ckpt file of a run, a diffusers folder"):
        new_trainer(StartFrom("nowhere.ckpt")).fit(new_model("AE"), datamodule=data)
    (tmp_path / "junk.ckpt").write_text("junk")
    with pytest.raises(ValueError, match=r"junk.ckpt: cannot be read"):
        new_trainer(StartFrom(str(tmp_path / "junk.ckpt"))).fit(new_model("AE"), datamodule=data)
    from lightning.pytorch.demos.boring_classes import BoringModel

    with pytest.raises(ValueError, match=r"StartFrom: it needs an autoencoder, the model is a BoringModel"):
        new_trainer(StartFrom("x.ckpt")).fit(BoringModel())
    assert StartFrom("nowhere.ckpt").setup(new_trainer(), new_model("AE"), "test") is None  # a test loads its own
