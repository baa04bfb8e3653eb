"""Pictures of samples of models without latents: autoregressive and diffusion models, and priors of codes."""

from collections.abc import Callable

import torch
from lightning.pytorch import LightningModule, Trainer
from PIL import Image
from torch import Generator, Tensor

from callbacks.drawing import arrange, sheet
from callbacks.panel import Images, Panel
from callbacks.periodic import data_spec
from callbacks.stage1 import decoder_of
from lit_vae.models.abilities import SamplesCodes, SecondStage
from lit_vae.models.base import Autoencoder, ImageModel
from lit_vae.models.denoising import DenoisingModel
from lit_vae.models.module import Model
from lit_vae.ranges import PositiveInt, Seed, SmallCount, checked
from lit_vae.sampling import CodeSampling


class Draws(Panel):
    """Samples with the same noise throughout training: panel ``draws``. One row per class, if there are labels.

    A `lit_vae.models.PixelCNN` draws pixels. A `lit_vae.models.CodePrior` draws codes; the picture shows the decoder
    means of its stage 1. A diffusion model draws by its ``sampling``, with the same noise for each class.

    Args:
        num_images: images on the sheet; with classes, rounded up to full rows.
        every_n_epochs: see `Periodic`.
        sampling: how codes are drawn; pixels are always drawn exactly.
        seed: seed of the noise.
    """

    name = "draws"
    accepts = Model
    needs_images = False

    @checked
    def __init__(
        self,
        num_images: SmallCount = 64,
        every_n_epochs: PositiveInt = 1,
        sampling: CodeSampling | None = None,
        seed: Seed = 0,
    ) -> None:
        super().__init__(every_n_epochs)
        self.num_images, self.seed = num_images, seed
        self.sampling = CodeSampling() if sampling is None else sampling
        self.caption = self.caption_of(None)
        self.decoder: Model | None = None
        self.progress: Callable[[int, int], None] | None = None

    def setup(self, trainer: Trainer, pl_module: LightningModule, stage: str) -> None:
        """Load stage 1 of codes or latents before anything is written."""
        super().setup(trainer, pl_module, stage)
        if stage in ("fit", "validate"):
            self.decoder = decoder_of(data_spec(trainer))

    def check_model(self, model: Model) -> None:
        """Only models of pixels or codes."""
        if isinstance(model, Autoencoder) or not isinstance(model, (SecondStage, ImageModel)):
            raise self._refuse(
                f"{type(model).__name__} has latents of its own.",
                "Take callbacks.Samples in trainer.callbacks.",
            )
        if not isinstance(model, SamplesCodes) and self.sampling != CodeSampling():
            raise self._refuse(
                f"sampling (={self.sampling}) is for codes, but {type(model).__name__} draws pixels exactly.",
                "Remove init_args.sampling.",
            )
        self.caption = self.caption_of(model)

    def caption_of(self, model: Model | None, by_class: bool = True) -> str:
        """How a model draws; ``by_class``: on a sheet with a row for each of its classes."""
        said = f"Draws from the model{_deviations(self.sampling)}"
        if not isinstance(model, DenoisingModel):
            return said
        shared = ", the same noise in each column" if by_class and model.num_classes else ""
        return f"{said}, {model.sampling}{shared}"

    def draw(self, model: Model, images: Images | None = None) -> Image.Image:
        """A nearly square sheet, or one row per class."""
        classes = model.num_classes
        if not classes:
            return sheet(arrange(self.images(model, model.labels_for(self.num_images, None))))
        y = torch.arange(classes, device=model.device)[:, None].expand(-1, -(-self.num_images // classes))
        if isinstance(model, DenoisingModel):  # each row with the same seed, as a `ClassSheet`
            rows = torch.stack([self.images(model, row) for row in y])
        else:
            rows = self.images(model, y.flatten()).unflatten(0, y.shape)
        return sheet(rows, row_labels=[model.class_name(c) for c in range(classes)])

    def images(self, model: Model, y: Tensor) -> Tensor:
        """One image for each label ``y (n,)``: ``(n, C, H, W)`` in [-1, 1]; see `draw_images`."""
        return draw_images(model, y, self.seed, self.decoder, self.sampling, self.progress)


def draw_images(
    model: Model,
    y: Tensor,
    seed: int,
    decoder: Model | None = None,
    sampling: CodeSampling = CodeSampling(),  # noqa: B008  (frozen)
    progress: Callable[[int, int], None] | None = None,
) -> Tensor:
    """One image for each label ``y (n,)`` from a model of any family: ``(n, C, H, W)`` in [-1, 1].

    Autoencoders give decoder means at draws from the prior, models of pixels exact draws, and models of codes or
    latents the means of ``decoder``, their stage 1. The noise is drawn on the CPU and depends on the seed only.
    ``progress`` is called with ``(done, total)`` positions while codes are drawn.
    """
    generator = Generator().manual_seed(seed)
    if decoder is None:
        return model.sample(len(y), y, sampling.temperature, generator)  # type: ignore[operator]
    assert isinstance(model, SecondStage)
    return model.sample_through(decoder.to(model.device), y, sampling, generator, progress)


def _deviations(sampling: CodeSampling) -> str:
    said = [f"temperature {sampling.temperature:g}"] if sampling.temperature != 1.0 else []
    said += [f"the {sampling.top_k} most probable codes"] if sampling.top_k is not None else []
    said += [f"codes within the first {sampling.top_p:g} of the probability"] if sampling.top_p < 1.0 else []
    return "".join(f", {text}" for text in said)
