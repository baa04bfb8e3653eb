"""Uploading what W&B has kept of runs on nodes without internet."""

import os
import subprocess
import sys
from collections.abc import Iterator
from pathlib import Path

from lit_vae.offline import VARIABLE, is_offline
from lit_vae.run.lock import LOCK_FILE, is_held
from lit_vae.run.wandb_records import records, segments

SYNCED = ".synced"
"""What W&B adds to the name of a record, for the file that says that it is uploaded."""

_TORN = "incomplete record"
"""What W&B says of the record of a start that was killed."""


def sync(runs: list[str], dry_run: bool = False) -> None:
    """Upload the offline records of runs to Weights & Biases, each once.

    A run that was preempted has one for each start, all of one id; they are uploaded one after the other, the oldest
    first, and are one run there. What fails is said at the end, and does not keep back the other runs.

    Args:
        runs: Run directories, or folders above them.
        dry_run: Say what would be uploaded.
    """
    if is_offline() and not dry_run:
        raise ValueError(
            f"lit-vae sync: {VARIABLE} (=1) says that the network is not touched, and an upload does. Unset it, or set"
            " it to 0, where there is internet; --dry_run true works without."
        )
    found = [folder for given in runs for folder in wandb_folders(Path(given))]
    if not found:
        given = " ".join(runs)
        raise ValueError(
            f"lit-vae sync: there is no wandb/offline-run-* in {given}. Give run directories, or a folder above them."
        )
    if not dry_run:
        _need_login()
    failed = [segment for folder in dict.fromkeys(found) for segment in _sync_run(folder, dry_run)]
    if failed:
        raise ValueError(
            f"lit-vae sync: not uploaded: {', '.join(map(str, failed))}. Give the same command again when what is said"
            " above is mended; what is uploaded is passed over."
        )


def wandb_folders(given: Path) -> list[Path]:
    """The folders ``wandb`` of all runs at or below a folder that have been offline."""
    found = {path.parent for path in given.rglob("offline-run-*") if path.is_dir() and path.parent.name == "wandb"}
    return sorted(found)


def _sync_run(folder: Path, dry_run: bool) -> Iterator[Path]:
    """Upload what is left of a run; yields what is not uploaded. After a failure the later ones wait for it."""
    waiting = False
    found = segments(folder, offline_only=True)
    for segment in found:
        if segment == found[-1] and is_held(folder.parent / LOCK_FILE):
            print(f"{segment}: is being written; give the command again when the training has ended", flush=True)
        elif any(segment.glob(f"*.wandb{SYNCED}")):
            print(f"{segment}: is uploaded already", flush=True)
        elif next(records(segment), None) is None:
            print(f"{segment}: is empty, killed before anything was written", flush=True)
        elif dry_run:
            print(f"{segment}: would be uploaded", flush=True)
        elif waiting:
            print(f"{segment}: waits for the one before it", flush=True)
            yield segment
        elif problem := _upload(segment):
            print(f"{segment}: failed: {problem}", flush=True)
            waiting = True
            yield segment
        else:
            print(f"{segment}: uploaded", flush=True)


def _upload(segment: Path) -> str:
    """Upload one start; what went wrong, or nothing. It is one process for each, so that none outruns another."""
    done = _wandb("sync", str(segment.absolute()))
    if _TORN in done.stdout + done.stderr and not any(record.HasField("exit") for record in records(segment)):
        for record in segment.glob("*.wandb"):  # W&B has sent what there is, and waits for an end that will not come
            record.with_name(record.name + SYNCED).touch()
    if not done.returncode and any(segment.glob(f"*.wandb{SYNCED}")):
        return ""
    said = [line.removeprefix("wandb: ").strip() for line in (done.stdout + done.stderr).splitlines() if line.strip()]
    return said[-1] if said else f"wandb sync ended with exit code {done.returncode}"


def _need_login() -> None:
    """Raise a ValueError where nobody is logged in, before W&B asks."""
    from lit_vae.run.wandb_logger import logged_in

    if not logged_in():
        raise ValueError("lit-vae sync: nobody is logged in to W&B here. Give wandb login, or set WANDB_API_KEY.")


def _wandb(*arguments: str) -> "subprocess.CompletedProcess[str]":
    """W&B's own command; `WANDB_MODE`, which is for training, does not reach it."""
    environment = {name: value for name, value in os.environ.items() if name != "WANDB_MODE"}
    command = [sys.executable, "-m", "wandb", *arguments]
    return subprocess.run(
        command, stdin=subprocess.DEVNULL, capture_output=True, text=True, check=False, env=environment
    )
