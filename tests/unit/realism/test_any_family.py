"""The component in every family that takes it: both players move, the family's own terms stay what they were."""

from functools import partial

import pytest
import torch
from lightning.pytorch import Trainer
from realism_helpers import SHAPE, images, new_realism

from lit_vae.data import FakeImages
from lit_vae.images import Batch
from lit_vae.likelihoods import LearnedGaussian
from lit_vae.models import AE, VAE, VQVAE, VQVAE2
from lit_vae.networks import ConvDecoder, ConvEncoder, HierarchicalEncoder, VQVAEDecoder, VQVAEEncoder
from lit_vae.noise import Draws
from lit_vae.objectives import ELBO
from lit_vae.priors import StandardNormal
from lit_vae.quantizers import VectorQuantizer

CONVOLUTIONAL = {"width": 8, "multipliers": [1, 1]}
RESIDUAL = {"width": 8, "residual_width": 4, "blocks": 1}


def new_model(family, realism):
    torch.manual_seed(0)
    shared = {
        "image_shape": list(SHAPE),
        "likelihood": LearnedGaussian(0.3),
        "optimizer": partial(torch.optim.Adam, lr=1e-3),
        "realism": realism,
    }
    vq_decoder = {"decoder": partial(VQVAEDecoder, **RESIDUAL)}
    networks = {"encoder": partial(ConvEncoder, **CONVOLUTIONAL), "decoder": partial(ConvDecoder, **CONVOLUTIONAL)}
    own = {
        AE: lambda: {**networks, "latent_shape": [2, 4, 4]},
        VAE: lambda: {**networks, "prior": StandardNormal([5]), "objective": ELBO()},
        VQVAE: lambda: {
            **vq_decoder, "encoder": partial(VQVAEEncoder, **RESIDUAL), "grid": [4, 4],
            "quantizer": VectorQuantizer(8, 3),
        },
        VQVAE2: lambda: {
            **vq_decoder, "encoder": partial(HierarchicalEncoder, **RESIDUAL), "grids": [[2, 2], [4, 4]],
            "quantizers": [VectorQuantizer(8, 3), VectorQuantizer(8, 3)],
        },
    }  # fmt: skip
    return family(**shared, **own[family]())


FAMILIES = [AE, VAE, VQVAE, VQVAE2]


@pytest.mark.parametrize("family", FAMILIES)
def test_both_players_move(family):
    model = new_model(family, new_realism())
    before = {name: p.detach().clone() for name, p in model.named_parameters()}
    data = FakeImages(channels=1, size=8, num_train=12, num_val=4, num_test=4, batch_size=4)
    quiet = {
        "logger": False,
        "enable_checkpointing": False,
        "enable_progress_bar": False,
        "enable_model_summary": False,
    }
    trainer = Trainer(max_steps=3, limit_val_batches=0, accelerator="cpu", log_every_n_steps=1, **quiet)
    trainer.fit(model, data)
    for part in ("encoder", "decoder", "realism.adversary.discriminator"):
        assert any(not torch.equal(p, before[n]) for n, p in model.named_parameters() if n.startswith(part)), part
    logged = trainer.callback_metrics
    assert {"train/perceptual", "train/perceptual_nats", "train/adversarial", "train/adversarial_nats"} <= set(logged)
    assert logged["train/adaptive_weight"] > 0


@pytest.mark.usefixtures("float64")
@pytest.mark.parametrize("family", FAMILIES)
def test_an_evaluation_adds_the_perceptual_term_to_the_loss_and_nothing_else(family):
    plain, model = new_model(family, None).eval(), new_model(family, new_realism()).eval()
    model.load_state_dict(plain.state_dict(), strict=False)
    batch = Batch(images(), torch.full((6,), -1))
    expected = plain.evaluation_terms(batch, Draws(0, 0, torch.arange(6)))
    found = model.evaluation_terms(batch, Draws(0, 0, torch.arange(6)))
    assert set(found) - set(expected) == {"perceptual", "perceptual_nats"}
    for name, value in expected.items():
        more = found["perceptual_nats"] if name == "loss" else 0.0
        torch.testing.assert_close(found[name], value + more, rtol=1e-12, atol=1e-12)
    assert set(found) == set(model.term_names)
