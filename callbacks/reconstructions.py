"""Pictures of reconstructions."""

from itertools import chain

import torch
from PIL import Image

from callbacks.drawing import arrange, sheet
from callbacks.panel import Images, Panel, to_model
from lit_vae.models.base import Autoencoder
from lit_vae.ranges import PositiveInt, SmallCount, checked
from lit_vae.run.panels import PARTS


class Reconstructions(Panel):
    """Originals above their reconstructions, the same images throughout training: panel ``reconstructions``.

    A reconstruction is the decoder's mean at the image's latent (or at the posterior mean).

    Args:
        num_images: number of validation images.
        every_n_epochs: see `Periodic`.
        columns: images per row.
    """

    name = "reconstructions"
    caption = "Validation images (upper row of each pair) and their reconstructions (lower row)"

    @checked
    def __init__(self, num_images: SmallCount = 16, every_n_epochs: PositiveInt = 1, columns: SmallCount = 8) -> None:
        super().__init__(every_n_epochs)
        self.num_examples, self.columns = num_images, columns

    def draw(self, model: Autoencoder, images: Images) -> Image.Image:
        """Pairs of rows. W&B gets each pair as a picture, so that runs are compared image by image."""
        x, y = to_model(images.example_batch(self.num_examples), model)
        columns = min(self.columns, len(x))
        pairs = [arrange(x, columns), arrange(model.reconstruct(x, y).to(x), columns)]
        rows = torch.stack(pairs, 1).flatten(0, 1)
        picture = sheet(rows, wide_after_rows=range(1, len(rows), 2))
        cells = picture.info["cells"]
        couples = zip(chain(*cells[::2]), chain(*cells[1::2]), strict=True)
        picture.info[PARTS] = [(*upper[:2], *lower[2:]) for upper, lower in couples][: len(x)]
        return picture
