"""``lit-vae latents``: mean and scale of a run's latents, for a diffusion model on them."""

from pathlib import Path
from typing import TYPE_CHECKING, Any

from lit_vae.run.files import write_json
from lit_vae.tools.output import print_numbers, progress_bar
from lit_vae.tools.records import read_record
from lit_vae.tools.runs import Checkpoint, Run, Split, choose_device, find_run, load_autoencoder, load_data

if TYPE_CHECKING:
    from lit_vae.metrics import LatentMoments

LATENTS_FILE = "latents.json"


def latents(
    run: str,
    split: Split = "val",
    out: str | None = None,
    data_root: str | None = None,
    checkpoint: Checkpoint = "best",
    device: str | None = None,
) -> None:
    """Measure mean and std of every channel of the latents, scale_factor and shift_factor.

    They are the moments of posterior draws over all images of a split, in closed form, or of the latents themselves if
    the model has no posterior. A diffusion model is trained on (z - shift_factor) * scale_factor, with mean 0 and
    variance 1.

    Args:
        run: Run directory or .ckpt file of an autoencoder.
        split: Whose images.
        out: JSON file to write. Default: RUN/latents.json.
        data_root: Folder of the data, if it is not where it was in training. Nothing is downloaded.
        checkpoint: Which checkpoint of a run directory.
        device: cpu, cuda or cuda:N. Default: the GPU if there is one.
    """
    from callbacks.latent_report import in_one_line
    from lit_vae.run.checkpoints import AtomicCheckpointIO

    path = None if out is None else Path(out)
    if path is not None and (path.suffix != ".json" or path.is_dir()):
        raise ValueError(f"--out {out}: the numbers are written as JSON. Give a file name that ends in .json.")
    found = find_run(run, checkpoint)
    path = found.directory / LATENTS_FILE if path is None else path
    moments = _measure(found, split, data_root, device)
    if not float(moments.total_std) > 0.0:
        raise ValueError(
            f"lit-vae latents: all latents of {found.checkpoint} are the same number, {float(moments.shift):g}, and no"
            " factor scales them. Train the model further, or another."
        )
    step = AtomicCheckpointIO().load_checkpoint(found.checkpoint)["global_step"]
    report = {**moments.report(), "split": split, "step": int(step)}
    record = {**report, "checkpoint": found.checkpoint.name, "checkpoint_sha256": found.identity}
    write_json(path, record)
    columns = {name: {str(channel): value for channel, value in enumerate(report[name])} for name in ("mean", "std")}
    print_numbers(f"latents  {found.directory}", columns, of="channel")
    print(in_one_line(report))
    print(path)


def latent_report(run: Run) -> dict[str, Any] | None:
    """The report of ``lit-vae latents`` on this checkpoint, else the one that training saved in it, else None."""
    from lit_vae.run.checkpoints import AtomicCheckpointIO
    from lit_vae.tools.record_forms import Latents

    record = read_record(run.directory / LATENTS_FILE, Latents)
    if record and record["checkpoint_sha256"] == run.identity:
        return record
    return AtomicCheckpointIO().load_checkpoint(run.checkpoint).get("latent_report")


def _measure(run: Run, split: Split, data_root: str | None, device: str | None) -> "LatentMoments":
    from callbacks.latent_report import latents_of
    from callbacks.panel import to_model
    from callbacks.periodic import untouched
    from lit_vae.metrics import LatentChannels

    model = load_autoencoder("latents", run, choose_device(device))
    data = load_data(run, model, data_root, [split])
    metric, done, total = LatentChannels().to(model.device), 0, len(data.source(split))
    with untouched(model), progress_bar(f"encoding {split}") as progress:
        for batch in data.ordered_dataloader(split):
            metric.update(latents_of(model, to_model(batch, model)))
            done += len(batch.x)
            progress(done, total)
        if not total:
            raise ValueError(f"lit-vae latents: --split {split} has no images. Give another split.")
        return metric.compute()
