"""The W&B sweeps of the repository: what an agent would run is a run, and logs what the sweep compares."""

import csv
import itertools
import math
import os
import subprocess
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import yaml

ROOT = Path(__file__).resolve().parents[2]
SWEEPS = sorted((ROOT / "configs" / "sweeps").glob("*.yaml"))
DRAWN = {"log_uniform_values", "uniform", "int_uniform"}


def extremes(parameter: dict[str, Any]) -> list[Any]:
    """The values that a parameter can take, or the ends of its range; fails where W&B would not know what is meant."""
    if "values" in parameter:
        assert set(parameter) == {"values"}
        return parameter["values"]
    assert set(parameter) == {"distribution", "min", "max"}
    assert parameter["distribution"] in DRAWN
    assert type(parameter["min"]) is type(parameter["max"])
    assert parameter["min"] < parameter["max"]
    return [parameter["min"], parameter["max"]]


def command(sweep: dict[str, Any], values: dict[str, Any]) -> list[str]:
    """What an agent runs for these values, by W&B's own functions."""
    from wandb.sdk.launch.sweeps.utils import create_sweep_command, create_sweep_command_args  # takes a second

    args = create_sweep_command_args({"args": {name: {"value": value} for name, value in values.items()}})["args"]
    macros = {"${env}": ["/usr/bin/env"], "${args}": args}
    return [part for given in create_sweep_command(list(sweep["command"])) for part in macros.get(given, [given])]


def at(config: dict[str, Any], key: str) -> Any:
    for name in key.split("."):
        config = config[name]
    return config


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_every_value_of_a_sweep_reaches_the_configuration(
    path: Path, lightning: Callable[..., None], capsys: pytest.CaptureFixture[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.chdir(ROOT)
    sweep = yaml.safe_load(path.read_text())
    assert set(sweep) == {"name", "method", "metric", "parameters", "command"}
    assert sweep["method"] in ("grid", "random", "bayes")
    assert sweep["metric"]["goal"] in ("minimize", "maximize")
    ends = {name: extremes(parameter) for name, parameter in sweep["parameters"].items()}
    for drawn in itertools.zip_longest(*ends.values()):
        values = {
            name: of[0] if value is None else value for (name, of), value in zip(ends.items(), drawn, strict=True)
        }
        env, sh, dash_c, script, zero, *rest = command(sweep, values)
        assert (env, sh, dash_c, zero) == ("/usr/bin/env", "sh", "-c", "sweep")
        start = script.split()
        assert start[:3] == ["exec", "lightning", "fit"]
        with pytest.raises(SystemExit) as exit_info:
            lightning("fit", *start[3:5], *rest, "--print_config")
        assert exit_info.value.code == 0
        config = yaml.safe_load(capsys.readouterr().out)
        assert {name: at(config, name) for name in values} == values


@pytest.mark.parametrize("path", SWEEPS, ids=lambda path: path.stem)
def test_a_run_of_a_sweep_logs_what_is_compared(
    path: Path, lightning: Callable[..., None], tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A script in the place of ``lightning`` writes down how the agent's shell calls it; then that is run."""
    sweep = yaml.safe_load(path.read_text())
    values = {name: extremes(parameter)[0] for name, parameter in sweep["parameters"].items()}
    short = ["--trainer.max_epochs=1", "--trainer.check_val_every_n_epoch=1", "--trainer.limit_train_batches=2"]
    monkeypatch.chdir(tmp_path)
    (tmp_path / "configs").symlink_to(ROOT / "configs")
    script = tmp_path / "bin" / "lightning"
    script.parent.mkdir()
    script.write_text(f'#!/bin/sh\nprintf "%s\\0" "$@" >{tmp_path}/called\n')
    script.chmod(0o755)
    monkeypatch.setenv("WANDB_RUN_ID", "abc123")
    monkeypatch.setenv("PATH", f"{script.parent}:{os.environ['PATH']}")
    subprocess.run([*command(sweep, values), *short], check=True)
    lightning(*(tmp_path / "called").read_text().removesuffix("\0").split("\0"))
    with (tmp_path / "runs" / "sweeps" / path.stem / "abc123" / "metrics.csv").open() as file:
        last = list(csv.DictReader(file))[-1]
    assert math.isfinite(float(last[sweep["metric"]["name"]]))
