"""Objectives: pure functions in nats per image (`elbo`), of logits (`adversarial`), and the components made of them."""

from lit_vae.objectives.adversarial import AdversarialLoss, Hinge, LeastSquares, NonSaturating
from lit_vae.objectives.variational import ELBO, IWAE, DReG, Objective, Terms

__all__ = [
    "ELBO",
    "IWAE",
    "AdversarialLoss",
    "DReG",
    "Hinge",
    "LeastSquares",
    "NonSaturating",
    "Objective",
    "Terms",
]
