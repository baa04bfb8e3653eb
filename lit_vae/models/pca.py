"""Probabilistic principal components: Tipping and Bishop, "Probabilistic Principal Component Analysis", 1999."""

import math
from typing import NamedTuple

import torch
from torch import Tensor, nn

from lit_vae.distributions import LOG_2PI, DiagonalGaussian, Distribution
from lit_vae.images import Batch
from lit_vae.likelihoods import LearnedGaussian
from lit_vae.models.vae import VAE
from lit_vae.networks import MLP
from lit_vae.noise import Draws
from lit_vae.objectives import ELBO, Step
from lit_vae.priors import StandardNormal
from lit_vae.ranges import PositiveInt, checked


class Moments(NamedTuple):
    """Of images as vectors, in float64: their number, sum ``(D,)`` and sum of outer products ``(D, D)``."""

    number: Tensor
    total: Tensor
    outer: Tensor


class Solution(NamedTuple):
    """Maximum-likelihood parameters, in float64.

    ``mean (D,)``; ``directions (D, d)``, orthonormal; ``eigenvalues (d,)`` of the covariance along them, descending;
    ``variance ()`` of the noise.
    """

    mean: Tensor
    directions: Tensor
    eigenvalues: Tensor
    variance: Tensor

    @property
    def elbo(self) -> Tensor:
        """Mean log p(x) of the training images, in nats (Tipping and Bishop, eq. 4 at its maximum)."""
        size, d = self.directions.shape
        log_det = self.eigenvalues.log().sum() + (size - d) * self.variance.log()
        return -0.5 * (size * LOG_2PI + log_det + size)

    @property
    def rate(self) -> Tensor:
        """Mean KL(q(z|x) || p(z)) over them, in nats: q has variances v / l, its means have variances 1 - v / l."""
        return 0.5 * (self.eigenvalues / self.variance).log().sum()


def solve(moments: Moments, latent_dim: int) -> Solution:
    """Principal directions by an eigendecomposition of the covariance (Tipping and Bishop, eq. 7 and 8).

    Raises:
        ValueError: no variance is left for the noise.
    """
    mean = moments.total / moments.number
    covariance = moments.outer / moments.number - torch.outer(mean, mean)
    ascending, vectors = torch.linalg.eigh(covariance)
    size = len(mean)
    variance = ascending[: size - latent_dim].mean()
    if variance <= size * torch.finfo(variance.dtype).eps * ascending[-1]:
        raise ValueError(
            f"PCA: latent_dim (={latent_dim}) directions hold all the variance of the {int(moments.number)} training"
            f" images and leave none to the noise (n images span at most n - 1 of their {size} dimensions)."
            " Set a smaller model.init_args.latent_dim, take more images"
            " (trainer.limit_train_batches leaves some out), or dequantise the data."
        )
    directions = vectors[:, size - latent_dim :].flip(1)
    # rounding must not push an eigenvalue below v: W^T W = L - v I has no negative entries
    eigenvalues = ascending[size - latent_dim :].flip(0).clamp_min(variance)
    return Solution(mean, directions, eigenvalues, variance)


class PCA(VAE):
    """Maximises log p(x), ``p(x|z) = N(W z + b, v I)``, ``p(z) = N(0, I)``, in closed form: the linear baseline.

    It is a linear VAE whose weights are computed instead of trained. One epoch sums the moments of the training images,
    in float64 and over all ranks. Its last batch sets the weights to

        W = U (L - v I)^(1/2),   v = mean of the other eigenvalues,   q(z|x) = N(L^-1 W^T (x - b), v L^-1),

    where U, L are the leading eigenvectors and eigenvalues of the covariance. The posterior is exact and, in this
    basis, diagonal: the ELBO is log p(x). Set ``trainer.max_epochs: 1``; another epoch gives the same weights.

    Args:
        image_shape: ``[channels, height, width]`` of the images.
        latent_dim: number ``d`` of principal directions, less than the number of values in an image.
    """

    @checked
    def __init__(self, image_shape: list[PositiveInt], latent_dim: PositiveInt) -> None:
        size = math.prod(image_shape)
        if latent_dim >= size:
            raise ValueError(
                f"PCA: latent_dim (={latent_dim}) must be less than the {size} values of an image of"
                f" model.image_shape (={image_shape}). Set model.init_args.latent_dim."
            )
        super().__init__(
            image_shape,
            prior=StandardNormal([latent_dim]),
            encoder=lambda in_shape, out_shape, cond_dim: MLP(in_shape, out_shape, cond_dim, hidden=[]),
            decoder=lambda in_shape, out_shape, cond_dim: MLP(in_shape, out_shape, cond_dim, hidden=[]),
            likelihood=LearnedGaussian(),
            objective=ELBO(),
            # Lightning writes no checkpoint before the first optimizer step: this one changes nothing.
            optimizer=lambda parameters: torch.optim.SGD(parameters, lr=0.0),
            lr_scheduler=None,
        )
        self.automatic_optimization = False
        self._moments: Moments | None = None  # not buffers: DDP would overwrite them with those of rank 0

    @property
    def noise_log_var(self) -> Tensor:
        """``log v``, ``()``."""
        assert isinstance(self.likelihood, LearnedGaussian)
        return self.likelihood.log_var

    def encode(self, x: Tensor, y: Tensor) -> DiagonalGaussian:
        """The exact posterior."""
        posterior = super().encode(x, y)
        assert isinstance(posterior, DiagonalGaussian)
        return posterior

    def reconstruction(self, x: Tensor, y: Tensor) -> Distribution:
        """``p(x | z)`` at the z whose mean is the orthogonal projection of x to the principal directions.

        No linear map has a lower squared error. `decode` of the posterior mean would shrink it towards the mean image
        (Tipping and Bishop, sec. 3.3).
        """
        posterior = self.encode(x, y)
        kept = 1.0 - posterior.log_var.exp()  # (l - v) / l
        z = torch.where(kept > 0.0, posterior.mean / kept, 0.0)  # W is zero where nothing is kept
        return self.decode(z, y)

    def step(self, batch: Batch, step: int | None, draws: Draws | None) -> Step:
        """Loss, ELBO and its two parts, ``(B,)`` nats, without sampling: the ELBO is log p(x)."""
        x, y = batch
        posterior = self.encode(x, y)
        likelihood = self.decode(posterior.mean, y)
        # E_q ||x - W z - b||^2 = ||x - W m - b||^2 + sum_j ||w_j||^2 s_j
        spread = self._linear(self.decoder).weight.square().sum(0) * posterior.log_var.exp()
        distortion = -likelihood.log_prob(x) + 0.5 * spread.sum(1) * torch.exp(-self.noise_log_var)
        rate = posterior.kl()
        loss = distortion + rate
        return Step({"loss": loss, "elbo": -loss, "rate": rate, "distortion": distortion}, likelihood)

    def predict_step(self, batch: Batch, batch_idx: int) -> dict[str, Tensor]:
        """Latents ``z``, reconstructions ``x_hat`` and labels ``y`` of a batch."""
        x, y = batch
        return {"z": self.embed(x, y), "x_hat": self.reconstruct(x, y), "y": y}

    def training_step(self, batch: Batch, batch_idx: int) -> None:  # type: ignore[override]
        """Add a batch to the moments; solve with the last one, since validation runs before the epoch ends."""
        if self._moments is None and batch_idx > 0:
            raise ValueError(
                f"PCA: it needs one whole epoch, but this run was resumed at batch {batch_idx}."
                " Start it again without ckpt_path, or from a checkpoint of the end of an epoch."
            )
        self._accumulate(batch[0])
        self.optimizers().step()  # type: ignore[union-attr]
        if self.trainer.is_last_batch:
            self._fit()

    def on_train_epoch_end(self) -> None:
        """Solve with the batches so far if ``max_steps`` cut the epoch short."""
        if self._moments is not None:
            self._fit()

    def _accumulate(self, x: Tensor) -> None:
        flat = x.detach().flatten(1).double()
        number = torch.tensor(float(len(flat)), dtype=flat.dtype, device=flat.device)
        batch = Moments(number, flat.sum(0), flat.T @ flat)
        self._moments = batch if self._moments is None else Moments(*map(torch.add, self._moments, batch))

    def _fit(self) -> None:
        assert self._moments is not None
        moments = Moments(*(self.trainer.strategy.reduce(sums, reduce_op="sum") for sums in self._moments))
        self._moments = None
        solution = solve(moments, self.latent_shape[0])
        self.set_weights(solution)
        elbo, rate = solution.elbo, solution.rate
        self.log_dict(
            {
                f"train/{name}": value.float()
                for name, value in {"loss": -elbo, "elbo": elbo, "rate": rate, "distortion": -elbo - rate}.items()
            },
            on_step=False,
            on_epoch=True,
            sync_dist=True,
        )

    @torch.no_grad()
    def set_weights(self, solution: Solution) -> None:
        """Write W, b, v and the exact posterior into the two affine networks and the likelihood."""
        mean, directions, eigenvalues, variance = solution
        loadings = directions * (eigenvalues - variance).sqrt()  # W, (D, d)
        to_mean = (loadings / eigenvalues).T  # L^-1 W^T, (d, D)
        decoder, encoder = self._linear(self.decoder), self._linear(self.encoder)
        decoder.weight.copy_(loadings)
        decoder.bias.copy_(mean)
        encoder.weight.copy_(torch.cat([to_mean, torch.zeros_like(to_mean)]))
        encoder.bias.copy_(torch.cat([-to_mean @ mean, (variance / eigenvalues).log()]))
        self.noise_log_var.copy_(variance.log())

    @staticmethod
    def _linear(network: nn.Module) -> nn.Linear:
        linear = network.get_submodule("layers.0")
        assert isinstance(linear, nn.Linear)
        return linear
