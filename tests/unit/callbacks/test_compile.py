"""Compiled and not, the same numbers: of backend ``aot_eager``, which makes graphs of both passes and no code."""

import logging
from functools import partial

import pytest
import torch
from adversarial_models import new_autoencoder, new_realism
from lightning.pytorch import Callback

from callbacks import EMA, Compile
from lit_vae.networks import LDMDecoder, LDMEncoder
from lit_vae.realism import R1, LeCAM
from lit_vae.schedules import LinearWarmup

# Dynamo looks at every tensor that comes in
pytestmark = pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf Tensor")


def is_compiled(module):
    return module._compiled_call_impl is not None


class Steps(Callback):
    """Terms and gradients of every step."""

    def __init__(self):
        self.seen = []

    def on_after_backward(self, trainer, pl_module):
        gradients = {name: p.grad.clone() for name, p in pl_module.named_parameters() if p.grad is not None}
        self.seen.append(gradients | {name: torch.tensor(float(v)) for name, v in pl_module.last_logged[1].items()})


def fit(new_trainer, data, *callbacks, **given):
    """Five steps of two sizes; the decoder feels the discriminator from the second on."""
    torch._dynamo.reset()
    weight = LinearWarmup(steps=1, end=0.5, delay=1)
    model, steps = new_autoencoder(new_realism(weight=weight, **given)).double(), Steps()
    trainer = new_trainer(*callbacks, steps, max_steps=5, max_epochs=-1, precision="64-true", limit_val_batches=1)
    torch.manual_seed(0)
    trainer.fit(model, datamodule=type(data)(**data.hparams | {"num_train": 20}))
    return model, steps.seen, trainer


@pytest.mark.slow  # Dynamo takes its time
@pytest.mark.parametrize("adaptive", [True, False])
def test_losses_and_gradients_are_the_same(adaptive, new_trainer, data, tmp_path):
    most = 1e4 if adaptive else None
    plain, expected, trainer = fit(new_trainer, data, max_adaptive_weight=most, penalties=[LeCAM()])
    trainer.save_checkpoint(tmp_path / "plain.ckpt")
    torch._dynamo.utils.counters.clear()
    both = [EMA(), Compile(backend="aot_eager")]
    model, found, trainer = fit(new_trainer, data, *both, max_adaptive_weight=most, penalties=[LeCAM()])
    assert torch._dynamo.utils.counters["stats"]["unique_graphs"] > 4
    trainer.save_checkpoint(tmp_path / "compiled.ckpt")
    assert len(found) == len(expected) == 5
    for i, (a, b) in enumerate(zip(found, expected, strict=True)):
        assert a.keys() == b.keys()
        for name in a:
            torch.testing.assert_close(a[name], b[name], rtol=1e-6, atol=1e-6, msg=f"step {i}: {name}")
    assert "realism.adversary.discriminator.body.0.weight" in found[0]
    assert "train/adaptive_weight" in found[-1]
    names = [torch.load(tmp_path / f"{which}.ckpt", weights_only=True)["state_dict"] for which in ("plain", "compiled")]
    assert names[0].keys() == names[1].keys()
    network = model.realism.perceptual.distance.seen_by.network
    assert all(is_compiled(m) for m in (model.encoder, model.realism.adversary.discriminator, network))
    assert is_compiled(model.decoder) != adaptive  # its whole backward pass would belong to the last layer's gradient
    assert all(is_compiled(block) == adaptive for block in model.decoder.body)
    assert not is_compiled(model.decoder.head)
    assert not is_compiled(plain.encoder)


def test_the_blocks_of_an_ldm_decoder():
    network = {"width": 32, "multipliers": [1, 1], "blocks": 1}
    networks = {"encoder": partial(LDMEncoder, **network), "decoder": partial(LDMDecoder, **network)}
    model = new_autoencoder(new_realism(), **networks)
    Compile(backend="aot_eager").setup(None, model, "fit")
    names = {name for name, module in model.decoder.named_modules() if is_compiled(module)}
    assert names == {"middle", "levels.0", "levels.1"}
    last = next(name for name, p in model.decoder.named_parameters() if p is model.decoder.last_layer)
    assert not any(last.startswith(name) for name in names)


def test_networks_that_are_not_called_have_their_blocks_compiled():
    from lit_vae.features.base import Frozen
    from lit_vae.networks import ResidualFeatures

    model = new_autoencoder(new_realism(max_adaptive_weight=None))
    model.realism.perceptual.distance.seen_by = Frozen(lambda: ResidualFeatures(1, 3, widths=[4, 4]))
    Compile(backend="eager").setup(None, model, "fit")
    network = model.realism.perceptual.distance.seen_by.network
    assert not is_compiled(network)  # `maps` does not go through its forward
    assert all(is_compiled(stage) for stage in network.stages)


@pytest.mark.slow
def test_a_discriminator_with_r1_is_left_alone(new_trainer, data, caplog):
    with caplog.at_level(logging.INFO):
        model, found, _ = fit(new_trainer, data, Compile(backend="aot_eager"), penalties=[R1(every=1)])
    assert "Compile: R1 differentiates the discriminator twice, so it is not compiled." in caplog.text
    assert not is_compiled(model.realism.adversary.discriminator)
    assert is_compiled(model.encoder)
    assert len(found) == 5


def test_a_plain_model_and_other_stages(new_model):
    model = new_model("AE")
    Compile(backend="eager").setup(None, model, "test")
    assert not is_compiled(model.encoder)
    Compile(backend="eager").setup(None, model, "fit")
    assert is_compiled(model.encoder)
    assert is_compiled(model.decoder)


def test_mistakes(new_trainer):
    from lightning.pytorch.demos.boring_classes import BoringModel

    with pytest.raises(ValueError, match=r"Compile: backend \(='gcc'\) must be one of .*inductor.*Set init_args"):
        Compile(backend="gcc")
    with pytest.raises(ValueError, match=r"Compile: it needs an autoencoder, the model is a BoringModel"):
        new_trainer(Compile()).fit(BoringModel())
