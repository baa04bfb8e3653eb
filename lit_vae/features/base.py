"""Base classes of features from frozen networks, and of perceptual distances."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from lit_vae.images import Shape, Values, levels
from lit_vae.run.needs import Need

EPS = 1e-10
"""Added inside the square root of a norm, so that the gradient at zero is finite (PerceptualSimilarity #69)."""


class Frozen(nn.Module):
    """A network that is never trained and is no submodule of its owner.

    It is not in ``parameters()``, ``state_dict`` or DDP's buckets of the owner. It always stays in eval mode. Its
    weights get no gradient, but images do. ``.to()``, ``.cuda()`` and ``.double()`` of the owner move it, too. A deep
    copy of the owner (for averaged weights) shares it.

    Args:
        make: builds the network when it is first needed, so that a model can be built and sampled without the file of
            weights that only its training needs.
    """

    def __init__(self, make: Callable[[], nn.Module]) -> None:
        super().__init__()
        self._make = make
        self._held: tuple[nn.Module, ...] = ()  # nn.Module does not register modules in a tuple
        self._like = torch.empty(0)  # has the device and dtype of the network

    @property
    def network(self) -> nn.Module:
        """The network; the first access builds it."""
        if not self._held:
            # the first access may be in inference mode, whose weights training could not differentiate through, or in a
            # step whose random numbers must not depend on it
            with torch.inference_mode(False), torch.random.fork_rng(devices=[]):
                network = self._make().to(self._like).requires_grad_(False).eval()
            self._held = (network,)
        return self._held[0]

    def forward(self, x: Tensor) -> Any:
        """The network's output for ``x``, in the network's precision."""
        return self.network(x.to(self._like.dtype) if x.is_floating_point() else x)

    def _apply(self, fn: Callable[[Tensor], Tensor], recurse: bool = True) -> "Frozen":
        super()._apply(fn, recurse)
        self._like = fn(self._like)
        for network in self._held:
            network._apply(fn, recurse)
        return self

    def __deepcopy__(self, memo: dict[int, Any]) -> "Frozen":
        return self


class PerceptualDistance(nn.Module, ABC):
    """A distance between images in the features of a frozen network.

    Images are ``(B, C, H, W)`` in [-1, 1]. It has nothing to train and nothing to save.
    """

    name: str
    """The name in logs; it names the network."""

    @abstractmethod
    def embed(self, x: Tensor) -> list[Tensor]:
        """Features of unit length at each position, in at least float32: one ``(B, C_l, H_l, W_l)`` per layer.

        They are differentiable with respect to ``x``.
        """

    @abstractmethod
    def distance(self, target: Sequence[Tensor], x_hat: Tensor) -> Tensor:
        """Distance between ``x``, given by its features from `embed`, and images ``x_hat``: ``(B,)``."""

    def forward(self, x: Tensor, x_hat: Tensor) -> Tensor:
        """``d(x, x_hat)``, ``(B,)``, with a gradient to ``x_hat`` only."""
        with torch.no_grad():
            target = self.embed(x)
        return self.distance(target, x_hat)

    @abstractmethod
    def provenance(self) -> dict[str, str]:
        """The network and the hash of its weights. Compare numbers only if both are equal."""

    def needs(self) -> Iterable[Need]:
        """Files that must exist before it is used; by default none."""
        return ()

    def problems(self, image_shape: Shape) -> list[str]:
        """Problems with images ``(C, H, W)``, one message each; empty if there are none."""
        return []


class ImageFeatures(nn.Module, ABC):
    """One feature vector per image, from a frozen network or a fixed function, to compare *sets* of images.

    It only takes eight-bit levels ``u (B, C, H, W)``, uint8, so that callers cannot differ in range or rounding
    (torchmetrics #1244). It has nothing to train and nothing to save.
    """

    name: str
    """Suffix of the names of its numbers, as in ``fd_<name>``."""

    @property
    @abstractmethod
    def num_features(self) -> int:
        """Length d of the vectors."""

    @abstractmethod
    def forward(self, u: Tensor) -> Tensor:
        """``(B, C, H, W)`` uint8 ``-> (B, d)``, in at least float32."""

    @abstractmethod
    def provenance(self) -> dict[str, str]:
        """Features, hash of the weights, resize. Compare numbers only if all are equal."""

    def of(self, x: Tensor, values: Values) -> Tensor:
        """Features of real or generated images ``x (B, C, H, W)`` in [-1, 1], by their `levels`: ``-> (B, d)``.

        They are NaN for an image that is not finite, since its levels would look like a black image.
        """
        features = self(levels(x, values))
        return features.masked_fill(~x.isfinite().flatten(1).all(1, keepdim=True), torch.nan)

    def called(self, kind: str) -> str:
        """Name in logs of a number of this kind (``fd``, ``rfd``, ``kd``, ``precision``, ...)."""
        return f"{kind}_{self.name}"

    def needs(self) -> Iterable[Need]:
        """Files that must exist before it is used; by default none."""
        return ()

    def problems(self, image_shape: Shape) -> list[str]:
        """Problems with images ``(C, H, W)``, one message each; empty if there are none."""
        return []


@contextmanager
def full_float32() -> Iterator[None]:
    """Full float32: without autocast and, on a GPU, without TF32, whose results differ between devices."""
    backends: tuple[Any, ...] = (torch.backends.cudnn.conv, torch.backends.cuda.matmul)  # type: ignore[attr-defined]
    before = [backend.fp32_precision for backend in backends]
    for backend in backends:
        backend.fp32_precision = "ieee"
    try:
        with torch.autocast("cpu", enabled=False), torch.autocast("cuda", enabled=False):
            yield
    finally:
        for backend, precision in zip(backends, before, strict=True):
            backend.fp32_precision = precision


def initialize(network: nn.Module, seed: int) -> nn.Module:
    """He's normal weights and zero biases for all convolutions, from a seed; torch's random state does not change."""
    generator = torch.Generator().manual_seed(seed)
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu", generator=generator)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    return network


def unit_length(h: Tensor) -> Tensor:
    """``h / sqrt(|h|^2 + eps)`` over the channels of ``(B, C, H, W)``, in at least float32."""
    h = h.to(torch.promote_types(h.dtype, torch.float32))
    return h * torch.rsqrt(h.square().sum(1, keepdim=True) + EPS)


def squared_difference(a: Tensor, b: Tensor) -> Tensor:
    """``(a - b)^2`` averaged over positions: ``(B, C, H, W) -> (B, C)``."""
    return (a - b).square().mean((2, 3))
