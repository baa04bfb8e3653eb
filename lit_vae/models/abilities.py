"""Abstract bases for what only some families can do. Callbacks and tools test for them with ``isinstance``."""

from abc import abstractmethod
from collections.abc import Callable, Sequence
from typing import Any, ClassVar

import torch
from torch import Generator, Tensor, nn

from lit_vae.distributions import Distribution, Reparametrised
from lit_vae.encoded import EncodedSpec
from lit_vae.models.base import Autoencoder
from lit_vae.models.module import Model
from lit_vae.noise import Draws
from lit_vae.objectives import Level
from lit_vae.objectives.bounds import importance_weighted_bound, log_weights
from lit_vae.priors import Prior
from lit_vae.sampling import CodeSampling


class Ability(Autoencoder):
    """What only some autoencoders can do."""

    lacking: ClassVar[str]
    """What an autoencoder without it has, such as "no codes", for errors."""

    families: ClassVar[str]
    """Who can do it, for errors."""


class HasBound(Ability):
    """A latent-variable model with a bound of log p(x), estimated from draws of its posterior. Any number of levels."""

    lacking = "no bound of the likelihood of an image"
    families = "a lit_vae.models.VAE"

    @abstractmethod
    def encode(self, x: Tensor, y: Tensor) -> Any:
        """The input of `path`: ``q(z | x, y)``, or the features of the images in a hierarchy."""

    @abstractmethod
    def path(
        self, encoded: Any, y: Tensor, num_samples: int, draws: Draws | None = None, first: int = 0
    ) -> tuple[Sequence[Level], Distribution]:
        """Draws of all latents, from the top, and ``p(x | z)`` at these draws.

        Args:
            encoded: the result of `encode` for B images.
            y: their labels ``(B,)``.
            num_samples: number L of draws per image.
            draws: the noise, a `Draws.level` for each level; None: noise from torch's generator.
            first: number of samples of ``draws`` to skip.

        Returns:
            The levels, with ``z (L, B, *latent)``, and the likelihood, with parameters ``(L, B, ...)``.
        """

    @torch.no_grad()
    def importance_weighted_nll(
        self, x: Tensor, y: Tensor, num_samples: int, chunk: int, draws: Draws | None = None
    ) -> Tensor:
        """``-log 1/k sum_k p(x, z_k) / q(z_k | x)`` with ``k = num_samples``: ``-> (B,)`` nats.

        Burda et al. 2016, eq. 8: in expectation an upper bound of -log p(x) that tightens as k grows. It decodes at
        most ``chunk`` samples of each image at once.
        """
        encoded, log_w = self.encode(x, y), []
        for start in range(0, num_samples, chunk):
            levels, decoded = self.path(encoded, y, min(chunk, num_samples - start), draws, start)
            log_w.append(log_weights(decoded.log_prob(x), levels))
        return -importance_weighted_bound(torch.cat(log_w))


class HasPosterior(HasBound):
    """One level of latents, with a posterior and a prior. Both may be Gaussians, which more can be said of."""

    lacking = "no posterior and prior of one latent"
    prior: Prior
    gaussian_posterior: bool
    gaussian_prior: bool

    @abstractmethod
    def encode(self, x: Tensor, y: Tensor) -> Reparametrised:
        """``q(z | x, y)``, ``(B, *latent)``."""


class HasLevels(HasBound):
    """Several levels of latents. Its one latent is the vector of all, from the top, in units of their priors."""

    lacking = "one level of latents"
    families = "a lit_vae.models.HierarchicalVAE"
    level_sizes: tuple[int, ...]
    """Number of dimensions of each level."""


class HasCodes(Ability):
    """A model whose latents are codes: one map of indices per level, the coarsest first."""

    lacking = "no codes"
    families = "a model with a codebook, such as lit_vae.models.VQVAE"
    grids: tuple[tuple[int, int], ...]
    num_embeddings: tuple[int, ...]
    quantizers: nn.ModuleList

    @abstractmethod
    def encode_codes(self, x: Tensor, y: Tensor) -> tuple[Tensor, ...]:
        """Codes of images, ``(B, h_l, w_l)`` int64 each."""

    @abstractmethod
    def decode_codes(self, codes: Sequence[Tensor], y: Tensor) -> Distribution:
        """``p(x | codes)``."""


STAGE1 = "stage1"


class SecondStage(Model):
    """A model of what another model, its stage 1, made of images: codes or latents."""

    encoded: ClassVar[str]
    """What it is a model of, for errors."""

    stage1: dict[str, str] | None = None
    """``path`` and ``sha256`` of the checkpoint of stage 1; None before training."""

    @abstractmethod
    def sample_through(
        self,
        stage1: Any,
        y: Tensor,
        sampling: CodeSampling = CodeSampling(),  # noqa: B008  (frozen)
        generator: Generator | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> Tensor:
        """Images in [-1, 1], one for each label: ``y (n,) -> (n, C, H, W)``, decoded by ``stage1`` on the same device.

        ``sampling`` is for codes only. Without ``generator``, the noise is that of torch's generator. ``progress`` is
        called with ``(done, total)``.
        """

    def setup(self, stage: str) -> None:
        """Remember which checkpoint made the data."""
        spec = self.data_spec
        if self.stage1 is None and isinstance(spec, EncodedSpec):
            self.stage1 = {"path": spec.checkpoint, "sha256": spec.checkpoint_sha256}

    def on_save_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Save which checkpoint of stage 1 made the data: no other can decode them."""
        super().on_save_checkpoint(checkpoint)
        if self.stage1 is not None:
            checkpoint[STAGE1] = dict(self.stage1)

    def on_load_checkpoint(self, checkpoint: dict[str, Any]) -> None:
        """Load the name of stage 1.

        Raises:
            ValueError: the data are of another stage 1 than the model was trained on.
        """
        super().on_load_checkpoint(checkpoint)
        saved, spec = checkpoint.get(STAGE1), self.data_spec
        if saved is not None and isinstance(spec, EncodedSpec) and spec.checkpoint_sha256 != saved["sha256"]:
            raise ValueError(
                f"{type(self).__name__}: it was trained on {self.encoded} of {saved['path']} (SHA-256"
                f" {saved['sha256'][:12]}), but data.root has {self.encoded} of {spec.checkpoint}"
                f" ({spec.checkpoint_sha256[:12]}). Encode with the former, or train a new prior."
            )
        self.stage1 = saved or self.stage1


class SamplesCodes(SecondStage):
    """A prior over the codes of another model, its stage 1."""

    encoded = "codes"
    grids: tuple[tuple[int, int], ...]

    @abstractmethod
    def sample_codes(
        self,
        n: int,
        y: Tensor | None = None,
        sampling: CodeSampling = CodeSampling(),  # noqa: B008  (frozen)
        generator: Generator | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> tuple[Tensor, ...]:
        """``n`` draws, the coarsest level first: ``(n, h_l, w_l)`` int64 each. Calls ``progress(done, total)``."""

    @torch.no_grad()
    def sample_through(
        self,
        stage1: HasCodes,
        y: Tensor,
        sampling: CodeSampling = CodeSampling(),  # noqa: B008  (frozen)
        generator: Generator | None = None,
        progress: Callable[[int, int], None] | None = None,
    ) -> Tensor:
        """Decoder means at drawn codes, clamped; see `SecondStage`."""
        codes = self.sample_codes(len(y), y, sampling, generator, progress)
        return stage1.decode_codes(codes, y).mean.clamp(-1.0, 1.0)
