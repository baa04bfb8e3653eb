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
from lit_vae.tools.priors.fitted import NOUNS, Fitted, fitted_draw, save_prior
from lit_vae.tools.records import PriorKind, prior_file
from lit_vae.tools.runs import (
    Checkpoint,
    OneSplit,
    Split,
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
    """Fit a prior to the latents of the training images, for `lit-vae sample --prior gmm` or `--prior flow`.

    Writes RUN/priors/gmm.pt or flow.pt, which belongs to this one checkpoint. Also measures, into RUN/priors/gmm.json
    or flow.json, the Fréchet distance (fd_pca64, lower is better) of decoded draws to the test images, for the model's
    prior and for the fitted one; and for a VAE the bound of the test images with the fitted prior.
    Latent maps are flattened. A class-conditional model gets a density for each class.

    Args:
        run: Run directory or .ckpt file.
        prior: A Gaussian mixture, or a normalizing flow.
        components: Gaussians in the mixture. Default: 10, and 1 for each class of a class-conditional model.
        covariance: Of each Gaussian: full (the default), or diagonal (for latents of many dimensions).
        steps: Optimizer steps of the flow. Default: 5000.
        seed: Seed of the fit and of all draws.
        num_images: Number of training images, spread over the split and its classes. Default: all.
        data_root: Folder of the data, if it is not where it was in training. Nothing is downloaded.
        checkpoint: Which checkpoint of a run directory.
        device: cpu, cuda or cuda:N. Default: the GPU if there is one.
    """
    from callbacks.periodic import untouched
    from lit_vae.models.abilities import HasPosterior

    counts = {"components": (components, 1), "steps": (steps, 1), "seed": (seed, 0), "num_images": (num_images, 2)}
    check_arguments("fit-prior", counts)
    of_kind: dict[PriorKind, dict[str, Any]] = {
        "gmm": {"components": components, "covariance": covariance},
        "flow": {"steps": steps},
    }
    _refuse_foreign(prior, of_kind)
    found = find_run(run, checkpoint)
    model = load_autoencoder("fit-prior", found, choose_device(device))
    data = load_data(found, model, data_root, ["train", "test"])
    given = {name: value for name, value in of_kind[prior].items() if value is not None}
    with untouched(model):
        draw = partial(latents, model, data, "train", num_images)
        fitted, how = FITS[prior](draw, model.num_classes, seed, **given)
        z, y = draw(seed)
        test_latents = latents(model, data, "test", None, seed)
        metrics, protocol = sample_quality(model, data, prior, fitted, seed)
        worth = bound(model, data, fitted, seed)
    record = {
        "checkpoint": found.checkpoint.name,
        "checkpoint_sha256": found.identity,
        "data": type(data).__name__,
        "image_shape": list(data.spec.shape),
        "values": data.spec.values,
        NOUNS[prior]: {
            **how,
            "latents": "posterior draws" if isinstance(model, HasPosterior) else "embeddings",
            "dimensions": z.shape[1],
            "num_images": len(z),
            "seed": seed,
            "log_density_nats": {
                "train": float(fitted.log_prob(z, y).mean()),
                "test": float(fitted.log_prob(*test_latents).mean()),
            },
        },
        "bound_nats": worth,
        "samples": protocol,
        "metrics": metrics,
    }
    save_prior(found, prior, fitted, record)
    print_numbers(f"prior  {type(model).__name__}  {found.directory}", metrics)
    print_numbers(f"bound of the test images with this {NOUNS[prior]} as prior, nats", worth)
    if how.get("converged") is False:
        print("note: EM did not converge; the mixture is what it had come to.", file=sys.stderr)
    print(found.directory / prior_file(prior, ".pt"))


def _refuse_foreign(prior: PriorKind, of_kind: dict[PriorKind, dict[str, Any]]) -> None:
    """Raise ValueError for an option of another kind of prior."""
    for kind, options in of_kind.items():
        foreign = [name for name, value in options.items() if value is not None and kind != prior]
        if foreign:
            raise ValueError(f"lit-vae fit-prior: --{foreign[0]} is for --prior {kind}, not {prior}. Leave it out.")


Draw = Callable[[int], "tuple[Tensor, Tensor]"]
"""``seed -> latents (N, d), labels (N,)``."""


def _fit_gmm(
    draw: Draw,
    num_classes: int,
    seed: int,
    components: int | None = None,
    covariance: Literal["full", "diag"] = "full",
) -> tuple[Fitted, dict[str, Any]]:
    from lit_vae.tools.priors.mixture import fit_mixture

    if components is None:
        components = 1 if num_classes else 10
    mixture, converged = fit_mixture(*draw(seed), num_classes, components, covariance, seed)
    how = {"components": components, "covariance": covariance, "mixtures": len(mixture.weights)}
    return mixture, {**how, "converged": converged}


def _fit_flow(draw: Draw, num_classes: int, seed: int, steps: int = 5000) -> tuple[Fitted, dict[str, Any]]:
    from lit_vae.tools.priors.flow import fit_flow

    return fit_flow(draw, num_classes, steps, seed), {"steps": steps}


FITS: dict[PriorKind, Callable[..., tuple[Fitted, dict[str, Any]]]] = {"gmm": _fit_gmm, "flow": _fit_flow}


def latents(
    model: "Autoencoder", data: "ImageDataModule", split: Split, num_images: int | None, seed: int
) -> "tuple[Tensor, Tensor]":
    """Latents of images of a split, ``(N, d)`` float64, and their labels ``(N,)``, on the CPU.

    If the model has a posterior, each image gives one *draw* from it. The density of draws is the aggregate posterior
    ``q(z)``: the decoder was trained on it, and it is the best prior of the ELBO (Hoffman and Johnson, "ELBO surgery",
    2016). Posterior means are narrower. In an unused dimension they collapse to a point, where the decoder has only
    seen noise. Ghosh et al. fit to ``E(x)``, the same thing for their deterministic encoders; Chadebec et al.,
    "Pythae", 2022, draw.
    """
    import torch

    from callbacks.panel import example_images
    from lit_vae.models.abilities import HasPosterior

    generator = torch.Generator().manual_seed(seed)
    parts, labels = [], []
    total = len(data.source(split)) if num_images is None else num_images
    for x, y in example_images(OneSplit(data, split), total, model):
        if not isinstance(model, HasPosterior):
            z = model.embed(x, y).flatten(1).double().cpu()
        else:
            z = model.encode(x, y).sample(generator).flatten(1).double().cpu()
        parts.append(z)
        labels.append(y.cpu())
    return torch.cat(parts), torch.cat(labels)


def sample_quality(
    model: "Autoencoder", data: "ImageDataModule", kind: PriorKind, fitted: Fitted, seed: int
) -> tuple[dict[str, float], dict[str, Any]]:
    """``test/fd_pca64`` of draws from the model's prior, ``test/fd_pca64_<kind>`` of the fitted one; the protocol.

    Both are of decoder means, as many as there are test images (at most `MOST_IMAGES`). The distance falls with the
    number of images. The distance of as many training images is recorded too: samples cannot be expected to fall below.
    """
    import torch

    from callbacks.draws import draw_images
    from callbacks.panel import example_images
    from callbacks.references import reference_set
    from callbacks.sample_quality import measure_samples
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
    metrics: dict[str, float] = {}
    for name, draw in draws.items():
        y = model.labels_for(n, None)
        numbers, protocols = measure_samples(draw, y, data, "test", features, [Frechet()], seed)
        (value,), (protocol,) = numbers.values(), protocols.values()
        metrics[name] = float(value)
    protocol.pop("seconds")  # the same call writes the same file
    training = FeatureStatistics(features.num_features)
    for x, _ in example_images(OneSplit(data, "train"), n, model):
        training.update(features.of(x, values).cpu())
    real = reference_set(data, "test", features.cpu(), 0, torch.device("cpu")).features
    floor = float(frechet_distance(real, training.compute()))
    return metrics, {**protocol, "images": "decoder means", "fd_pca64_of_training_images": floor}
