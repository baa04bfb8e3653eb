"""A training step of every family is one graph for torch.compile."""

from functools import partial

import pytest
import torch

from lit_vae.codes import CodeBatch
from lit_vae.diffusion import Bound, GaussianDiffusion, LinearLogSNR, PixelLevels, Velocity
from lit_vae.hierarchies import VectorAndMap
from lit_vae.images import Batch
from lit_vae.likelihoods import Bernoulli, Categorical, LearnedGaussian
from lit_vae.models import (
    AE,
    CVAE,
    VAE,
    VQVAE,
    CodePrior,
    HierarchicalPixelVAE,
    KLAutoencoder,
    PixelCNN,
    PixelVAE,
    VariationalDiffusion,
)
from lit_vae.networks import MLP, GatedPixelCNN, LDMDecoder, LDMEncoder, UNet, VQVAEDecoder, VQVAEEncoder
from lit_vae.noise import Draws
from lit_vae.objectives import ELBO, IWAE, DReG
from lit_vae.priors import ClassConditionalNormal, StandardNormal
from lit_vae.quantizers import FSQ, LFQ, GradientCodebook, KMeans, Revival, VectorQuantizer

SHAPE = [1, 8, 8]
optimizer = partial(torch.optim.Adam, lr=1e-3)
mlp = partial(MLP, hidden=[8])
ldm = {"width": 8, "multipliers": [1, 2], "blocks": 1, "norm_groups": 4}
pytestmark = pytest.mark.slow  # half a minute, of which most is the compiler's
pixels = partial(GatedPixelCNN, width=8, layers=2)


def vae(objective):
    return VAE(SHAPE, StandardNormal([4]), mlp, mlp, LearnedGaussian(), objective, optimizer)


def vqvae(quantizer):
    encoder, decoder = (partial(n, width=8, residual_width=4, blocks=1) for n in (VQVAEEncoder, VQVAEDecoder))
    return VQVAE(SHAPE, [2, 2], quantizer, encoder, decoder, LearnedGaussian(), optimizer)


def kl_autoencoder():
    networks = partial(LDMEncoder, **ldm), partial(LDMDecoder, **ldm)
    return KLAutoencoder(SHAPE, [2, 4, 4], *networks, LearnedGaussian(), ELBO(beta=1e-6), optimizer)


def hierarchical_pixelvae():
    wiring = partial(VectorAndMap, encoder=mlp, decoder=mlp, top_decoder=mlp, network=pixels)
    return HierarchicalPixelVAE(SHAPE, [[4], [2, 2, 2]], wiring, pixels, Bernoulli(), ELBO(), optimizer)


def variational_diffusion():
    process = GaussianDiffusion(LinearLogSNR(), Velocity(), Bound())
    network = partial(UNet, width=8, multipliers=[1])
    return VariationalDiffusion(SHAPE, network, process, PixelLevels(256), optimizer, num_classes=6)


FAMILIES = {
    "AE": lambda: AE(SHAPE, [4], mlp, mlp, LearnedGaussian(), optimizer),
    "VAE": lambda: vae(ELBO(free_bits=0.1)),
    "IWAE": lambda: vae(IWAE(3)),
    "DReG": lambda: vae(DReG(3)),
    "CVAE": lambda: CVAE(SHAPE, 10, ClassConditionalNormal([4], 10), mlp, mlp, LearnedGaussian(), ELBO(), optimizer),
    "KL": kl_autoencoder,
    "VQ, averages": lambda: vqvae(VectorQuantizer(8, 4)),
    "VQ, gradients": lambda: vqvae(VectorQuantizer(8, 4, codebook=GradientCodebook)),
    "FSQ": lambda: vqvae(FSQ([5, 5, 5])),
    "LFQ": lambda: vqvae(LFQ(4)),
    "PixelCNN": lambda: PixelCNN(SHAPE, pixels, Categorical(), optimizer),
    "PixelVAE": lambda: PixelVAE(SHAPE, StandardNormal([4]), mlp, mlp, pixels, Bernoulli(), ELBO(), optimizer),
    "Hierarchical PixelVAE": hierarchical_pixelvae,
    "VariationalDiffusion": variational_diffusion,
    "CodePrior": lambda: CodePrior([[2, 2]], [8], [pixels], optimizer),
}


def breaks(model) -> int:
    torch._dynamo.reset()
    images = Batch(torch.rand(6, *SHAPE) * 2 - 1, torch.arange(6))
    codes = CodeBatch((torch.randint(0, 8, (6, 2, 2)),), torch.arange(6))
    batch = codes if isinstance(model, CodePrior) else images
    draws = Draws(0, 1, torch.arange(6))

    def loss():
        return model.step(batch, 1, draws).terms["loss"].mean()

    return torch._dynamo.explain(loss)().graph_break_count


@pytest.mark.parametrize("make", FAMILIES.values(), ids=FAMILIES)
def test_a_step_is_one_graph(make):
    assert breaks(make().train()) == 0


@pytest.mark.filterwarnings("ignore:The .grad attribute of a Tensor that is not a leaf")  # torch looks at its own
@pytest.mark.parametrize("given", [{"start": KMeans()}, {"revival": Revival()}], ids=["start", "revival"])
def test_only_the_care_of_a_codebook_interrupts_it(given):
    """It depends on which codes are dead."""
    assert breaks(vqvae(VectorQuantizer(8, 4, **given)).train()) > 0
