"""What each level of a hierarchy adds to an image."""

import torch
from PIL import Image

from callbacks.drawing import sheet
from callbacks.panel import Images, Panel, decode_means, to_model
from lit_vae.models.abilities import HasLevels
from lit_vae.ranges import PositiveInt, SmallCount, checked


class Levels(Panel):
    """Reconstructions from the upper levels alone: panel ``levels``.

    The first row has validation images. Each further row takes one more level from the image, or several in a deep
    hierarchy; the levels below are at the means of their priors. The last row is the reconstruction.

    Args:
        num_images: number of validation images.
        rows: largest number of rows of reconstructions.
        every_n_epochs: see `Periodic`.
    """

    name = "levels"
    accepts = HasLevels
    caption = "Validation images, and reconstructions from their upper levels, the others at the means of their priors"

    @checked
    def __init__(self, num_images: SmallCount = 12, rows: SmallCount = 8, every_n_epochs: PositiveInt = 1) -> None:
        super().__init__(every_n_epochs)
        self.num_examples, self.rows = num_images, rows

    def draw(self, model: HasLevels, images: Images) -> Image.Image:
        """One row for the images, then from few levels to all."""
        x, y = to_model(images.example_batch(self.num_examples), model)
        z = model.embed(x, y)
        total = len(model.level_sizes)
        kept = [-(-total * row // min(self.rows, total)) for row in range(1, min(self.rows, total) + 1)]
        rows = [x, *(decode_means(model, upper_levels(z, model.level_sizes, number), y).to(x) for number in kept)]
        names = ["image", *("level 0" if number == 1 else f"levels 0 to {number - 1}" for number in kept)]
        return sheet(torch.stack(rows), names, wide_after_rows=(0,))


def upper_levels(z: torch.Tensor, sizes: tuple[int, ...], number: int) -> torch.Tensor:
    """``z (B, d)`` with all but the first levels at the mean of their prior, 0."""
    upper = sum(sizes[:number])
    return torch.cat([z[:, :upper], torch.zeros_like(z[:, upper:])], 1)
