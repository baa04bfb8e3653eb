"""``lit-vae compare`` on small runs of every kind, whatever became of them."""

import base64
import csv
import io
import json
import re
import shutil
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import warm
import yaml
from PIL import Image
from tools_helpers import Fails, RunCopy, Tools, data_of, model_of, pixels
from two_stages_helpers import TwoStages

from callbacks import Draws, Samples
from callbacks.drawing import arrange, sheet
from callbacks.panel import decode_draws
from lit_vae.images import to_uint8
from lit_vae.run.loading import load_stage1
from lit_vae.tools.priors.fitted import Sampled, load_prior
from lit_vae.tools.priors.mixture import Mixture
from lit_vae.tools.runs import find_run


def shown(page: Path, alt: str) -> np.ndarray:
    """The image of the page whose text begins so."""
    found = re.search(rf'<img src="data:image/png;base64,([^"]+)" alt="{re.escape(alt)}', page.read_text())
    assert found is not None, alt
    return np.asarray(Image.open(io.BytesIO(base64.b64decode(found.group(1)))))


def text_of(page: Path) -> str:
    return re.sub(r"<[^>]+>", "", page.read_text())


def card(page: Path, label: str) -> str:
    """What is said of a run."""
    cards = re.findall(r"<article.*?</article>", page.read_text(), re.S)
    return next(re.sub(r"<[^>]+>", " ", c) for c in cards if f"</svg>{label}</span>" in c)


def levels(x: torch.Tensor) -> np.ndarray:
    return np.asarray(to_uint8(x)[0].cpu())


def test_reconstructions_and_samples_are_those_of_the_runs(
    tools: Tools, runs: dict[str, Path], two_stages: TwoStages, tmp_path: Path, no_grad: None
) -> None:
    out = tmp_path / "out"
    printed = tools("compare", runs["VAE"], runs["CVAE"], two_stages.prior, "--out", out, "--num_images", 3)
    written = ["index.html", "reconstructions.png", "samples.png", "scatter.png", "spectra.png", "metrics.csv"]
    assert set(printed.split()) == {str(out / name) for name in written} | {str(out / "curves.png")} & set(
        printed.split()
    )
    page = out / "index.html"
    x, y = data_of(runs["VAE"]).example_batch(3, "test")
    stage1 = model_of(two_stages.stage1)
    for label, model in (("VAE", model_of(runs["VAE"])), ("CVAE", model_of(runs["CVAE"])), ("prior", stage1)):
        x_hat = model.reconstruct(x, y)
        for n in range(3):
            assert np.array_equal(shown(page, f"Image {n + 1} reconstructed by {label}, "), levels(x_hat[n]))
    for n in range(3):
        assert np.array_equal(shown(page, f"Image {n + 1}, the original"), levels(x[n]))

    for label in ("VAE", "CVAE"):
        assert np.array_equal(
            shown(page, f"16 samples of {label}"), np.asarray(Samples(16).draw(model_of(runs[label])))
        )
    prior, panel = model_of(two_stages.prior), Draws(16)
    panel.decoder = load_stage1(prior.stage1["path"], prior.stage1["sha256"], torch.device("cpu"))
    draws = panel.images(prior, torch.arange(16) % 10)
    assert np.array_equal(shown(page, "16 samples of prior"), np.asarray(sheet(arrange(draws, 4))))
    assert "its own + that of stage 1" in card(page, "prior")
    assert "Reconstructions and their numbers are those of its stage 1" in card(page, "prior")


def test_the_same_runs_make_the_same_bytes(tools: Tools, runs: dict[str, Path], tmp_path: Path) -> None:
    for name in ("first", "second"):
        tools("compare", runs["VAE"], runs["AE"], "--out", tmp_path / name / "page", "--num_images", 2)
    first, second = (sorted((tmp_path / name / "page").iterdir()) for name in ("first", "second"))
    assert [path.name for path in first] == [path.name for path in second]
    for one, other in zip(first, second, strict=True):
        assert one.read_bytes() == other.read_bytes(), one.name


def test_the_options_choose_images_samples_and_checkpoint(
    tools: Tools, runs: dict[str, Path], tmp_path: Path, no_grad: None
) -> None:
    options = ["--split", "val", "--num_images", 1, "--seed", 5, "--checkpoint", "last", "--device", "cpu"]
    tools("compare", runs["VAE"], runs["AE"], "--out", tmp_path / "out", *options)
    page = tmp_path / "out" / "index.html"
    x, _ = data_of(runs["VAE"]).example_batch(1, "val")
    assert np.array_equal(shown(page, "Image 1, the original"), levels(x[0]))
    assert "Image 2" not in page.read_text()
    expected = Samples(16, seed=5).draw(model_of(runs["VAE"] / "checkpoints" / "last.ckpt"))
    assert np.array_equal(shown(page, "16 samples of VAE"), np.asarray(expected))
    assert "last.ckpt, SHA-256" in card(page, "VAE")


def test_draws_of_a_run_are_beside_its_means(
    tools: Tools, runs: dict[str, Path], tmp_path: Path, no_grad: None
) -> None:
    run = runs["VAE"]
    tools("compare", run, f"{run}@drawn", "--out", tmp_path / "out", "--num_images", 2, "--seed", 3)
    page, model = tmp_path / "out" / "index.html", model_of(run)
    x, y = data_of(run).example_batch(2, "test")
    drawn = decode_draws(model, model.embed(x, y), y, 3)  # of a VAE, whose reconstruction is the mean there
    for n, of in enumerate(zip(model.reconstruct(x, y), drawn, strict=True), 1):
        for label, image in zip(("VAE", "VAE@drawn"), of, strict=True):
            assert np.array_equal(shown(page, f"Image {n} reconstructed by {label}, "), levels(image))
    expected = Samples(16, seed=3, pixels="sample").draw(model)
    assert np.array_equal(shown(page, "16 samples of VAE@drawn"), np.asarray(expected))
    assert "draws from p(x|z) at draws from the prior" in page.read_text()


def test_a_fitted_mixture_changes_samples_and_their_numbers_alone(
    tools: Tools, run_copy: RunCopy, tmp_path: Path, no_grad: None
) -> None:
    run = run_copy("VAE")
    tools("fit-prior", run, "--components", 2)
    tools("compare", run, f"{run}@gmm", "--out", tmp_path / "out", "--num_images", 2)
    page = tmp_path / "out" / "index.html"
    for n in (1, 2):
        own, mixed = (shown(page, f"Image {n} reconstructed by {label}, ") for label in ("VAE", "VAE@gmm"))
        assert np.array_equal(own, mixed)
    model = model_of(run)
    mixture = load_prior(find_run(str(run), "best"), model)
    assert isinstance(mixture, Mixture)
    drawn: Any = Sampled(model, None, mixture)
    assert np.array_equal(shown(page, "16 samples of VAE@gmm"), np.asarray(Samples(16).draw(drawn)))
    assert not np.array_equal(shown(page, "16 samples of VAE@gmm"), shown(page, "16 samples of VAE"))
    metrics = json.loads((run / "priors" / "gmm.json").read_text())["metrics"]
    rows = (tmp_path / "out" / "metrics.csv").read_text().splitlines()
    values = {tuple(row.split(",")[i] for i in (0, 3)): float(row.split(",")[4]) for row in rows[1:]}
    assert values["VAE", "fd_pca64"] == metrics["test/fd_pca64"]
    assert values["VAE@gmm", "fd_pca64"] == metrics["test/fd_pca64_gmm"]


def test_what_a_crashed_run_has_left_is_shown(tools: Tools, run_copy: RunCopy, tmp_path: Path) -> None:
    whole, crashed = run_copy("VAE"), run_copy("AE")
    shutil.rmtree(crashed / "checkpoints")
    record = json.loads((crashed / "run.json").read_text()) | {"status": "failed", "error": "NaNGuard: val/loss is nan"}
    (crashed / "run.json").write_text(json.dumps(record))
    for run in (whole, crashed):
        (run / "metrics.csv").write_text("step,val/psnr\n9,10.0\n19,12.0\n29,1")
    tools("compare", whole, crashed, "--out", tmp_path / "out", "--num_images", 2)
    page = tmp_path / "out" / "index.html"
    assert "failed at step 12: NaNGuard: val/loss is nan" in card(page, "AE")
    assert "It has no checkpoint yet." in card(page, "AE")
    assert "AE is not shown: no checkpoint yet." in text_of(page)
    assert "No samples: no checkpoint yet." in text_of(page)
    assert "Image 1 reconstructed by VAE" in page.read_text()
    assert "val/psnr" in text_of(page)
    assert (tmp_path / "out" / "curves.png").is_file()


def test_models_without_reconstructions_and_other_data_stand_apart(
    tools: Tools, runs: dict[str, Path], pixelcnn: Path, feature_net: Path, tmp_path: Path, no_grad: None
) -> None:
    out, classifier = tmp_path / "out", feature_net.parent.parent
    tools("compare", runs["VAE"], pixelcnn, classifier, "--out", out, "--num_images", 2)
    page, said = out / "index.html", text_of(out / "index.html")
    expected = sheet(arrange(Draws(16).images(model_of(pixelcnn), torch.full((16,), -1)), 4))
    assert np.array_equal(shown(page, f"16 samples of {pixelcnn.parent.name}/run"), np.asarray(expected))
    assert "a PixelCNN has no reconstructions" in said
    assert "a FeatureNet has no reconstructions" in said
    assert "No samples: a FeatureNet draws no images." in said


def test_runs_on_other_images_are_said_to_be(
    tools: Tools, run_copy: RunCopy, runs: dict[str, Path], tmp_path: Path
) -> None:
    other = run_copy("AE")
    path = other / "checkpoints" / "best.ckpt"
    content = torch.load(path, weights_only=True)
    content["datamodule_hyper_parameters"]["seed"] = 1
    torch.save(content, path)
    config = (other / "config.yaml").read_text()
    (other / "config.yaml").write_text(
        re.sub(r"(class_path: lit_vae.data.Digits.*?seed: )0", r"\g<1>1", config, flags=re.S)
    )
    for run, seed in ((runs["VAE"], 0), (other, 1)):
        record = {"checkpoint": "best.ckpt", "data": "Digits", "data_seed": seed, "metrics": {"test/psnr": 20.0 + seed}}
        target = run if run == other else run_copy("VAE")
        (target / "test_metrics.json").write_text(json.dumps(record))
    tools("compare", tmp_path / "VAE", other, "--out", tmp_path / "out", "--num_images", 2)
    said = text_of(tmp_path / "out" / "index.html")
    assert "2 runs on 2 different sets of images" in said
    assert "Not on the same images as VAE: AE (data_seed 1, not 0)." in said
    assert "AE does not compare with VAE: data_seed 1, not 0." in said


def test_data_elsewhere_is_that_of_the_runs_that_miss_theirs(
    tools: Tools, fails: Fails, run_copy: RunCopy, runs: dict[str, Path], tmp_path: Path
) -> None:
    moved, images = run_copy("AE"), tmp_path / "images"
    images.mkdir()
    generator = np.random.default_rng(0)
    for i in range(12):
        Image.fromarray(generator.integers(0, 256, (8, 8), dtype=np.uint8)).save(images / f"{i}.png")
    arguments = {"root": str(tmp_path / "moved"), "size": 8, "channels": 1, "num_val": 2, "num_test": 5}
    arguments |= {"dequantize": True, "num_workers": 0}
    path = moved / "checkpoints" / "best.ckpt"
    content = torch.load(path, weights_only=True)
    hyper_parameters = {"_class_path": "lit_vae.data.ImageFolder", **arguments}
    hyper_parameters["_instantiator"] = "lightning.pytorch.cli.instantiate_module"
    torch.save({**content, "datamodule_hyper_parameters": hyper_parameters}, path)
    config = yaml.safe_load((moved / "config.yaml").read_text())
    config["data"] = {"class_path": "lit_vae.data.ImageFolder", "init_args": arguments}
    (moved / "config.yaml").write_text(yaml.safe_dump(config))
    command = ["compare", runs["VAE"], moved, "--out", tmp_path / "out", "--num_images", 2]
    assert "If it is somewhere else: --data_root DIR." in fails(1, *command)
    tools(*command, "--data_root", images)
    page = tmp_path / "out" / "index.html"
    x, _ = data_of(runs["VAE"]).example_batch(1, "test")
    assert np.array_equal(shown(page, "Image 1, the original"), levels(x[0]))  # digits: they are nowhere else
    assert "Image 1 reconstructed by AE" in page.read_text()
    assert "2 runs on 2 different sets of images" in text_of(page)


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (["VAE"], "lit-vae compare: one run is nothing to compare. Give two or more, or RUN and RUN@gmm."),
        (["VAE", "VAE"], "given twice. Give each run once."),
        (["VAE", "nothing"], "there is no run nothing. Give a run directory, or a .ckpt file."),
        (["VAE", "empty"], "empty: it holds no run. Give a run directory, or a .ckpt file."),
        (["VAE", "AE", "--out", "a_file"], "lit-vae compare: --out a_file is a file. Give a folder"),
        (["VAE", "AE", "--num_images", 0], "lit-vae compare: --num_images (=0) must be at least 1."),
        (["VAE", "AE", "--seed", -1], "lit-vae compare: --seed (=-1) must be at least 0."),
        (["VAE", "AE", "--device", "gpu"], "--device gpu: "),
        (["VAE", "AE", "--sort_by", "psnrr"], "--sort_by psnrr: no run has this number. Give one of elbo, "),
        (["VAE", "VAE@gmm"], "Fit it first: lit-vae fit-prior"),
        (["VAE", "PIXELCNN@gmm"], "a PixelCNN has no latents to fit a mixture to. Give"),
        (["VAE", "PIXELCNN@drawn"], "a PixelCNN has no p(x|z) to draw from. Give"),
        (["VAE", "junk"], "checkpoints/best.ckpt cannot be read"),
        (["VAE", "image_less"], "lit-vae compare: image_less: Imageless is no model of images. Leave the run out."),
    ],
)  # fmt: skip
def test_a_mistake_is_one_clear_error_and_leaves_nothing(
    fails: Fails,
    runs: dict[str, Path],
    pixelcnn: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    args: list[Any],
    expected: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    (tmp_path / "empty").mkdir()
    (tmp_path / "a_file").write_text("")
    for name in ("junk", "image_less"):
        (tmp_path / name / "checkpoints").mkdir(parents=True)
    (tmp_path / "junk" / "checkpoints" / "best.ckpt").write_text("junk")
    imageless(tmp_path / "image_less", monkeypatch)
    named = {"VAE": str(runs["VAE"]), "AE": str(runs["AE"]), "VAE@gmm": f"{runs['VAE']}@gmm"}
    named |= {f"PIXELCNN@{variant}": f"{pixelcnn}@{variant}" for variant in ("gmm", "drawn")}
    before = sorted(tmp_path.rglob("*"))
    given = [named.get(arg, arg) for arg in args]
    assert expected in fails(1, "compare", *given, *([] if "--out" in given else ["--out", "out"]))
    assert sorted(tmp_path.rglob("*")) == before


def imageless(run: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run of a model that somebody else has written, of something else than images."""
    import lit_vae.models
    from lit_vae.models import FeatureNet

    class Imageless(FeatureNet):
        def __init__(self) -> None:
            super(FeatureNet, self).__init__(torch.optim.Adam, None)  # type: ignore[arg-type]
            self.weight = torch.nn.Parameter(torch.zeros(1))

    monkeypatch.setattr(lit_vae.models, "Imageless", Imageless, raising=False)
    monkeypatch.setenv("LIT_VAE_TRUST", __name__)
    content = {"hyper_parameters": {"_class_path": "lit_vae.models.Imageless"}, "state_dict": Imageless().state_dict()}
    versions = {"pytorch-lightning_version": "2.6.0", "global_step": 0, "epoch": 0}
    torch.save({**content, **versions}, run / "checkpoints" / "best.ckpt")


@pytest.mark.slow
def test_the_sheets_are_readable(tools: Tools, runs: dict[str, Path], tmp_path: Path) -> None:
    tools("compare", runs["VAE"], runs["AE"], runs["CVAE"], "--out", tmp_path, "--num_images", 2)
    picture = pixels(tmp_path / "reconstructions.png")
    assert picture.ndim == 3  # in colour, because of the errors
    assert picture.shape[1] > 4 * 128
    assert picture.shape[0] > 2 * 3 * 128


@pytest.mark.slow
def test_a_run_that_is_killed_in_the_middle_is_compared_with_what_it_has_left(
    tools: Tools, runs: dict[str, Path], digits_config: Path, tmp_path: Path
) -> None:
    killed = tmp_path / "killed"
    command = [sys.executable, "-m", "lit_vae.cli", "fit", "--config", str(digits_config), "--run_dir", str(killed)]
    often = ["--trainer.max_epochs=100000", "--trainer.check_val_every_n_epoch=1", "--trainer.log_every_n_steps=1"]
    with warm.Popen([*command, *often], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as training:
        deadline = time.monotonic() + 120.0
        while not list(killed.glob("media/*/step_66.png")):  # three validations
            assert training.poll() is None
            assert time.monotonic() < deadline
            time.sleep(0.1)
        training.kill()
    tools("compare", killed, runs["VAE"], "--out", tmp_path / "out", "--num_images", 2)
    page = tmp_path / "out" / "index.html"
    assert re.search(r"running, or killed; last heard of at step [\d,]+, 20\d\d-", card(page, "killed"))
    assert "It was not tested: its numbers are those of its last validations" in card(page, "killed")
    assert "Image 2 reconstructed by killed, PSNR" in page.read_text()
    with (tmp_path / "out" / "metrics.csv").open(newline="") as file:
        rows = list(csv.DictReader(file))
    assert {row["split"] for row in rows if row["run"] == "killed" and row["metric"] == "psnr"} == {"val"}
