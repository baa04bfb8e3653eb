"""A VampPrior fitted to the latents of a trained run: a mixture of the posteriors of learned pseudo-inputs."""

import torch
from torch import Tensor

from lit_vae.models.abilities import HasPosterior
from lit_vae.priors import VampPrior
from lit_vae.tools.priors.latents import Latents
from lit_vae.tools.priors.mixture import Mixture
from lit_vae.tools.priors.network import descend, epochs

LEARNING_RATE = 1e-2
"""Of values of images, which are in [-1, 1]."""


def fit_vamp(latents: Latents, components: int, steps: int, seed: int) -> Mixture:
    """Maximum likelihood of the pseudo-inputs, which start as training images; the model stays as it is.

    ``components`` is the number of pseudo-inputs; the seed is that of the order of latents.

    Raises:
        ValueError: the posterior is no Gaussian, or there are too few images.
    """
    model = latents.model
    assert isinstance(model, HasPosterior)  # by the caller
    prior = VampPrior(list(model.latent_shape), components)
    prior.connect(model.encode, model.image_shape, model.num_classes)
    if problems := prior.problems(model.gaussian_posterior):
        raise ValueError(f"lit-vae fit-prior: --prior vamp: {problems[0]}")
    prior.to(model.device).start(latents.data)

    def shaped(z: Tensor) -> Tensor:
        return z.to(prior.pseudo_inputs).unflatten(1, model.latent_shape)

    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(seed)
        batches = epochs(*latents(seed), latents, seed)
        descend(lambda z, y: -prior(y).log_prob(shaped(z)), prior.parameters(), batches, steps, LEARNING_RATE)
    q = prior(torch.zeros(1))
    means, std = (t.flatten(1).double().cpu() for t in (q.means, (0.5 * q.log_vars).exp()))
    groups = max(model.num_classes, 1)  # the same mixture for each label
    weights = torch.full((groups, components), 1.0 / components, dtype=torch.float64)
    return Mixture(weights, means.expand(groups, -1, -1).clone(), std.expand(groups, -1, -1).clone())
