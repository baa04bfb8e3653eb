"""``lit-vae export``: a model for other libraries, with a model card of what was measured."""

from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from lit_vae.run.files import TEST_METRICS_FILE
from lit_vae.tools.measure.latent_moments import latent_report
from lit_vae.tools.output import four_decimals, markdown_escape
from lit_vae.tools.records import read_record
from lit_vae.tools.runs import Checkpoint, Run, as_autoencoder, check_arguments, choose_device, find_run, load_model

if TYPE_CHECKING:
    from lit_vae.models.base import Autoencoder
    from lit_vae.models.module import Model


def export(
    run: str,
    format: Literal["diffusers"] = "diffusers",
    out: str | None = None,
    scaling_factor: float | None = None,
    shift_factor: float | None = None,
    checkpoint: Checkpoint = "best",
) -> None:
    """Write the model of a run as a folder that diffusers loads: AutoencoderKL, or VQModel of a VQ-VAE.

    The folder holds the weights (safetensors), config.json and README.md, a model card with the numbers of
    RUN/test_metrics.json. The networks must be lit_vae.networks.LDMEncoder and LDMDecoder. A diffusion model is not
    exported: no network of diffusers reads its clock.

    Args:
        run: Run directory or .ckpt file.
        format: The library.
        out: Folder to write; it must not exist. Default: RUN/diffusers.
        scaling_factor: Factor of latents in latent diffusion. Default: the published one for an imported model, else
            1 / std as measured by lit-vae latents.
        shift_factor: Subtracted from latents before scaling. Default: the published one for an imported model, else 0.
        checkpoint: Which checkpoint of a run directory.
    """
    from lit_vae.interop import export_diffusers
    from lit_vae.run.checkpoints import AtomicCheckpointIO

    check_arguments("export", {"scaling_factor": (scaling_factor, 1e-6)})
    found = find_run(run, checkpoint)
    loaded = load_model(found, choose_device("cpu"))
    _check_clock(found, loaded)
    model = as_autoencoder("export", found, loaded)
    latents = latent_report(found)
    published = AtomicCheckpointIO().load_checkpoint(found.checkpoint).get("published_scaling") or {}
    if shift_factor is None:
        shift_factor = published.get("shift_factor")
    if scaling_factor is None:  # diffusion models that were trained on published latents need their scaling
        scaling_factor = published.get("scaling_factor")
    if scaling_factor is None:
        if latents is None:
            raise ValueError(
                f"lit-vae export: {found.checkpoint} does not say how large its latents are. Measure them with"
                f" lit-vae latents {run}, or give --scaling_factor, 1 / their standard deviation."
            )
        scaling_factor = float(latents["scale_factor"])
    folder = found.directory / format if out is None else Path(out)
    export_diffusers(model, folder, scaling_factor, shift_factor, _card(found, model, folder.name, latents))
    print(folder)
    print(f"scaling_factor {scaling_factor:g}, shift_factor {shift_factor or 0.0:g}")


def _check_clock(run: Run, model: "Model") -> None:
    """Raise a ValueError for a diffusion model, whose network could be copied but for what it is told of the noise."""
    from lit_vae.models.abilities import SecondStage
    from lit_vae.models.denoising import DenoisingModel

    if not isinstance(model, DenoisingModel):
        return
    stage1 = model.stage1 if isinstance(model, SecondStage) else None
    raise ValueError(
        f"lit-vae export: {run.checkpoint} is a {type(model).__name__}, whose network is told the log-SNR. Networks of"
        " diffusers are told one of 1000 steps, by waves of other frequencies: no weights there compute the same"
        " (docs/diffusion.md). Draw from it with lit-vae sample."
        + (f" For the autoencoder that decodes its draws: lit-vae export {stage1['path']}." if stage1 else "")
    )


def _card(run: Run, model: "Autoencoder", name: str, latents: Mapping[str, Any] | None) -> str:
    """The model card, Markdown with the header of the Hugging Face hub."""
    from lit_vae import __version__
    from lit_vae.models.abilities import HasCodes

    class_name = "VQModel" if isinstance(model, HasCodes) else "AutoencoderKL"
    image, latent = ("x".join(map(str, shape)) for shape in (model.image_shape, model.latent_shape))
    text = f"""\
---
library_name: diffusers
tags: [autoencoder, {class_name}]
---
# {name}

`{type(model).__name__}` of lit_vae {__version__}: images {image} in [-1, 1] to latents {latent} and back.
Checkpoint `{run.checkpoint.name}`, SHA-256 `{run.identity}`.

```python
from diffusers import {class_name}
model = {class_name}.from_pretrained("{name}")
```
"""
    return text + _measured(run) + _latents(latents)


def _measured(run: Run) -> str:
    """The section with the numbers of the test, and what they were measured on."""
    from lit_vae.tools.record_forms import TestMetrics

    path = run.directory / TEST_METRICS_FILE
    if not path.is_file():
        return "\n## Measured\n\nNothing yet (`lightning test`).\n"
    record = read_record(path, TestMetrics)
    lines = [
        f"| {markdown_escape(key.removeprefix('test/'))} | {four_decimals(value)} |"
        for key, value in record.get("metrics", {}).items()
    ]
    other = record.get("checkpoint_sha256") != run.identity
    of = f" **of another checkpoint**, {markdown_escape(Path(record.get('checkpoint', '')).name)}" if other else ""
    return "\n".join(
        [
            "\n## Measured",
            "",
            f"By `lightning test` of lit_vae{of}: means over the test images of"
            f" {markdown_escape(str(record.get('data')))} (seed {record.get('data_seed')}), shape"
            f" {record.get('image_shape')}, values {markdown_escape(str(record.get('values')))}."
            " Likelihoods in nats per image.",
            "",
            "| metric | value |",
            "| --- | ---: |",
            *lines,
            "",
        ]
    )


def _latents(report: Mapping[str, Any] | None) -> str:
    """The section with mean and standard deviation of each channel; blank if they were not measured."""
    if report is None:
        return ""
    pairs = enumerate(zip(report["mean"], report["std"], strict=True))
    return "\n".join(
        [
            "\n## Latents",
            "",
            f"Over {report['num_images']} images of split {report['split']}; 1 / std of all channels together is"
            f" {report['scale_factor']:.5f}.",
            "",
            "| channel | mean | std |",
            "| ---: | ---: | ---: |",
            *(f"| {channel} | {mean:.4f} | {std:.4f} |" for channel, (mean, std) in pairs),
            "",
        ]
    )
