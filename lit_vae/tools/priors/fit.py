"""A prior fitted after training: a Gaussian mixture on the latents of the training images, and what it is worth.

Ghosh et al., "From Variational to Deterministic Autoencoders", 2020, sec. 4 (ex-post density estimation). An encoder's
latents do not follow the prior that samples are drawn from; where they do, a density fitted to them changes nothing.
"""

import sys
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Literal

from lit_vae.tools.output import print_numbers
from lit_vae.tools.priors.fitted import PRIOR_FILE, mixture_draw, save_prior
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
    from lit_vae.tools.priors.mixture import Mixture

MOST_IMAGES = 10_000
"""Samples behind each Fréchet distance; the other side is the whole test split."""


def fit_prior(
    run: str,
    components: int | None = None,
    covariance: Literal["full", "diag"] = "full",
    seed: int = 0,
    num_images: int | None = None,
    data_root: str | None = None,
    checkpoint: Checkpoint = "best",
    device: str | None = None,
) -> None:
    """Fit a Gaussian mixture to the latents of the training images, for `lit-vae sample --prior gmm`.

    Writes RUN/priors/gmm.pt, which belongs to this one checkpoint. Also measures the Fréchet distance (fd_pca64, lower
    is better) of decoded draws to the test images, for the model's prior and for the mixture, into RUN/priors/gmm.json.
    Latent maps are flattened. A class-conditional model gets a mixture for each class.

    Args:
        run: Run directory or .ckpt file.
        components: Gaussians in the mixture. Default: 10, and 1 for each class of a class-conditional model.
        covariance: Of each component: full, or diagonal (for latents of many dimensions).
        seed: Seed of the fit and of all draws.
        num_images: Number of training images, spread over the split and its classes. Default: all.
        data_root: Folder of the data, if it is not where it was in training. Nothing is downloaded.
        checkpoint: Which checkpoint of a run directory.
        device: cpu, cuda or cuda:N. Default: the GPU if there is one.
    """
    from callbacks.periodic import untouched
    from lit_vae.models.abilities import HasPosterior
    from lit_vae.tools.priors.mixture import fit_mixture

    check_arguments("fit-prior", {"components": (components, 1), "seed": (seed, 0), "num_images": (num_images, 2)})
    found = find_run(run, checkpoint)
    model = load_autoencoder("fit-prior", found, choose_device(device))
    data = load_data(found, model, data_root, ["train", "test"])
    if components is None:
        components = 1 if model.num_classes else 10
    with untouched(model):
        z, y = latents(model, data, "train", num_images, seed)
        mixture, converged = fit_mixture(z, y, model.num_classes, components, covariance, seed)
        test_latents = latents(model, data, "test", None, seed)
        metrics, protocol = sample_quality(model, data, mixture, seed)
    record = {
        "checkpoint": found.checkpoint.name,
        "checkpoint_sha256": found.identity,
        "data": type(data).__name__,
        "image_shape": list(data.spec.shape),
        "values": data.spec.values,
        "mixture": {
            "components": components,
            "covariance": covariance,
            "mixtures": len(mixture.weights),
            "latents": "posterior draws" if isinstance(model, HasPosterior) else "embeddings",
            "dimensions": z.shape[1],
            "num_images": len(z),
            "seed": seed,
            "converged": converged,
            "log_density_nats": {
                "train": float(mixture.log_prob(z, y).mean()),
                "test": float(mixture.log_prob(*test_latents).mean()),
            },
        },
        "samples": protocol,
        "metrics": metrics,
    }
    save_prior(found, mixture, record)
    print_numbers(f"prior  {type(model).__name__}  {found.directory}", metrics)
    if not converged:
        print("note: EM did not converge; the mixture is what it had come to.", file=sys.stderr)
    print(found.directory / PRIOR_FILE)


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
    model: "Autoencoder", data: "ImageDataModule", mixture: "Mixture", seed: int
) -> tuple[dict[str, float], dict[str, Any]]:
    """``test/fd_pca64`` of draws from the model's prior, ``test/fd_pca64_gmm`` of draws from the mixture; the protocol.

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
        "test/fd_pca64_gmm": mixture_draw(model, mixture),
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
