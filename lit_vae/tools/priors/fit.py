"""A prior fitted after training to the latents of the training images, and what it is worth.

Ghosh et al., "From Variational to Deterministic Autoencoders", 2020, sec. 4 (ex-post density estimation); Dai and Wipf,
"Diagnosing and Enhancing VAE Models", 2019, sec. 4 (a second stage). An encoder's latents do not follow the prior that
samples are drawn from; where they do, a density fitted to them changes nothing.
"""

import sys
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from lit_vae.tools.output import print_numbers
from lit_vae.tools.priors.bound import bound
from lit_vae.tools.priors.fitted import Fitted, fitted_draw, save_prior
from lit_vae.tools.records import NOUNS, PriorKind, prior_file
from lit_vae.tools.runs import (
    Checkpoint,
    check_arguments,
    choose_device,
    find_run,
    load_autoencoder,
    load_data,
)

if TYPE_CHECKING:
    from torch import Tensor

    from lit_vae.data import ImageDataModule
    from lit_vae.models.base import Autoencoder
    from lit_vae.tools.priors.latents import Latents

MOST_IMAGES = 10_000
"""Samples behind each Fréchet distance; the other side is the whole test split."""


def fit_prior(
    run: str,
    prior: PriorKind = "gmm",
    components: int | None = None,
    covariance: Literal["full", "diag"] | None = None,
    steps: int | None = None,
    seed: int = 0,
    num_images: int | None = None,
    data_root: str | None = None,
    checkpoint: Checkpoint = "best",
    device: str | None = None,
) -> None:
    """Fit a prior to the latents of the training images, for `lit-vae sample --prior gmm`, `--prior flow` and so on.

    Writes RUN/priors/gmm.pt (or flow.pt, ...), which belongs to this one checkpoint. Also measures, into
    RUN/priors/gmm.json, the Fréchet distance (fd_pca64, lower is better) of decoded draws to the test images, for the
    model's prior and for the fitted one; and for a VAE the bound of the test images with the fitted prior.
    Latent maps are flattened. A class-conditional model gets a density for each class.

    Args:
        run: Run directory or .ckpt file.
        prior: gmm: a Gaussian mixture. flow: a normalizing flow. vamp: the mean posterior of learned pseudo-inputs.
            vae: a second VAE on the latents (a second stage), whose density is known as a lower bound.
        components: Gaussians in the mixture. Default: 10, and 1 for each class of a class-conditional model. With
            vamp, pseudo-inputs; default: 500.
        covariance: Of each Gaussian: full (the default), or diagonal (for latents of many dimensions).
        steps: Optimizer steps. Default: 5000, of a VampPrior 1000.
        seed: Seed of the fit and of all draws.
        num_images: Number of training images, spread over the split and its classes. Default: all.
        data_root: Folder of the data, if it is not where it was in training. Nothing is downloaded.
        checkpoint: Which checkpoint of a run directory.
        device: cpu, cuda or cuda:N. Default: the GPU if there is one.
    """
    from callbacks.periodic import untouched
    from lit_vae.models.abilities import HasPosterior
    from lit_vae.tools.priors.latents import Latents

    counts = {"components": (components, 1), "steps": (steps, 1), "seed": (seed, 0), "num_images": (num_images, 2)}
    check_arguments("fit-prior", counts)
    of_kind: dict[PriorKind, dict[str, Any]] = {
        "gmm": {"components": components, "covariance": covariance},
        "flow": {"steps": steps},
        "vamp": {"components": components, "steps": steps},
        "vae": {"steps": steps},
    }
    _refuse_foreign(prior, of_kind)
    found = find_run(run, checkpoint)
    model = load_autoencoder("fit-prior", found, choose_device(device))
    data = load_data(found, model, data_root, ["train", "test"])
    given = {name: value for name, value in of_kind[prior].items() if value is not None}
    with untouched(model):
        latents = Latents(model, data, "train", num_images)
        fitted, how = FITS[prior](latents, seed, **given)
        z, y = latents(seed)
        test_latents = Latents(model, data, "test")(seed)
        metrics, protocol = sample_quality(model, data, prior, fitted, seed)
        worth, replicates = bound(model, data, fitted, seed)
    record = {
        "checkpoint": found.checkpoint.name,
        "checkpoint_sha256": found.identity,
        "data": type(data).__name__,
        "image_shape": list(data.spec.shape),
        "values": data.spec.values,
        NOUNS[prior].replace(" ", "_"): {
            **how,
            "latents": "posterior draws" if isinstance(model, HasPosterior) else "embeddings",
            "dimensions": z.shape[1],
            "num_images": len(z),
            "seed": seed,
            "log_density_bound_nats" if fitted.is_bound else "log_density_nats": {
                "train": float(fitted.log_prob(z, y).mean()),
                "test": float(fitted.log_prob(*test_latents).mean()),
            },
        },
        "bound_nats": worth,
        "bound_replicates": replicates,
        "samples": protocol,
        "metrics": metrics,
    }
    save_prior(found, prior, fitted, record)
    print_numbers(f"prior  {type(model).__name__}  {found.directory}", {"value": metrics})
    print_numbers(f"bound of the test images with this {NOUNS[prior]} as prior, nats", {"value": worth})
    if how.get("converged") is False:
        print("note: EM did not converge; the mixture is what it had come to.", file=sys.stderr)
    print(found.directory / prior_file(prior, ".pt"))


def _refuse_foreign(prior: PriorKind, of_kind: dict[PriorKind, dict[str, Any]]) -> None:
    """Raise ValueError for an option of another kind of prior."""
    for kind, options in of_kind.items():
        foreign = [name for name, value in options.items() if value is not None and name not in of_kind[prior]]
        if foreign:
            raise ValueError(f"lit-vae fit-prior: --{foreign[0]} is for --prior {kind}, not {prior}. Leave it out.")


def _fit_gmm(
    latents: "Latents",
    seed: int,
    components: int | None = None,
    covariance: Literal["full", "diag"] = "full",
) -> tuple[Fitted, dict[str, Any]]:
    from lit_vae.tools.priors.mixture import fit_mixture

    num_classes = latents.model.num_classes
    if components is None:
        components = 1 if num_classes else 10
    mixture, converged = fit_mixture(*latents(seed), num_classes, components, covariance, seed)
    how = {"components": components, "covariance": covariance, "mixtures": len(mixture.weights)}
    return mixture, {**how, "converged": converged}


def _fit_flow(latents: "Latents", seed: int, steps: int = 5000) -> tuple[Fitted, dict[str, Any]]:
    from lit_vae.tools.priors.flow import FittedFlow

    return FittedFlow.fit(latents, latents.model.num_classes, steps, seed), {"steps": steps}


def _fit_vamp(latents: "Latents", seed: int, components: int = 500, steps: int = 1000) -> tuple[Fitted, dict[str, Any]]:
    from lit_vae.tools.priors.vamp import fit_vamp

    _check_posterior(latents.model, "vamp")
    return fit_vamp(latents, components, steps, seed), {"components": components, "steps": steps}


def _fit_vae(latents: "Latents", seed: int, steps: int = 5000) -> tuple[Fitted, dict[str, Any]]:
    from lit_vae.tools.priors.second_stage import SecondStage

    _check_posterior(latents.model, "vae")
    if len(shape := latents.model.latent_shape) != 1:
        raise ValueError(
            f"lit-vae fit-prior: --prior vae: the latent is a map {list(shape)}, and a second stage takes a vector."
            " Give --prior gmm or --prior flow."
        )
    return SecondStage.fit(latents, latents.model.num_classes, steps, seed), {"steps": steps}


def _check_posterior(model: "Autoencoder", kind: PriorKind) -> None:
    """Raise ValueError for a model without a distribution of latents."""
    from lit_vae.models.abilities import HasPosterior

    if not isinstance(model, HasPosterior):
        raise ValueError(
            f"lit-vae fit-prior: --prior {kind}: {type(model).__name__} has no posterior q(z|x) of one latent, and a"
            f" {NOUNS[kind]} needs it. Give --prior gmm or --prior flow."
        )


FITS: dict[PriorKind, Callable[..., tuple[Fitted, dict[str, Any]]]] = {
    "gmm": _fit_gmm,
    "flow": _fit_flow,
    "vamp": _fit_vamp,
    "vae": _fit_vae,
}


def sample_quality(
    model: "Autoencoder", data: "ImageDataModule", kind: PriorKind, fitted: Fitted, seed: int
) -> tuple[dict[str, float], dict[str, Any]]:
    """``test/fd_pca64`` of draws from the model's prior, ``test/fd_pca64_<kind>`` of the fitted one; the protocol.

    Both are of decoder means, as many as there are test images (at most `MOST_IMAGES`). The distance falls with the
    number of images. The distance of as many training images is recorded too: samples cannot be expected to fall below.
    """
    from callbacks.draws import draw_images
    from callbacks.panel import example_images
    from callbacks.sample_quality import measure_samples, real_set
    from lit_vae.features import PCAFeatures
    from lit_vae.images import levels
    from lit_vae.metrics import FeatureStatistics, Frechet, frechet_distance

    values = data.spec.values
    features = PCAFeatures.fit(levels(x, values) for x, _ in data.ordered_dataloader("train"))
    n = min(len(data.source("test")), MOST_IMAGES)
    draws: dict[str, Callable[[Tensor, int], Tensor]] = {
        "test/fd_pca64": partial(draw_images, model),
        f"test/fd_pca64_{kind}": fitted_draw(model, fitted),
    }
    y = model.labels_for(n, None)
    real = real_set(data, "test", features, [Frechet()], y)
    metrics: dict[str, float] = {}
    for name, draw in draws.items():
        numbers, protocols = measure_samples(draw, y, real, data.spec, features, [Frechet()], seed)
        (value,), (protocol,) = numbers.values(), protocols.values()
        metrics[name] = float(value)
    protocol.pop("seconds")  # the same call writes the same file
    training = FeatureStatistics(features.num_features).to(y.device)
    for x, _ in example_images(data, n, model, "train"):
        training.update(features.of(x, values))
    floor = float(frechet_distance(real.features, training.compute()))
    return metrics, {**protocol, "images": "decoder means", "fd_pca64_of_training_images": floor}
