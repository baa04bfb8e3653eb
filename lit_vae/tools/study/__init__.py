"""``lit-vae study``: train and test every configuration of a folder, then compare the runs."""

from lit_vae.tools.study.verb import study

__all__ = ["study"]
