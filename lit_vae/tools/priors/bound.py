"""What a fitted prior is worth: the bound of log p(x) of the test images with it as p(z)."""

from typing import TYPE_CHECKING, Any

from lit_vae.tools.runs import OneSplit

if TYPE_CHECKING:
    from lit_vae.data import ImageDataModule
    from lit_vae.models.base import Autoencoder
    from lit_vae.tools.priors.fitted import Fitted


def bound(model: "Autoencoder", data: "ImageDataModule", fitted: "Fitted", seed: int) -> dict[str, float]:
    """Nats per test image, at one draw ``z ~ q(z|x)`` of each; empty for a model without posteriors.

    ``rate``: the mean of ``log q(z|x) - log p(z)`` for the fitted prior; ``rate_of_model``: the same, at the same
    draws, for the model's own. ``distortion``: ``-log p(x|z)``. ``elbo``: minus rate and distortion, a bound of
    log p(x), where the likelihood is a probability of the images.
    """
    import torch

    from callbacks.panel import example_images
    from lit_vae.models.abilities import HasPosterior
    from lit_vae.noise import FIXED, Draws

    if not isinstance(model, HasPosterior):
        return {}
    rows: list[Any] = []
    done = 0
    for x, y in example_images(OneSplit(data, "test"), len(data.source("test")), model):
        q = model.encode(x, y)
        index = torch.arange(done, done + len(x), device=x.device)
        z = q.rsample(1, Draws(seed, FIXED, index))
        log_q = q.log_prob(z)[0].double().cpu()
        log_p = fitted.log_prob(z[0].flatten(1).cpu(), y.cpu())
        of_model = model.prior(y).log_prob(z)[0].double().cpu()
        distortion = -model.decode(z[0], y).log_prob(x).double().cpu()
        rows.append(torch.stack([log_q - log_p, log_q - of_model, distortion]))
        done += len(x)
    rate, rate_of_model, distortion = torch.cat(rows, 1).mean(1).tolist()
    found = {"rate": rate, "rate_of_model": rate_of_model, "distortion": distortion}
    return found | ({"elbo": -rate - distortion} if model.likelihood.is_probability(data.spec) else {})
