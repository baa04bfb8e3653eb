"""Frozen networks that look at images, and distances made of what they see."""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor, nn

from lit_vae.images import Shape, Values, levels
from lit_vae.run.needs import Need

EPS = 1e-10
"""Inside the root of a norm: at a zero of all channels the gradient is finite (PerceptualSimilarity #69)."""


class Frozen(nn.Module):
    """A network that is looked through, never trained, and no part of the model that owns it.

    It is held outside of the registry of modules: in no ``parameters()``, no ``state_dict``, no bucket of DDP. It stays
    in eval mode whatever its owner does, its weights take no gradient, and images pass their gradient through it.
    ``.to()``, ``.cuda()``, ``.double()`` of the owner move it, too. A deep copy, such as an average of weights, shares
    it: weights that never change need no average.

    Args:
        make: builds the network, when it is first needed: a model can be built, and drawn from, without the file
            that only its training needs.
    """

    def __init__(self, make: Callable[[], nn.Module]) -> None:
        super().__init__()
        self._make = make
        self._held: tuple[nn.Module, ...] = ()  # within a tuple, nn.Module does not see it
        self._like = torch.empty(0)  # on the device and in the dtype that the network is to have

    @property
    def network(self) -> nn.Module:
        """The network itself, built if it was not."""
        if not self._held:
            # a first use may be in the middle of anything: in a validation's inference mode, whose weights no training
            # could differentiate through; or in a step whose random numbers must not depend on it
            with torch.inference_mode(False), torch.random.fork_rng(devices=[]):
                network = self._make().to(self._like).requires_grad_(False).eval()
            self._held = (network,)
        return self._held[0]

    def forward(self, x: Tensor) -> Any:
        """What the network says of ``x``, in the network's own precision."""
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
    """A distance between images that a frozen network sees.

    Images are ``(B, C, H, W)`` in [-1, 1]. There is nothing to train in it and nothing to save.
    """

    name: str
    """What its numbers are logged as; it says what the network is."""

    @abstractmethod
    def embed(self, x: Tensor) -> list[Tensor]:
        """Features of unit length at each place, in float32 at least: one ``(B, C_l, H_l, W_l)`` for each layer.

        There is a graph from them to ``x``; targets are embedded under ``torch.no_grad``.
        """

    @abstractmethod
    def distance(self, target: Sequence[Tensor], x_hat: Tensor) -> Tensor:
        """From the features of ``x``, as `embed` gives them, to images ``x_hat``: ``(B,)``."""

    def forward(self, x: Tensor, x_hat: Tensor) -> Tensor:
        """``d(x, x_hat)``, ``(B,)``, with a gradient to ``x_hat`` alone."""
        with torch.no_grad():
            target = self.embed(x)
        return self.distance(target, x_hat)

    @abstractmethod
    def provenance(self) -> dict[str, str]:
        """What the distance is: its network and the hash of its weights. Numbers of another one do not compare."""

    def needs(self) -> Iterable[Need]:
        """What must lie on disk before it is used; by default nothing."""
        return ()

    def problems(self, image_shape: Shape) -> list[str]:
        """Everything that keeps it from measuring images ``(C, H, W)``, each with its remedy; empty if nothing does."""
        return []


class ImageFeatures(nn.Module, ABC):
    """A vector for each image that a frozen network, or a fixed function, makes: what *sets* of images are compared by.

    It takes eight-bit levels ``u (B, C, H, W)``, uint8, and nothing else: values out of range, rounding or truncation
    are then nobody's choice (torchmetrics #1244). There is nothing to train in it and nothing to save.
    """

    name: str
    """What a number made with it is called after, as in ``fd_<name>``."""

    @property
    @abstractmethod
    def num_features(self) -> int:
        """d, the length of the vectors."""

    @abstractmethod
    def forward(self, u: Tensor) -> Tensor:
        """``(B, C, H, W)`` uint8 ``-> (B, d)``, in float32 at least."""

    @abstractmethod
    def provenance(self) -> dict[str, str]:
        """What the vectors are: features, hash of the weights, resize. Numbers of another provenance do not compare."""

    def of(self, x: Tensor, values: Values) -> Tensor:
        """Features of images ``x (B, C, H, W)`` in [-1, 1], real or generated, by their `levels`: ``-> (B, d)``.

        Those of an image that is not finite are not a number: its levels would be black, and look like an image.
        """
        features = self(levels(x, values))
        return features.masked_fill(~x.isfinite().flatten(1).all(1, keepdim=True), torch.nan)

    def called(self, kind: str) -> str:
        """What a number of this kind (``fd``, ``rfd``, ``kd``, ``precision``, ...) is logged as."""
        return f"{kind}_{self.name}"

    def needs(self) -> Iterable[Need]:
        """What must lie on disk before it is used; by default nothing."""
        return ()

    def problems(self, image_shape: Shape) -> list[str]:
        """Everything that keeps it from seeing images ``(C, H, W)``, each with its remedy; empty if nothing does."""
        return []


@contextmanager
def full_float32() -> Iterator[None]:
    """Float32 with all its digits: no autocast, and on a GPU no TF32, which makes each device another number."""
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
    """He's normal weights and biases of zero for all convolutions, from a seed, without touching the random state."""
    generator = torch.Generator().manual_seed(seed)
    for layer in network.modules():
        if isinstance(layer, nn.Conv2d):
            nn.init.kaiming_normal_(layer.weight, mode="fan_out", nonlinearity="relu", generator=generator)
            if layer.bias is not None:
                nn.init.zeros_(layer.bias)
    return network


def unit_length(h: Tensor) -> Tensor:
    """``h / sqrt(|h|^2 + eps)`` over the channels of ``(B, C, H, W)``, in float32 at least."""
    h = h.to(torch.promote_types(h.dtype, torch.float32))
    return h * torch.rsqrt(h.square().sum(1, keepdim=True) + EPS)


def squared_difference(a: Tensor, b: Tensor) -> Tensor:
    """``(a - b)^2`` averaged over places: ``(B, C, H, W) -> (B, C)``."""
    return (a - b).square().mean((2, 3))
