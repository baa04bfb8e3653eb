"""A folder of one's own, at the first command: however few images it holds, and with classes that have names."""

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml
from PIL import Image

from callbacks import Samples
from callbacks.periodic import untouched
from lit_vae.run.loading import load_model
from lit_vae.tools.priors.fitted import Sampled

ROOT = Path(__file__).resolve().parents[2]
Command = Callable[..., None]
QUIET = ("--trainer.enable_progress_bar=false", "--trainer.enable_model_summary=false", "--trainer.logger=false")


def write(folder: Path, n: int, first: int = 0) -> Path:
    folder.mkdir(parents=True, exist_ok=True)
    rng = np.random.default_rng(first)
    for i in range(n):
        Image.fromarray(rng.integers(0, 256, (70, 90, 3), dtype=np.uint8)).save(folder / f"{first + i:03d}.png")
    return folder


def config(folder: Path, **changes: Any) -> Path:
    """The shipped configuration with a small network, for one epoch."""
    content = yaml.safe_load((ROOT / "configs" / "vae" / "image_folder.yaml").read_text())
    for part in ("encoder", "decoder"):
        content["model"]["init_args"][part]["init_args"] |= {"width": 4}
    content["trainer"] |= {"max_epochs": 1, "accelerator": "cpu"}
    content["trainer"]["callbacks"] += changes.pop("callbacks", [])
    content["model"]["init_args"] |= changes.pop("model", {})
    content["model"]["class_path"] = changes.pop("class_path", content["model"]["class_path"])
    content["data"]["init_args"] |= changes
    path = folder / "config.yaml"
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.mark.parametrize("n", [3, pytest.param(5, marks=pytest.mark.slow), pytest.param(10, marks=pytest.mark.slow)])
def test_few_images_are_enough(n: int, lightning: Command, tmp_path: Path) -> None:
    photos, run = write(tmp_path / "photos", n), tmp_path / "run"
    more = [
        {"class_path": "callbacks.Traversals", "init_args": {"num_images": 4, "dims": 2, "steps": 3}},
        {"class_path": "callbacks.LatentScatter"},
        {"class_path": "callbacks.LatentReport"},
    ]
    path = config(tmp_path, callbacks=more)
    with pytest.warns(UserWarning, match=rf"batch_size \(=64\) is more than the {n - 2} training images"):
        lightning("fit", "--config", path, "--data.root", photos, "--run_dir", run, *QUIET)
    shown = {"curves", "interpolations", "latent_scatter", "reconstructions", "samples", "samples_both", "traversals"}
    assert {panel.name for panel in (run / "media").iterdir()} == shown
    lightning("test", "--config", run / "config.yaml", "--ckpt_path", "best")


def test_classes_are_named(
    lightning: Command, lit_vae: Command, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    photos, run = tmp_path / "photos", tmp_path / "run"
    for number, name in enumerate(["0", "1", "10", "2"]):
        write(photos / name, 5, first=5 * number)
    (photos / "1" / "cut.png").write_bytes(b"")
    for i in range(5):
        (photos / f"{i}.txt").touch()
    classes = {"num_classes": 4}
    prior = {"class_path": "lit_vae.priors.ClassConditionalNormal", "init_args": {"shape": [128], "num_classes": 4}}
    panels = [{"class_path": "callbacks.ClassSheet", "init_args": {"columns": 2}}]
    path = config(
        tmp_path,
        callbacks=panels,
        class_path="lit_vae.models.CVAE",
        model={**classes, "prior": prior},
        labels="folders",
        batch_size=4,
        root=str(photos),
    )
    listed = run / "image_files.txt"
    with pytest.warns(
        UserWarning, match=rf"skipped 6 of 26 files .*: 1 corrupt: .*; 5 not an image.* {listed} lists all of them"
    ):
        lightning("fit", "--config", path, "--run_dir", run, *QUIET)
    lines = listed.read_text().splitlines()
    assert len(lines) == 6
    assert [line.split("\t")[:3] for line in lines[:2]] == [
        ["skipped", "1/cut.png", "corrupt"],
        ["skipped", "0.txt", "not an image"],
    ]

    model = load_model(run / "checkpoints" / "last.ckpt", torch.device("cpu"))
    assert model.class_names == ("0", "1", "2", "10")  # by number
    lit_vae("sample", run, "--n", 2, "--label", "10", "--out", tmp_path / "10.png", "--checkpoint", "last")
    with Image.open(tmp_path / "10.png") as picture, untouched(model):
        assert picture.text["Description"].endswith(", label 10")  # type: ignore[attr-defined]
        assert np.array_equal(np.asarray(picture), np.asarray(Samples(2).draw(Sampled(model, 3, None))))  # type: ignore[arg-type]
    with pytest.raises(SystemExit):
        lit_vae("sample", run, "--label", "3")
    assert "lit-vae sample: --label 3 is no class of the model. Its classes: 0, 1, 2, 10." in capsys.readouterr().err
