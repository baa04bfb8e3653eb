"""Uploading what W&B has kept of runs on nodes without internet."""

from collections.abc import Iterator
from pathlib import Path

from lit_vae.offline import VARIABLE, is_offline
from lit_vae.run.lock import LOCK_FILE, is_held
from lit_vae.run.wandb_records import history, is_offline_start, is_synced, last_step, mark_synced, segments
from lit_vae.tools.upload import step_on_server, upload


def sync(runs: list[str], dry_run: bool = False) -> None:
    """Upload to Weights & Biases what it has not got of runs: of starts that were offline, or lost their connection.

    A run that was preempted has one record for each start, all of one id; they are uploaded one after the other, the
    oldest first, and are one run there. What fails is said at the end, and does not keep back the other runs.

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
            f"lit-vae sync: there is no wandb/[offline-]run-* in {given}. Give run directories, or a folder above them."
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
    """The folders ``wandb`` of all runs at or below a folder."""
    return sorted(path for path in given.rglob("wandb") if path.is_dir() and segments(path))


def _sync_run(folder: Path, dry_run: bool) -> Iterator[Path]:
    """Upload what is left of a run; yields what is not uploaded. After a failure the later ones wait for it."""
    failed, on_server = False, None
    found = segments(folder)
    for segment in found:
        if segment == found[-1] and is_held(folder.parent / LOCK_FILE):
            said = "is being written; give the command again when the training has ended"
        elif is_synced(segment):
            said = "is uploaded already"
        elif next(history(segment), None) is None:
            said = "has no step: it ended before the first one"
        elif dry_run:
            said = (
                "would be uploaded"
                if is_offline_start(segment)
                else "was online; what the server lacks would be uploaded"
            )
        elif failed:
            said = "waits for the one before it"
            yield segment
        else:
            said, on_server = _bring(segment, on_server)
            if failed := on_server is None:
                yield segment
        print(f"{segment}: {said}", flush=True)


def _bring(segment: Path, on_server: int | None) -> tuple[str, int | None]:
    """Upload a start; what is to be said of it, and the last step that the server has then, none after a failure.

    The server is asked for it once a run: afterwards it has what we have sent.
    """
    if on_server is None:
        try:
            on_server = step_on_server(segment)
        except Exception as error:
            return f"failed: what the server has of it is not known ({error})", None
    last = last_step([segment])
    if not is_offline_start(segment) and last <= on_server:
        mark_synced(segment)
        return "is uploaded already", on_server
    if problem := upload(segment, on_server):
        return f"failed: {problem}", None
    return "uploaded", max(on_server, last)


def _need_login() -> None:
    """Raise a ValueError where nobody is logged in, before W&B asks."""
    from lit_vae.run.wandb_logger import logged_in

    if not logged_in():
        raise ValueError("lit-vae sync: nobody is logged in to W&B here. Give wandb login, or set WANDB_API_KEY.")
