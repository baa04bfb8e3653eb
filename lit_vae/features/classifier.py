"""Perceptual distance and Fréchet features of a `lit_vae.models.FeatureNet` that was trained on your own data."""

from collections.abc import Iterable, Sequence
from functools import partial
from pathlib import Path

import torch
from torch import Tensor, nn

from lit_vae.features.base import (
    Frozen,
    ImageFeatures,
    PerceptualDistance,
    full_float32,
    squared_difference,
    unit_length,
)
from lit_vae.images import Shape, from_uint8
from lit_vae.networks.residual_features import FeatureNetwork
from lit_vae.run.needs import Need, NeededFile

HOW = (
    "Train one:  lightning fit --config configs/feature_net/mnist.yaml --run_dir runs/feature_net/mnist  (or with"
    " another configuration of that folder), and give its checkpoints/best.ckpt."
)
"""How to get a checkpoint."""


class _OfFeatureNet(nn.Module):
    """Reads images as a trained FeatureNet does.

    Args:
        checkpoint: a ``.ckpt`` file of a FeatureNet, such as ``runs/feature_net/mnist/checkpoints/best.ckpt``.
    """

    def __init__(self, checkpoint: str) -> None:
        super().__init__()
        self.checkpoint = checkpoint
        self.seen_by = Frozen(partial(load_network, checkpoint))

    @property
    def network(self) -> FeatureNetwork:
        """The network; the first access loads it."""
        network = self.seen_by.network
        assert isinstance(network, FeatureNetwork)
        return network

    def weights(self) -> dict[str, str]:
        """The hash of the checkpoint."""
        from lit_vae.run.loading import identity

        return {"weights_sha256": identity(Path(self.checkpoint))}

    def needs(self) -> Iterable[Need]:
        """The checkpoint."""
        return [NeededFile("FeatureNet", self.checkpoint, HOW)]

    def problems(self, image_shape: Shape) -> list[str]:
        """A missing checkpoint, or images that do not fit its network."""
        component = type(self).__name__
        try:
            network = self.network
        except ValueError as error:
            return [f"{component}: {error}"]
        channels, height, width = image_shape
        found = []
        if channels not in (1, network.in_channels):
            found.append(
                f"{component}: its FeatureNet takes images with {network.in_channels} channels, but these have"
                f" {channels}. Train one on images like these."
            )
        if min(height, width) < (least := network.smallest_size):
            found.append(
                f"{component}: its FeatureNet needs images of at least {least} x {least} pixels, not"
                f" {height} x {width}. Train one with fewer widths."
            )
        return found


class FeatureNetDistance(_OfFeatureNet, PerceptualDistance):
    """``mean_l mean_hw sum_c (y_lc - y_hat_lc)^2`` over a FeatureNet's maps, each of unit length over its channels.

    LPIPS without heads (Zhang et al. 2018, eq. 1 with w = 1), and with the *mean* over layers instead of the sum. It is
    at most 2, since the maps are not negative. Compare it only between models that were measured with the same
    checkpoint. It is logged as ``lpips_featurenet``. Grey images are repeated for a FeatureNet of colour images.
    """

    name = "lpips_featurenet"

    def embed(self, x: Tensor) -> list[Tensor]:
        """See `PerceptualDistance`."""
        network = self.network
        return [unit_length(h) for h in network.maps(_to_network_input(x, network))]

    def distance(self, target: Sequence[Tensor], x_hat: Tensor) -> Tensor:
        """See `PerceptualDistance`."""
        layers = zip(target, self.embed(x_hat), strict=True)
        return torch.stack([squared_difference(y, y_hat).sum(1) for y, y_hat in layers]).mean(0)

    def provenance(self) -> dict[str, str]:
        """See `PerceptualDistance`."""
        return {"network": "FeatureNet, all maps", **self.weights()}


class FeatureNetFeatures(_OfFeatureNet, ImageFeatures):
    """The largest value of each channel of a FeatureNet's last map, from which it classifies.

    Numbers are named ``fd_featurenet``, ``rfd_featurenet``. They are not FIDs; compare them only between runs with the
    same checkpoint.
    """

    name = "featurenet"

    @property
    def num_features(self) -> int:
        """Length d of the vectors."""
        return self.network.num_features

    def forward(self, u: Tensor) -> Tensor:
        """See `ImageFeatures`."""
        network = self.network
        with full_float32():
            h = network.pooled(_to_network_input(from_uint8(u), network))
        return h.to(torch.promote_types(h.dtype, torch.float32))

    def provenance(self) -> dict[str, str]:
        """See `ImageFeatures`."""
        return {"features": "FeatureNet, largest of each channel of its last map", **self.weights()}


def load_network(checkpoint: str) -> FeatureNetwork:
    """The network of a FeatureNet's checkpoint.

    Raises:
        ValueError: the file is missing, or of another model.
    """
    from lit_vae.run.loading import load_model

    path = Path(checkpoint)
    if not path.is_file():
        raise ValueError(f"checkpoint (={checkpoint!r}) must be a .ckpt file of a FeatureNet, and there is none. {HOW}")
    model = load_model(path, torch.device("cpu"))
    network = getattr(model, "network", None)
    if not isinstance(network, FeatureNetwork):
        raise ValueError(
            f"checkpoint (={checkpoint!r}) must be of a FeatureNet, not of a {type(model).__name__}. Give one that"
            " was trained with a configuration in configs/feature_net."
        )
    return network


def _to_network_input(x: Tensor, network: FeatureNetwork) -> Tensor:
    """Images in the network's precision, grey ones repeated to its channels."""
    return x.to(next(network.parameters()).dtype).expand(-1, network.in_channels, -1, -1)
