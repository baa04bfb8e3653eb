"""A study as jobs of a SLURM cluster: an array of its configurations, and the page after them."""

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

SCRIPT = Path(__file__).with_name("study.sbatch")


def submit(names: Sequence[str], arguments: Sequence[str], logs: Path, page: bool) -> None:
    """Submit a job for each configuration and, after them all, one for the page; say which, and where they write.

    Args:
        names: of the configurations; none is no job.
        arguments: of ``lit-vae study``.
        logs: folder of what the jobs print.
        page: whether there is a job for it.

    Raises:
        ValueError: there is no SLURM here, or it takes no such job.
    """
    if shutil.which("sbatch") is None:
        raise ValueError(
            "lit-vae study --slurm true: there is no sbatch on the PATH. Give the command on a login node of the"
            " cluster, or without --slurm."
        )
    logs.mkdir(parents=True, exist_ok=True)
    after = []
    if names:
        job = _sbatch([f"--array=0-{len(names) - 1}", f"--output={logs}/%A_%a.out"], [*names, "--", *arguments])
        for task, name in enumerate(names):
            print(f"{name}: job {job}_{task}, log {logs}/{job}_{task}.out")
        after = [f"--dependency=afterany:{job}"]
    if page:
        job = _sbatch([*after, f"--output={logs}/%j.out"], ["--", *arguments])
        print(f"comparison: job {job}, log {logs}/{job}.out")


def _sbatch(options: Sequence[str], arguments: Sequence[str]) -> str:
    """The id of the job."""
    command = ["sbatch", "--parsable", *options, str(SCRIPT), *arguments]
    environment = {**os.environ, "LIT_VAE_PYTHON": sys.executable}
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise ValueError(
            f"lit-vae study --slurm true: {done.stderr.strip() or 'sbatch failed'}. Partition, account, time and GPUs"
            f" are set by SBATCH_PARTITION, SBATCH_ACCOUNT, SBATCH_TIMELIMIT and SBATCH_GPUS; see {SCRIPT}."
        )
    return done.stdout.strip().partition(";")[0]  # a cluster of several adds its name
