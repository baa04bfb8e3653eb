"""The Inception network of the FID, in torch-fidelity's exact copy of the original graph."""

import io
from collections.abc import Iterable
from functools import partial
from importlib.metadata import version

import torch
from lightning.pytorch.utilities import rank_zero_warn
from torch import Tensor, nn

from lit_vae.features import weights as published
from lit_vae.features.base import Frozen, ImageFeatures, full_float32, initialize
from lit_vae.images import Shape
from lit_vae.run.needs import Need

NUM_FEATURES = 2048
RANDOM_SEED = 0
NAMES = {"fd": "fid", "rfd": "rfid", "kd": "kid"}
"""Names of distances with these features only. Precision and recall were published with features of VGG-16, so with
these they are named ``precision_inception``."""


class Inception(ImageFeatures):
    """The last pooling layer of InceptionV3 of 2015-12-05: 2048 features, always in float32.

    Heusel et al., "GANs Trained by a Two Time-Scale Update Rule", 2017. Images are resized to 299 x 299 as in the
    TensorFlow graph (torchmetrics gives the same numbers with ``antialias=False`` only). Grey images are repeated to
    three channels. For images unlike photographs, such as digits, take `FeatureNetFeatures`.

    Args:
        weights: ``cache``: the published file in torch hub's cache (``lit-vae prepare inception``); or the file's path;
            or ``random``, for tests: then names end in ``_inception_random`` and it warns.
    """

    def __init__(self, weights: str = "cache") -> None:
        super().__init__()
        self.weights = weights
        self.name = "inception" + ("_random" if weights == "random" else "")
        self.seen_by = Frozen(partial(build_network, weights))

    @property
    def num_features(self) -> int:
        """2048."""
        return NUM_FEATURES

    def forward(self, u: Tensor) -> Tensor:
        """See `ImageFeatures`."""
        with full_float32():
            (features,) = self.seen_by(u.expand(-1, 3, -1, -1))
        return features

    def called(self, kind: str) -> str:
        """The published name, such as ``fid``, if the weights are the published ones."""
        own = super().called(kind)
        return own if self.weights == "random" else NAMES.get(kind, own)

    def provenance(self) -> dict[str, str]:
        """See `ImageFeatures`."""
        random = self.weights == "random"
        return {
            "features": f"InceptionV3 of 2015-12-05, pool3, by torch-fidelity {version('torch-fidelity')}",
            "weights_sha256": "none: random" if random else published.PUBLISHED["inception"].sha256_prefix,
            "resize": "bilinear to 299 x 299, as in TensorFlow 1",
        }

    def needs(self) -> Iterable[Need]:
        """The weights."""
        return published.needed("inception", self.weights)

    def problems(self, image_shape: Shape) -> list[str]:
        """Images that are neither grey nor RGB; missing weights."""
        found = []
        if image_shape[0] not in (1, 3):
            found.append(f"Inception: it takes images of 1 or 3 channels, not of {image_shape[0]}. Leave it out.")
        try:
            _ = self.seen_by.network
        except ValueError as error:
            found.append(f"Inception: {error}")
        return found


def build_network(weights: str) -> nn.Module:
    """``u (B, 3, H, W)`` uint8 to a tuple of one ``(B, 2048)``.

    Raises:
        ValueError: the file is missing, or a different one.
    """
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    class Unloaded(FeatureExtractorInceptionV3):
        """Without the constructor's loading of weights, an unsafe unpickling; the weights are loaded below."""

        def load_state_dict(self, state_dict: object, *args: object, **kwargs: object) -> None:
            """Do nothing."""

    nothing = io.BytesIO()
    torch.save({}, nothing)
    nothing.seek(0)
    network = Unloaded("inception-v3-compat", [str(NUM_FEATURES)], feature_extractor_weights_path=nothing)
    if weights == "random":
        rank_zero_warn("Inception: weights (='random'): the numbers are not FIDs. Compare them only with each other.")
        initialize(network, RANDOM_SEED)
    else:
        file = published.find("inception", published.path_of(weights))
        state = torch.load(file, map_location="cpu", weights_only=True)
        nn.Module.load_state_dict(network, state)
    return network.to(memory_format=torch.channels_last)
