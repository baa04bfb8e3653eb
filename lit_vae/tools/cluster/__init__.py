"""Training as jobs of a SLURM cluster: ``lit-vae submit``, and the jobs of ``lit-vae study --slurm true``."""

from lit_vae.tools.cluster.training_job import submit

__all__ = ["submit"]
