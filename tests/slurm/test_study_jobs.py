"""``lit-vae study --slurm true`` on a real SLURM."""

import json
import re
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml
from local_slurm import LocalSlurm

from lit_vae.tools import main

pytestmark = pytest.mark.slurm
ROOT = Path(__file__).resolve().parents[2]


@pytest.fixture
def study(monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]) -> Callable[..., str]:
    def run(*args: Any) -> str:
        monkeypatch.setattr(sys, "argv", ["lit-vae", "study", *map(str, args)])
        main()
        return capsys.readouterr().out

    return run


def write_configs(folder: Path) -> Path:
    """Two that train in seconds, and one that is refused before it does."""
    folder.mkdir()
    config: dict[str, Any] = yaml.safe_load((ROOT / "configs" / "ae" / "digits.yaml").read_text())
    config["trainer"] = {"max_epochs": 1, "limit_train_batches": 4, "accelerator": "cpu", "callbacks": []}
    (folder / "ae.yaml").write_text(yaml.safe_dump(config))
    (folder / "seed_1.yaml").write_text(yaml.safe_dump({**config, "seed_everything": 1}))
    config["model"]["init_args"]["image_shape"] = [3, 8, 8]
    (folder / "broken.yaml").write_text(yaml.safe_dump(config))
    return folder


@pytest.mark.timeout(900)
def test_a_study_is_an_array_and_a_page_after_it(
    slurm: LocalSlurm, study: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    configs, runs = write_configs(tmp_path / "configs"), tmp_path / "runs"
    said = study(configs, "--out", runs, "--slurm", "true")
    array, page = re.fullmatch(
        rf"ae: job (\d+)_0, log {runs}/slurm/\1_0\.out\nbroken: job \1_1, log {runs}/slurm/\1_1\.out\n"
        rf"seed_1: job \1_2, log {runs}/slurm/\1_2\.out\n"
        rf"comparison: job (\d+), log {runs}/slurm/\2\.out\n",
        said,
    ).groups()  # type: ignore[union-attr]
    assert slurm.states(page) == {page: "PENDING"}
    assert slurm.wait(array, 600) == {
        f"{array}_0": "COMPLETED",
        f"{array}_1": "FAILED",
        f"{array}_2": "COMPLETED",
    }
    assert slurm.wait(page, 300) == {page: "COMPLETED"}
    logs = {path.stem: path.read_text() for path in (runs / "slurm").iterdir()}
    assert "ae (1/1): done in" in logs[f"{array}_0"]
    assert "error: broken: lightning fit failed (exit code 1)" in logs[f"{array}_1"]
    assert "model.image_shape (=[3, 8, 8]) is not the shape" in logs[f"{array}_1"]
    assert "comparison: not done are broken" in logs[page]
    compared = (runs / "comparison" / "index.html").read_text()
    assert all(f"{runs}/{name}<" in compared for name in ("ae", "seed_1"))
    assert f"{runs}/broken<" not in compared
    assert json.loads((runs / "ae" / "run.json").read_text())["status"] == "finished"

    again = study(configs, "--out", runs, "--slurm", "true", "--part", "runs")
    assert re.fullmatch(r"broken: job \d+_0, log .*\n", again)  # what is done is not submitted


@pytest.mark.timeout(900)
def test_a_job_that_is_requeued_goes_on_from_its_checkpoint(
    slurm: LocalSlurm, study: Callable[..., str], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("PYTHONPATH", str(ROOT))
    configs, runs = write_configs(tmp_path / "configs"), tmp_path / "runs"
    config = yaml.safe_load((configs / "ae.yaml").read_text())
    config["trainer"]["max_epochs"] = 400
    (configs / "ae.yaml").write_text(yaml.safe_dump(config))
    said = study(configs, "--out", runs, "--slurm", "true", "--part", "runs", "--only", "ae")
    (job,) = re.fullmatch(r"ae: job (\d+)_0, log .*\n", said).groups()  # type: ignore[union-attr]
    slurm.wait_until((runs / "ae" / "checkpoints" / "last.ckpt").exists, "the first checkpoint", 300)
    slurm.run("scontrol", "requeue", f"{job}_0")
    assert slurm.wait(job, 600) == {f"{job}_0": "COMPLETED"}
    log = (runs / "slurm" / f"{job}_0.out").read_text()
    assert "ae (1/1): trains\n" in log
    assert "ae (1/1): trains on\n" in log.partition("ae (1/1): trains\n")[2]
    record = json.loads((runs / "ae" / "run.json").read_text())
    assert (record["status"], record["epoch"], record["step"]) == ("finished", 400, 1600)


def test_a_job_without_a_name_for_it_says_how_it_is_submitted(slurm: LocalSlurm, tmp_path: Path) -> None:
    script, out = ROOT / "slurm" / "study.sbatch", tmp_path / "%a"
    array = slurm.run("sbatch", "--parsable", "--array=2", f"--output={out}", script, "a", "b", "--", "x").strip()
    assert slurm.wait(array) == {f"{array}_2": "FAILED"}
    assert (tmp_path / "2").read_text() == "error: there is no name for task 2 of a b: give --array=0-1\n"
    job = slurm.run("sbatch", "--parsable", f"--output={tmp_path}/none", script).strip()
    assert slurm.wait(job) == {job: "FAILED"}
    assert "usage: sbatch [--array=0-N] study.sbatch" in (tmp_path / "none").read_text()
