"""What ``lit-vae compare --wandb true`` leaves in W&B's offline records, read back."""

import json
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from tools_helpers import Fails, RunCopy, Tools, data_of, model_of, pixels
from wandb_files import ended, values_of

from lit_vae.images import to_uint8


class Logged:
    """The history by step, the summary, what a run is called, and the files that are uploaded with its table."""

    def __init__(self, directory: Path) -> None:
        self.files = directory / "files"
        self.history: dict[int, dict[str, Any]] = {}
        self.summary: dict[str, Any] = {}
        self.uploads: dict[str, Path] = {}
        for record in ended(directory):
            if record.HasField("run"):
                self.run = record.run
                self.config = {item.key: json.loads(item.value_json) for item in record.run.config.update}
            for file in record.artifact.manifest.contents:
                self.uploads[file.path] = Path(file.local_path)
            if row := values_of(record):
                self.history.setdefault(row["_step"], {}).update(row)
            for item in record.summary.update:
                self.summary["/".join(item.nested_key) or item.key] = json.loads(item.value_json)

    @property
    def last(self) -> dict[str, Any]:
        return self.history[max(self.history)]


@pytest.fixture
def compared(
    tools: Tools, run_copy: RunCopy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> tuple[dict[str, Logged], dict[str, Path], str]:
    """Two runs with curves and numbers, their records, and what was printed."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("WANDB_DATA_DIR", str(tmp_path / "uploads"))  # where images of tables wait
    copies = {name: run_copy(name) for name in ("VAE", "AE")}
    for copy in copies.values():
        (copy / "metrics.csv").write_text("step,train/loss,val/psnr\n9,3.0,\n19,2.5,11.5\n")
        record = {"checkpoint": "best.ckpt", "data": "Digits", "metrics": {"test/psnr": 12.25}}
        (copy / "test_metrics.json").write_text(json.dumps(record))
    out = tmp_path / "my-comparison"
    printed = tools("compare", *copies.values(), "--out", out, "--num_images", 3, "--wandb", "true")
    found = [Logged(directory) for directory in (out / "wandb").glob("offline-run-*")]
    return {logged.run.display_name: logged for logged in found}, copies, printed


def test_a_comparison_is_a_group_of_runs_in_wandb(compared: tuple[dict[str, Logged], dict[str, Path], str]) -> None:
    found, copies, printed = compared
    assert set(found) == {"VAE", "AE"}
    assert "W&B (offline): project lit_vae, group my-comparison\n" in printed
    assert "my-comparison/wandb/offline-run-*" in printed
    for name, logged in found.items():
        assert logged.run.run_group == "my-comparison"
        assert list(logged.run.tags) == ["my-comparison"]
        assert logged.run.job_type == "compare"
        assert logged.run.project == "lit_vae"
        assert logged.config["model"]["class_path"] == f"lit_vae.models.{name}"
        assert logged.history[9]["train/loss"] == 3.0  # the curves, at their steps
        assert (logged.history[19]["train/loss"], logged.history[19]["val/psnr"]) == (2.5, 11.5)
        assert "val/psnr" not in logged.history[9]
        assert logged.summary["test/psnr"] == 12.25
        cost = json.loads((copies[name] / "run.json").read_text())
        assert logged.summary["cost/seconds"] == cost["seconds"]
    assert set(found["VAE"].last) == set(found["AE"].last)  # panels of the same names


def test_images_and_tables_in_wandb_are_those_of_the_page(
    compared: tuple[dict[str, Logged], dict[str, Path], str], no_grad: None, tmp_path: Path
) -> None:
    found, copies, _ = compared
    for name, logged in found.items():
        assert logged.last["compare/reconstructions/_type"] == "table-file"
        table = json.loads(logged.uploads["compare/reconstructions.table.json"].read_text())
        assert table["columns"] == ["image", "original", "reconstruction", "error", "psnr"]
        x, y = data_of(copies[name]).example_batch(3, "test")
        x_hat = model_of(copies[name]).reconstruct(x, y)
        decibels = -10 * ((x - x_hat).square().flatten(1).mean(1) / 4).log10()
        for n, (number, *images, psnr) in enumerate(table["data"]):
            assert number == n + 1
            original, reconstruction, error = (pixels(logged.uploads[image["path"]]) for image in images)
            assert np.array_equal(original, to_uint8(x[n, 0]).numpy())
            assert np.array_equal(reconstruction, to_uint8(x_hat[n, 0]).numpy())
            assert error.shape == (8, 8, 3)
            assert psnr == pytest.approx(float(decibels[n]), abs=1e-3)
        samples = logged.last["compare/samples/path"]
        assert (logged.last["compare/samples/width"], logged.last["compare/samples/height"]) == (266, 266)
        assert pixels(logged.files / samples).std() > 1


def test_wandb_disabled_leaves_the_page_alone(tools: Tools, runs: dict[str, Path], tmp_path: Path) -> None:
    command = ["compare", runs["VAE"], runs["AE"], "--out", tmp_path / "out", "--num_images", 1, "--wandb", "true"]
    assert tools(*command).endswith("W&B is disabled (WANDB_MODE=disabled): nothing is logged.\n")
    assert (tmp_path / "out" / "index.html").is_file()
    assert not list((tmp_path / "out").rglob("*.wandb"))


def test_a_failure_of_wandb_is_one_error_after_the_page(
    fails: Fails, runs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    import wandb

    def refused(**kwargs: Any) -> None:
        raise wandb.errors.CommError("permission denied")

    monkeypatch.setattr(wandb, "init", refused)
    monkeypatch.setenv("WANDB_MODE", "online")
    out = tmp_path / "out"
    message = fails(1, "compare", runs["VAE"], runs["AE"], "--out", out, "--num_images", 1, "--wandb", "true")
    assert f"--wandb true: permission denied. The page is written, in {out}. Set WANDB_MODE=offline" in message
    assert (out / "index.html").is_file()
