"""Gaussian mixtures over latents: fitted by scikit-learn's EM, sampled and evaluated here."""

from dataclasses import asdict, dataclass
from typing import Any, ClassVar, Literal

import torch
from torch import Generator, Tensor

from lit_vae.distributions import LOG_2PI

Covariance = Literal["full", "diag"]

MOST_FULL_DIMENSIONS = 512
"""Beyond this, a ``d x d`` covariance has more numbers than common data sets can estimate."""

_MOST_ITERATIONS = 1000
_CHUNK_ELEMENTS = 2**23


@dataclass(frozen=True)
class Mixture:
    """``p(z | y) = sum_k w_k N(z; m_k, L_k L_k^T)``, one mixture for each of G groups of labels, in float64.

    G is 1 where labels mean nothing (any label will do), else the number of classes. Latents are flattened to ``d``.

    Args:
        weights: ``(G, K)``, rows sum to one.
        means: ``(G, K, d)``.
        cholesky: lower triangular ``(G, K, d, d)``; of diagonal covariances the diagonals only, ``(G, K, d)``.
    """

    weights: Tensor
    means: Tensor
    cholesky: Tensor

    is_bound: ClassVar[bool] = False

    @property
    def size(self) -> tuple[int, int]:
        """Groups, and dimensions of the latent."""
        return len(self.weights), self.means.shape[2]

    def state(self) -> dict[str, Any]:
        """Its tensors by name, for `mixture_of`."""
        return asdict(self)

    def problem(self) -> str | None:
        """Why this is not a valid mixture, None if it is: a file may hold anything."""
        named = {"weights": self.weights, "means": self.means, "cholesky": self.cholesky}
        for name, tensor in named.items():
            if not isinstance(tensor, Tensor) or tensor.dtype != torch.float64:
                return f"{name} is no tensor of float64"
            if not tensor.isfinite().all():
                return f"{name} has numbers that are not finite"
        if self.weights.ndim != 2 or not self.weights.numel() or self.means.shape[:2] != self.weights.shape:
            return f"weights {list(self.weights.shape)} and means {list(self.means.shape)} do not fit each other"
        d = self.means.shape[2:]
        if len(d) != 1 or self.cholesky.shape not in (self.means.shape, (*self.means.shape, *d)):
            return f"means {list(self.means.shape)} and cholesky {list(self.cholesky.shape)} do not fit each other"
        if (self.weights < 0.0).any() or (self.weights.sum(1) - 1.0).abs().max() > 1e-6:
            return "weights are no probabilities"
        scale = self.cholesky if self.cholesky.ndim == 3 else self.cholesky.diagonal(dim1=2, dim2=3)
        return None if (scale > 0.0).all() else "cholesky has a scale that is not positive"

    def sample(self, y: Tensor, temperature: float, seed: int) -> Tensor:
        """Component by its weight, then ``m_k + temperature L_k eps``: labels ``y (n,) -> (n, d)``.

        The noise is a function of the seed and the row, not of the label: equal rows of two calls differ by their
        mixtures alone.
        """
        generator = Generator().manual_seed(seed)
        uniform = torch.rand(len(y), 1, dtype=torch.float64, generator=generator)
        eps = torch.randn(len(y), self.means.shape[-1], dtype=torch.float64, generator=generator)
        group = self._group(y)
        k = (uniform >= self.weights.cumsum(1)[group]).sum(1).clamp(max=self.weights.shape[1] - 1)
        z = self.means[group, k]
        for g, component in torch.stack([group, k], 1).unique(dim=0).tolist():  # no d x d matrix for each image
            rows = (group == g) & (k == component)
            scale = self.cholesky[g, component]
            z[rows] += temperature * (eps[rows] @ scale.T if scale.ndim == 2 else eps[rows] * scale)
        return z

    def log_prob(self, z: Tensor, y: Tensor) -> Tensor:
        """``log p(z | y)`` of latents ``(n, d)`` and labels ``(n,)``: ``-> (n,)`` nats."""
        z, group = z.double(), self._group(y)
        result = torch.empty(len(z), dtype=torch.float64)
        rows_at_once = max(1, _CHUNK_ELEMENTS // self.means[0].numel())
        for g in group.unique().tolist():
            for rows in (group == g).nonzero().squeeze(1).split(rows_at_once):
                result[rows] = self._log_prob(z[rows], g)
        return result

    def _log_prob(self, z: Tensor, g: int) -> Tensor:
        centered = (z - self.means[g].unsqueeze(1)).mT  # (K, d, n)
        scale = self.cholesky[g]
        if scale.ndim == 3:
            eps, diagonal = torch.linalg.solve_triangular(scale, centered, upper=False), scale.diagonal(dim1=1, dim2=2)
        else:
            eps, diagonal = centered / scale.unsqueeze(-1), scale
        log_normal = -0.5 * (eps.square() + LOG_2PI).sum(1) - diagonal.log().sum(1, keepdim=True)  # (K, n)
        return torch.logsumexp(self.weights[g].log().unsqueeze(1) + log_normal, 0)

    def _group(self, y: Tensor) -> Tensor:
        return torch.zeros_like(y) if len(self.weights) == 1 else y


def mixture_of(state: dict[str, Any]) -> Mixture:
    """The mixture whose `Mixture.state` this is.

    Raises:
        ValueError: it is none, with the reason.
    """
    mixture = Mixture(*(state.get(name) for name in ("weights", "means", "cholesky")))  # type: ignore[arg-type]
    if (problem := mixture.problem()) is not None:
        raise ValueError(problem)
    return mixture


def fit_mixture(
    z: Tensor, y: Tensor, num_classes: int, components: int, covariance: Covariance, seed: int
) -> tuple[Mixture, bool]:
    """Maximum likelihood by EM from k-means: latents ``z (N, d)``, labels ``y (N,)``; and whether it converged.

    One mixture of ``components`` for each of ``num_classes`` classes, or one for all where that is 0.

    Raises:
        ValueError: the latents have too many dimensions for full covariances, or there are too few images.
    """
    d = z.shape[1]
    if covariance == "full" and d > MOST_FULL_DIMENSIONS:
        raise ValueError(
            f"lit-vae fit-prior: --covariance full: the latent has {d} dimensions, flattened, and more than"
            f" {MOST_FULL_DIMENSIONS} are not fitted with {d} x {d} covariances. Give --covariance diag."
        )
    parts = [z[y == label] for label in range(num_classes)] if num_classes else [z]
    least = components * (d + 1 if covariance == "full" else 2)
    smallest = min(map(len, parts))
    if smallest < least:
        whose = "the smallest class" if num_classes else "the training set"
        raise ValueError(
            f"lit-vae fit-prior: {components} components with --covariance {covariance} in {d} dimensions need at least"
            f" {least} images, {whose} has {smallest}. Give fewer --components"
            + (", or --covariance diag." if covariance == "full" else ".")
        )
    fits = [_fit(part, components, covariance, seed) for part in parts]
    weights, means, cholesky = (torch.stack(tensors) for tensors in zip(*(fit[:3] for fit in fits), strict=True))
    return Mixture(weights, means, cholesky), all(fit[3] for fit in fits)


def _fit(z: Tensor, components: int, covariance: Covariance, seed: int) -> tuple[Tensor, Tensor, Tensor, bool]:
    import warnings

    from sklearn.exceptions import ConvergenceWarning
    from sklearn.mixture import GaussianMixture

    model = GaussianMixture(components, covariance_type=covariance, max_iter=_MOST_ITERATIONS, random_state=seed)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore", ConvergenceWarning)  # said in the record
        model.fit(z.double().numpy())
    covariances = torch.from_numpy(model.covariances_)
    scale = torch.linalg.cholesky(covariances) if covariance == "full" else covariances.sqrt()
    return torch.from_numpy(model.weights_), torch.from_numpy(model.means_), scale, bool(model.converged_)
