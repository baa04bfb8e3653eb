"""``lit-vae sync``: upload runs of nodes without internet to W&B."""

from pathlib import Path

from lit_vae.run.lock import LOCK_FILE, is_held, locked
from lit_vae.run.offline import VARIABLE, is_offline

SYNC_LOCK_FILE = Path("wandb") / "sync.lock"


def sync(runs: list[str], dry_run: bool = False) -> None:
    """Upload to Weights & Biases what its server lacks of runs that were offline or lost their connection.

    Each run is one W&B run, however often it was started: its id is kept in the run directory. The rows come from
    ``metrics.csv``, the pictures from ``media``. The last row of an unfinished run is uploaded when the run has
    continued, since a validation may still add to it. An upload that fails is named at the end, and the other runs are
    uploaded.

    Args:
        runs: Run directories, or folders above them.
        dry_run: List the runs, without a connection.
    """
    from lit_vae.run.wandb_settings import SETTINGS_FILE, logged_in

    if is_offline() and not dry_run:
        raise ValueError(
            f"lit-vae sync: {VARIABLE} (=1) says that the network is not touched, and an upload does. Unset it, or set"
            " it to 0, where there is internet; --dry_run true works without."
        )
    found = {file.parent.parent: None for given in runs for file in sorted(Path(given).rglob(str(SETTINGS_FILE)))}
    if not found:
        raise ValueError(
            f"lit-vae sync: there is no {SETTINGS_FILE} in {' '.join(runs)}. Give run directories that were trained"
            " with the W&B logger, or a folder above them."
        )
    if not dry_run and not logged_in():
        raise ValueError("lit-vae sync: nobody is logged in to W&B here. Run wandb login, or set WANDB_API_KEY.")
    failed: list[Path] = []
    left = list(found)
    while left:
        run = left.pop(0)
        try:
            said = _sync_run(run, dry_run)
        except Exception as error:  # of W&B or of the files of this run; the other runs go on
            said = f"failed: {error}"
            failed.append(run)
            if isinstance(error, TimeoutError):  # W&B hangs, and its process cannot be used for another run
                failed, left = failed + left, []
        print(f"{run}: {said}", flush=True)
    if failed:
        raise ValueError(
            f"lit-vae sync: not uploaded: {', '.join(map(str, failed))}. Fix the errors above and give the same command"
            " again; what was uploaded is not sent twice."
        )


def _sync_run(run: Path, dry_run: bool) -> str:
    """Upload one run; returns what to print of it."""
    from lit_vae.tools.upload.wandb_upload import Upload

    if is_held(run / LOCK_FILE):
        return "is being trained; run the command again after the training has ended"
    upload = Upload(run)
    if upload.is_empty:
        return "has no finished step"
    if dry_run:
        return f"what the server lacks would be uploaded{upload.extent}"
    try:
        with locked(run / SYNC_LOCK_FILE):
            sent = upload.send_lacking()
    except BlockingIOError as error:
        return f"is being uploaded already ({error})"
    return f"uploaded{upload.extent} ({sent})" if any(sent) else "is uploaded already"
