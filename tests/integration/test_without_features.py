"""A run is looked at without the network that only its training, and what tests it, needs."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

Command = Callable[..., None]
FAMILY = Path(__file__).resolve().parents[2] / "configs" / "vae" / "digits.yaml"
FEW = [f"--trainer.limit_{split}_batches=1" for split in ("train", "val", "test", "predict")]
FIT = [*FEW, "--trainer.max_epochs=1", "--trainer.log_every_n_steps=1", "--trainer.check_val_every_n_epoch=1"]


@pytest.fixture
def run(lightning: Command, feature_net: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """Trained on a perceptual term and measured by it, in float64; and then the file of both is gone."""
    file = tmp_path / "net.ckpt"
    shutil.copy(feature_net, file)
    distance = {"class_path": "lit_vae.features.FeatureNetDistance", "init_args": {"checkpoint": str(file)}}
    perceptual = {"class_path": "lit_vae.realism.Perceptual", "init_args": {"distance": distance}}
    config = yaml.safe_load(FAMILY.read_text())
    realism = {"class_path": "lit_vae.realism.Realism", "init_args": {"perceptual": perceptual}}
    config["model"]["init_args"]["realism"] = realism
    measured = {"class_path": "callbacks.PerceptualDistance", "init_args": {"distance": distance}}
    config["trainer"]["callbacks"] = [measured, {"class_path": "callbacks.EMA"}]
    path = tmp_path / "config.yaml"
    path.write_text(yaml.safe_dump(config))
    lightning("fit", "--config", path, "--run_dir", tmp_path / "run", *FIT, "--trainer.precision=64-true")
    file.unlink()
    monkeypatch.chdir(tmp_path)
    return tmp_path / "run"


@pytest.mark.slow
def test_looking_at_a_run_needs_no_network_of_its_loss(
    run: Path, lit_vae: Command, lightning: Command, capsys: pytest.CaptureFixture[str]
) -> None:
    given: dict[str, list[Any]] = {
        "sample": ["--n=4"],
        "reconstruct": ["--n=4"],
        "interpolate": ["--pairs=1", "--steps=2"],
        "traverse": ["--dims=2", "--steps=2"],
        "latents": [],
        "fit-prior": ["--components=1"],
        "compare": [f"{run}@gmm", "--out", run.parent / "page"],
    }
    for verb, options in given.items():
        lit_vae(verb, run, *options, "--checkpoint=last")
    lightning("predict", "--config", run / "config.yaml", "--ckpt_path=last", *FEW)
    assert (run / "predictions" / "rank_0.npz").is_file()

    capsys.readouterr()
    with pytest.raises(SystemExit) as exit_info:
        lightning("test", "--config", run / "config.yaml", "--ckpt_path=last", *FEW)
    assert exit_info.value.code == 1
    message = capsys.readouterr().err
    assert "FeatureNetDistance: checkpoint (='" in message
    assert "net.ckpt') must be a .ckpt file of a FeatureNet, and there is none." in message
    assert "Traceback" not in message
