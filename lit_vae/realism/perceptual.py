"""The perceptual term: a distance between features of an image and of its reconstruction."""

from torch import Tensor, nn

from lit_vae.features import PerceptualDistance
from lit_vae.images import Shape
from lit_vae.ranges import PositiveFloat, checked


class Perceptual(nn.Module):
    """``weight * D * distance(x, x_hat) / temperature`` nats, of images with D values.

    The weight is in the units that papers state it in: ``L1 + 1.0 LPIPS`` or ``MSE + 0.1 LPIPS`` *for each value*, with
    the likelihood's temperature dividing both (Rombach et al. 2022, app. G, as code has it:
    ``sum (|x - x_hat| + w LPIPS) / exp(s) + s``). So the balance of the two is the same whatever variance or scale is
    learned.

    Args:
        distance: between images; `lit_vae.features`.
        weight: w.
    """

    @checked
    def __init__(self, distance: PerceptualDistance, weight: PositiveFloat = 1.0) -> None:
        super().__init__()
        self.distance = distance
        self.weight = weight

    def problems(self, image_shape: Shape) -> list[str]:
        """Why the features cannot be had of such images."""
        return self.distance.problems(image_shape)

    def forward(self, x: Tensor, x_hat: Tensor) -> Tensor:
        """The distance itself: ``(B, C, H, W), (B, C, H, W) -> (B,)``, with gradient to ``x_hat`` alone."""
        return self.distance(x, x_hat)

    def nats(self, distance: Tensor, x: Tensor, temperature: Tensor) -> Tensor:
        """A distance ``(B,)`` in nats per image."""
        return self.weight * x[0].numel() / temperature * distance
