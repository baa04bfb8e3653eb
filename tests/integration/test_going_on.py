"""A run that goes on under another configuration, in another place, or after a start that failed."""

import shutil
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
import yaml

from lit_vae.cli import main
from lit_vae.run.random_state import RandomState

Lightning = Callable[..., None]
ROOT = Path(__file__).resolve().parents[2]
FEW = ["--trainer.callbacks=[]", "--trainer.log_every_n_steps=1", "--trainer.limit_train_batches=4"]


@pytest.fixture(scope="module")
def trained(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Of one epoch of four steps; nobody writes into it."""
    run = tmp_path_factory.mktemp("trained") / "run"
    config = ROOT / "configs" / "vae" / "digits.yaml"
    few = [*FEW, "--trainer.max_epochs=1", "--trainer.check_val_every_n_epoch=1"]
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(sys, "argv", ["lightning", "fit", "--config", str(config), f"--run_dir={run}", *few])
        main()
    return run


@pytest.fixture
def run(trained: Path, tmp_path: Path) -> Path:
    return Path(shutil.copytree(trained, tmp_path / "run"))


def state(run: Path, name: str = "last") -> dict[str, Any]:
    return torch.load(run / "checkpoints" / f"{name}.ckpt", weights_only=True)


def head(run: Path) -> list[str]:
    return [line for line in (run / "config.yaml").read_text().splitlines() if line.startswith("#")][1:]


def fails(lightning: Lightning, capsys: pytest.CaptureFixture[str], *args: Any) -> str:
    with pytest.raises(SystemExit) as stopped:
        lightning(*args)
    assert stopped.value.code == 1
    return capsys.readouterr().err


def test_what_is_given_takes_effect_and_stands_in_the_configuration(lightning: Lightning, run: Path) -> None:
    """README's own example, and what a checkpoint would overrule."""
    config = run / "config.yaml"
    given = {
        "trainer.max_epochs": 2,
        "trainer.accumulate_grad_batches": 2,
        "data.init_args.dequantize": False,
        "model.init_args.optimizer.init_args.lr": 0.25,
        "model.init_args.lr_scheduler": {
            "class_path": "torch.optim.lr_scheduler.StepLR", "init_args": {"step_size": 4, "gamma": 0.5},
        },
    }  # fmt: skip
    options = [f"--{key.replace('.init_args', '')}={value}" for key, value in given.items()]
    lightning("fit", "--config", config, "--run_dir", run, "--ckpt_path", "last", *options)
    after = state(run)
    assert (after["global_step"], after["epoch"]) == (4 + 2, 1)
    assert after["optimizer_states"][0]["param_groups"][0]["lr"] == 0.125  # a step of the schedule lies behind
    assert [line.split(":")[0] for line in head(run)] == ["# from step 4", *(f"#   {key}" for key in _in_file(given))]
    settings = yaml.safe_load(config.read_text())
    assert settings["trainer"]["max_epochs"] == 2
    assert settings["model"]["init_args"]["optimizer"]["init_args"]["lr"] == 0.25
    before = (run / "metrics.csv").read_text()
    lightning("fit", "--config", config, "--run_dir", run, "--ckpt_path", "last")  # nothing has changed, nor is left
    assert (run / "metrics.csv").read_text() == before
    assert len(head(run)) == 1 + len(given)


def _in_file(given: dict[str, Any]) -> list[str]:
    order = ["trainer.max_epochs", "trainer.acc", "model.init_args.opt", "model.init_args.lr_", "data"]
    return sorted(given, key=lambda key: next(i for i, name in enumerate(order) if key.startswith(name)))


@pytest.mark.parametrize(
    ("option", "named"),
    [
        ("--seed_everything=5", "seed_everything: 0 -> 5"),
        ("--model.encoder.hidden=[7]", "model.init_args.encoder.init_args.hidden from 0 on: [256, 256] -> [7]"),
        (
            "--model.likelihood.initial_variance=0.5",
            "model.init_args.likelihood.init_args.initial_variance: 0.1 -> 0.5",
        ),
        (
            "--model.optimizer=torch.optim.SGD",
            "model.init_args.optimizer.class_path: torch.optim.Adam -> torch.optim.SGD",
        ),
    ],
)
def test_what_cannot_change_is_refused_by_name(
    lightning: Lightning, trained: Path, capsys: pytest.CaptureFixture[str], option: str, named: str
) -> None:
    before = {path: path.stat().st_mtime_ns for path in trained.rglob("*")}
    args = ["--config", trained / "config.yaml", "--run_dir", trained, "--ckpt_path", "last", option]
    assert f"when training resumes from a checkpoint:\n  {named}\n" in fails(lightning, capsys, "fit", *args)
    assert {path: path.stat().st_mtime_ns for path in trained.rglob("*")} == before


def test_a_moved_run_keeps_its_best_and_a_fork_says_where_it_is_from(
    lightning: Lightning, trained: Path, run: Path, tmp_path: Path
) -> None:
    best = (run / "checkpoints" / "best.ckpt").read_bytes()
    worse = ["--model.optimizer.lr=10.0", "--trainer.max_epochs=2"]
    lightning("fit", "--config", run / "config.yaml", "--run_dir", run, "--ckpt_path", "last", *worse)
    assert (run / "checkpoints" / "best.ckpt").read_bytes() == best
    fork, last = tmp_path / "fork", trained / "checkpoints" / "last.ckpt"
    lightning(
        "fit", "--config", trained / "config.yaml", "--run_dir", fork, "--ckpt_path", last, "--trainer.max_epochs=2"
    )
    assert head(fork) == [f"# from step 4 of {last}:", "#   trainer.max_epochs: 1 -> 2"]
    assert state(fork, "best")["global_step"] == 8
    assert (trained / "checkpoints" / "best.ckpt").read_bytes() == best


def test_a_start_that_failed_in_set_up_is_mended_by_the_same_command(
    lightning: Lightning, digits_config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    run = tmp_path / "run"
    command = ["fit", "--config", digits_config, f"--run_dir={run}", *FEW, "--trainer.max_epochs=1"]

    def fail(*_: Any) -> None:
        (run / "skipped.txt").write_text("what a data module has noted")
        raise ValueError("the data are not there")

    with monkeypatch.context() as patch:
        patch.setattr(RandomState, "on_sanity_check_start", fail)
        with pytest.raises((SystemExit, ValueError)):
            lightning(*command)
    assert not (run / "config.yaml").exists()
    lightning(*command)
    assert state(run)["global_step"] == 4


def test_home_is_one_place_however_it_is_written(
    lightning: Lightning, digits_config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    work = tmp_path / "work"
    work.mkdir()
    monkeypatch.chdir(work)
    monkeypatch.setenv("HOME", str(tmp_path))
    shutil.copy(digits_config, tmp_path / "mine.yaml")
    lightning("fit", "--config=~/mine.yaml", "--run_dir=~/run", *FEW, "--trainer.max_epochs=1")
    assert list(work.iterdir()) == []
    assert {path.name for path in tmp_path.iterdir()} == {"work", "mine.yaml", "run"}
    on = ["--ckpt_path=~/run/checkpoints/last.ckpt", "--trainer.max_epochs=2"]
    lightning("fit", "--config=~/run/config.yaml", "--run_dir=~/run", *on)
    assert state(tmp_path / "run")["global_step"] == 8
    assert list(work.iterdir()) == []


def test_a_run_that_is_moved_in_mid_training_ends_with_a_clear_error(
    lightning: Lightning,
    digits_config: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:
    run, moved = tmp_path / "run", tmp_path / "moved"
    few = [*FEW, "--trainer.max_epochs=2", "--last_checkpoint.every_n_steps=2"]
    hook = RandomState.on_train_batch_start

    def move(self: RandomState, trainer: Any, *args: Any) -> None:
        if trainer.global_step == 3 and run.exists():
            run.rename(moved)
        hook(self, trainer, *args)

    with monkeypatch.context() as patch:
        patch.setattr(RandomState, "on_train_batch_start", move)
        message = fails(lightning, capsys, "fit", "--config", digits_config, f"--run_dir={run}", *few)
    assert f"error: the run directory {run} was moved or removed during training." in message
    assert "Traceback" not in message
    assert not run.exists()
    lightning("fit", "--config", moved / "config.yaml", "--run_dir", moved, "--ckpt_path", "last")
    assert state(moved)["global_step"] == 8
