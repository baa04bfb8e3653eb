"""A classifier of labelled images. Its features measure the families; it is not a family itself."""

import torch
import torch.nn.functional as F
from lightning.pytorch.cli import LRSchedulerCallable, OptimizerCallable
from torch import Tensor, nn

from lit_vae.images import Batch, ImageSpec, Shape
from lit_vae.models.module import Model
from lit_vae.networks.residual_features import FeatureNetworkFactory
from lit_vae.noise import Draws
from lit_vae.objectives import Step
from lit_vae.ranges import AtLeastTwo, PositiveInt, checked


class FeatureNet(Model):
    """Softmax classifier, trained on ``-log p(y | x)``. `lit_vae.features.FeatureNetDistance` compares its features.

    Use it where networks trained on photographs do not fit the data (digits) or are not available. Compare its numbers
    only between models of the same data, measured with the same checkpoint.

    Args:
        image_shape: ``[channels, height, width]`` of the images.
        num_classes: number of labels.
        network: the classifier, such as `lit_vae.networks.ResidualFeatures`.
        optimizer: over all parameters.
        lr_scheduler: stepped with every optimizer step.
        augmentation: applied to training images, such as `lit_vae.networks.RandomTranslation`; null: none.
    """

    term_names = ("loss", "cross_entropy", "accuracy")

    @checked
    def __init__(
        self,
        image_shape: list[PositiveInt],
        num_classes: AtLeastTwo,
        network: FeatureNetworkFactory,
        optimizer: OptimizerCallable,
        lr_scheduler: LRSchedulerCallable | None = None,
        augmentation: nn.Module | None = None,
    ) -> None:
        super().__init__(optimizer, lr_scheduler)
        if len(image_shape) != 3:
            raise ValueError(
                f"FeatureNet: image_shape (={image_shape}) must be [channels, height, width]."
                " Set model.init_args.image_shape."
            )
        self.image_shape: Shape = tuple(image_shape)
        self.num_classes = num_classes
        self.network = network(self.image_shape[0], num_classes)
        self.augmentation = nn.Identity() if augmentation is None else augmentation

    def terms(self, x: Tensor, y: Tensor) -> dict[str, Tensor]:
        """Cross-entropy in nats and accuracy (0 or 1) of each image, ``(B,)``."""
        logits = self.network(x).float()
        cross_entropy = F.cross_entropy(logits, y, reduction="none")
        accuracy = (logits.argmax(1) == y).float()
        return {"loss": cross_entropy, "cross_entropy": cross_entropy, "accuracy": accuracy}

    def step(self, batch: Batch, step: int | None, draws: Draws | None) -> Step:
        """Cross-entropy in nats and accuracy of each image; training sees augmented images."""
        x, y = batch
        return Step(self.terms(x if step is None else self.augmentation(x), y))

    def problems(self, spec: ImageSpec) -> list[str]:
        """Images of another shape, or unknown labels."""
        if not isinstance(spec, ImageSpec):
            return [f"FeatureNet: it is a model of images, and the data are a {type(spec).__name__}. Take image data."]
        found = self._label_problems(spec.num_classes)
        if self.image_shape != spec.shape:
            found.append(
                f"FeatureNet: model.image_shape (={list(self.image_shape)}) is not the shape of the data's images"
                f" {list(spec.shape)} ([channels, height, width]). Change model.init_args.image_shape or the data."
            )
        if (smallest := self.network.smallest_size) > min(self.image_shape[1:]):
            found.append(
                f"FeatureNet: its network needs images of at least {smallest} pixels on each side, but"
                f" model.image_shape is {list(self.image_shape)}. Set fewer widths in"
                " model.init_args.network.init_args."
            )
        return found

    def check_networks(self) -> list[str]:
        """Run one blank image through the network."""
        try:
            with torch.no_grad():
                self.network(torch.zeros(1, *self.image_shape).to(self.device))
        except RuntimeError as error:
            return [f"FeatureNet: the network does not take images {list(self.image_shape)}: {error}"]
        return []
