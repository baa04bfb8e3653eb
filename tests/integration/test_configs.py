"""Every configuration of the repository runs: two batches of training, a validation with all pictures, and a test."""

import importlib
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

Lightning = Callable[..., None]
ROOT = Path(__file__).resolve().parents[2]
CONFIGS = sorted(path for path in (ROOT / "configs").rglob("*.yaml") if path.parent.name != "overlays")
OVERLAYS = sorted((ROOT / "configs" / "overlays").glob("*.yaml"))


def name(path: Path) -> str:
    return str(path.relative_to(ROOT / "configs"))


def on_fake_images(path: Path, tmp_path: Path) -> Path:
    """The configuration with few images of the same kind in place of its data, and few samples of its likelihood."""
    config: dict[str, Any] = yaml.safe_load(path.read_text())
    module, cls = config["data"]["class_path"].rsplit(".", 1)
    spec = getattr(importlib.import_module(module), cls)(**config["data"].get("init_args", {})).spec
    assert spec.height == spec.width
    init_args = {"channels": spec.channels, "size": spec.height, "num_classes": spec.num_classes, "values": spec.values}
    few = {"num_train": 24, "num_val": 24, "num_test": 24, "batch_size": 12}
    config["data"] = {"class_path": "lit_vae.data.FakeImages", "init_args": {**init_args, **few}}
    config["trainer"].update({"max_epochs": 1, "check_val_every_n_epoch": 1, "log_every_n_steps": 1})
    for callback in config["trainer"]["callbacks"]:
        if callback["class_path"] == "callbacks.ImportanceSampledNLL":
            callback["init_args"] = {"num_samples": 3, "chunk": 2}
    fake = tmp_path / path.name
    fake.write_text(yaml.safe_dump(config))
    return fake


@pytest.mark.parametrize("path", CONFIGS, ids=name)
def test_a_configuration_trains_draws_and_tests(path: Path, lightning: Lightning, tmp_path: Path) -> None:
    run = tmp_path / "run"
    lightning("fit", "--config", on_fake_images(path, tmp_path), "--run_dir", run)
    panels = {folder.name for folder in (run / "media").iterdir()}
    wanted = {callback["class_path"] for callback in yaml.safe_load(path.read_text())["trainer"]["callbacks"]}
    assert ("callbacks.Reconstructions" in wanted) == ("reconstructions" in panels)
    assert ("callbacks.LatentScatter" in wanted) == ("latent_scatter" in panels)
    lightning("test", "--config", run / "config.yaml", "--ckpt_path", "last")
    metrics = json.loads((run / "test_metrics.json").read_text())["metrics"]
    assert metrics["test/psnr"] > 0.0
    if "callbacks.ImportanceSampledNLL" in wanted:
        # a tighter bound of the same quantity; three samples of a handful of images can miss by chance, not by much
        assert metrics["test/nll_iw3"] < -metrics["test/elbo"] + 0.05 * abs(metrics["test/elbo"])


@pytest.mark.parametrize("path", CONFIGS, ids=name)
def test_a_configuration_says_how_it_is_run(path: Path) -> None:
    head = [line for line in path.read_text().splitlines() if line.startswith("#")]
    assert any(f"lightning fit --config configs/{name(path)}" in line for line in head)


@pytest.mark.parametrize("overlay", [path for path in OVERLAYS if path.stem != "ddp"], ids=lambda path: path.stem)
def test_an_overlay_lies_over_a_configuration(overlay: Path, lightning: Lightning, tmp_path: Path) -> None:
    run = tmp_path / "run"
    config = on_fake_images(ROOT / "configs" / "vae" / "mnist.yaml", tmp_path)
    lightning("fit", "--config", config, "--config", overlay, "--run_dir", run)
    saved = yaml.safe_load((run / "config.yaml").read_text())["trainer"]
    if overlay.stem == "bf16":
        assert saved["precision"] == "bf16-mixed"
        assert [callback["class_path"] for callback in saved["callbacks"]][-1] == "callbacks.ChannelsLast"
        assert len(saved["callbacks"]) > 1
    if overlay.stem == "tensorboard":
        assert list((run / "tensorboard").glob("events.out.tfevents.*"))


def test_the_ddp_overlay_parses(lightning: Lightning, capsys: pytest.CaptureFixture[str]) -> None:
    overlay = ROOT / "configs" / "overlays" / "ddp.yaml"
    with pytest.raises(SystemExit) as exit_info:
        lightning("fit", "--config", ROOT / "configs" / "vae" / "mnist.yaml", "--config", overlay, "--print_config")
    assert exit_info.value.code == 0
    assert yaml.safe_load(capsys.readouterr().out)["trainer"]["strategy"] == "ddp"
