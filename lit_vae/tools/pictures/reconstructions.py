"""``lit-vae reconstruct``, ``interpolate`` and ``traverse``: panels of `callbacks`, drawn of a finished run."""

import sys
from collections.abc import Callable
from functools import partial
from typing import TYPE_CHECKING, Any, Literal, cast

from lit_vae.tools.output import picture_path, save_picture
from lit_vae.tools.runs import (
    Checkpoint,
    OneSplit,
    Run,
    Split,
    check_arguments,
    check_memory,
    choose_device,
    find_run,
    load_autoencoder,
    load_data,
)

if TYPE_CHECKING:
    from callbacks import Panel
    from lit_vae.models.base import Autoencoder


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
        split: Split of the images.
        out: PNG file. Default: RUN/sheets/reconstruct.png.
        data_root: Folder of the data, if it is not where it was in training. Nothing is downloaded.
        checkpoint: Which checkpoint of a run directory.
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

    The images are at both ends of a row, with their reconstructions next to them. A class-conditional model
    interpolates between images of one class.

    Args:
        run: Run directory or .ckpt file.
        pairs: Number of rows.
        steps: Images in a row, with both reconstructions.
        path: Straight, or along a great circle, which keeps the norm that draws of a Gaussian have.
        split: Split of the images, which are spread over its classes.
        out: PNG file. Default: RUN/sheets/interpolate.png.
        data_root: Folder of the data, if it is not where it was in training. Nothing is downloaded.
        checkpoint: Which checkpoint of a run directory.
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
    level: int | None = None,
    split: Split = "test",
    out: str | None = None,
    data_root: str | None = None,
    checkpoint: Checkpoint = "best",
    device: str | None = None,
) -> None:
    """Draw the effect of single latent dimensions, from -2 to 2 standard deviations of the prior.

    The most used dimensions come first; the label of a row says how much it is used.

    Args:
        run: Run directory or .ckpt file.
        dims: Number of rows.
        steps: Images in a row.
        num_images: Images to start from, in blocks side by side; 0: from the mean of the prior.
        level: Level of a hierarchy whose dimensions are shown, 0 for the top. Default: all.
        split: Split of the images, also of those that rank the dimensions.
        out: PNG file. Default: RUN/sheets/traverse.png.
        data_root: Folder of the data, if it is not where it was in training. Nothing is downloaded.
        checkpoint: Which checkpoint of a run directory.
        device: cpu, cuda or cuda:N. Default: the GPU if there is one.
    """
    from callbacks import Traversals
    from callbacks.walks import level_problem

    limits = {"dims": (dims, 1), "steps": (steps, 2), "num_images": (num_images, 0), "level": (level, 0)}
    check_arguments("traverse", limits)
    found = find_run(run, checkpoint)
    asked = f"--dims {dims} --steps {steps} --num_images {num_images}", dims * steps * max(num_images, 1)
    panel, problem = Traversals(dims, steps, num_images, level=level), partial(level_problem, level)
    _draw_images(panel, found, "traverse", out, split, data_root, device, asked, problem)


def _draw_images(
    panel: "Panel",
    run: Run,
    verb: str,
    out: str | None,
    split: Split,
    data_root: str | None,
    device: str | None,
    asked: tuple[str, int],
    problem: Callable[["Autoencoder"], str] = lambda _: "",
) -> None:
    from callbacks.periodic import untouched

    path = picture_path(run, out, verb)
    model = load_autoencoder(verb, run, choose_device(device))
    if found := problem(model):
        raise ValueError(f"lit-vae {verb}: --{found}")
    check_memory(verb, *asked, model.image_shape)
    data = load_data(run, model, data_root, [split])
    if (there := len(data.source(split))) < panel.num_examples:
        print(f"note: there are {there} {split} images; all are shown.", file=sys.stderr)
    images = OneSplit(data, split)
    caption = panel.caption.replace("Validation", split.capitalize()).replace("validation", split)
    with untouched(model):
        picture = panel.draw(model, cast(Any, images))
    save_picture(picture, path, caption)
