"""A diffusion model of latents, from the posteriors of stage 1 to images, numbers and a page."""

import csv
import json
import shutil
import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
import torch
import yaml
from fake_configs import ROOT, fake_latents, narrowed
from PIL import Image

from lit_vae.cli import main as lightning_main
from lit_vae.data import Latents
from lit_vae.run.loading import load_model, load_stage1
from lit_vae.tools.compare import compare
from lit_vae.tools.exchange import export
from lit_vae.tools.pictures import sample

Lightning = Callable[..., None]
CPU = torch.device("cpu")


@pytest.fixture(scope="module")
def lightning() -> Iterator[Lightning]:
    """The ``lightning`` command, run in this process."""
    with pytest.MonkeyPatch.context() as patch:

        def run(*args: str | Path) -> None:
            patch.setattr(sys, "argv", ["lightning", *map(str, args)])
            lightning_main()

        yield run


@pytest.fixture(scope="module")
def folder(tmp_path_factory: pytest.TempPathFactory, lightning: Lightning) -> Path:
    """Runs of stage 1 (``stage1``) and of a prior (``prior``), and the latents between them (``latents``)."""
    folder = tmp_path_factory.mktemp("latent_prior")
    config = yaml.safe_load((ROOT / "configs" / "latent_diffusion" / "mnist.yaml").read_text())
    config["model"] = narrowed(config["model"])
    root = fake_latents(config["model"]["init_args"], folder, lightning)
    config["data"]["init_args"] |= {"root": str(root), "batch_size": 12}
    rates = {"class_path": "callbacks.RateDistortion", "init_args": {"decibels": [1, 2, 90], "num_levels": 5}}
    config["trainer"] = {"max_epochs": 2, "log_every_n_steps": 1, "callbacks": [rates]}
    (folder / "prior.yaml").write_text(yaml.safe_dump(config))
    lightning("fit", "--config", folder / "prior.yaml", "--run_dir", folder / "prior")
    lightning("test", "--config", folder / "prior" / "config.yaml", "--ckpt_path", "last")
    return folder


def test_the_rate_is_what_a_latent_costs_under_the_prior(folder: Path) -> None:
    numbers = json.loads((folder / "prior" / "test_metrics.json").read_text())["metrics"]
    entropy = Latents(str(folder / "latents")).spec.entropy["test"]
    assert numbers["test/rate"] == pytest.approx(numbers["test/latent_nll"] - entropy, rel=1e-5)
    scaled = numbers["test/prior"] + numbers["test/last"] + numbers["test/diffusion"]
    log_std = torch.tensor(Latents(str(folder / "latents")).spec.std).log()
    assert numbers["test/latent_nll"] == pytest.approx(scaled + 16 * float(log_std.sum()), rel=1e-4)


def test_a_psnr_that_is_not_reached_has_no_rate(folder: Path) -> None:
    numbers = json.loads((folder / "prior" / "test_metrics.json").read_text())["metrics"]
    found = [name for name in numbers if "rate_at" in name]
    assert found == ["test/rate_at_1db", "test/rate_at_2db"]
    assert 0.0 <= numbers[found[0]] <= numbers[found[1]]


def test_draws_are_decoded_by_the_stage_1_that_made_the_latents(folder: Path) -> None:
    prior = load_model(folder / "prior" / "checkpoints" / "last.ckpt", CPU)
    assert prior.stage1 is not None  # type: ignore[union-attr]
    stage1 = load_stage1(prior.stage1["path"], prior.stage1["sha256"], CPU)  # type: ignore[union-attr, index]
    y, generator = torch.arange(4), torch.Generator()
    images = prior.sample_through(stage1, y, generator=generator.manual_seed(0))  # type: ignore[operator]
    z = prior.sample_latents(y, generator.manual_seed(0))  # type: ignore[operator]
    assert torch.equal(images, stage1.decode(z, y).mean.clamp(-1.0, 1.0))  # type: ignore[operator]


def test_it_is_sampled_and_compared_with_its_stage_1(folder: Path, tmp_path: Path) -> None:
    sample(str(folder / "prior"), n=20, checkpoint="last", out=str(tmp_path / "sheet.png"))
    with Image.open(tmp_path / "sheet.png") as picture:
        assert picture.text["Description"].startswith("Draws from the model, 3 steps of")  # type: ignore[attr-defined]
    compare([str(folder / "prior"), str(folder / "stage1")], out=str(tmp_path / "page"))
    with (tmp_path / "page" / "metrics.csv").open() as file:
        of_prior = {row["metric"]: row for row in csv.DictReader(file) if row["run"] == "prior"}
    assert float(of_prior["rate"]["value"]) == pytest.approx(
        json.loads((folder / "prior" / "test_metrics.json").read_text())["metrics"]["test/rate"]
    )
    assert "elbo" not in of_prior  # that of stage 1 is of the prior that it was trained with


def test_it_is_not_exported_and_the_error_says_what_to_do(folder: Path) -> None:
    with pytest.raises(ValueError) as error:
        export(str(folder / "prior"), checkpoint="last")
    assert str(error.value) == (
        f"lit-vae export: {folder}/prior/checkpoints/last.ckpt is a LatentDiffusion, whose network is told the log-SNR."
        " Networks of diffusers are told one of 1000 steps, by waves of other frequencies: no weights there compute the"
        " same (docs/diffusion.md). Draw from it with lit-vae sample. For the autoencoder that decodes its draws:"
        f" lit-vae export {folder}/stage1/checkpoints/last.ckpt."
    )
    assert not (folder / "prior" / "diffusers").exists()


def test_a_stage_1_that_is_gone_or_another_one_is_one_clear_error(folder: Path, tmp_path: Path) -> None:
    other = tmp_path / "other.ckpt"
    shutil.copy(folder / "prior" / "checkpoints" / "last.ckpt", other)
    errors = {str(other): "is not the checkpoint that the prior was trained on", "gone.ckpt": "is missing: gone.ckpt"}
    for stage1, said in errors.items():
        with pytest.raises(ValueError, match=said):
            sample(str(folder / "prior"), checkpoint="last", stage1=stage1, out=str(tmp_path / "x.png"))
