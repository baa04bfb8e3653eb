"""What a fitted prior is worth: the bound of log p(x) of the test images with it as p(z)."""

from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from lit_vae.data import ImageDataModule
    from lit_vae.models.base import Autoencoder
    from lit_vae.tools.priors.fitted import Fitted


def bound(
    model: "Autoencoder", data: "ImageDataModule", fitted: "Fitted", seed: int
) -> tuple[dict[str, float], dict[str, list[float]]]:
    """Nats per test image, at one draw ``z ~ q(z|x)`` of each; and the same without each group of images.

    Both are empty for a model without posteriors.

    ``rate``: the mean of ``log q(z|x) - log p(z)`` for the fitted prior, an upper bound of it where only a bound of
    log p(z) is known; ``rate_of_model``: the same, at the same draws, for the model's own; ``gain``: their difference.
    ``distortion``: ``-log p(x|z)``. ``elbo``: minus rate and distortion, a lower bound of log p(x), where the
    likelihood is a probability of the images. ``<name>_half_width_95``: see `lit_vae.intervals`.
    """
    import torch

    from callbacks.panel import example_images
    from lit_vae.intervals import half_width
    from lit_vae.metrics.split_mean import SplitMean
    from lit_vae.models.abilities import HasPosterior
    from lit_vae.noise import FIXED, Draws

    if not isinstance(model, HasPosterior):
        return {}, {}
    parts: list[Any] = []
    done = 0
    for x, y in example_images(data, len(data.source("test")), model, "test"):
        q = model.encode(x, y)
        index = torch.arange(done, done + len(x), device=x.device)
        z = q.rsample(1, Draws(seed, FIXED, index))
        log_p, distortion = model.prior(y).log_prob(z)[0], -model.decode(z[0], y).log_prob(x)
        parts.append([t.cpu() for t in (z[0].flatten(1), y, q.log_prob(z)[0], log_p, distortion)])
        done += len(x)
    z, y, log_q, log_p, distortion = (torch.cat(of_batches).double() for of_batches in zip(*parts, strict=True))
    rate, of_model = log_q - fitted.log_prob(z, y.long()), log_q - log_p
    found = {"rate": rate, "rate_of_model": of_model, "gain": of_model - rate, "distortion": distortion}
    if model.likelihood.is_probability(data.spec):
        found["elbo"] = -rate - distortion
    means = SplitMean((len(found),))
    means.update(torch.stack([*found.values()], 1), done, torch.arange(done))
    rows = {name: column.tolist() for name, column in zip(found, means.estimates().T, strict=True)}
    worth = {name: value for name, (value, *_) in rows.items()}
    worth |= {f"{name}_half_width_95": half_width(replicates) for name, (_, *replicates) in rows.items()}
    return worth, {name: replicates for name, (_, *replicates) in rows.items()}
