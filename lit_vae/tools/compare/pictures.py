"""What the models make: reconstructions of the same images, and samples. Also who was shown the same images."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch
import torch.nn.functional as F
from torch import Generator, Tensor

from lit_vae.tools.compare.gather import Entry, split_variant
from lit_vae.tools.records import NOUNS, PRIOR_KINDS
from lit_vae.tools.runs import load_data, load_model

if TYPE_CHECKING:
    from lit_vae.tools.compare.verb import Request

NUM_SAMPLES = 16
LEVELS = 127.5
"""Levels (of 255) in one unit of images in [-1, 1]."""

_SAME = 2.0 / LEVELS  # dequantization moves a value by up to two levels, and the image is still the same


@dataclass(frozen=True)
class Pictures:
    """The images and samples of a run, on the CPU.

    Args:
        x: images of the split as the run's data has them, ``(n, C, H, W)``; None if they could not be read.
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


# ---- what the models make --------------------------------------------------------------------------------------------


def make_pictures(entry: Entry, request: "Request", device: torch.device) -> Pictures:
    """Load the model of a run, reconstruct images with it and draw samples.

    Raises:
        ValueError: the data is missing, or the model makes no images.
    """
    if entry.run is None:
        return _nothing("no checkpoint yet")
    from callbacks.periodic import untouched
    from lit_vae.models.abilities import SecondStage
    from lit_vae.models.base import Autoencoder

    model = load_model(entry.run, device)
    name = type(model).__name__
    if entry.variant and not isinstance(model, Autoencoder):
        lacks = _LACKS[entry.variant]
        raise ValueError(f"lit-vae compare: {entry.given}: a {name} has {lacks}. Give {split_variant(entry.given)[0]}.")
    if isinstance(model, SecondStage):
        return _with_stage1(entry, model, request, device)
    if not hasattr(model, "image_shape"):
        raise ValueError(f"lit-vae compare: {entry.given}: {name} is no model of images. Leave the run out.")
    with untouched(model):
        x, y = _images(entry, model, request)
        if not isinstance(model, Autoencoder):
            drawn = _draws(model, request.seed)
            return replace(drawn, x=x.cpu(), no_reconstructions=f"a {name} has no reconstructions")
        if entry.variant == "drawn":
            x_hat = model.reconstruction(x, y).sample(Generator().manual_seed(request.seed)).clamp(-1.0, 1.0)
        else:
            x_hat = model.reconstruct(x, y)
        return replace(_samples(entry, model, request.seed), x=x.float().cpu(), x_hat=x_hat.float().cpu())


_LACKS = {
    **{kind: f"no latents to fit a {noun} to" for kind, noun in NOUNS.items()},
    "drawn": "no p(x|z) to draw from",
}


def _nothing(why: str) -> Pictures:
    return Pictures(no_reconstructions=why, no_samples=why)


def _images(entry: Entry, model: Any, request: "Request") -> Any:
    """A batch of the data that a run was trained on."""
    from callbacks.panel import to_model

    assert entry.run is not None  # only models of checkpoints are asked
    root = None if request.data_root is None or _has_data(entry.records.config) else request.data_root
    data = load_data(entry.run, model, root, [request.split])
    return to_model(data.example_batch(request.num_images, request.split), model)


def _has_data(config: Mapping[str, Any]) -> bool:
    """Whether a run's data needs no folder, or its folder is where it was in training."""
    arguments = (config.get("data") or {}).get("init_args")
    return arguments is not None and ("root" not in arguments or Path(arguments["root"]).is_dir())


def _samples(entry: Entry, model: Any, seed: int) -> Pictures:
    """Decoder means at draws from the model's prior, or from the one that was fitted to its latents."""
    from callbacks.panel import decode_draws, decode_means, prior_latents
    from lit_vae.tools.priors.fitted import Sampled, load_prior

    assert entry.run is not None  # only models of checkpoints are asked
    fitted = None
    if entry.variant in PRIOR_KINDS:
        try:
            fitted = load_prior(entry.run, model, entry.variant)
        except ValueError as error:
            raise ValueError(f"lit-vae compare: {entry.given}: {error}") from error
    y = model.labels_for(NUM_SAMPLES, None)
    z = prior_latents(Sampled(model, None, fitted), y, 1.0, seed)  # type: ignore[arg-type]
    images, of = decode_means(model, z, y), "decoder means"
    if entry.variant == "drawn":
        images, of = decode_draws(model, z, y, seed), "draws from p(x|z)"
    drawn = f"{of} at draws from {f'the fitted {NOUNS[entry.variant]}' if fitted else 'the prior'}"
    if fitted is None and model.sampling_caveat:
        drawn += f"; {model.sampling_caveat}"
    return Pictures(samples=images.float().cpu(), drawn=drawn)


def _draws(model: Any, seed: int) -> Pictures:
    """Samples of a model without latents, if it draws any."""
    from callbacks import Draws
    from lit_vae.models.base import ImageModel

    if not isinstance(model, ImageModel):
        return Pictures(no_samples=f"a {type(model).__name__} draws no images")

    images = Draws(NUM_SAMPLES, seed=seed).images(model, model.labels_for(NUM_SAMPLES, None))
    return Pictures(samples=images.float().cpu(), drawn="draws from the model, pixel by pixel")


def _with_stage1(entry: Entry, model: Any, request: "Request", device: torch.device) -> Pictures:
    """Of a prior of codes: reconstructions of its stage 1, and images that stage 1 decodes from drawn codes."""
    from callbacks import Draws
    from callbacks.periodic import untouched
    from lit_vae.run.loading import load_stage1

    whose = model.stage1
    if whose is None or entry.stage1 is None or entry.stage1.run is None:
        return _nothing("its stage 1 is not there")
    panel = Draws(NUM_SAMPLES, seed=request.seed)
    try:
        panel.decoder = decoder = load_stage1(whose["path"], whose["sha256"], device)
    except ValueError as error:
        return _nothing(str(error).rstrip("."))
    with untouched(model), untouched(decoder):
        x, y = _images(entry.stage1, decoder, request)
        x_hat = decoder.reconstruct(x, y).float().cpu()  # type: ignore[operator]
        samples = panel.images(model, model.labels_for(NUM_SAMPLES, None)).float().cpu()
    drawn = f"decoder means of stage 1 at {model.encoded} drawn from the prior"
    return Pictures(x.float().cpu(), x_hat, samples, drawn)


# ---- runs that were shown the same images ----------------------------------------------------------------------------


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
        members: indices of the runs, including those without reconstructions.
        crops: for each image, where the reconstructions differ most.
        errors: of each member that has reconstructions, ``|x - x_hat|`` averaged over channels in levels of 255,
            ``(n, H, W)``.
        most_error: the largest of all errors, the end of their common scale.
    """

    x: Tensor
    members: tuple[int, ...]
    crops: tuple[Crop, ...]
    errors: dict[int, Tensor]
    most_error: float


def group_by_images(pictures: Sequence[Pictures]) -> list[Group]:
    """Groups of runs by the images that they were shown, in the order of the runs."""
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
    return [_group(x, members, pictures) for x, members in sets]


def _group(x: Tensor, members: list[int], pictures: Sequence[Pictures]) -> Group:
    seen = {i: p for i in members if (p := pictures[i]).x_hat is not None}
    errors = {i: LEVELS * (p.x - p.x_hat).abs().mean(1) for i, p in seen.items()}  # type: ignore[operator]
    crops = []
    if seen:
        candidates = torch.stack([p.x_hat for p in seen.values()])  # type: ignore[misc]
        crops = [choose_crop(candidates[:, i], image) for i, image in enumerate(x)]
    most = max((float(error.max()) for error in errors.values()), default=0.0)
    return Group(x, tuple(members), tuple(crops), errors, most)


def groups_of(groups: Sequence[Group], num_runs: int) -> list[int | None]:
    """For each run the index of its group, None if it has none."""
    return [next((g for g, of in enumerate(groups) if i in of.members), None) for i in range(num_runs)]


def choose_crop(candidates: Tensor, x: Tensor) -> Crop:
    """Where candidates ``(R, C, H, W)`` for an image ``x (C, H, W)`` differ most from each other.

    A single candidate is compared with the image. The side is a third of the image's shorter side, at least 4 pixels.
    """
    height, width = x.shape[-2:]
    side = min(max(4, round(min(height, width) / 3)), height, width)
    difference = candidates.var(0, correction=0) if len(candidates) > 1 else (candidates[0] - x).square()
    sums = F.avg_pool2d(difference.mean(0, keepdim=True).double(), side, stride=1)[0]
    top, left = divmod(int(sums.argmax()), sums.shape[1])
    return Crop(top, left, side)


def psnr(x: Tensor, x_hat: Tensor) -> list[float]:
    """Peak signal-to-noise ratio of each image ``(n, C, H, W)`` in [-1, 1], in dB; 99 if there is no error."""
    mse = (x - x_hat).double().square().flatten(1).mean(1)
    return (10.0 * torch.log10(4.0 / mse)).clamp(max=99.0).tolist()
