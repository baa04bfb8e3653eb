"""Small models in float64, made from Python."""

from functools import partial

import torch

from lit_vae.hierarchies import MarkovianBottomUp, TopDown, VectorAndMap
from lit_vae.likelihoods import FixedGaussian
from lit_vae.models import HierarchicalVAE
from lit_vae.networks import MLP, GatedPixelCNN
from lit_vae.objectives import ELBO


def new_model(image_shape, latent_shapes, hierarchy, **given):
    arguments = {
        "likelihood": FixedGaussian(0.3),
        "objective": ELBO(),
        "optimizer": partial(torch.optim.SGD, lr=0.1),
    }
    return HierarchicalVAE(list(image_shape), [list(shape) for shape in latent_shapes], hierarchy, **arguments | given)


def top_down(posterior, block, widths=(4, 4), **given):
    return partial(TopDown, posterior=posterior, block=block, widths=list(widths), **given)


def chain(hidden=(), **given):
    network = partial(MLP, hidden=list(hidden))
    return partial(MarkovianBottomUp, encoder=network, decoder=network, **given)


def vector_and_map(hidden=(5,), **given):
    network = partial(MLP, hidden=list(hidden))
    over_map = partial(GatedPixelCNN, width=6, layers=2, kernel_size=3, head_width=6)
    parts = {"encoder": network, "decoder": network, "top_decoder": network, "network": over_map, "features": 3}
    return partial(VectorAndMap, **parts | given)
