"""``lit-vae compare --wandb true``: one run beside the trainings, read back from offline records and from a server."""

import csv
import json
import shutil
from collections.abc import Iterator
from io import BytesIO
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import wandb
import yaml
from fake_wandb import FakeWandb, fake_wandb
from PIL import Image
from tools_helpers import Fails, RunCopy, Tools, data_of, model_of, pixels
from wandb_files import ended, values_of

from lit_vae.images import to_uint8


class Logged:
    """The single row of a run, its summary, what it is called, its files, and those that are uploaded with tables."""

    def __init__(self, directory: Path) -> None:
        self.files = directory / "files"
        self.row: dict[str, Any] = {}
        self.summary: dict[str, Any] = {}
        self.uploads: dict[str, Path] = {}
        for record in ended(directory):
            if record.HasField("run"):
                self.run = record.run
            for file in record.artifact.manifest.contents:
                self.uploads[file.path] = Path(file.local_path)
            self.row |= values_of(record)
            for item in record.summary.update:
                self.summary["/".join(item.nested_key) or item.key] = json.loads(item.value_json)

    def table(self, key: str) -> dict[str, Any]:
        table: dict[str, Any] = json.loads(self.uploads[f"{key}.table.json"].read_text())
        return table


@pytest.fixture
def copies(run_copy: RunCopy, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> dict[str, Path]:
    """Two runs of a study with numbers, in a group and a project of W&B."""
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    copies = {name: run_copy(name) for name in ("VAE", "AE")}
    settings = {"project": "mine", "group": "study", "config": {}}
    for n, copy in enumerate(copies.values()):
        numbers = {"test/psnr": 12.25 + n, "test/rate": 2.0 + n, "test/lpips": 0.5 - n / 4, "test/distortion": 9.0 - n}
        record = {"checkpoint": "best.ckpt", "data": "Digits", "metrics": numbers}
        (copy / "test_metrics.json").write_text(json.dumps(record))
        (copy / "wandb").mkdir()
        (copy / "wandb" / "settings.yaml").write_text(yaml.safe_dump(settings))
        (copy / "wandb" / "run_id").write_text(f"id-{n}\n")
    return copies


@pytest.fixture
def out(tools: Tools, copies: dict[str, Path], tmp_path: Path) -> Path:
    """The folder of their comparison."""
    out = tmp_path / "study" / "comparison"
    said = tools("compare", *copies.values(), "--out", out, "--num_images", 3, "--wandb", "true")
    assert "W&B: project mine, group study, run study/comparison\n" in said
    assert said.count(f"lit-vae sync {out}\n") == 1
    return out


def logged_in(out: Path) -> Logged:
    (start,) = (out / "wandb").glob("offline-run-*")
    return Logged(start)


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeWandb]:
    wandb.teardown()
    with fake_wandb() as (state, address):
        monkeypatch.setenv("WANDB_BASE_URL", address)
        monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
        yield state
    wandb.teardown()


def test_a_comparison_is_one_run_in_the_group_of_the_trainings(
    tools: Tools, copies: dict[str, Path], out: Path
) -> None:
    """However often it is made."""
    first = logged_in(out)
    assert (first.run.project, first.run.run_group, first.run.display_name) == ("mine", "study", "study/comparison")
    assert (list(first.run.tags), first.run.job_type) == (["comparison"], "compare")
    assert first.run.run_id == (out / "wandb" / "run_id").read_text().strip()
    tools("compare", *copies.values(), "--out", out, "--num_images", 2, "--wandb", "true")
    again = logged_in(out)
    assert again.run.run_id == first.run.run_id
    assert len(again.table("compare/images")["data"]) == 2
    shutil.rmtree(out)
    tools("compare", *copies.values(), "--out", out, "--num_images", 2, "--wandb", "true")
    assert logged_in(out).run.run_id == first.run.run_id
    other = out.with_name("other")
    tools("compare", *copies.values(), "--out", other, "--num_images", 2, "--wandb", "true")
    assert logged_in(other).run.run_id != first.run.run_id


def test_images_are_in_rows_and_decoders_in_columns(
    copies: dict[str, Path], out: Path, tmp_path: Path, no_grad: None
) -> None:
    """To the pixel, and all of it in the folder of the comparison."""
    logged = logged_in(out)
    table = logged.table("compare/images")
    names = ["VAE", "AE", "VAE: error", "AE: error", "VAE: PSNR (dB)", "AE: PSNR (dB)"]
    assert table["columns"] == ["image", "original", *names]
    assert [row[0] for row in table["data"]] == [1, 2, 3]
    for run, copy in enumerate(copies.values()):
        x, y = data_of(copy).example_batch(3, "test")
        x_hat = model_of(copy).reconstruct(x, y)
        decibels = -10 * ((x - x_hat).square().flatten(1).mean(1) / 4).log10()
        for n, row in enumerate(table["data"]):
            original, reconstruction, error = (pixels(logged.uploads[row[i]["path"]]) for i in (1, 2 + run, 4 + run))
            assert np.array_equal(original, to_uint8(x[n, 0]).numpy())
            assert np.array_equal(reconstruction, to_uint8(x_hat[n, 0]).numpy())
            assert error.shape == (8, 8, 3)
            assert row[6 + run] == pytest.approx(float(decibels[n]), abs=1e-3)
    assert all(path.is_relative_to(out) for path in logged.uploads.values())
    assert not list((tmp_path / "home").rglob("*.png"))


def test_the_page_its_pictures_and_all_numbers_are_there(out: Path) -> None:
    logged = logged_in(out)
    pictures = {
        name.split("/")[1] for name in logged.row if name.endswith("/_type") and logged.row[name] == "image-file"
    }
    assert pictures == {path.stem for path in out.glob("*.png")} >= {"reconstructions", "scatter", "samples"}
    for name in pictures:
        logged_file = logged.files / logged.row[f"compare/{name}/path"]
        assert logged_file.read_bytes() == (out / f"{name}.png").read_bytes()
    assert (logged.files / logged.row["compare/page/path"]).read_bytes() == (out / "index.html").read_bytes()
    with (out / "metrics.csv").open(newline="") as file:
        header, *rows = list(csv.reader(file))
    metrics = logged.table("compare/metrics")
    assert metrics["columns"] == header
    assert [list(map(str, row)) for row in metrics["data"]] == rows
    numbers = logged.table("compare/numbers")
    assert numbers["columns"] == ["metric", "direction", "VAE", "AE"]
    assert ["psnr", "higher is better", "12.250", "13.250 (best)"] in numbers["data"]


def test_trade_offs_are_charts(out: Path) -> None:
    logged = logged_in(out)
    found = {key: logged.table(key)["data"] for key in (f"{name}_table" for name in CHARTS)}
    assert found == {f"{name}_table": points for name, points in CHARTS.items()}


CHARTS = {
    "compare/rate_and_distortion_distortion": [[2.0, 9.0, "VAE"], [3.0, 8.0, "AE"]],
    "compare/rate_and_reconstruction_psnr": [[2.0, 12.25, "VAE"], [3.0, 13.25, "AE"]],
    "compare/distortion_and_perception_lpips": [[12.25, 0.5, "VAE"], [13.25, 0.25, "AE"]],
}


def test_a_copy_of_the_folder_is_uploaded_once(tools: Tools, out: Path, tmp_path: Path, server: FakeWandb) -> None:
    """Without W&B's own records, and where the original is gone."""
    table = logged_in(out).table("compare/images")
    copy = tmp_path / "elsewhere"
    shutil.copytree(out, copy, ignore=shutil.ignore_patterns("offline-run-*", "artifacts"))
    original = {path.name: path.read_bytes() for path in (out / "wandb" / "images").iterdir()}
    shutil.rmtree(out)
    assert tools("sync", copy) == f"{copy}: uploaded (rows: 0, pictures: 0, numbers: 1)\n"
    assert tools("sync", copy) == f"{copy}: is uploaded already\n"
    (run_id,) = server.rows
    seen = server.runs[run_id]
    assert (seen["project"], seen["displayName"], seen["groupName"]) == ("mine", "study/comparison", "study")
    (images,) = [files for files in server.files.values() if "compare/images.table.json" in files]
    assert json.loads(images["compare/images.table.json"])["data"] == table["data"]
    for row in table["data"]:
        for cell in row[1:6]:
            assert images[cell["path"]] == original[Path(cell["path"]).name]
            assert np.asarray(Image.open(BytesIO(images[cell["path"]]))).shape[:2] == (8, 8)


@pytest.mark.slow
def test_online_the_next_call_updates_the_run(
    tools: Tools, copies: dict[str, Path], out: Path, server: FakeWandb, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "online")
    for n in (3, 2):
        tools("compare", *copies.values(), "--out", out, "--num_images", n, "--wandb", "true")
    (run_id,) = server.rows
    assert run_id == (out / "wandb" / "run_id").read_text().strip()
    assert server.summaries[run_id]["compare/images"]["nrows"] == 2
    assert [row["_step"] for row in server.rows[run_id]] == [0, 1]
    assert not list((out / "wandb").glob("*run-*"))  # W&B's own copy is gone


@pytest.mark.slow
def test_wandb_disabled_leaves_the_page_alone(tools: Tools, runs: dict[str, Path], tmp_path: Path) -> None:
    command = ["compare", runs["VAE"], runs["AE"], "--out", tmp_path / "out", "--num_images", 1, "--wandb", "true"]
    assert tools(*command).endswith("W&B is disabled (WANDB_MODE=disabled): nothing is logged.\n")
    assert (tmp_path / "out" / "index.html").is_file()
    assert not (tmp_path / "out" / "wandb").exists()


def test_a_failure_of_wandb_is_one_error_after_the_page(
    fails: Fails, runs: dict[str, Path], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    def refused(**kwargs: Any) -> None:
        raise wandb.errors.CommError("permission denied")

    monkeypatch.setattr(wandb, "init", refused)
    monkeypatch.setenv("WANDB_MODE", "offline")
    out = tmp_path / "out"
    message = fails(1, "compare", runs["VAE"], runs["AE"], "--out", out, "--num_images", 1, "--wandb", "true")
    assert "--wandb true: starting: CommError: permission denied. The page is written" in message
    assert message.endswith(f"Upload it later with: lit-vae sync {out}\n")
    assert (out / "index.html").is_file()


@pytest.mark.slow
def test_damaged_settings_of_a_training_are_one_error_after_the_page(
    fails: Fails, copies: dict[str, Path], tmp_path: Path
) -> None:
    settings = copies["AE"] / "wandb" / "settings.yaml"
    settings.write_text("- a\n")
    out = tmp_path / "out"
    message = fails(1, "compare", *copies.values(), "--out", out, "--num_images", 1, "--wandb", "true")
    assert f"{settings}: contains a list" in message
    assert (out / "index.html").is_file()
