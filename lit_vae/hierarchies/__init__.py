"""Hierarchies of latents: the wirings of `lit_vae.models.HierarchicalVAE`, and what their posteriors are."""

from lit_vae.hierarchies.base import Hierarchy, HierarchyFactory, Pick
from lit_vae.hierarchies.markovian import MarkovianBottomUp
from lit_vae.hierarchies.posteriors import Absolute, LadderMerge, LevelPosterior, ResidualNormal
from lit_vae.hierarchies.top_down import TopDown
from lit_vae.hierarchies.vector_and_map import VectorAndMap

__all__ = [
    "Absolute",
    "Hierarchy",
    "HierarchyFactory",
    "LadderMerge",
    "LevelPosterior",
    "MarkovianBottomUp",
    "Pick",
    "ResidualNormal",
    "TopDown",
    "VectorAndMap",
]
