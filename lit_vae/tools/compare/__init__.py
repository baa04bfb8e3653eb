"""Runs side by side: ``lit-vae compare`` (one page) and ``lit-vae table``."""

from lit_vae.tools.compare.run_table import table
from lit_vae.tools.compare.verb import compare

__all__ = ["compare", "table"]
