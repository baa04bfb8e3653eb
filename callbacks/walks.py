"""Pictures of paths in latent space: along single dimensions, and between images."""

import math
from itertools import accumulate, pairwise
from typing import Literal, NamedTuple

import torch
from PIL import Image
from torch import Tensor

from callbacks.drawing import MINUS, SIGMA, sheet
from callbacks.panel import Images, Panel, decode_means, example_images, posterior_of, prior_of, to_model
from lit_vae.images import Batch
from lit_vae.models.abilities import HasLevels
from lit_vae.models.base import Autoencoder
from lit_vae.ranges import NotNegativeInt, PositiveFloat, PositiveInt, SmallCount, Steps, checked

Path = Literal["linear", "slerp"]

_STATISTICS_IMAGES = 512
"""Number of validation images for the ranking of dimensions."""


class Scale(NamedTuple):
    """``mean``, ``std`` and ``use`` of the latent dimensions, each ``(d,)``, and the unit of ``use``."""

    mean: Tensor
    std: Tensor
    use: Tensor
    unit: str


class Traversals(Panel):
    """Each row changes one latent dimension from -2 to 2 standard deviations of its prior: panel ``traversals``.

    Rows are ranked by the mean KL of their dimension to the prior, which the label shows; without a Gaussian prior and
    posterior by the standard deviation over embedded images. Without a Gaussian prior, as in an AE, steps are in these
    standard deviations. A dimension of a latent map is one value at one position.

    Args:
        dims: number of rows.
        steps: images per row.
        num_images: validation images to start from, in blocks side by side; 0: from the mean of the prior.
        every_n_epochs: see `Periodic`.
        reach: standard deviations on either side.
        level: level of a hierarchy whose dimensions are shown, 0 for the top; null: all levels.
    """

    name = "traversals"

    @checked
    def __init__(
        self,
        dims: PositiveInt = 10,
        steps: Steps = 9,
        num_images: NotNegativeInt = 0,
        every_n_epochs: PositiveInt = 1,
        reach: PositiveFloat = 2.0,
        level: NotNegativeInt | None = None,
    ) -> None:
        super().__init__(every_n_epochs)
        self.dims, self.steps, self.num_examples, self.reach, self.level = dims, steps, num_images, reach, level
        start = f"{num_images} validation images" if num_images else "the mean of the prior"
        of_level = "" if level is None else f" of level {level}"
        self.caption = (
            f"Single latent dimensions{of_level} from -{reach:g} to {reach:g} standard deviations, from {start}"
        )

    def check_model(self, model: Autoencoder) -> None:
        """Refuses a level that the model does not have."""
        if problem := level_problem(self.level, model):
            raise self._refuse(problem, "Set init_args.level of callbacks.Traversals.")

    def draw(self, model: Autoencoder, images: Images) -> Image.Image:
        """Rows of dimensions, blocks of starting points."""
        scale = latent_scale(model, images)
        offsets = torch.linspace(-self.reach, self.reach, self.steps, device=model.device, dtype=scale.mean.dtype)
        z, y = self._starts(model, images, scale)
        shown = range(len(scale.use)) if self.level is None else _dims_of_levels(model)[self.level]
        order = [dim for dim in scale.use.argsort(descending=True, stable=True).tolist() if dim in shown][: self.dims]
        rows = []
        for dim in order:
            walk = z.flatten(1).unsqueeze(1).repeat(1, self.steps, 1)  # (starts, steps, d)
            walk[..., dim] = scale.mean[dim] + offsets * scale.std[dim]
            latents = walk.flatten(0, 1).unflatten(1, model.latent_shape)
            rows.append(decode_means(model, latents, y.repeat_interleave(self.steps)))
        labels = [f"z{dim - shown.start + 1}  {scale.use[dim].item():.2f} {scale.unit}" for dim in order]
        blocks = range(self.steps - 1, self.steps * len(z), self.steps)
        above = [_signed(offset) for offset in offsets.tolist()] * len(z)
        return sheet(torch.stack(rows), labels, above, wide_after_columns=blocks)

    def _starts(self, model: Autoencoder, images: Images, scale: Scale) -> tuple[Tensor, Tensor]:
        """Latents ``(starts, *latent)`` and labels ``(starts,)``."""
        if self.num_examples:
            x, y = to_model(images.example_batch(self.num_examples), model)
            return model.embed(x, y), y
        return scale.mean.unflatten(0, model.latent_shape).unsqueeze(0), model.labels_for(1, None)


def level_problem(level: int | None, model: Autoencoder) -> str:
    """What is wrong with the number of a level; empty if the model has it."""
    if level is None or level < (number := len(_dims_of_levels(model))):
        return ""
    return f"level (={level}) must be less than {number}, the number of levels of the model."


def _dims_of_levels(model: Autoencoder) -> list[range]:
    """The dimensions of each level in the flat latent."""
    sizes = model.level_sizes if isinstance(model, HasLevels) else (math.prod(model.latent_shape),)
    ends = list(accumulate(sizes, initial=0))
    return [range(start, end) for start, end in pairwise(ends)]


class Interpolations(Panel):
    """Paths between two validation images through latent space: panel ``interpolations``.

    Originals are at both ends, next to their reconstructions. A class-conditional model interpolates between images of
    the same class, each class in turn, because labels cannot be interpolated.

    Args:
        pairs: number of rows.
        steps: images per row, including both reconstructions.
        path: ``linear``, or ``slerp`` along a great circle (Shoemake 1985), which keeps the norm of draws from a
            high-dimensional Gaussian.
        every_n_epochs: see `Periodic`.
    """

    name = "interpolations"

    @checked
    def __init__(
        self, pairs: SmallCount = 6, steps: Steps = 9, path: Path = "linear", every_n_epochs: PositiveInt = 1
    ) -> None:
        super().__init__(every_n_epochs)
        self.pairs, self.steps, self.path = pairs, steps, path
        self.num_examples = 2 * pairs
        self.caption = f"From one validation image to another through latent space ({path}); originals at both ends"

    def draw(self, model: Autoencoder, images: Images) -> Image.Image:
        """Original, steps, original."""
        a, b = self._pairs(model, images)
        latents = interpolate(model.embed(*a), model.embed(*b), self.steps, self.path)  # (steps, pairs, *latent)
        means = decode_means(model, latents.flatten(0, 1), a.y.repeat(self.steps))
        rows = torch.cat([a.x.unsqueeze(0), means.unflatten(0, (self.steps, -1)).to(a.x), b.x.unsqueeze(0)])
        return sheet(rows.transpose(0, 1), wide_after_columns=(0, self.steps))

    def _pairs(self, model: Autoencoder, images: Images) -> tuple[Batch, Batch]:
        """Both ends of each row."""
        x, y = to_model(images.example_batch(self.num_examples), model)
        if model.num_classes > 0:
            batches = list(example_images(images, max(_STATISTICS_IMAGES, self.num_examples), model))
            many_x, many_y = torch.cat([batch.x for batch in batches]), torch.cat([batch.y for batch in batches])
            order = _pairs_of_a_class(many_y, model.num_classes)[: 2 * self.pairs]
            if len(order):
                x, y = many_x[order], many_y[order]
        if len(x) == 1:  # interpolate to itself
            x, y = x.repeat(2, 1, 1, 1), y.repeat(2)
        even = len(x) // 2 * 2
        return Batch(x[:even:2], y[:even:2]), Batch(x[1::2], y[1::2])


def _pairs_of_a_class(y: Tensor, num_classes: int) -> Tensor:
    """Indices in pairs: the first two images of each class, then the next two of each class, and so on."""
    members = [(y == label).nonzero().flatten() for label in range(num_classes)]
    pairs = [indices[: len(indices) // 2 * 2].unflatten(0, (-1, 2)) for indices in members if len(indices) > 1]
    rounds = max((len(of_class) for of_class in pairs), default=0)
    ordered = [of_class[i] for i in range(rounds) for of_class in pairs if i < len(of_class)]
    return torch.cat(ordered) if ordered else y[:0]


def interpolate(a: Tensor, b: Tensor, steps: int, path: Path = "linear") -> Tensor:
    """Points from ``a (n, *latent)`` to ``b``, both included: ``(steps, n, *latent)``.

    ``slerp``: along the great circle between the directions (Shoemake, "Animating rotation with quaternion curves",
    1985), or linear if they are parallel. The norm changes from that of ``a`` to that of ``b``.
    """
    t = torch.linspace(0.0, 1.0, steps, device=a.device, dtype=a.dtype).reshape(-1, *[1] * a.ndim)
    if path == "linear":
        return a + t * (b - a)
    norms = a.flatten(1).norm(dim=1) * b.flatten(1).norm(dim=1)
    cosine = (a * b).flatten(1).sum(1) / norms
    angle = torch.arccos(cosine.clamp(-1.0, 1.0)).reshape(-1, *[1] * (a.ndim - 1))
    sine = angle.sin()
    great_circle = (torch.sin((1.0 - t) * angle) * a + torch.sin(t * angle) * b) / sine
    return torch.where(sine > math.sqrt(torch.finfo(a.dtype).eps), great_circle, a + t * (b - a))


def latent_scale(model: Autoencoder, images: Images) -> Scale:
    """Mean and deviation of a Gaussian prior, else of embedded images; use is the KL, else the embedded deviation."""
    batches = list(example_images(images, _STATISTICS_IMAGES, model))
    pairs = [(posterior_of(model, batch), prior_of(model, batch.y)) for batch in batches]
    kls = [q.kl_per_dim(p).flatten(1) for q, p in pairs if q is not None and p is not None]
    z = torch.cat([model.embed(x, y).flatten(1) for x, y in batches])
    mean, std = z.mean(0), z.std(0) if len(z) > 1 else torch.zeros_like(z[0])
    use, unit = (torch.cat(kls).mean(0), "nats") if kls else (std, "sd")
    if (prior := prior_of(model, model.labels_for(1, None))) is not None:
        mean, std = prior.mean.flatten(), prior.std.expand_as(prior.mean).flatten()
    return Scale(mean, std, use, unit)


def _signed(offset: float) -> str:
    if abs(offset) < 1e-6:
        return "0"
    return f"{MINUS if offset < 0 else '+'}{abs(offset):.3g}{SIGMA}"
