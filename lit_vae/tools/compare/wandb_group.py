"""A comparison in Weights & Biases: a group with one W&B run for each compared run."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from lit_vae.run.wandb_settings import wandb_mode, wandb_project
from lit_vae.tools.compare.gather import Entry
from lit_vae.tools.compare.pictures import NUM_SAMPLES, Group, Pictures, psnr
from lit_vae.tools.compare.sheets import coloured, to_picture

if TYPE_CHECKING:
    from wandb import Run as WandbRun

    from lit_vae.tools.compare.verb import Comparison

JOB_TYPE = "compare"
_LONGEST_TAG = 64  # letters, a limit of W&B
COLUMNS = ("image", "original", "reconstruction", "error", "psnr")


def log_to_wandb(comparison: "Comparison", folder: Path) -> None:
    """Log the curves and numbers of every run, a table of reconstructions and a sheet of samples.

    They go into new W&B runs: the runs of the trainings accept no steps before their last one.

    Raises:
        ValueError: W&B fails.
    """
    import wandb

    mode = wandb_mode()
    if mode == "disabled":
        print("W&B is disabled (WANDB_MODE=disabled): nothing is logged.")
        return
    try:
        for i, entry in enumerate(comparison.entries):
            with _started(comparison, entry, folder) as run:
                _log_curves(run, entry)
                group = next((group for group in comparison.groups if i in group.members), None)
                _log_pictures(run, comparison.pictures[i], group, i)
                run.summary.update(_summary(entry))
    except (wandb.Error, OSError) as error:
        raise ValueError(
            f"lit-vae compare: --wandb true: {error}. The page is written, in {folder}. Set WANDB_MODE=offline to log"
            " without a connection, and upload later with wandb sync."
        ) from error
    print(f"W&B ({mode}): project {wandb_project()}, group {comparison.name}")
    if mode == "offline":
        print(f"upload it from this machine with: wandb sync {folder / 'wandb'}/offline-run-*")


def _started(comparison: "Comparison", entry: Entry, folder: Path) -> "WandbRun":
    import wandb

    return wandb.init(
        project=wandb_project(),
        group=comparison.name,
        tags=[comparison.name[:_LONGEST_TAG]],
        job_type=JOB_TYPE,
        name=entry.label,
        config={**entry.records.config, "compared": {"directory": str(entry.records.directory)}},
        dir=str(folder),
        mode=wandb_mode(),  # type: ignore[arg-type]
        reinit="create_new",
        settings=wandb.Settings(silent=True),
    )


def _log_curves(run: "WandbRun", entry: Entry) -> None:
    """Log the training's numbers at their steps."""
    rows: dict[int, dict[str, float]] = {}
    for name, points in entry.curves.items():
        for step, value in points:
            rows.setdefault(step, {})[name] = value
    for step in sorted(rows):
        run.log(rows[step], step=step)


def _log_pictures(run: "WandbRun", pictures: Pictures, group: Group | None, i: int) -> None:
    import wandb

    shown: dict[str, Any] = {}
    if group is not None and pictures.x is not None and pictures.x_hat is not None:
        decibels = psnr(pictures.x, pictures.x_hat)
        errors = coloured(group.errors[i], group.most_error)
        table = wandb.Table(columns=list(COLUMNS))
        for n, (x, x_hat, error) in enumerate(zip(group.x, pictures.x_hat, errors, strict=True)):
            images = [wandb.Image(to_picture(image)) for image in (x, x_hat, error)]
            table.add_data(n + 1, *images, decibels[n])
        shown["compare/reconstructions"] = table
    if pictures.samples is not None:
        from callbacks.drawing import arrange, sheet

        sheet_of_samples = sheet(arrange(pictures.samples, 4))
        shown["compare/samples"] = wandb.Image(sheet_of_samples, caption=f"{NUM_SAMPLES} {pictures.drawn}")
    if shown:
        run.log(shown)


def _summary(entry: Entry) -> dict[str, float]:
    """Numbers by the names that the training gives them, such as ``test/psnr``; costs as ``cost/seconds``."""
    return {f"{n.split or 'cost'}/{name}": n.value for name, n in entry.numbers.items()}
