"""The way of a diffusion model from noise to image."""

import torch
from PIL import Image
from torch import Generator, Tensor

from callbacks.drawing import MINUS, sheet
from callbacks.panel import Images, Panel
from lit_vae.models.base import ImageModel
from lit_vae.models.denoising import DenoisingModel
from lit_vae.ranges import PositiveInt, Seed, SmallCount, checked

LAM = "\N{GREEK SMALL LETTER LAMDA}"


class DiffusionPanel(Panel):
    """A picture of a diffusion model of pixels."""

    accepts = DenoisingModel

    def check_model(self, model: DenoisingModel) -> None:
        """Not of latents: there is nothing to see of them."""
        if not isinstance(model, ImageModel):
            raise self._refuse(f"{type(model).__name__} is no model of pixels.", "Remove it from trainer.callbacks.")


class Denoising(DiffusionPanel):
    """Images on their way from noise, with the same noise throughout training: panel ``denoising``.

    A row is an image, drawn by the model's ``sampling``. It shows the image that the network expects, guided or not,
    at nodes of the grid: first one for all, the mean of the data or of a class; last the sample itself.

    Args:
        num_images: number of rows; classes in turn.
        columns: number of nodes, evenly among those of the grid.
        every_n_epochs: see `Periodic`.
        seed: seed of the noise.
    """

    name = "denoising"
    needs_images = False

    @checked
    def __init__(
        self, num_images: SmallCount = 6, columns: SmallCount = 8, every_n_epochs: PositiveInt = 1, seed: Seed = 0
    ) -> None:
        super().__init__(every_n_epochs)
        self.num_images, self.columns, self.seed = num_images, columns, seed

    def check_model(self, model: DenoisingModel) -> None:
        """Also says how it draws."""
        super().check_model(model)
        self.caption = (
            f"The image that the network expects, from noise to the sample, at log-SNRs {LAM}; one row per image,"
            f" {model.sampling}"
        )

    def draw(self, model: DenoisingModel, images: Images | None = None) -> Image.Image:
        """One row for each image."""
        y = model.labels_for(self.num_images, None)
        lams, expected = self.expected(model, y)
        chosen = torch.linspace(0, len(lams) - 1, min(self.columns, len(lams))).round().long()
        return sheet(
            expected[chosen.to(expected.device)].transpose(0, 1),
            row_labels=[model.class_name(int(label)) for label in y] if model.num_classes else (),
            column_labels=[f"{LAM} {lam:.1f}".replace("-", MINUS) for lam in lams[chosen].tolist()],
        )

    def expected(self, model: DenoisingModel, y: Tensor) -> tuple[Tensor, Tensor]:
        """All nodes ``(S,)`` and the images expected there, ``(S, n, C, H, W)``, of one draw for each label."""
        told: list[tuple[Tensor, Tensor]] = []
        model.sampling.watch = lambda node, lams, x_hat: told.append((lams[node], x_hat))
        try:
            model.draw(y, generator=Generator().manual_seed(self.seed))
        finally:
            model.sampling.watch = None
        lams, expected = zip(*told, strict=True)
        return torch.stack(lams), torch.stack(expected)
