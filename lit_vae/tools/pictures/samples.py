"""``lit-vae sample``: images drawn from a model."""

import sys
from pathlib import Path
from typing import TYPE_CHECKING, Literal

from lit_vae.tools.output import picture_path, progress_bar, save_picture
from lit_vae.tools.priors.fitted import Sampled, load_prior
from lit_vae.tools.records import NOUNS, DrawnFrom
from lit_vae.tools.runs import (
    Checkpoint,
    check_arguments,
    check_memory,
    choose_device,
    find_label,
    find_run,
    load_model,
)
from lit_vae.tools.solvers import SamplerName, change_sampling, show_steps

if TYPE_CHECKING:
    import torch

    from callbacks import Panel
    from lit_vae.models.base import Autoencoder
    from lit_vae.models.module import Model
    from lit_vae.sampling import CodeSampling


def sample(
    run: str,
    n: int = 64,
    out: str | None = None,
    prior: DrawnFrom = "model",
    temperature: float | tuple[float, ...] = 1.0,
    label: str | None = None,
    pixels: Literal["mean", "sample", "both"] = "mean",
    seed: int = 0,
    checkpoint: Checkpoint = "best",
    device: str | None = None,
    top_k: int | None = None,
    top_p: float = 1.0,
    stage1: str | None = None,
    steps: int | None = None,
    sampler: SamplerName | None = None,
    guidance: float | None = None,
    guidance_interval: tuple[float, float] | None = None,
) -> None:
    """Draw images from the model.

    A prior of codes draws the codes level by level, the coarsest first, and its stage 1 decodes them.

    A class-conditional model without --label gives a class sheet: one row a class, the same noise down each column,
    and as many columns as it takes to show n images.

    Args:
        run: Run directory or .ckpt file.
        n: Number of images.
        out: PNG file. Default: RUN/sheets/sample.png, with a fitted prior sample_gmm.png and so on.
        prior: The model's own, or one that lit-vae fit-prior fitted to its latents.
        temperature: Factor of the prior's standard deviation (with gmm and vamp: of each component's; with flow
            and vae: of all noise). For a prior of codes it divides the logits. A hierarchy also takes a list, such as
            [0.7,1,1]: one for each level, from the top.
        label: Class to draw, of a class-conditional model: its name, or its number where the data has no names.
        pixels: The decoder's mean, a draw from p(x|z), or a row of means above one of draws at the same latents.
        seed: Seed of the noise.
        checkpoint: Which checkpoint of a run directory.
        device: cpu, cuda or cuda:N. Default: the GPU if there is one.
        top_k: For a prior of codes: draw from the k most probable codes.
        top_p: For a prior of codes: draw from the most probable codes that together have this probability.
        stage1: For a prior of codes or latents: path of its stage 1's checkpoint, if that was moved.
        steps: For a diffusion model: number of noise levels on the way from noise to image. Default: as in the run.
        sampler: For a diffusion model: how it steps. ancestral draws new noise in each step, the others do not; heun
            calls the network twice in each. Default: as in the run.
        guidance: For a class-conditional diffusion model: scale of classifier-free guidance. 1 is none, 0 ignores the
            class. Default: as in the run.
        guidance_interval: For a diffusion model: guide at these log signal-to-noise ratios only, such as [-3,5]. Noise
            is below, the image above. Default: as in the run.
    """
    from callbacks import ClassSheet, Samples
    from callbacks.periodic import untouched
    from callbacks.samples import temperature_problem
    from lit_vae.models.abilities import SamplesCodes, SecondStage
    from lit_vae.models.base import Autoencoder, ImageModel
    from lit_vae.sampling import CodeSampling

    scale = list(temperature) if isinstance(temperature, tuple) else temperature
    check_arguments("sample", {"n": (n, 1), "temperature": (scale, 0), "seed": (seed, 0)})
    try:
        sampling = CodeSampling(1.0 if isinstance(scale, list) else scale, top_k, top_p)
    except ValueError as error:
        raise ValueError(f"lit-vae sample: {error}") from error
    found = find_run(run, checkpoint)
    path = picture_path(found, out, "sample" if prior == "model" else f"sample_{prior}")
    model = load_model(found, choose_device(device))
    if problem := temperature_problem(scale, model if prior == "model" else None):
        raise ValueError(f"lit-vae sample: --{problem}")
    number = find_label(model, label)
    for needs, given, kind in (
        ("--top_k and --top_p need a prior of codes", top_k is not None or top_p != 1.0, SamplesCodes),
        ("--stage1 needs a prior of codes or latents", stage1 is not None, SecondStage),
    ):
        if given and not isinstance(model, kind):
            raise ValueError(f"lit-vae sample: {needs}, and a {type(model).__name__} is none. Leave them out.")
    change_sampling("sample", model, steps, sampler, guidance, guidance_interval)
    if not isinstance(model, Autoencoder):
        if not isinstance(model, (ImageModel, SecondStage)):
            raise ValueError(
                f"lit-vae sample: {found.checkpoint} is a {type(model).__name__}, which draws no images. Give a run"
                " of a model that does."
            )
        if pixels != "mean" or prior != "model":
            raise ValueError(f"lit-vae sample: {type(model).__name__} has no --pixels and no --prior. Leave them out.")
        _sample_without_latents(model, n, path, number, sampling, seed, stage1, choose_device(device))
        return
    check_memory("sample", f"--n {n}", n, model.image_shape)
    fitted = None if prior == "model" else load_prior(found, model, prior)
    panel: Panel
    if model.num_classes and label is None:
        if pixels == "both":
            raise ValueError(
                "lit-vae sample: --pixels both shows pairs of rows, and a class sheet has a row for each class."
                " Give --label, or --pixels mean or sample."
            )
        panel = ClassSheet(-(-n // model.num_classes), temperature=scale, pixels=pixels, seed=seed)
    else:
        panel = Samples(n, temperature=scale, pixels=pixels, seed=seed)
    caption = _with_prior(panel.caption, model, prior, scale)
    if label is not None:
        caption += f", label {label}"
    with untouched(model):
        picture = panel.draw(Sampled(model, number, fitted))  # type: ignore[arg-type]
    save_picture(picture, path, caption)


def _sample_without_latents(
    model: "Model",
    n: int,
    path: Path,
    label: int | None,
    sampling: "CodeSampling",
    seed: int,
    stage1: str | None,
    device: "torch.device",
) -> None:
    """Draw a sheet from a model of pixels, or of codes that stage 1 decodes."""
    import torch

    from callbacks import Draws
    from callbacks.drawing import arrange, sheet
    from callbacks.periodic import untouched
    from lit_vae.models.abilities import SecondStage
    from lit_vae.models.denoising import DenoisingModel
    from lit_vae.run.loading import load_stage1

    panel = Draws(n, sampling=sampling, seed=seed)
    if isinstance(model, SecondStage) and (whose := model.stage1) is not None:
        panel.decoder = load_stage1(stage1 or whose["path"], whose["sha256"], device)
    check_memory("sample", f"--n {n}", n, getattr(panel.decoder or model, "image_shape", ()))
    caption = panel.caption_of(model, label is None) + ("" if label is None else f", label {model.class_name(label)}")
    with untouched(model), progress_bar("sampling") as panel.progress:
        if isinstance(model, DenoisingModel):
            show_steps(model, (model.num_classes or 1) if label is None else 1, panel.progress)
        if label is None:
            picture = panel.draw(model)
        else:
            picture = sheet(arrange(panel.images(model, torch.full((n,), label, device=device))))
    save_picture(picture, path, caption)


def _with_prior(caption: str, model: "Autoencoder", prior: str, temperature: object) -> str:
    """The caption with the prior of the latents; prints a note if the model's prior does not fit its latents."""
    from lit_vae.models.abilities import HasCodes

    name = type(model).__name__
    if prior != "model":
        return caption.replace("the prior", f"the {NOUNS[prior]} fitted to the latents")
    if isinstance(model, HasCodes) and temperature != 1.0:
        raise ValueError(f"lit-vae sample: --temperature is not for the uniform codes of {name}. Leave it out.")
    if not model.sampling_caveat:
        return caption
    print(f"note: {name}: {model.sampling_caveat}", file=sys.stderr)
    return f"{caption}; {name}: {model.sampling_caveat}"
