"""What ``lit-vae submit`` refuses, and what it hands to sbatch."""

from pathlib import Path
from typing import Any

import pytest
import yaml
from data_helpers import write_mnist

from lit_vae.tools.cluster.slurm import SCRIPT as STUDY_SCRIPT
from lit_vae.tools.cluster.training_job import (
    SCRIPT,
    SITE_TEMPLATE,
    Shape,
    array_problems,
    minutes,
    submit,
    time_problems,
)

ROOT = Path(__file__).resolve().parents[3]
DIGITS = str(ROOT / "configs" / "vae" / "digits.yaml")
SBATCH = """#!/bin/sh
echo "$@" >asked
echo "$SBATCH_PARTITION $LAUNCHER_OF_SITE" >variables
echo "12;cluster"
"""


@pytest.fixture
def asked(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A program sbatch that writes down what it is asked."""
    program = tmp_path / "bin" / "sbatch"
    program.parent.mkdir()
    program.write_text(SBATCH)
    program.chmod(0o755)
    monkeypatch.setenv("PATH", f"{program.parent}:/usr/bin:/bin")
    monkeypatch.chdir(tmp_path)
    return tmp_path / "asked"


@pytest.mark.parametrize(
    ("time", "expected"),
    [
        ("90", 90.0),
        ("1:30", 1.5),
        ("12:00:00", 720.0),
        ("0:00:30", 0.5),
        ("1-12", 2160.0),
        ("1-12:30", 2190.0),
        ("1-0:0:30", 1440.5),
        ("12h", None),
        ("1:2:3:4", None),
        ("", None),
    ],
)
def test_times_are_read_as_sbatch_reads_them(time: str, expected: float | None) -> None:
    assert minutes(time) == expected


def test_a_batch_is_shared_out_evenly_or_refused() -> None:
    shape = Shape(nodes=2, gpus=4, ranks=4)
    assert shape.world == 8
    assert list(shape.problems(64)) == list(shape.problems(None)) == []
    (problem,) = shape.problems(65)
    assert problem == "--batch 65 does not divide by 8, the ranks of --nodes 2 with 4 each. Give --batch 64 or 72."
    (problem,) = shape.problems(3)
    assert problem.endswith("Give --batch 8 or 16.")


def test_a_process_has_one_gpu() -> None:
    assert list(Shape(1, 0, 3).problems(None)) == []
    assert "a process has one GPU, and there are --gpus 4. Leave --ranks out." in next(Shape(1, 4, 2).problems(None))
    assert "give at least 1, 1 and 0" in next(Shape(0, 1, 1).problems(None))


@pytest.mark.parametrize(
    ("last", "time", "problem"),
    [
        ({"every_n_steps": None, "every_n_minutes": None}, "12:00:00", None),
        ({"every_n_steps": None, "every_n_minutes": None}, "12", "12 minutes: too short for a checkpoint every 10 min"),
        ({"every_n_steps": None, "every_n_minutes": 5.0}, "8", None),
        ({"every_n_steps": None, "every_n_minutes": 60.0}, "1:00:00", "too short for a checkpoint every 60 minutes"),
        ({"every_n_steps": 10, "every_n_minutes": None}, "3", None),
        ({"every_n_steps": 10, "every_n_minutes": None}, "2", "the signal 2 minutes before the end. Give more time"),
        ({"every_n_steps": 10, "every_n_minutes": None}, "2h", "not a time as sbatch takes it. Give such as 90"),
        ({"every_n_steps": None, "every_n_minutes": 60.0}, None, None),
    ],
)
def test_a_job_comes_to_a_checkpoint_before_its_end(last: dict[str, Any], time: str, problem: str | None) -> None:
    problems = list(time_problems({"last_checkpoint": last}, time))
    if problem is None:
        assert problems == []
    else:
        assert problem in problems[0]


def test_what_is_not_there_is_named_with_what_brings_it(
    asked: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("TORCH_HOME", str(tmp_path))
    content = yaml.safe_load((ROOT / "configs" / "kl_autoencoder" / "mnist.yaml").read_text())
    path, overlay = tmp_path / "mnist.yaml", ROOT / "configs" / "overlays" / "fid.yaml"
    path.write_text(yaml.safe_dump(content))
    net = "runs/feature_net/mnist/checkpoints/best.ckpt"
    with pytest.raises(ValueError) as error:
        submit(str(path), config=[str(overlay)], run_dir="runs/x")
    mnist, feature_net, inception, last = str(error.value).splitlines()
    assert mnist.startswith(
        "MNIST: data: missing: root (='data') does not contain the data set. Put MNIST/raw/train-im"
    )
    assert feature_net.startswith(f"FeatureNet: {net}: missing: there is no {net}. Train one:  lightning fit --config ")
    assert "weights-inception-2015-12-05-6726825d.pth. Run  lit-vae prepare inception  where there" in inception
    assert last.startswith(f"Run  lit-vae prepare {path} --config {overlay}  where there is internet: it brings what")
    assert not asked.exists()
    write_mnist(tmp_path / "data")
    content["trainer"]["callbacks"] = []
    del content["model"]["init_args"]["realism"]
    content["data"]["init_args"]["num_val"] = 20
    path.write_text(yaml.safe_dump(content))
    monkeypatch.setattr("callbacks.references._named", None)  # a job that misses statistics computes them by itself
    random = {"class_path": "lit_vae.features.Inception", "init_args": {"weights": "random"}}
    quality = {"class_path": "callbacks.SampleQuality", "init_args": {"features": random}}
    overlay = tmp_path / "overlay.yaml"
    overlay.write_text(yaml.safe_dump({"trainer": {"callbacks+": [quality]}}))
    submit(str(path), config=[str(overlay)], run_dir="runs/x")
    assert asked.exists()


def test_what_is_submitted(asked: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    site = tmp_path / "slurm" / "site.env"
    site.parent.mkdir()
    site.write_text("SBATCH_PARTITION=preempt\nLAUNCHER_OF_SITE='two words'\n")
    submit(DIGITS, run_dir="runs/x", nodes=2, gpus=4, time="1:00:00", batch=64)
    assert asked.read_text() == (
        "--parsable --nodes=2 --ntasks-per-node=4 --gpus-per-node=4 --time=1:00:00 --output=runs/x/%j.out"
        f" {SCRIPT} runs/x --config {DIGITS} --data.batch_size=8 --last_checkpoint.every_n_minutes=10\n"
    )
    assert (tmp_path / "variables").read_text() == "preempt two words\n"
    assert capsys.readouterr().out == "job 12, run directory runs/x, log runs/x/12.out\n"
    assert site.read_text().startswith("SBATCH_PARTITION=preempt\n")  # yours


def test_an_array_and_an_overlay_that_says_how_often_it_saves(asked: Path, tmp_path: Path) -> None:
    overlay = tmp_path / "often.yaml"
    overlay.write_text("last_checkpoint: {every_n_steps: 100}\n")
    submit(DIGITS, config=[str(overlay)], run_dir="runs/x", gpus=0, array="0-4")
    assert asked.read_text() == (
        "--parsable --nodes=1 --ntasks-per-node=1 --array=0-4 --output=runs/x/%A_%a.out"
        f" {SCRIPT} runs/x --config {DIGITS} --config {overlay}\n"
    )
    assert (tmp_path / "slurm" / "site.env").read_text() == SITE_TEMPLATE.read_text()


def test_a_dry_run_writes_nothing(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, capsys: Any) -> None:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", str(tmp_path))
    submit(DIGITS, run_dir="runs/x", dry_run=True)
    assert capsys.readouterr().out.startswith("sbatch --nodes=1 --ntasks-per-node=1 --gpus-per-node=1 --output=runs/x/")
    assert list(tmp_path.iterdir()) == []
    with pytest.raises(ValueError, match=r"lit-vae submit: there is no sbatch on the PATH\. .* or with --dry_run true"):
        submit(DIGITS, run_dir="runs/x")
    assert list(tmp_path.iterdir()) == []


def test_a_mistake_in_the_configuration_is_said_before_anything_is_submitted(asked: Path, tmp_path: Path) -> None:
    content = yaml.safe_load(Path(DIGITS).read_text())
    content["model"]["init_args"]["optimzer"] = content["model"]["init_args"].pop("optimizer")
    (tmp_path / "wrong.yaml").write_text(yaml.safe_dump(content))
    with pytest.raises(ValueError, match=r"^wrong\.yaml: (.|\n)*Did you mean 'optimizer' instead of 'optimzer'"):
        submit("wrong.yaml", run_dir="runs/x")
    with pytest.raises(ValueError, match=r"--batch 3 does not divide by 2(.|\n)*--time 5 is 5 minutes: too short"):
        submit(DIGITS, run_dir="runs/x", gpus=2, batch=3, time="5")
    assert not asked.exists()
    assert not (tmp_path / "runs").exists()


def test_the_files_are_those_that_people_copy() -> None:
    for file in (SCRIPT, STUDY_SCRIPT, SITE_TEMPLATE):
        assert file.resolve() == ROOT / "slurm" / file.name


def test_a_job_waits_for_a_rank_as_long_as_the_overlay_says() -> None:
    root = Path(__file__).resolve().parents[3]
    overlay = yaml.safe_load((root / "configs" / "overlays" / "ddp.yaml").read_text())
    timeout = overlay["trainer"]["strategy"]["init_args"]["timeout"]
    script = (root / "slurm" / "train.sbatch").read_text()
    assert f"--trainer.strategy DDPStrategy --trainer.strategy.timeout {timeout}" in script


@pytest.mark.parametrize(
    ("asked_for", "said"),
    [
        ({"batch": -64}, "--batch -64: give at least 1, one image for each rank."),
        ({"batch": 0}, "--batch 0: give at least 1, one image for each rank."),
        ({"batch": 4096}, "--batch 4096: 4096 images in a step, and there are 1437 to train on. Give --batch 1437."),
        ({"nodes": 32}, "data.batch_size 64 on 32 ranks: 2048 images in a step, and there are 1437 to train on."),
        ({"ranks": 0}, "--nodes 1, --ranks 0, --gpus 1: give at least 1, 1 and 0."),
        ({"nodes": 0}, "--nodes 0, --ranks 1, --gpus 1: give at least 1, 1 and 0."),
        ({"gpus": -1}, "--nodes 1, --ranks 1, --gpus -1: give at least 1, 1 and 0."),
        ({"time": "-5"}, "--time -5: not a time as sbatch takes it."),
        ({"time": "12:00:00h"}, "--time 12:00:00h: not a time as sbatch takes it."),
        ({"time": ""}, "--time : not a time as sbatch takes it."),
        ({"array": "4-0"}, "--array 4-0: not seeds as sbatch takes them. Give such as 3, 0-4, 0,2,7 or 0-9%2"),
        ({"array": "a"}, "--array a: not seeds"),
        ({"array": ""}, "--array : not seeds"),
        ({"array": "0-4,"}, "--array 0-4,: not seeds"),
        ({"array": "0-4%0"}, "--array 0-4%0: not seeds"),
        ({"site": "broken.env"}, "--site: broken.env: line "),
        ({"site": "folder"}, "--site folder: not a file."),
    ],
)
def test_every_argument_is_looked_at(asked: Path, tmp_path: Path, asked_for: dict[str, Any], said: str) -> None:
    (tmp_path / "broken.env").write_text("SBATCH_PARTITION='gpu\n")
    (tmp_path / "folder").mkdir()
    with pytest.raises(ValueError) as error:
        submit(DIGITS, run_dir="runs/x", **asked_for)
    assert str(error.value).startswith(said)
    assert len(str(error.value).splitlines()) == 1
    assert not asked.exists()
    assert not (tmp_path / "runs").exists()


@pytest.mark.parametrize("array", ["3", "0-4", "0,2,7", "0-9%2", "0-8:2", "0-2,5,7-9%3"])
def test_seeds_as_sbatch_takes_them(array: str) -> None:
    assert list(array_problems(array)) == []


def test_a_run_of_another_family_or_at_its_end_is_not_gone_on_with(asked: Path, tmp_path: Path) -> None:
    run = tmp_path / "runs" / "x"
    run.mkdir(parents=True)
    (run / "config.yaml").write_text((ROOT / "configs" / "vqvae" / "digits.yaml").read_text())
    with pytest.raises(ValueError, match=r"runs/x: it was trained with model lit_vae\.models\.VQVAE, not lit_vae\.mod"):
        submit(DIGITS, run_dir="runs/x")
    (run / "config.yaml").write_text(Path(DIGITS).read_text())
    (run / "run.json").write_text('{"status": "finished"}')
    with pytest.raises(ValueError, match=r"runs/x: this run has finished\. Give another, or an overlay"):
        submit(DIGITS, run_dir="runs/x")
    assert not asked.exists()
    (run / "run.json").write_text('{"status": "preempted"}')
    submit(DIGITS, run_dir="runs/x")
    assert asked.exists()
