"""The Inception network that the FID is defined by, in torch-fidelity's exact copy of the original graph."""

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
"""What distances made with these features, and no others, are called. Precision and recall were published with features
of VGG-16, so that with these they are ``precision_inception``."""


class Inception(ImageFeatures):
    """The last pooling layer of InceptionV3 as of 2015-12-05: 2048 features, in float32 whatever the precision.

    Heusel et al., "GANs Trained by a Two Time-Scale Update Rule", 2017. Images are resized to 299 x 299 inside, as the
    TensorFlow graph does it (torchmetrics by default resizes otherwise: ``antialias=False`` there is the same number);
    grey ones are repeated to three channels. On images that Inception knows nothing of, such as digits, take
    `FeatureNetFeatures`.

    Args:
        weights: ``cache``: the published file in torch hub's cache (``lit-vae prepare inception``); or the file's path;
            or ``random``, for tests: numbers are then called ``fd_inception_random`` and a warning says why.
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
        """Published names for published weights."""
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
        """Images that are neither grey nor in colour; weights that are not there."""
        found = []
        if image_shape[0] not in (1, 3):
            found.append(f"Inception: it sees images of 1 or 3 channels, not of {image_shape[0]}. Leave it out.")
        try:
            _ = self.seen_by.network
        except ValueError as error:
            found.append(f"Inception: {error}")
        return found


def build_network(weights: str) -> nn.Module:
    """``u (B, 3, H, W)`` uint8 to a tuple of one ``(B, 2048)``.

    Raises:
        ValueError: there is no such file, or it is another.
    """
    from torch_fidelity.feature_extractor_inceptionv3 import FeatureExtractorInceptionV3

    class Unloaded(FeatureExtractorInceptionV3):
        """Its constructor reads weights from a file, as pickles that may execute anything; ours are read below."""

        def load_state_dict(self, state_dict: object, *args: object, **kwargs: object) -> None:
            """Nothing yet."""

    nothing = io.BytesIO()
    torch.save({}, nothing)
    nothing.seek(0)
    network = Unloaded("inception-v3-compat", [str(NUM_FEATURES)], feature_extractor_weights_path=nothing)
    if weights == "random":
        rank_zero_warn(
            "Inception: weights (='random'): the numbers are no FID, and compare with nothing but themselves."
        )
        initialize(network, RANDOM_SEED)
    else:
        file = published.find("inception", published.path_of(weights))
        state = torch.load(file, map_location="cpu", weights_only=True)
        nn.Module.load_state_dict(network, state)
    return network.to(memory_format=torch.channels_last)
