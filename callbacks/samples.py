"""Pictures of samples of autoencoders."""

from typing import Literal

import torch
from PIL import Image

from callbacks.drawing import arrange, sheet
from callbacks.panel import Images, Panel, decode_draws, decode_means, prior_latents
from lit_vae.models.abilities import HasLevels
from lit_vae.models.base import Autoencoder
from lit_vae.ranges import NotNegativeFloat, PositiveInt, Seed, SmallCount, checked

Pixels = Literal["mean", "sample", "both"]
Temperature = NotNegativeFloat | list[NotNegativeFloat]
"""Factor on the prior's standard deviation; a list has one for each level of a hierarchy, from the top."""


class Samples(Panel):
    """Images at draws from the prior, with the same noise throughout training: panel ``samples``.

    Papers usually show decoder *means* ``E[x | z]``, which are blurred for a Gaussian decoder. True samples of the
    model also draw the pixels from ``p(x | z)`` and are noisy. ``pixels: both`` shows rows of means above draws at the
    same latents. A class-conditional model shows its classes in turn; see `ClassSheet`.

    Args:
        num_images: images on the sheet.
        every_n_epochs: see `Periodic`.
        temperature: see `Temperature`.
        pixels: the decoder's ``mean`` at a latent, a ``sample`` of ``p(x | z)``, or both.
        seed: seed of the noise.
    """

    needs_images = False

    @checked
    def __init__(
        self,
        num_images: SmallCount = 64,
        every_n_epochs: PositiveInt = 1,
        temperature: Temperature = 1.0,
        pixels: Pixels = "mean",
        seed: Seed = 0,
    ) -> None:
        super().__init__(every_n_epochs)
        self.num_images, self.temperature, self.pixels, self.seed = num_images, temperature, pixels, seed
        self.name = "samples" if pixels == "mean" else f"samples_{pixels}"
        shown = {
            "mean": "Decoder means at draws from the prior",
            "sample": "Draws from p(x|z) at draws of z from the prior",
            "both": "At draws from the prior: rows of decoder means above rows of draws from p(x|z)",
        }
        self.caption = f"{shown[pixels]}, {_in_words(temperature)}"

    def check_model(self, model: Autoencoder) -> None:
        """Refuses temperatures of other levels; the caption says if latents of images do not follow the prior."""
        refuse_temperature(self, model)
        add_caveat(self, model)

    def draw(self, model: Autoencoder, images: Images | None = None) -> Image.Image:
        """A nearly square sheet; with ``both``, pairs of rows."""
        y = model.labels_for(self.num_images, None)
        z = prior_latents(model, y, self.temperature, self.seed)
        if self.pixels == "mean":
            return sheet(arrange(decode_means(model, z, y)))
        draws = arrange(decode_draws(model, z, y, self.seed))
        if self.pixels == "sample":
            return sheet(draws)
        rows = torch.stack([arrange(decode_means(model, z, y)), draws], 1).flatten(0, 1)
        return sheet(rows, wide_after_rows=range(1, len(rows), 2))


class ClassSheet(Panel):
    """Samples of a class-conditional model, one row per class and one noise per column: panel ``class_sheet``.

    If ``z`` encodes the style, the images of a column share their style (Kingma et al., "Semi-supervised Learning with
    Deep Generative Models", 2014, fig. 1). The noise is standard normal; a class-conditional prior shifts and scales
    it.

    Args:
        columns: number of draws of the noise.
        every_n_epochs: see `Periodic`.
        temperature: see `Temperature`.
        pixels: the decoder's ``mean`` at a latent, or a ``sample`` of ``p(x | z, y)``.
        seed: seed of the noise.
    """

    name = "class_sheet"
    needs_images = False

    @checked
    def __init__(
        self,
        columns: SmallCount = 10,
        every_n_epochs: PositiveInt = 1,
        temperature: Temperature = 1.0,
        pixels: Literal["mean", "sample"] = "mean",
        seed: Seed = 0,
    ) -> None:
        super().__init__(every_n_epochs)
        self.columns, self.temperature, self.pixels, self.seed = columns, temperature, pixels, seed
        what = "Decoder means" if pixels == "mean" else "Draws from p(x|z,y)"
        self.caption = f"{what}: one row per class, the same noise in each column, {_in_words(temperature)}"

    def check_model(self, model: Autoencoder) -> None:
        """Only class-conditional models; otherwise as `Samples`."""
        refuse_temperature(self, model)
        add_caveat(self, model)
        if model.num_classes < 1:
            raise self._refuse(
                f"it shows one row per class, but {type(model).__name__} has no labels (num_classes = 0).",
                "Remove it from trainer.callbacks, or train a CVAE.",
            )

    def draw(self, model: Autoencoder, images: Images | None = None) -> Image.Image:
        """``num_classes`` rows with the same seed."""
        rows = []
        for label in range(model.num_classes):
            y = torch.full((self.columns,), label, device=model.device)
            z = prior_latents(model, y, self.temperature, self.seed)
            rows.append(decode_means(model, z, y) if self.pixels == "mean" else decode_draws(model, z, y, self.seed))
        return sheet(torch.stack(rows), row_labels=[model.class_name(label) for label in range(model.num_classes)])


def temperature_problem(temperature: Temperature, model: object) -> str:
    """What is wrong with temperatures for the levels of a model; empty if nothing is."""
    num_levels = len(model.level_sizes) if isinstance(model, HasLevels) else 0
    if not isinstance(temperature, list) or len(temperature) == num_levels > 0:
        return ""
    or_list = f", or one for each of the model's {num_levels} levels, from the top" if num_levels else ""
    return f"temperature (={temperature}) must be one number{or_list}."


def _in_words(temperature: Temperature) -> str:
    temperatures = temperature if isinstance(temperature, list) else [temperature]
    return f"temperature {', '.join(f'{t:g}' for t in temperatures)}"


def refuse_temperature(panel: "Samples | ClassSheet", model: Autoencoder) -> None:
    """Raise ValueError for temperatures that do not fit the model."""
    if problem := temperature_problem(panel.temperature, model):
        name = type(panel).__name__
        raise ValueError(f"{name}: {problem} Set init_args.temperature of callbacks.{name}.")


def add_caveat(panel: Panel, model: Autoencoder) -> None:
    """Add the model's caveat about samples to a caption, once."""
    if model.sampling_caveat and model.sampling_caveat not in panel.caption:
        panel.caption += f"; {type(model).__name__}: {model.sampling_caveat}"
