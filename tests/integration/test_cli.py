"""The command line as a user meets it: what it writes, and what it says of mistakes."""

import csv
import json
import re
import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch
import yaml

from lit_vae.cli import main

ROOT = Path(__file__).resolve().parents[2]
Lightning = Callable[..., None]
LEARNED_GAUSSIAN = "lit_vae.likelihoods.LearnedGaussian\n      init_args: {initial_variance: 0.1}"
FAST = [
    "--trainer.max_epochs=1",
    "--trainer.limit_train_batches=3",
    "--trainer.limit_val_batches=2",
    "--trainer.log_every_n_steps=1",
    "--trainer.check_val_every_n_epoch=1",
]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A short run of the quickstart. Tests do not write into it."""
    run, config = tmp_path_factory.mktemp("trained") / "run", ROOT / "configs" / "vae" / "digits.yaml"
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["lightning", "fit", f"--config={config}", f"--run_dir={run}", *FAST])
        main()
    return run


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    """A copy of the short run, to write into."""
    return Path(shutil.copytree(trained, tmp_path / "run"))


def variant(config: Path, tmp_path: Path, old: str, new: str) -> Path:
    """A copy of a configuration with one thing changed."""
    text = config.read_text()
    assert old in text
    path = tmp_path / "variant.yaml"
    path.write_text(text.replace(old, new))
    return path


def fails(lightning: Lightning, args: list[Any], capsys: pytest.CaptureFixture[str]) -> str:
    """Run a command that must fail without a traceback; returns its message."""
    with pytest.raises(SystemExit) as exit_info:
        lightning(*args)
    assert exit_info.value.code not in (0, None)
    message = capsys.readouterr().err
    assert message.startswith("error: ")
    assert "Traceback" not in message
    assert "Namespace(" not in message  # not the whole configuration again
    return message


def test_a_run_keeps_everything_in_its_directory(
    lightning: Lightning,
    digits_config: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    monkeypatch.chdir(tmp_path)
    for name in ("OMP_NUM_THREADS", "LIT_VAE_THREADS"):
        monkeypatch.setenv(name, "")
    run = tmp_path / "run"
    lightning("fit", "--config", digits_config, "--run_dir", run, *FAST)
    assert re.match(r"threads: 1 of \d+ cores", capsys.readouterr().out)  # of a small network
    assert {path.name for path in tmp_path.iterdir()} == {"run"}
    assert {"config.yaml", "metrics.csv", "checkpoints", "media"} <= {path.name for path in run.iterdir()}
    assert {path.name for path in (run / "checkpoints").iterdir()} == {"last.ckpt", "best.ckpt"}
    with (run / "metrics.csv").open() as file:
        rows = list(csv.DictReader(file))
    assert [int(row["step"]) for row in rows] == [0, 1, 2]
    assert float(rows[2]["val/elbo"]) == pytest.approx(
        -float(rows[2]["val/rate"]) - float(rows[2]["val/distortion"]), abs=1e-3
    )
    torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)


def test_the_saved_configuration_starts_the_run_again(lightning: Lightning, trained: Path, tmp_path: Path) -> None:
    again = tmp_path / "again"
    lightning("fit", "--config", trained / "config.yaml", "--run_dir", again)
    assert (trained / "config.yaml").read_text() == (again / "config.yaml").read_text()
    assert (trained / "metrics.csv").read_text() == (again / "metrics.csv").read_text()


def test_a_test_writes_its_numbers_and_their_protocol(lightning: Lightning, run: Path) -> None:
    lightning("test", "--config", run / "config.yaml", "--ckpt_path", run / "checkpoints" / "best.ckpt")
    record = json.loads((run / "test_metrics.json").read_text())
    assert record["data"] == "Digits"
    assert record["metrics"]["test/elbo"] == pytest.approx(
        -record["metrics"]["test/rate"] - record["metrics"]["test/distortion"], abs=1e-3
    )


def test_predictions_are_written(lightning: Lightning, run: Path) -> None:
    lightning("predict", "--config", run / "config.yaml", "--ckpt_path", "last")
    with np.load(run / "predictions" / "rank_0.npz") as arrays:
        assert arrays["z"].shape == (180, 8)
        assert arrays["x_hat"].shape == (180, 1, 8, 8)
        assert set(arrays["y"].tolist()) == set(range(10))
        assert arrays["z"].std() > 0.0


def test_a_finished_run_is_not_written_over(
    lightning: Lightning, digits_config: Path, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    before = {path: path.stat().st_mtime_ns for path in run.rglob("*")}
    message = fails(lightning, ["fit", "--config", digits_config, "--run_dir", run, *FAST], capsys)
    assert "already contains a run. Add --ckpt_path last" in message
    assert {path: path.stat().st_mtime_ns for path in run.rglob("*")} == before


@pytest.mark.parametrize(
    ("old", "new", "expected"),
    [
        ("    optimizer:", "    optimzer:", "Did you mean 'optimizer' instead of 'optimzer'?"),
        ("hidden:", "hiden:", "Did you mean 'hidden' instead of 'hiden'?"),
        ("lit_vae.models.VAE", "lit_vae.models.VEA", "Did you mean 'VAE'?"),
        (
            "[1, 8, 8]",
            "[3, 8, 8]",
            "VAE: model.image_shape (=[3, 8, 8]) is not the shape of the data's images [1, 8, 8]",
        ),
        (LEARNED_GAUSSIAN, "lit_vae.likelihoods.Bernoulli", "Bernoulli: model.likelihood is for binary values"),
        (
            "{shape: [8]}",
            "{shape: [0]}",
            "StandardNormal: shape (=0) must be at least 1. Change model.init_args.pri",
        ),
        (
            "lr: 1.0e-3",
            "lr: .inf",
            "Adam: lr (=inf) must be a finite number and at least 0. Change model.init_args.o",
        ),
        ("log_every_n_steps: 22", "log_every_n_steps: 0", "must be at least 1. Change trainer.log_every_n_steps."),
        ("seed_everything: 0", "seed_everything: 4294967296", "at most 4294967295. Change seed_everything."),
    ],
)
def test_a_mistake_in_a_configuration_is_one_clear_error(
    lightning: Lightning,
    digits_config: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    old: str,
    new: str,
    expected: str,
) -> None:
    config = variant(digits_config, tmp_path, old, new)
    message = fails(lightning, ["fit", "--config", config, "--run_dir", tmp_path / "run"], capsys)
    assert expected in message
    assert not (tmp_path / "run").exists()


def test_all_problems_are_said_at_once(
    lightning: Lightning, digits_config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    config = variant(digits_config, tmp_path, "[1, 8, 8]", "[3, 8, 8]")
    config = variant(config, tmp_path, LEARNED_GAUSSIAN, "lit_vae.likelihoods.Bernoulli")
    message = fails(lightning, ["fit", "--config", config, "--run_dir", tmp_path / "run"], capsys)
    assert "model.image_shape" in message
    assert "model.likelihood" in message


@pytest.mark.parametrize(
    ("args", "expected"),
    [
        (["fit", "--config", "nope.yaml"], "nope.yaml"),
        (["fit", "--trainer.max_epoch=3"], "Did you mean 'max_epochs' instead of 'max_epoch'?"),
        (["fit", "--ckpt_path", "last"], "--ckpt_path last: which run? Give --run_dir RUN"),
        (["fit", "--ckpt_path", "nope.ckpt"], "there is no file nope.ckpt"),
        (["test"], "untrained weights would be used. Give --ckpt_path"),
        (["fi"], "predict"),  # all that there are
        ([], "subcommand"),
    ],
)
def test_a_mistake_on_the_command_line_is_one_clear_error(
    lightning: Lightning,
    digits_config: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
    args: list[Any],
    expected: str,
) -> None:
    monkeypatch.chdir(tmp_path)
    if args and "nope.yaml" not in args:
        args = [args[0], "--config", digits_config, *args[1:]]
    assert expected in fails(lightning, args, capsys)
    assert list(tmp_path.iterdir()) == []


def test_a_truncated_checkpoint_is_an_error(
    lightning: Lightning, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    last = run / "checkpoints" / "last.ckpt"
    last.write_bytes(last.read_bytes()[: last.stat().st_size // 2])
    message = fails(lightning, ["test", "--config", run / "config.yaml", "--ckpt_path", "last"], capsys)
    assert re.search(r"checkpoint: .*last\.ckpt cannot be read .* Give another checkpoint", message, re.DOTALL)


def test_a_checkpoint_of_another_model_is_an_error(
    lightning: Lightning, run: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    args = ["test", "--config", run / "config.yaml", "--ckpt_path", "last", "--model.encoder.hidden", "[7]"]
    assert "4 of another shape: encoder.layers.0.weight" in fails(lightning, args, capsys)


def test_a_missing_accelerator_is_an_error(
    lightning: Lightning, digits_config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    if torch.cuda.is_available():
        pytest.skip("there is one")
    message = fails(lightning, ["fit", "--config", digits_config, "--trainer.accelerator", "cuda"], capsys)
    assert "CUDAAccelerator" in message


def test_print_config_is_complete_yaml(
    lightning: Lightning, digits_config: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    with pytest.raises(SystemExit) as exit_info:
        lightning("fit", "--config", digits_config, "--print_config")
    assert exit_info.value.code == 0
    config = yaml.safe_load(capsys.readouterr().out)
    assert config["model"]["class_path"] == "lit_vae.models.VAE"
    assert config["best_checkpoint"] == {"monitor": "val/loss", "mode": "min"}
