"""Every configuration of the repository runs: two batches of training, a validation with all pictures, and a test."""

import contextlib
import json
import math
from pathlib import Path

import pytest
import torch
import yaml
from fake_configs import (
    HEAVY,
    ROOT,
    WIDE,
    Lightning,
    configurations,
    covering,
    name,
    on_fake_data,
    on_fake_images,
    read,
    settings_of,
    with_small_networks,
)

from lit_vae.run.config_folders import with_base
from lit_vae.run.parser import rows_alone
from lit_vae.tools.configurations import build_components

CONFIGS = configurations()
OVERLAYS = sorted((ROOT / "configs" / "overlays").glob("*.yaml"))
UNTRIED = {"ddp": ("strategy", "ddp"), "compile": ("callbacks", "callbacks.Compile")}
"""Overlays that need several devices, or a compiler for a minute, and what they set."""


OF_A_RUN = ("lit_vae.models.", "lit_vae.data.", "callbacks.")


def parts_of_a_run(path: Path) -> set[str]:
    """The models, data and callbacks of a configuration."""
    return {component for component, _ in settings_of(path) if component.startswith(OF_A_RUN)}


def seconds(path: Path) -> tuple[bool, bool]:
    """Orders configurations by how long they take, roughly."""
    return name(path) in WIDE, path.stem != "digits"


CHOSEN = covering(sorted((path for path in CONFIGS if name(path) not in HEAVY), key=seconds), parts_of_a_run)
"""Few that together have every model, kind of data and callback of the light ones. The slow set tries all others."""
MARKED = [pytest.param(path, marks=() if path in CHOSEN else pytest.mark.slow, id=name(path)) for path in CONFIGS]


@pytest.mark.parametrize("path", MARKED)
@pytest.mark.filterwarnings("ignore:(LPIPS|Inception).*random")
def test_a_configuration_trains_draws_and_tests(
    path: Path, lightning: Lightning, feature_net: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    lightning("fit", "--config", on_fake_data(path, tmp_path, lightning, feature_net), "--run_dir", run)
    panels = {folder.name for folder in (run / "media").glob("*")}
    wanted = {callback["class_path"] for callback in read(path)["trainer"]["callbacks"]}
    assert ("callbacks.Reconstructions" in wanted) == ("reconstructions" in panels)
    assert ("callbacks.LatentScatter" in wanted) == ("latent_scatter" in panels)
    assert ("callbacks.Draws" in wanted and name(path) not in HEAVY) == ("draws" in panels)
    lightning("test", "--config", run / "config.yaml", "--ckpt_path", "last")
    metrics = json.loads((run / "test_metrics.json").read_text())["metrics"]
    assert ("callbacks.ImageQuality" in wanted) == ("test/psnr" in metrics)
    assert all(math.isfinite(value) for value in metrics.values())
    assert {"test/elbo", "test/distortion", "test/nll", "test/rate", "test/cross_entropy"} & set(metrics)
    if "callbacks.ImportanceSampledNLL" in wanted:
        # a tighter bound of the same quantity; three samples of a handful of images can miss by chance, not by much
        assert metrics["test/nll_iw3"] < -metrics["test/elbo"] + 0.05 * abs(metrics["test/elbo"])


@pytest.mark.slow
@pytest.mark.parametrize("path", [path for path in CONFIGS if name(path) in HEAVY | WIDE], ids=name)
def test_the_networks_of_a_large_configuration_fit_together(path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At their full size: the test above makes them small. Tensors without values cost nothing."""
    monkeypatch.setattr(torch, "autocast", lambda *_, **__: contextlib.nullcontext())  # there is none for such tensors
    with torch.device("meta"):
        assert build_components(with_base(path)).model.check_networks() == []


@pytest.mark.parametrize("path", CONFIGS, ids=name)
def test_a_configuration_says_how_it_is_run(path: Path) -> None:
    *bases, _ = with_base(path)
    first = bases[-1] if bases else path
    head = [line for line in first.read_text().splitlines() if line.startswith("#")]
    if bases:  # a row of a comparison says what it is
        assert path.read_text().startswith("# ")
        assert any(f"lit-vae study configs/{name(path.parent)}" in line for line in head)
    else:
        assert any(f"lightning fit --config configs/{name(path)}" in line for line in head)


def test_a_row_without_its_base_is_told_what_it_lacks(
    lightning: Lightning, capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    base, row = (f"configs/compare/mnist/{name}.yaml" for name in ("base", "l1"))
    with pytest.raises(SystemExit):
        lightning("fit", "--config", row)
    said = capsys.readouterr().err
    assert f"{row} has only what differs from {base}: give --config {base} before it." in said
    assert rows_alone(["fit", "--config", base, f"--config={row}"]) == []
    inner = "configs/compare/mnist/adversarial_weight"
    (both,) = rows_alone(["fit", "--config", f"{inner}/weight_1.0.yaml"])
    assert both.endswith(f"give --config {base} --config {inner}/base.yaml before it.")


@pytest.mark.parametrize(
    "overlay",
    [  # Inception looks at a hundred images
        pytest.param(path, marks=pytest.mark.slow if path.stem == "fid" else (), id=path.stem)
        for path in OVERLAYS
        if path.stem not in UNTRIED
    ],
)
@pytest.mark.filterwarnings("ignore:(LPIPS|Inception).*random")
def test_an_overlay_lies_over_a_configuration(
    overlay: Path, lightning: Lightning, feature_net: Path, tmp_path: Path
) -> None:
    run = tmp_path / "run"
    config = on_fake_images(ROOT / "configs" / "vae" / "mnist.yaml", tmp_path)
    small = tmp_path / f"small_{overlay.name}"
    small.write_text(yaml.safe_dump(with_small_networks(yaml.safe_load(overlay.read_text()), feature_net)))
    lightning("fit", "--config", config, "--config", small, "--run_dir", run)
    saved = yaml.safe_load((run / "config.yaml").read_text())["trainer"]
    if overlay.stem == "bf16":
        assert saved["precision"] == "bf16-mixed"
        assert [callback["class_path"] for callback in saved["callbacks"]][-1] == "callbacks.ChannelsLast"
        assert len(saved["callbacks"]) > 1
    if overlay.stem == "fid":
        lightning("test", "--config", run / "config.yaml", "--ckpt_path", "last")
        metrics = json.loads((run / "test_metrics.json").read_text())["metrics"]
        kinds = ("fd", "rfd", "kd", "precision", "recall", "density", "coverage")
        assert all(math.isfinite(metrics[f"test/{kind}_inception_random"]) for kind in kinds)
    if overlay.stem == "tensorboard":
        assert list((run / "tensorboard").glob("events.out.tfevents.*"))


@pytest.mark.parametrize("overlay", UNTRIED)
def test_an_overlay_parses(overlay: str, lightning: Lightning, capsys: pytest.CaptureFixture[str]) -> None:
    path = ROOT / "configs" / "overlays" / f"{overlay}.yaml"
    with pytest.raises(SystemExit) as exit_info:
        lightning("fit", "--config", ROOT / "configs" / "vae" / "mnist.yaml", "--config", path, "--print_config")
    assert exit_info.value.code == 0
    key, value = UNTRIED[overlay]
    assert value in str(yaml.safe_load(capsys.readouterr().out)["trainer"][key])
