"""LPIPS: Zhang et al., "The Unreasonable Effectiveness of Deep Features as a Perceptual Metric", 2018."""

from collections.abc import Iterable, Sequence
from functools import partial
from importlib import resources
from itertools import pairwise
from typing import Literal, NamedTuple

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn

from lit_vae.features import weights as published
from lit_vae.features.base import Frozen, PerceptualDistance, initialize, squared_difference, unit_length
from lit_vae.images import Shape
from lit_vae.ranges import checked
from lit_vae.run.needs import Need

# ImageNet's colour statistics for images in [-1, 1], as in the training of the published heads
SHIFT = (-0.030, -0.088, -0.188)
SCALE = (0.458, 0.448, 0.450)
RANDOM_SEED = 0


class Trunk(NamedTuple):
    """A network of torchvision, and the layers that LPIPS compares."""

    short_name: str
    ends: tuple[int, ...]
    """Ends (exclusive) of slices of its ``features``; each slice ends with a ReLU whose output is compared."""

    smallest_size: int
    """Height and width, in pixels, of the smallest image for the last slice."""


TRUNKS = {
    "vgg16": Trunk("vgg", (4, 9, 16, 23, 30), 16),
    "alexnet": Trunk("alex", (2, 5, 8, 10, 12), 31),
}


class LPIPSNetwork(nn.Module):
    """Scaling, the slices of a trunk, and the published linear heads, version 0.1.

    It maps ``x (B, 3, H, W)`` in [-1, 1] to one feature map per slice.
    """

    shift: Tensor
    scale: Tensor

    def __init__(self, features: nn.Sequential, ends: tuple[int, ...], heads: list[Tensor]) -> None:
        super().__init__()
        self.slices = nn.ModuleList(features[start:end] for start, end in pairwise((0, *ends)))
        self.heads = nn.ParameterList(heads)
        self.register_buffer("shift", torch.tensor(SHIFT).view(1, 3, 1, 1))
        self.register_buffer("scale", torch.tensor(SCALE).view(1, 3, 1, 1))

    def forward(self, x: Tensor) -> list[Tensor]:
        """See the class. Grey images are repeated."""
        h = (x.expand(-1, 3, -1, -1) - self.shift) / self.scale
        maps = []
        for layers in self.slices:
            h = layers(h)
            maps.append(h)
        return maps


class LPIPS(PerceptualDistance):
    """``sum_l mean_hw sum_c w_lc (y_lc - y_hat_lc)^2``, y of unit length over the channels (eq. 1 of the paper).

    The same as the package ``lpips``, version 0.1, with one difference: eps is inside the square root of the length, so
    the gradient at ``x = x_hat`` is zero instead of undefined. Grey images are repeated to three channels. The trunk
    may run under autocast; lengths and differences are in at least float32.

    Args:
        network: ``vgg16`` for a loss, ``alexnet`` for the number that most papers report.
        weights: ``cache``: the trunk's file in torch hub's cache; or the file's path; or ``random``, for tests: this
            is not LPIPS, so its name ends in ``_random`` and it warns.
    """

    @checked
    def __init__(self, network: Literal["vgg16", "alexnet"] = "vgg16", weights: str = "cache") -> None:
        super().__init__()
        self.network = network
        self.weights = weights
        self.name = f"lpips_{TRUNKS[network].short_name}" + ("_random" if weights == "random" else "")
        self.trunk = Frozen(partial(build_network, network, weights))

    def embed(self, x: Tensor) -> list[Tensor]:
        """See `PerceptualDistance`."""
        return [unit_length(h) for h in self.trunk(x)]

    def distance(self, target: Sequence[Tensor], x_hat: Tensor) -> Tensor:
        """See `PerceptualDistance`."""
        heads: Sequence[Tensor] = self.trunk.network.heads  # type: ignore[assignment]
        layers = zip(target, self.trunk(x_hat), heads, strict=True)
        # a product and sum, because `mv` would run in half precision under autocast
        return torch.stack([(squared_difference(y, unit_length(h)) * w).sum(1) for y, h, w in layers]).sum(0)

    def provenance(self) -> dict[str, str]:
        """See `PerceptualDistance`."""
        sha256 = "none: random" if self.weights == "random" else published.PUBLISHED[self.network].sha256_prefix
        return {"network": f"{self.network} (torchvision), heads of LPIPS 0.1", "weights_sha256": sha256}

    def needs(self) -> Iterable[Need]:
        """The trunk's weights."""
        return published.needed(self.network, self.weights)

    def problems(self, image_shape: Shape) -> list[str]:
        """Images that are too small, or neither grey nor RGB; missing weights."""
        channels, height, width = image_shape
        smallest = TRUNKS[self.network].smallest_size
        found = []
        if channels not in (1, 3):
            found.append(f"LPIPS: it compares images of 1 or 3 channels, not of {channels}. Leave it out.")
        if min(height, width) < smallest:
            found.append(
                f"LPIPS: network (={self.network!r}) needs images of at least {smallest} x {smallest} pixels, not"
                f" {height} x {width}. Take lit_vae.features.FeatureNetDistance, or larger images."
            )
        try:
            _ = self.trunk.network
        except ValueError as error:
            found.append(f"LPIPS: {error}")
        return found


def build_network(network: str, weights: str) -> LPIPSNetwork:
    """The trunk with weights from the cache, from a path or random, and the published heads.

    Raises:
        ValueError: the file is missing, or a different one.
    """
    from torchvision import models

    with torch.device("meta"):  # do not allocate the classifier, nine tenths of the weights
        features: nn.Sequential = getattr(models, network)().features
    if weights == "random":
        rank_zero_warn(
            f"LPIPS: weights (='random') of {network}: the numbers are not LPIPS. Compare them only with each other."
        )
        initialize(features.to_empty(device="cpu"), RANDOM_SEED)
    else:
        file = published.find(network, published.path_of(weights))
        state = torch.load(file, map_location="cpu", weights_only=True)
        prefix = "features."
        state = {key.removeprefix(prefix): value for key, value in state.items() if key.startswith(prefix)}
        features.load_state_dict(state, assign=True)
    trunk = TRUNKS[network]
    built = LPIPSNetwork(features, trunk.ends, _heads(trunk.short_name))
    return built.to(memory_format=torch.channels_last)


def _heads(short_name: str) -> list[Tensor]:
    """The linear heads ``(C_l,)`` of Zhang et al., from the wheel of torchmetrics."""
    folder = resources.files("torchmetrics") / "functional" / "image" / "lpips_models"
    with resources.as_file(folder / f"{short_name}.pth") as file:
        state = torch.load(file, map_location="cpu", weights_only=True)
    return [state[f"lin{layer}.model.1.weight"].flatten() for layer in range(5)]
