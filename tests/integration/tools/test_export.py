"""``lit-vae import`` and ``lit-vae export``: from a file of weights to a run that is measured, and out again."""

import json
import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image
from tools_helpers import CPU, Fails, Tools

from lit_vae.data import ImageFolder
from lit_vae.features import Inception
from lit_vae.images import to_uint8
from lit_vae.metrics import FeatureSet, frechet_distance
from lit_vae.tools.runs import find_run, load_data, load_model

diffusers = pytest.importorskip("diffusers")
SIZE = 16
SIZES: dict[str, Any] = {"block_out_channels": (4, 8), "norm_num_groups": 2, "latent_channels": 4}
SIZES |= {"down_block_types": ("DownEncoderBlock2D",) * 2, "up_block_types": ("UpDecoderBlock2D",) * 2}
LATENTS = {"mean": [0.5, 0.0, -0.25, 1.0], "std": [2.0] * 4, "scale_factor": 0.4, "split": "train", "num_images": 12}


@pytest.fixture(autouse=True)
def _quiet() -> None:
    diffusers.utils.logging.set_verbosity_error()  # that accelerate is not installed


@pytest.fixture
def pictures(tmp_path: Path) -> Path:
    folder = tmp_path / "images"
    folder.mkdir()
    for i in range(8):
        pixels = np.random.default_rng(i).integers(0, 256, (20, 24, 3), dtype=np.uint8)
        Image.fromarray(pixels).save(folder / f"{i}.png")
    return folder


@pytest.fixture
def source(tmp_path: Path) -> tuple[Any, Path]:
    torch.manual_seed(0)
    model = diffusers.AutoencoderKL(**SIZES, scaling_factor=0.25, shift_factor=0.5).eval()
    model.save_pretrained(tmp_path / "kl")
    return model, tmp_path / "kl"


def images() -> torch.Tensor:
    return 2.0 * torch.rand(2, 3, SIZE, SIZE, generator=torch.Generator().manual_seed(1)) - 1.0


@pytest.fixture
def imported(source: tuple[Any, Path], pictures: Path, tools: Tools, tmp_path: Path) -> Path:
    run = tmp_path / "run"
    assert tools("import", source[1], "--out", run, "--data", pictures, "--size", SIZE) == f"{run}\n"
    return run


@torch.no_grad()
def test_a_run_of_somebody_elses_autoencoder(source: tuple[Any, Path], imported: Path) -> None:
    found = find_run(str(imported), "last")
    model: Any = load_model(found, CPU)
    x, y = images(), torch.full((2,), -1)
    expected = source[0].encode(x).latent_dist.mean
    torch.testing.assert_close(model.embed(x, y), expected, rtol=0.0, atol=1e-5)
    torch.testing.assert_close(model.decode(expected, y).mean, source[0].decode(expected).sample, rtol=0.0, atol=1e-5)
    assert model.likelihood.log_scale == 0.0
    assert not model.likelihood.log_scale.requires_grad
    assert load_data(found, model, None, []).spec.shape == (3, SIZE, SIZE)


def test_it_is_measured_and_goes_out_again_with_its_numbers(
    source: tuple[Any, Path], imported: Path, tools: Tools, lightning: Callable[..., None]
) -> None:
    config = imported / "config.yaml"
    content = yaml.safe_load(config.read_text())
    content["data"]["init_args"] |= {"num_val": 2, "num_test": 3}
    content["trainer"] |= {"enable_progress_bar": False, "enable_model_summary": False}
    config.write_text(yaml.safe_dump(content))
    checkpoint = imported / "checkpoints" / "last.ckpt"
    lightning("test", "--config", config, "--ckpt_path", checkpoint)
    measured = json.loads((imported / "test_metrics.json").read_text())["metrics"]

    tools("export", imported, "--checkpoint", "last", "--out", imported / "as_published")
    published = json.loads((imported / "as_published" / "config.json").read_text())
    assert (published["scaling_factor"], published["shift_factor"]) == (
        source[0].config.scaling_factor,
        source[0].config.shift_factor,
    )

    saved = torch.load(checkpoint, weights_only=True)
    torch.save({**saved, "latent_report": LATENTS, "published_scaling": None}, checkpoint)
    tools("export", imported, "--checkpoint", "last", "--shift_factor", 0.1)
    out = imported / "diffusers"
    card = (out / "README.md").read_text()
    assert "of another checkpoint" in card  # it was written to since
    assert f"| psnr | {measured['test/psnr']:.4f} |" in card
    assert "ImageFolder (seed 0), shape [3, 16, 16], values uint8" in card
    assert "Over 12 images of split train; 1 / std of all channels together is 0.40000." in card
    assert "| 2 | -0.2500 | 2.0000 |" in card

    again = diffusers.AutoencoderKL.from_pretrained(out)
    assert (again.config.scaling_factor, again.config.shift_factor) == (0.4, 0.1)
    state = source[0].state_dict()
    assert all(torch.equal(value, state[name]) for name, value in again.state_dict().items())

    lightning("test", "--config", config, "--ckpt_path", checkpoint)
    tools("export", imported, "--checkpoint", "last", "--scaling_factor", 2, "--out", imported / "b")
    assert "of another checkpoint" not in (imported / "b" / "README.md").read_text()
    assert json.loads((imported / "b" / "config.json").read_text())["scaling_factor"] == 2.0


@pytest.mark.slow
@torch.no_grad()
def test_its_rfid_is_measured(
    source: tuple[Any, Path], pictures: Path, tools: Tools, tmp_path: Path, lightning: Callable[..., None],
    inception_file: Path, monkeypatch: Any,
) -> None:  # fmt: skip
    monkeypatch.setattr(torch.hub, "get_dir", lambda: str(tmp_path / "hub"))
    cached = tmp_path / "hub" / "checkpoints" / inception_file.name
    cached.parent.mkdir(parents=True)
    cached.symlink_to(inception_file)
    run = tmp_path / "run"
    tools("import", source[1], "--out", run, "--data", pictures, "--size", SIZE, "--rfid", "true")
    config = run / "config.yaml"
    content = yaml.safe_load(config.read_text())
    content["data"]["init_args"] |= {"num_val": 1, "num_test": 6}
    content["trainer"] |= {"enable_progress_bar": False, "enable_model_summary": False}
    config.write_text(yaml.safe_dump(content))
    lightning("test", "--config", config, "--ckpt_path", "last")
    record = json.loads((run / "test_metrics.json").read_text())

    data = ImageFolder(str(pictures), size=SIZE, num_val=1, num_test=6)
    x = data.example_batch(6, "test").x
    features = Inception(str(inception_file))
    x_hat = source[0].decode(source[0].encode(x).latent_dist.mean).sample
    sets = []
    for images in (x, x_hat):
        f = features(to_uint8(images)).double()
        sets.append(FeatureSet(6, f.mean(0), f.T.cov(), f))
    assert record["metrics"]["test/rfid"] == pytest.approx(float(frechet_distance(*sets)), rel=1e-3)
    protocol = record["protocols"]["test/rfid"]
    assert (protocol["num_images"], protocol["reference"]) == (6, "the same images")
    assert protocol["weights_sha256"] == inception_file.stem.rpartition("-")[2]
    assert record["num_images"] == 6
    assert record["data_fingerprint"] == data.fingerprint("test")


@torch.no_grad()
def test_codes_come_in_and_go_out(tools: Tools, pictures: Path, tmp_path: Path, monkeypatch: Any) -> None:
    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    model = diffusers.VQModel(**SIZES, num_vq_embeddings=7, scaling_factor=1.0).eval()
    model.save_pretrained("vq")
    for name in ("cat", "dog"):
        shutil.copytree(pictures, Path("pets") / name)
    assert tools("import", "vq", "--data", "pets", "--size", SIZE, "--labels", "folders") == "runs/vq\n"
    found = find_run("runs/vq", "last")
    loaded: Any = load_model(found, CPU)
    assert load_data(found, loaded, None, []).spec.class_names == ("cat", "dog")
    x, y = images(), torch.full((2,), -1)
    torch.testing.assert_close(loaded.decode(loaded.embed(x, y), y).mean, model(x).sample, rtol=0.0, atol=1e-5)
    tools("export", "runs/vq", "--checkpoint", "last", "--scaling_factor", 1, "--out", "again")
    card = Path("again/README.md").read_text()
    assert "from diffusers import VQModel" in card
    assert "Nothing yet (`lightning test`)." in card
    again = diffusers.VQModel.from_pretrained("again")
    torch.testing.assert_close(again(x).sample, model(x).sample, rtol=0.0, atol=0.0)


def test_a_mistake_is_one_clear_error(imported: Path, source: tuple[Any, Path], runs: Any, fails: Fails) -> None:
    there = imported / "checkpoints" / "last.ckpt"
    torch.save({**torch.load(there, weights_only=True), "published_scaling": None}, there)
    for args, text in (
        (["export", imported], f"{imported}: there is no checkpoint {imported / 'checkpoints' / 'best.ckpt'}. There"
         " is: last; give it with --checkpoint."),
        (["export", there], f"lit-vae export: {there} does not say how large its latents are. Measure them with lit-vae"
         f" latents {there}, or give --scaling_factor, 1 / their standard deviation."),
        (["export", there, "--scaling_factor", 0], "lit-vae export: --scaling_factor (=0) must be at least 1e-06."),
        (["export", runs["VAE"], "--scaling_factor", 1], "export of VAE to diffusers: its networks are"),
        (["import", source[1], "--out", imported], f"--out {imported} already holds a run. Give another directory;"
         " nothing was written."),
        (["import", source[1], "--out", imported / "x", "--size", 15], "images of 15x15: both sides must be divisible"
         " by 2, since the networks halve an image 1 times. Give another size."),
        (["import", "nowhere.ckpt"], "nowhere.ckpt: there is no such file or folder."),
    ):  # fmt: skip
        assert text in fails(1, *args)
    assert not (imported / "x").exists()
    assert "--format: expected" in fails(2, "export", there, "--format", "onnx")
