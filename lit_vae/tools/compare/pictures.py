"""What runs make of the same images: reconstructions, where they differ most, how wrong they are; and samples."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Tensor

from lit_vae.tools.compare.gather import MIXTURE, Entry
from lit_vae.tools.runs import Run, Split, load_data, load_model

if TYPE_CHECKING:
    from lit_vae.models.module import Model

NUM_SAMPLES = 16
LEVELS = 127.5
"""Of 255, in one unit of images in [-1, 1]."""

_SAME = 2.0 / LEVELS  # two levels: the noise of dequantization makes no other picture


@dataclass(frozen=True)
class Pictures:
    """What there is to see of a run, on the CPU.

    Args:
        x: images of the split as its data has them, ``(n, C, H, W)``; None where they could not be read.
        x_hat: their reconstructions; None with the reason in `no_reconstructions`.
        samples: ``(NUM_SAMPLES, C, H, W)``; None with the reason in `no_samples`.
        drawn: what the samples are.
        no_reconstructions: why there are none.
        no_samples: why there are none.
    """

    x: Tensor | None = None
    x_hat: Tensor | None = None
    samples: Tensor | None = None
    drawn: str = ""
    no_reconstructions: str = ""
    no_samples: str = ""


@dataclass(frozen=True)
class Crop:
    """A square of an image: its upper left corner and its side, in pixels."""

    top: int
    left: int
    side: int

    def of(self, x: Tensor) -> Tensor:
        """``(..., H, W) -> (..., side, side)``."""
        return x[..., self.top : self.top + self.side, self.left : self.left + self.side]


@dataclass(frozen=True)
class Group:
    """Runs that were shown the same images.

    Args:
        x: the images, as the first run's data has them.
        members: the runs, by place; those without reconstructions too.
        crops: of each image, where the runs differ most.
        errors: of each member that has reconstructions, ``|x - x_hat|`` averaged over channels in levels of 255,
            ``(n, H, W)``.
        most_error: end of the one scale of all errors.
    """

    x: Tensor
    members: tuple[int, ...]
    crops: tuple[Crop, ...]
    errors: dict[int, Tensor]
    most_error: float


def look(
    entry: Entry, split: Split, num_images: int, seed: int, data_root: str | None, device: torch.device
) -> Pictures:
    """Reconstruct images of a split, and draw samples.

    Raises:
        ValueError: the data is not there, or the model is of no images at all.
    """
    if entry.run is None:
        return Pictures(no_reconstructions="no checkpoint yet", no_samples="no checkpoint yet")
    from callbacks.periodic import untouched
    from lit_vae.models.base import Autoencoder, ImageModel
    from lit_vae.models.code_prior import CodePrior

    model = load_model(entry.run, device)
    if entry.mixture and not isinstance(model, Autoencoder):
        raise ValueError(
            f"lit-vae compare: {entry.given}: a {type(model).__name__} has no latents to fit a mixture to."
            f" Give {entry.given.removesuffix(MIXTURE)}."
        )
    if isinstance(model, CodePrior):
        return _of_a_prior(entry, model, split, num_images, seed, data_root, device)
    if not isinstance(model, ImageModel):
        raise ValueError(
            f"lit-vae compare: {entry.given}: {type(model).__name__} is no model of images. Leave the run out."
        )
    with untouched(model):
        batch = _images_of(entry.run, entry, model, split, num_images, data_root)
        if not isinstance(model, Autoencoder):
            return replace(_draws(model, seed), x=batch.x.cpu(), no_reconstructions=_no_latents(model))
        x_hat = model.reconstruct(batch.x, batch.y).float().cpu()
        return replace(_samples(entry, model, seed), x=batch.x.float().cpu(), x_hat=x_hat)


def group(pictures: Sequence[Pictures]) -> list[Group]:
    """Runs by what they were shown, in the order in which they were given."""
    sets: list[tuple[Tensor, list[int]]] = []
    for i, picture in enumerate(pictures):
        if picture.x is None:
            continue
        for x, members in sets:
            if x.shape == picture.x.shape and float((x - picture.x).abs().max()) <= _SAME:
                members.append(i)
                break
        else:
            sets.append((picture.x, [i]))
    return [_grouped(x, members, pictures) for x, members in sets]


def groups_of(groups: Sequence[Group], num_runs: int) -> list[int | None]:
    """For each run the index of its group."""
    return [next((g for g, of in enumerate(groups) if i in of.members), None) for i in range(num_runs)]


def psnr(x: Tensor, x_hat: Tensor) -> list[float]:
    """Of each image ``(n, C, H, W)`` in [-1, 1], in dB; 99 where there is no error."""
    mse = (x - x_hat).double().square().flatten(1).mean(1)
    return (10.0 * torch.log10(4.0 / mse)).clamp(max=99.0).tolist()


def choose_crop(candidates: Tensor, x: Tensor) -> Crop:
    """Where candidates ``(R, C, H, W)`` for an image ``x (C, H, W)`` differ most from each other.

    One alone is compared with the image. A third of the shorter side, at least four pixels.
    """
    height, width = x.shape[-2:]
    side = min(max(4, round(min(height, width) / 3)), height, width)
    difference = candidates.var(0, correction=0) if len(candidates) > 1 else (candidates[0] - x).square()
    sums = F.avg_pool2d(difference.mean(0, keepdim=True).double(), side, stride=1)[0]
    top, left = divmod(int(sums.argmax()), sums.shape[1])
    return Crop(top, left, side)


def _grouped(x: Tensor, members: list[int], pictures: Sequence[Pictures]) -> Group:
    seen = {i: p for i in members if (p := pictures[i]).x_hat is not None}
    errors = {i: LEVELS * (p.x - p.x_hat).abs().mean(1) for i, p in seen.items()}  # type: ignore[operator]
    crops = []
    if seen:
        candidates = torch.stack([p.x_hat for p in seen.values()])  # type: ignore[misc]
        crops = [choose_crop(candidates[:, i], image) for i, image in enumerate(x)]
    most = max((float(error.max()) for error in errors.values()), default=0.0)
    return Group(x, tuple(members), tuple(crops), errors, most)


def _images_of(run: Run, entry: Entry, model: Any, split: Split, num_images: int, data_root: str | None) -> Any:
    from callbacks.panel import to_model

    root = None if data_root is None or _is_there(entry.records.config) else data_root
    data = load_data(run, model, root, [split])
    return to_model(data.example_batch(num_images, split), model)


def _is_there(config: Mapping[str, Any]) -> bool:
    """Whether a run's data is read from no folder, or from one that is where it was in training."""
    arguments = (config.get("data") or {}).get("init_args")
    return arguments is not None and ("root" not in arguments or Path(arguments["root"]).is_dir())


def _samples(entry: Entry, model: Any, seed: int) -> Pictures:
    """Decoder means at draws from the model's prior, or from the mixture that was fitted to its latents."""
    from callbacks.panel import decode_means, prior_latents
    from lit_vae.tools.priors.fitted import Sampled, load_prior

    assert entry.run is not None  # by `look`
    mixture = None
    if entry.mixture:
        try:
            mixture = load_prior(entry.run, model)
        except ValueError as error:
            raise ValueError(f"lit-vae compare: {entry.given}: {error}") from error
    y = model.labels_for(NUM_SAMPLES, None)
    z = prior_latents(Sampled(model, None, mixture), y, 1.0, seed)  # type: ignore[arg-type]
    drawn = "decoder means at draws from " + ("the fitted mixture" if mixture else "the prior")
    if mixture is None and model.sampling_caveat:
        drawn += f"; {model.sampling_caveat}"
    return Pictures(samples=decode_means(model, z, y).float().cpu(), drawn=drawn)


def _draws(model: Any, seed: int) -> Pictures:
    """Of a model without latents, if it draws at all."""
    if not hasattr(model, "sample"):
        return Pictures(no_samples=f"a {type(model).__name__} draws no images")
    from callbacks import Draws

    images = Draws(NUM_SAMPLES, seed=seed).images(model, model.labels_for(NUM_SAMPLES, None))
    return Pictures(samples=images.float().cpu(), drawn="draws from the model, pixel by pixel")


def _of_a_prior(
    entry: Entry,
    model: Any,
    split: Split,
    num_images: int,
    seed: int,
    data_root: str | None,
    device: torch.device,
) -> Pictures:
    """Reconstructions of stage 1, and images that it decodes from codes drawn from the prior."""
    from callbacks import Draws
    from callbacks.periodic import untouched
    from lit_vae.run.loading import load_stage1

    whose = model.stage1
    if whose is None or entry.stage1 is None or entry.stage1.run is None:
        why = "its stage 1 is not there"
        return Pictures(no_reconstructions=why, no_samples=why)
    panel = Draws(NUM_SAMPLES, seed=seed)
    try:
        panel.decoder = decoder = load_stage1(whose["path"], whose["sha256"], device)
    except ValueError as error:
        return Pictures(no_reconstructions=str(error).rstrip("."), no_samples=str(error).rstrip("."))
    with untouched(model), untouched(decoder):
        x, y = _images_of(entry.stage1.run, entry.stage1, decoder, split, num_images, data_root)
        x_hat = decoder.reconstruct(x, y).float().cpu()  # type: ignore[operator]
        samples = panel.images(model, model.labels_for(NUM_SAMPLES, None)).float().cpu()
    return Pictures(x.float().cpu(), x_hat, samples, "decoder means of stage 1 at codes drawn from the prior")


def _no_latents(model: "Model") -> str:
    return f"a {type(model).__name__} has no reconstructions"
