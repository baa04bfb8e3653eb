"""The way of a diffusion model from noise to image."""

import torch
from lightning.pytorch import LightningModule, Trainer
from PIL import Image
from torch import Generator, Tensor

from callbacks.drawing import MINUS, sheet
from callbacks.panel import Images, Panel
from callbacks.periodic import data_spec
from callbacks.stage1 import decoder_of
from lit_vae.models.denoising import DenoisingModel
from lit_vae.models.module import Model
from lit_vae.ranges import PositiveInt, Seed, SmallCount, checked

LAM = "\N{GREEK SMALL LETTER LAMDA}"


class Denoising(Panel):
    """Images on their way from noise, with the same noise throughout training: panel ``denoising``.

    A row is an image, drawn by the model's ``sampling``. It shows the image that the network expects, guided or not,
    at nodes of the grid: first one for all, the mean of the data or of a class; last the sample itself. Of a model of
    latents it shows what stage 1 makes of the latents that are expected.

    Args:
        num_images: number of rows; classes in turn.
        columns: number of nodes, evenly among those of the grid.
        every_n_epochs: see `Periodic`.
        seed: seed of the noise.
    """

    name = "denoising"
    accepts = DenoisingModel
    needs_images = False
    decoder: Model | None = None

    @checked
    def __init__(
        self, num_images: SmallCount = 6, columns: SmallCount = 8, every_n_epochs: PositiveInt = 1, seed: Seed = 0
    ) -> None:
        super().__init__(every_n_epochs)
        self.num_images, self.columns, self.seed = num_images, columns, seed

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Load stage 1 of latents."""
        super().setup(trainer, pl_module, stage)
        if stage in ("fit", "validate"):
            self.decoder = decoder_of(data_spec(trainer))

    def check_model(self, model: DenoisingModel) -> None:
        """Say how it draws."""
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
        if self.decoder is not None:
            self.decoder.to(model.device)
        return torch.stack(lams), torch.stack([model.as_images(x_hat, y, self.decoder) for x_hat in expected])
