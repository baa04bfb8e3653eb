"""Callbacks and schedulers of Lightning beside ours, and checkpoints that do not fit."""

import csv
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from lightning.pytorch import Callback

Lightning = Callable[..., None]
FEW = ["--trainer.limit_train_batches=2", "--trainer.limit_val_batches=1", "--trainer.num_sanity_val_steps=0"]
FAST = [*FEW, "--trainer.log_every_n_steps=1", "--trainer.check_val_every_n_epoch=1"]
NEVER_BETTER = 1e9
RATE = 1e-3  # of the quickstart


def callbacks(*given: Any) -> str:
    return f"--trainer.callbacks={json.dumps(list(given))}"


def named(class_path: str, **init_args: Any) -> dict[str, Any]:
    return {"class_path": class_path, "init_args": init_args}


def fails(lightning: Lightning, capsys: pytest.CaptureFixture[str], *args: Any) -> str:
    with pytest.raises(SystemExit) as exit_info:
        lightning(*args)
    assert exit_info.value.code in (1, 2)
    message = capsys.readouterr().err
    assert "Traceback" not in message
    assert len(message.splitlines()) <= 25
    return message


def rows(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open() as file:
        return list(csv.DictReader(file))


def last(run: Path) -> dict[str, Any]:
    return torch.load(run / "checkpoints" / "last.ckpt", weights_only=True)


@pytest.mark.slow
@pytest.mark.parametrize("at_epoch_end", [None, False], ids=["at_the_epoch_s_end", "after_the_validation"])
def test_early_stopping_and_a_plateau_are_resumed_exactly(
    lightning: Lightning, digits_config: Path, tmp_path: Path, at_epoch_end: bool | None
) -> None:
    """No validation but the first is a better one: the rate is halved at each, and the third is the last."""
    stopping = {
        "monitor": "val/loss",
        "patience": 2,
        "min_delta": NEVER_BETTER,
        "check_on_train_epoch_end": at_epoch_end,
    }
    plateau = named("lightning.pytorch.cli.ReduceLROnPlateau", monitor="val/loss", factor=0.5, patience=0)
    plateau["init_args"] |= {"threshold": NEVER_BETTER, "threshold_mode": "abs"}
    args = ["fit", "--config", digits_config, *FAST, f"--model.lr_scheduler={json.dumps(plateau)}"]
    args.append(callbacks(named("lightning.pytorch.callbacks.EarlyStopping", **stopping)))
    straight, resumed = tmp_path / "straight", tmp_path / "resumed"
    lightning(*args, "--run_dir", straight, "--trainer.max_epochs=9")
    lightning(*args, "--run_dir", resumed, "--trainer.max_epochs=1")
    for _ in range(2):  # a run that was stopped early stays stopped
        lightning(*args, "--run_dir", resumed, "--trainer.max_epochs=9", "--ckpt_path=last")
        assert [int(row["step"]) for row in rows(resumed)] == list(range(6))
    assert rows(straight) == rows(resumed)
    first, second = last(straight), last(resumed)
    for name, value in first["state_dict"].items():
        assert torch.equal(value, second["state_dict"][name])

    for state in (first, second):
        assert state["optimizer_states"][0]["param_groups"][0]["lr"] == pytest.approx(RATE / 4)
        assert float(state["callback_metrics"]["val/loss"]) == pytest.approx(float(rows(straight)[-1]["val/loss"]))


@pytest.mark.slow
def test_stopping_at_the_end_of_an_epoch_without_a_validation_is_resumed_exactly(
    lightning: Lightning, digits_config: Path, tmp_path: Path
) -> None:
    """Every second epoch is validated; after the first, three ends of epochs are no better: 8 steps are taken."""
    stopping = {"monitor": "train/loss", "patience": 3, "min_delta": NEVER_BETTER, "check_on_train_epoch_end": True}
    args = [
        "fit",
        "--config",
        digits_config,
        *FEW,
        "--trainer.log_every_n_steps=1",
        "--trainer.check_val_every_n_epoch=2",
    ]
    args.append(callbacks(named("lightning.pytorch.callbacks.EarlyStopping", **stopping)))
    for epochs in (1, 2, 3):
        for more in ([f"--trainer.max_epochs={epochs}"], ["--trainer.max_epochs=9", "--ckpt_path=last"]):
            lightning(*args, "--run_dir", tmp_path / str(epochs), *more)
        assert last(tmp_path / str(epochs))["global_step"] == 8


def test_what_a_checkpoint_cannot_go_on_with_is_one_clear_error(
    lightning: Lightning, digits_config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    run, weights, without = tmp_path / "run", tmp_path / "weights.pt", tmp_path / "without.ckpt"
    adversary = named(
        "lit_vae.realism.Adversary",
        discriminator=named("lit_vae.networks.PatchDiscriminator", width=4, layers=1),
        loss=named("lit_vae.objectives.Hinge"),
        weight=0.5,
    )
    game = f"--model.realism={json.dumps(named('lit_vae.realism.Realism', adversary=adversary))}"
    args = ["fit", "--config", digits_config, *FAST, callbacks(), "--trainer.max_epochs=1"]
    lightning(*args, "--run_dir", run, game)
    content = last(run)
    torch.save(content["state_dict"], weights)
    torch.save({key: value for key, value in content.items() if key != "optimizer_states"}, without)
    go_on = [*args, "--trainer.max_epochs=2", "--run_dir", run]

    message = fails(lightning, capsys, *go_on, "--ckpt_path=last")
    assert "when training resumes from a checkpoint:\n  model.init_args.realism: " in message
    assert "callbacks.StartFrom" in message
    family = ["fit", "--config", digits_config.parents[1] / "ae" / "digits.yaml", *FAST, callbacks()]
    message = fails(lightning, capsys, *family, "--run_dir", run, "--ckpt_path=last")
    assert "  model.class_path: lit_vae.models.VAE -> lit_vae.models.AE\n" in message
    message = fails(lightning, capsys, *go_on, game, "--ckpt_path=last", "--model.encoder.hidden=[7]")
    assert "  model.init_args.encoder.init_args.hidden from 0 on: [256, 256] -> [7]\n" in message
    sgd = json.dumps(named("torch.optim.SGD", lr=0.1, momentum=0.9))
    message = fails(lightning, capsys, *go_on, game, "--ckpt_path=last", f"--model.optimizer={sgd}")
    assert "  model.init_args.optimizer.class_path: torch.optim.Adam -> torch.optim.SGD\n" in message
    assert "callbacks.StartFrom" in message
    go_on[-1] = tmp_path / "other"
    message = fails(lightning, capsys, *go_on, game, "--ckpt_path", weights)
    assert "weights.pt contains only weights" in message
    assert "callbacks.StartFrom" in message
    message = fails(lightning, capsys, *go_on, game, "--ckpt_path", without)
    assert "without.ckpt contains only weights, so training cannot resume from it" in message

    started = [*args[:-2], callbacks(named("callbacks.StartFrom", path=str(weights))), "--trainer.max_epochs=1"]
    lightning(*started, "--run_dir", tmp_path / "started")  # what the errors name works, without the discriminator
    assert not any(name.startswith("realism") for name in last(tmp_path / "started")["state_dict"])


@pytest.mark.parametrize("bar", ["RichProgressBar", pytest.param("TQDMProgressBar", marks=pytest.mark.slow)])
def test_a_progress_bar_of_the_user_s_takes_the_place_of_ours(
    lightning: Lightning, digits_config: Path, tmp_path: Path, bar: str, capsys: pytest.CaptureFixture[str]
) -> None:
    given = callbacks(named(f"lightning.pytorch.callbacks.{bar}"))
    lightning("fit", "--config", digits_config, "--run_dir", tmp_path, *FAST, given, "--trainer.max_epochs=1")
    assert "it/s" not in capsys.readouterr().out.partition("run directory")[0] or bar == "TQDMProgressBar"
    assert len(rows(tmp_path)) == 2


def test_panels_of_one_class_are_numbered(lightning: Lightning, digits_config: Path, tmp_path: Path) -> None:
    given = callbacks(*(named("callbacks.Samples", num_images=4, temperature=t) for t in (1.0, 0.5, 2.0)))
    lightning("fit", "--config", digits_config, "--run_dir", tmp_path, *FAST, given, "--trainer.max_epochs=1")
    pictures = [tmp_path / "media" / name / "step_2.png" for name in ("samples", "samples_2", "samples_3")]
    assert len({picture.read_bytes() for picture in pictures}) == 3


@pytest.mark.parametrize(
    ("args", "said"),
    [
        (["--best_checkpoint.monitor=val/los"], ["BestCheckpoint", "'val/loss'", "best_checkpoint.monitor"]),
        (
            ["--model.lr_scheduler", json.dumps(named("torch.optim.lr_scheduler.ReduceLROnPlateau"))],
            ["class_path: lightning.pytorch.cli.ReduceLROnPlateau with init_args: {monitor: val/loss}"],
        ),
        ([callbacks(*[named("callbacks.NaNGuard")] * 2)], ["NaNGuard 2 times"]),
        (["--trainer.precision=bf16-true"], ["trainer.precision (=bf16-true) would round", "bf16-mixed"]),
    ],
    ids=["best", "torch_s_plateau", "twice", "bf16"],
)
def test_a_mistake_is_found_before_anything_is_written(
    lightning: Lightning,
    digits_config: Path,
    tmp_path: Path,
    capsys: pytest.CaptureFixture[str],
    args: list[str],
    said: list[str],
) -> None:
    message = fails(lightning, capsys, "fit", "--config", digits_config, "--run_dir", tmp_path / "run", *FAST, *args)
    assert all(words in message for words in said), message
    assert not (tmp_path / "run").exists()


def test_a_misspelt_number_of_training_ends_at_the_first_step_that_is_logged(
    lightning: Lightning, digits_config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    beta = callbacks(
        named("lightning.pytorch.callbacks.ModelCheckpoint", monitor="train/betta", every_n_train_steps=99)
    )
    message = fails(lightning, capsys, "fit", "--config", digits_config, "--run_dir", tmp_path, *FAST, beta)
    assert "ModelCheckpoint: monitor (='train/betta') is not logged by this run. Did you mean 'train/beta'" in message
    assert not (tmp_path / "checkpoints").exists()


def test_float64_is_resumed_exactly_with_an_average(lightning: Lightning, digits_config: Path, tmp_path: Path) -> None:
    args = ["fit", "--config", digits_config, *FAST, "--trainer.precision=64-true", callbacks(named("callbacks.EMA"))]
    lightning(*args, "--run_dir", tmp_path / "straight", "--trainer.max_epochs=2")
    for more in (["--trainer.max_epochs=1"], ["--trainer.max_epochs=2", "--ckpt_path=last"]):
        lightning(*args, "--run_dir", tmp_path / "resumed", *more)
    first, second = last(tmp_path / "straight"), last(tmp_path / "resumed")
    for key in ("state_dict", "current_model_state"):
        for name, value in first[key].items():
            assert value.dtype == torch.float64
            assert torch.equal(value, second[key][name]), name


class Silent(Callback):
    """From elsewhere: it might log anything, and logs nothing."""


@pytest.mark.filterwarnings("ignore:EarlyStopping. monitor:UserWarning")
def test_a_number_that_a_callback_from_elsewhere_does_not_log_is_one_clear_error(
    lightning: Lightning, digits_config: Path, tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    stopping = named("lightning.pytorch.callbacks.EarlyStopping", monitor="mine")
    given = callbacks(stopping, named("test_ecosystem.Silent"))
    message = fails(lightning, capsys, "fit", "--config", digits_config, "--run_dir", tmp_path, *FAST, given)
    assert "error: Early stopping conditioned on metric `mine` which is not available" in message
