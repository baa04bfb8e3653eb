"""The verbs that draw: each a panel of `callbacks`, as in training, on a finished run."""

import sys
from typing import TYPE_CHECKING, Any, Literal, cast

from lit_vae.tools.codes import check_sampling, sample_prior
from lit_vae.tools.files import picture_path, save_picture
from lit_vae.tools.runs import (
    Checkpoint,
    OneSplit,
    Run,
    Split,
    check_arguments,
    check_memory,
    choose_device,
    find_label,
    find_run,
    load_autoencoder,
    load_data,
    load_model,
)

if TYPE_CHECKING:
    from pathlib import Path

    from torch import Generator, Tensor

    from callbacks import Panel
    from lit_vae.models.base import Autoencoder
    from lit_vae.tools.mixture import Mixture


def sample(
    run: str,
    n: int = 64,
    out: str | None = None,
    prior: Literal["model", "gmm"] = "model",
    temperature: float = 1.0,
    label: str | None = None,
    pixels: Literal["mean", "sample", "both"] = "mean",
    seed: int = 0,
    checkpoint: Checkpoint = "best",
    device: str | None = None,
    top_k: int | None = None,
    top_p: float = 1.0,
    stage1: str | None = None,
) -> None:
    """Draw images from the model.

    A prior of codes draws the codes level by level, the coarsest first, and its stage 1 decodes them.

    A class-conditional model without --label gives a class sheet: one row a class, the same noise down each column,
    and as many columns as it takes to show n images.

    Args:
        run: Run directory or .ckpt file.
        n: Number of images.
        out: PNG file. Default: RUN/sheets/sample.png, with the mixture sample_gmm.png.
        prior: The model's own, or the mixture that lit-vae fit-prior fitted to its latents.
        temperature: Factor of the prior's standard deviation (with gmm: of that of each component). Of codes: divides
            their logits.
        label: Class to draw, of a class-conditional model: its name, or its number where the data has no names.
        pixels: The decoder's mean, a draw from p(x|z), or a row of means above one of draws at the same latents.
        seed: Of the noise.
        checkpoint: Which one of a run directory.
        device: cpu, cuda or cuda:N. Default: the GPU if there is one.
        top_k: Of codes: draw from the k most probable ones only.
        top_p: Of codes: draw from the most probable ones that together have this probability.
        stage1: Of a prior of codes: where the checkpoint is that they are of, if it was moved.
    """
    from callbacks import ClassSheet, Samples
    from lit_vae.models.abilities import SamplesCodes
    from lit_vae.models.base import Autoencoder, ImageModel
    from lit_vae.tools.prior import load_prior

    check_arguments("sample", {"n": (n, 1), "temperature": (temperature, 0), "seed": (seed, 0)})
    sampling = check_sampling("sample", temperature, top_k, top_p)
    found = find_run(run, checkpoint)
    path = picture_path(found, out, "sample" if prior == "model" else "sample_gmm")
    model = load_model(found, choose_device(device))
    number = find_label(model, label)
    if not isinstance(model, SamplesCodes) and (top_k is not None or top_p != 1.0 or stage1 is not None):
        raise ValueError(
            f"lit-vae sample: --top_k, --top_p and --stage1 are for a prior of codes, not for {type(model).__name__}."
            " Leave them out."
        )
    if not isinstance(model, Autoencoder):
        if not isinstance(model, (ImageModel, SamplesCodes)):
            raise ValueError(
                f"lit-vae sample: {found.checkpoint} is a {type(model).__name__}, which draws no images. Give a run"
                " of a model that does."
            )
        if pixels != "mean" or prior != "model":
            raise ValueError(f"lit-vae sample: {type(model).__name__} has no --pixels and no --prior. Leave them out.")
        sample_prior(model, n, path, number, sampling, seed, stage1, choose_device(device))
        return
    check_memory("sample", f"--n {n}", n, model.image_shape)
    mixture = load_prior(found, model) if prior == "gmm" else None
    panel: Panel
    if model.num_classes and label is None:
        if pixels == "both":
            raise ValueError(
                "lit-vae sample: --pixels both shows pairs of rows, and a class sheet has a row for each class."
                " Give --label, or --pixels mean or sample."
            )
        panel = ClassSheet(-(-n // model.num_classes), temperature=temperature, pixels=pixels, seed=seed)
    else:
        panel = Samples(n, temperature=temperature, pixels=pixels, seed=seed)
    caption = _with_prior(panel.caption, model, mixture, temperature)
    if label is not None:
        caption += f", label {label}"
    _draw(panel, model, None, path, caption, shown=Sampled(model, number, mixture))


def reconstruct(
    run: str,
    n: int = 16,
    split: Split = "test",
    out: str | None = None,
    data_root: str | None = None,
    checkpoint: Checkpoint = "best",
    device: str | None = None,
) -> None:
    """Draw images above their reconstructions.

    Args:
        run: Run directory or .ckpt file.
        n: Number of images, spread over the split and its classes; at most all.
        split: Where they are from.
        out: PNG file. Default: RUN/sheets/reconstruct.png.
        data_root: Folder of the data, if it is not where it was in training. Nothing is downloaded.
        checkpoint: Which one of a run directory.
        device: cpu, cuda or cuda:N. Default: the GPU if there is one.
    """
    from callbacks import Reconstructions

    check_arguments("reconstruct", {"n": (n, 1)})
    found = find_run(run, checkpoint)
    _draw_images(Reconstructions(n), found, "reconstruct", out, split, data_root, device, (f"--n {n}", n))


def interpolate(
    run: str,
    pairs: int = 6,
    steps: int = 9,
    path: Literal["linear", "slerp"] = "linear",
    split: Split = "test",
    out: str | None = None,
    data_root: str | None = None,
    checkpoint: Checkpoint = "best",
    device: str | None = None,
) -> None:
    """Draw the way from one image to another through latent space.

    The images stand at both ends of a row, their reconstructions next to them. A class-conditional model goes between
    images of one class.

    Args:
        run: Run directory or .ckpt file.
        pairs: Number of rows.
        steps: Images in a row, with both reconstructions.
        path: Straight, or along a great circle, which keeps the norm that draws of a Gaussian have.
        split: Where the images are from, spread over it and its classes.
        out: PNG file. Default: RUN/sheets/interpolate.png.
        data_root: Folder of the data, if it is not where it was in training. Nothing is downloaded.
        checkpoint: Which one of a run directory.
        device: cpu, cuda or cuda:N. Default: the GPU if there is one.
    """
    from callbacks import Interpolations

    check_arguments("interpolate", {"pairs": (pairs, 1), "steps": (steps, 2)})
    found = find_run(run, checkpoint)
    asked = f"--pairs {pairs} --steps {steps}", pairs * steps
    _draw_images(Interpolations(pairs, steps, path), found, "interpolate", out, split, data_root, device, asked)


def traverse(
    run: str,
    dims: int = 10,
    steps: int = 9,
    num_images: int = 0,
    split: Split = "test",
    out: str | None = None,
    data_root: str | None = None,
    checkpoint: Checkpoint = "best",
    device: str | None = None,
) -> None:
    """Draw what single latent dimensions do, from -2 to 2 standard deviations of the prior.

    The dimensions that are used most come first; the label of a row says how much.

    Args:
        run: Run directory or .ckpt file.
        dims: Number of rows.
        steps: Images in a row.
        num_images: Images to start from, in blocks side by side; 0: from the mean of the prior.
        split: Where images are from, and those that dimensions are ranked by.
        out: PNG file. Default: RUN/sheets/traverse.png.
        data_root: Folder of the data, if it is not where it was in training. Nothing is downloaded.
        checkpoint: Which one of a run directory.
        device: cpu, cuda or cuda:N. Default: the GPU if there is one.
    """
    from callbacks import Traversals

    check_arguments("traverse", {"dims": (dims, 1), "steps": (steps, 2), "num_images": (num_images, 0)})
    found = find_run(run, checkpoint)
    asked = f"--dims {dims} --steps {steps} --num_images {num_images}", dims * steps * max(num_images, 1)
    _draw_images(Traversals(dims, steps, num_images), found, "traverse", out, split, data_root, device, asked)


class Sampled:
    """A model as panels of samples see it, with the label and the prior that a command asks for.

    Args:
        model: where everything else is from.
        label: class of every image; None: as the panel wants.
        mixture: what latents are drawn from; None: the model's own prior.
    """

    def __init__(self, model: "Autoencoder", label: int | None, mixture: "Mixture | None") -> None:
        self._model, self._label, self._mixture = model, label, mixture

    def __getattr__(self, name: str) -> Any:
        return getattr(self._model, name)

    def labels_for(self, n: int, y: "Tensor | None") -> "Tensor":
        """See `Autoencoder.labels_for`."""
        labels = self._model.labels_for(n, y)
        return labels if self._label is None or y is not None else labels.fill_(self._label)

    def sample_latents(self, n: int, y: "Tensor", temperature: float, generator: "Generator") -> "Tensor":
        """See `Autoencoder.sample_latents`; a mixture draws from the generator's seed, the same on every device."""
        if self._mixture is None:
            return self._model.sample_latents(n, y, temperature, generator)
        z = self._mixture.sample(y.cpu(), temperature, generator.initial_seed())
        weight = next(self._model.parameters())
        return z.unflatten(1, self._model.latent_shape).to(weight)


def _with_prior(caption: str, model: "Autoencoder", mixture: "Mixture | None", temperature: float) -> str:
    """The caption with what the latents were drawn from, and a note where that is no prior of theirs."""
    from lit_vae.models.abilities import HasCodes

    name = type(model).__name__
    if mixture is not None:
        return caption.replace("the prior", "the mixture") + ", a Gaussian mixture fitted to the latents as prior"
    if isinstance(model, HasCodes) and temperature != 1.0:
        raise ValueError(f"lit-vae sample: --temperature is not for the uniform codes of {name}. Leave it out.")
    if not model.sampling_caveat:
        return caption
    print(f"note: {name}: {model.sampling_caveat}", file=sys.stderr)
    return f"{caption}; {name}: {model.sampling_caveat}"


def _draw_images(
    panel: "Panel",
    run: Run,
    verb: str,
    out: str | None,
    split: Split,
    data_root: str | None,
    device: str | None,
    asked: tuple[str, int],
) -> None:
    path = picture_path(run, out, verb)
    model = load_autoencoder(verb, run, choose_device(device))
    check_memory(verb, *asked, model.image_shape)
    data = load_data(run, model, data_root, [split])
    if (there := len(data.source(split))) < panel.num_examples:
        print(f"note: there are {there} {split} images; all are shown.", file=sys.stderr)
    images = OneSplit(data, split)
    caption = panel.caption.replace("Validation", split.capitalize()).replace("validation", split)
    _draw(panel, model, images, path, caption, shown=model)


def _draw(
    panel: "Panel", model: "Autoencoder", images: OneSplit | None, path: "Path", caption: str, shown: Any
) -> None:
    from callbacks.periodic import untouched

    with untouched(model):
        picture = panel.draw(cast("Autoencoder", shown), cast(Any, images))
    save_picture(picture, path, caption)
