"""Objectives: pure functions in nats per image (`elbo`) and the components made of them (`variational`)."""

from lit_vae.objectives.variational import ELBO, IWAE, DReG, Objective, Terms

__all__ = ["ELBO", "IWAE", "DReG", "Objective", "Terms"]
