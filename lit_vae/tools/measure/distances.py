"""``lit-vae evaluate``: the distances of `callbacks.SampleQuality`, measured after training."""

from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from lit_vae.run.files import EVALUATION_FILE, write_json
from lit_vae.tools.measure.guidance import scales_in, show_curve
from lit_vae.tools.output import picture_path, print_numbers, progress_bar
from lit_vae.tools.priors.fitted import fitted_draw, load_prior
from lit_vae.tools.records import DrawnFrom, prior_file, read_record
from lit_vae.tools.runs import (
    Checkpoint,
    Split,
    check_arguments,
    check_memory,
    choose_device,
    find_run,
    load_data,
    load_model,
)
from lit_vae.tools.solvers import Interval, SamplerName, other_samplings

if TYPE_CHECKING:
    from collections.abc import Callable

    from torch import Tensor

    from lit_vae.data import ImageDataModule
    from lit_vae.diffusion import Sampling
    from lit_vae.features import ImageFeatures
    from lit_vae.models.module import Model
    from lit_vae.tools.record_forms import Metrics, Protocols
    from lit_vae.tools.runs import Run


def evaluate(
    run: str,
    features: str = "inception",
    prior: DrawnFrom = "model",
    num_images: int = 10_000,
    reference: Split = "train",
    extended: bool = False,
    seed: int = 0,
    data_root: str | None = None,
    checkpoint: Checkpoint = "best",
    device: str | None = None,
    steps: int | None = None,
    sampler: SamplerName | None = None,
    guidance: str | None = None,
    guidance_interval: Interval | None = None,
) -> None:
    """Measure samples against real images: FID, or a Fréchet distance of other features.

    Numbers are added to RUN/evaluation.json, which belongs to one checkpoint. For a prior of codes, its stage 1 decodes
    the drawn codes into images. The features of the real images are computed once and kept for all runs.

    A diffusion model can be drawn in another way than in its run. These numbers are recorded under "samplings", beside
    those of the run's own way. Several scales of guidance share labels and noise; they give a table, and a picture of
    their distances and of precision against recall (with --extended), RUN/sheets/guidance.png.

    Args:
        run: Run directory or .ckpt file.
        features: inception (for the FID; it needs lit-vae prepare inception) or the path of its .pth file, pca (a
            stand-in, fd_pca64), or the .ckpt file of a FeatureNet (fd_featurenet).
        prior: The prior to draw from: the model's own, or one that lit-vae fit-prior fitted to its latents.
        num_images: Number of samples. The distance falls with it, so compare equal numbers only.
        reference: Split of the real images; all of them are used.
        extended: Also KID, precision and recall, density and coverage, with as many real images as samples.
        seed: Seed of the samples.
        data_root: Folder of the data, if it is not where it was in training. Nothing is downloaded.
        checkpoint: Which checkpoint of a run directory.
        device: cpu, cuda or cuda:N. Default: the GPU if there is one.
        steps: For a diffusion model: number of noise levels on the way from noise to image. Default: as in the run.
        sampler: For a diffusion model: how it steps, see lit-vae sample. Default: as in the run.
        guidance: For a class-conditional diffusion model: scales of classifier-free guidance, such as 1,1.5,2,3. 1 is
            none, 0 ignores the class. Default: as in the run.
        guidance_interval: For a diffusion model: guide at these log signal-to-noise ratios only, such as [-3,5].
            Default: as in the run.
    """
    from callbacks.periodic import untouched
    from callbacks.sample_quality import measure_samples, real_set
    from lit_vae.metrics import DensityCoverage, Frechet, Kernel, PrecisionRecall
    from lit_vae.run.wandb_reopened import send_numbers
    from lit_vae.tools.record_forms import Evaluation

    check_arguments("evaluate", {"num_images": (num_images, 2), "seed": (seed, 0)})
    scales = scales_in(guidance)
    if prior != "model" and not steps is sampler is guidance is guidance_interval is None:
        raise ValueError(
            f"lit-vae evaluate: --prior {prior} draws latents of an autoencoder; --steps, --sampler, --guidance and"
            " --guidance_interval are for a diffusion model. Leave one of them out."
        )
    check_memory("evaluate", f"--num_images {num_images}", num_images, (2,))  # labels alone are kept for all
    found = find_run(run, checkpoint)
    path = found.directory / EVALUATION_FILE
    record = read_record(path, Evaluation)
    model = load_model(found, choose_device(device))
    others = other_samplings("evaluate", model, steps, sampler, scales or [None], guidance_interval)
    data, draw = _images_and_draw(found, model, prior, data_root, reference)
    seen = _features(features, data)
    if problems := seen.problems(data.spec.shape):
        raise ValueError("\n".join(problems))
    distances = [Frechet(), Kernel(), PrecisionRecall(), DensityCoverage()] if extended else [Frechet()]
    if too_few := [problem for distance in distances for problem in distance.problems(num_images)]:
        raise ValueError(f"lit-vae evaluate: --num_images (={num_images}): " + "\n".join(too_few))
    ways: list[Sampling | None] = [*others] or [None]
    measured: dict[Sampling | None, Metrics] = {}
    with untouched(model), progress_bar("drawing") as progress:
        y = model.labels_for(num_images, None)
        real = real_set(data, reference, seen, distances, y)
        counted = _counted(draw, lambda done: progress(done, num_images * len(ways)))
        for sampling in ways:
            if sampling is not None:
                model.sampling = sampling  # type: ignore[assignment]
            numbers, protocols = measure_samples(counted, y, real, data.spec, seen, distances, seed)
            # a model that has diverged gives NaN, which JSON cannot hold
            metrics = {f"test/{name}": float(value) if value.isfinite() else None for name, value in numbers.items()}
            of = {f"test/{name}": protocol for name, protocol in protocols.items()}
            record = _merged(record, prior, sampling, found, metrics, of)
            write_json(path, record)
            measured[sampling] = metrics
    title = f"evaluate  {type(model).__name__}  {found.directory}"
    if len(others) > 1:
        names = [f"test/{seen.called(kind)}" for kind in ("fd", "precision", "recall")]
        show_curve(title, {each: measured[each] for each in others}, names, picture_path(found, None, "guidance"))
    else:
        ((drawn_by, metrics),) = measured.items()
        print_numbers(f"{title}  {drawn_by or f'prior: {prior}'}", {"value": metrics})
    print(path)
    send_numbers(found.directory)


def _images_and_draw(
    run: "Run", model: "Model", prior: DrawnFrom, data_root: str | None, reference: Split
) -> "tuple[ImageDataModule, Callable[[Tensor, int], Tensor]]":
    """The real images, and a function ``(labels, seed) -> images`` that draws samples."""
    from callbacks.draws import draw_images
    from lit_vae.models.abilities import SecondStage
    from lit_vae.models.base import Autoencoder, ImageModel
    from lit_vae.run.loading import load_stage1

    if prior != "model":
        if not isinstance(model, Autoencoder):
            raise ValueError(f"lit-vae evaluate: {type(model).__name__} has no --prior {prior}. Leave it out.")
        return load_data(run, model, data_root, [reference]), fitted_draw(model, load_prior(run, model, prior))
    if isinstance(model, SecondStage) and (whose := model.stage1) is not None:
        stage1 = load_stage1(whose["path"], whose["sha256"], model.device)
        images = load_data(find_run(whose["path"], "last"), stage1, data_root, [reference])
        return images, partial(draw_images, model, decoder=stage1)
    if not isinstance(model, ImageModel):
        raise ValueError(f"lit-vae evaluate: {type(model).__name__} draws no images. Give a run of a model that does.")
    return load_data(run, model, data_root, [reference]), partial(draw_images, model)


def _counted(draw: "Callable[[Tensor, int], Tensor]", progress: "Callable[[int], None]") -> Any:
    """The same function, which also reports how many images it has drawn."""
    done = 0

    def counted(y: "Tensor", seed: int) -> "Tensor":
        nonlocal done
        images = draw(y, seed)
        done += len(images)
        progress(done)
        return images

    return counted


def _features(given: str, data: "ImageDataModule") -> "ImageFeatures":
    from lit_vae.features import FeatureNetFeatures, Inception, PCAFeatures
    from lit_vae.images import levels

    if given == "inception" or given.endswith(".pth"):
        return Inception() if given == "inception" else Inception(given)
    if given == "pca":
        return PCAFeatures.fit(levels(x, data.spec.values) for x, _ in data.ordered_dataloader("train"))
    if not given.endswith(".ckpt"):
        raise ValueError(
            f"--features {given}: give inception, pca, or a file: .pth of Inception, .ckpt of a FeatureNet."
        )
    return FeatureNetFeatures(given)


def _merged(
    record: dict[str, Any],
    prior: DrawnFrom,
    sampling: "Sampling | None",
    run: "Run",
    metrics: "Metrics",
    protocols: "Protocols",
) -> dict[str, Any]:
    """The record with these numbers added, and without numbers of another checkpoint or another fit.

    Numbers of another ``sampling`` than the run's own are in a part of their own, and their protocols name it.
    """
    from lit_vae.run.loading import identity

    drawn_from = {"checkpoint": Path(run.checkpoint).name, "checkpoint_sha256": run.identity}
    if prior != "model":
        drawn_from["prior_sha256"] = identity(run.directory / prior_file(prior, ".pt"))

    def added(old: dict[str, Any]) -> dict[str, Any]:
        if any(old.get(name) != value for name, value in drawn_from.items()):
            old = {}
        return {
            **drawn_from,
            "metrics": {**old.get("metrics", {}), **metrics},
            "protocols": {**old.get("protocols", {}), **protocols},
        }

    if sampling is None:
        return {**record, prior: added(record.get(prior) or {})}
    way = {"sampling": str(sampling), "guidance": None if sampling.guidance is None else sampling.guidance.scale}
    protocols = {name: {**protocol, **way} for name, protocol in protocols.items()}
    others = record.get("samplings", {})
    others = {how: of for how, of in others.items() if of.get("checkpoint_sha256") == drawn_from["checkpoint_sha256"]}
    return {**record, "samplings": {**others, str(sampling): added(others.get(str(sampling), {}))}}
