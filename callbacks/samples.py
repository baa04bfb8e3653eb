"""Pictures of what a model generates."""

from typing import Literal

import torch
from PIL import Image

from callbacks.drawing import arrange, sheet
from callbacks.panel import Images, Panel, decode_draws, decode_means, prior_latents
from lit_vae.models.base import Autoencoder
from lit_vae.ranges import NotNegativeFloat, PositiveInt, Seed, SmallCount, checked

Pixels = Literal["mean", "sample", "both"]


class Samples(Panel):
    """Images at draws from the prior, the same noise all through training: panel ``samples``.

    What is usually shown, and compared, are decoder *means* ``E[x | z]``; those of a Gaussian decoder are blurred. True
    samples of the model also draw the pixels from ``p(x | z)``, and are noisy. ``pixels: both`` shows each row of means
    above the draws at the same latents. A class-conditional model draws its classes in turn; see `ClassSheet`.

    Args:
        num_images: images on the sheet.
        every_n_epochs: see `Periodic`.
        temperature: factor of the prior's standard deviation.
        pixels: what is drawn at a latent: the decoder's ``mean``, a ``sample`` of ``p(x | z)``, or both.
        seed: of the noise.
    """

    needs_images = False

    @checked
    def __init__(
        self,
        num_images: SmallCount = 64,
        every_n_epochs: PositiveInt = 1,
        temperature: NotNegativeFloat = 1.0,
        pixels: Pixels = "mean",
        seed: Seed = 0,
    ) -> None:
        super().__init__(every_n_epochs)
        self.num_images, self.temperature, self.pixels, self.seed = num_images, temperature, pixels, seed
        self.name = "samples" if pixels == "mean" else f"samples_{pixels}"
        shown = {
            "mean": "Decoder means at draws from the prior",
            "sample": "Draws from p(x|z) at draws of z from the prior",
            "both": "At draws from the prior: a row of decoder means above one of draws from p(x|z)",
        }
        self.caption = f"{shown[pixels]}, temperature {temperature:g}"

    def check_model(self, model: Autoencoder) -> None:
        """Any will do; where its latents do not follow what is drawn from, the caption says so."""
        add_caveat(self, model)

    def draw(self, model: Autoencoder, images: Images | None = None) -> Image.Image:
        """A nearly square sheet; with both, pairs of rows."""
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
    """Samples of a class-conditional model: one row a class, the same noise down each column: panel ``class_sheet``.

    So a column shows what the label leaves to ``z``: if it is style, its images agree in it (Kingma et al.,
    "Semi-supervised Learning with Deep Generative Models", 2014, fig. 1). The noise is that of a standard normal; a
    prior that differs between classes shifts and scales it.

    Args:
        columns: draws of the noise.
        every_n_epochs: see `Periodic`.
        temperature: factor of the prior's standard deviation.
        pixels: what is drawn at a latent: the decoder's ``mean``, or a ``sample`` of ``p(x | z, y)``.
        seed: of the noise.
    """

    name = "class_sheet"
    needs_images = False

    @checked
    def __init__(
        self,
        columns: SmallCount = 10,
        every_n_epochs: PositiveInt = 1,
        temperature: NotNegativeFloat = 1.0,
        pixels: Literal["mean", "sample"] = "mean",
        seed: Seed = 0,
    ) -> None:
        super().__init__(every_n_epochs)
        self.columns, self.temperature, self.pixels, self.seed = columns, temperature, pixels, seed
        what = "Decoder means" if pixels == "mean" else "Draws from p(x|z,y)"
        self.caption = f"{what}: one row a class, the same noise down each column, temperature {temperature:g}"

    def check_model(self, model: Autoencoder) -> None:
        """Only a class-conditional model has classes to show; the caption as in `Samples`."""
        add_caveat(self, model)
        if model.num_classes < 1:
            raise self._refuse(
                f"it shows one row a class, and {type(model).__name__} is not told labels (num_classes = 0).",
                "Remove it from trainer.callbacks, or train a CVAE.",
            )

    def draw(self, model: Autoencoder, images: Images | None = None) -> Image.Image:
        """``num_classes`` rows; the same seed in each makes the columns."""
        rows = []
        for label in range(model.num_classes):
            y = torch.full((self.columns,), label, device=model.device)
            z = prior_latents(model, y, self.temperature, self.seed)
            rows.append(decode_means(model, z, y) if self.pixels == "mean" else decode_draws(model, z, y, self.seed))
        return sheet(torch.stack(rows), row_labels=[model.class_name(label) for label in range(model.num_classes)])


def add_caveat(panel: Panel, model: Autoencoder) -> None:
    """Say in a caption, once, where latents do not follow what is drawn from."""
    if model.sampling_caveat and model.sampling_caveat not in panel.caption:
        panel.caption += f"; {type(model).__name__}: {model.sampling_caveat}"
