"""One logger, callback or plugin is a list of one, and every training has its ``metrics.csv``."""

import os
import sys
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

from lit_vae.cli import command_line, quieten_lightning
from lit_vae.run.loggers import place_loggers
from lit_vae.tools.configurations import ConfigReader

CSV, WANDB = "lit_vae.run.loggers.MetricsCSV", "lit_vae.run.loggers.WandB"
BOARD = "lit_vae.run.loggers.TensorBoard"


class Placer(ConfigReader):
    """Places the loggers and stops there."""

    def before_instantiate_classes(self) -> None:
        """As a fit does."""
        place_loggers(self.settings.trainer, Path(self.settings.run_dir))


@pytest.fixture
def overlay(tmp_path: Path) -> Callable[..., Path]:
    def write(**trainer: Any) -> Path:
        path = tmp_path / "overlay.yaml"
        path.write_text(yaml.safe_dump({"trainer": trainer}))
        return path

    return write


@pytest.mark.parametrize(
    ("given", "expected", "mode"),
    [
        (None, [CSV], "disabled"),
        (None, [CSV, WANDB], "offline"),
        (True, [CSV, WANDB], "offline"),
        (False, [CSV], "offline"),
        ([], [CSV], "offline"),
        ({"class_path": WANDB, "init_args": {"project": "p"}}, [CSV, WANDB], "offline"),
        ({"class_path": "lit_vae.run.wandb_logger.WandB"}, [CSV, WANDB], "offline"),
        ([{"class_path": WANDB}], [CSV, WANDB], "offline"),
        ({"class_path": CSV}, [CSV], "offline"),
        ([{"class_path": BOARD}, {"class_path": CSV}], [BOARD, CSV], "offline"),
    ],
)
def test_every_logger_writes_into_the_run_and_one_writes_metrics(
    overlay: Callable[..., Path], digits_config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    given: Any, expected: list[str], mode: str,
) -> None:  # fmt: skip
    run = str(tmp_path / "run")
    monkeypatch.setenv("WANDB_MODE", mode)
    args = ["lightning", "--config", str(digits_config), "--config", str(overlay(logger=given))]
    monkeypatch.setattr(sys, "argv", [*args, "--run_dir", run])
    quieten_lightning()
    placed = command_line(Placer, run=False).config.trainer.logger
    last = [logger["class_path"].rpartition(".")[2] for logger in placed]
    assert last == [path.rpartition(".")[2] for path in expected]
    assert [logger["init_args"]["run_dir"] for logger in placed] == [run] * len(placed)


def test_single_components_train_and_their_configuration_starts_the_run_again(
    overlay: Callable[..., Path], digits_config: Path, tmp_path: Path, lightning: Callable[..., None],
    monkeypatch: pytest.MonkeyPatch,
) -> None:  # fmt: skip
    monkeypatch.chdir(tmp_path)
    single = overlay(
        logger=False,
        callbacks={"class_path": "callbacks.LatentStatistics", "init_args": {"every_n_epochs": 1}},
        plugins={"class_path": "lightning.pytorch.plugins.environments.LightningEnvironment"},
        limit_train_batches=2,
        limit_val_batches=1,
        check_val_every_n_epoch=1,
        max_epochs=1,
        log_every_n_steps=1,
    )
    lightning("fit", "--config", digits_config, "--config", single, "--run_dir", "run")
    assert "val/active_units" in Path("run/metrics.csv").read_text()
    content = yaml.safe_load(Path("run/config.yaml").read_text())["trainer"]
    assert [one["class_path"] for one in content["callbacks"]] == ["callbacks.LatentStatistics"]
    lightning("fit", "--config", "run/config.yaml", "--run_dir", "again")
    assert Path("run/metrics.csv").read_text() == Path("again/metrics.csv").read_text()
    assert sorted(os.listdir()) == ["again", "overlay.yaml", "run"]
