"""Submit jobs to SLURM: any job, or those of ``lit-vae study`` (an array of trainings, then the page)."""

import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

SCRIPT = Path(__file__).with_name("study.sbatch")
STUDY = "lit-vae study --slurm true"
READS_SITE = 'set -a; if [ -f "${LIT_VAE_SITE:-}" ]; then . "$LIT_VAE_SITE"; fi; exec sbatch "$@"'
"""sbatch with the variables of a file: those of sbatch, such as SBATCH_PARTITION, and those of the job."""


def submit_study(names: Sequence[str], arguments: Sequence[str], logs: Path, page: bool) -> None:
    """Submit a job for each named configuration and, with ``page``, one for the page after all of them.

    Prints their ids and logs. ``arguments`` are those of ``lit-vae study``.

    Raises:
        ValueError: there is no SLURM here, or it refuses the job.
    """
    need_sbatch(STUDY, "without --slurm")
    logs.mkdir(parents=True, exist_ok=True)
    after = []
    if names:
        options = [f"--array=0-{len(names) - 1}", f"--output={logs}/%A_%a.out"]
        job = sbatch(STUDY, [*options, str(SCRIPT), *names, "--", *arguments])
        for task, name in enumerate(names):
            print(f"{name}: job {job}_{task}, log {logs}/{job}_{task}.out")
        after = [f"--dependency=afterany:{job}"]
    if page:
        job = sbatch(STUDY, [*after, f"--output={logs}/%j.out", str(SCRIPT), "--", *arguments])
        print(f"comparison: job {job}, log {logs}/{job}.out")


def need_sbatch(verb: str, instead: str) -> None:
    """Raise a ValueError if there is no SLURM here."""
    if shutil.which("sbatch") is None:
        raise ValueError(
            f"{verb}: there is no sbatch on the PATH. Run the command on a login node of the cluster, or {instead}."
        )


def sbatch(verb: str, arguments: Sequence[str], site: Path | None = None) -> str:
    """Submit a job and return its id: options of sbatch, the script, and its arguments.

    ``site`` is a file of variables for sbatch and the job.

    Raises:
        ValueError: SLURM refuses the job; it names the verb.
    """
    command = ["bash", "-c", READS_SITE, "sbatch", "--parsable", *arguments]
    environment = {**os.environ, "LIT_VAE_PYTHON": sys.executable}
    if site is not None:
        environment["LIT_VAE_SITE"] = str(site.absolute())
    done = subprocess.run(command, capture_output=True, text=True, env=environment, check=False)
    if done.returncode:
        raise ValueError(
            f"{verb}: {done.stderr.strip() or 'sbatch failed'}. Partition, account, time and GPUs are set by"
            " SBATCH_PARTITION, SBATCH_ACCOUNT, SBATCH_TIMELIMIT and SBATCH_GPUS"
            f"{f', in {site}' if site else ''}; see {SCRIPT.parent}/*.sbatch."
        )
    return done.stdout.strip().partition(";")[0]  # a cluster of several adds its name
