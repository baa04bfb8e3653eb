"""What the tests of ``lit-vae study`` share: two small configurations, and a page that costs nothing."""

import json
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import warm
import yaml

ROOT = Path(__file__).resolve().parents[3]
EPOCHS = 30  # long enough to be caught training
COMPARE = "lit_vae.tools.compare"


def write_configs(folder: Path) -> Path:
    """Two small configurations of digits."""
    folder.mkdir(parents=True)
    for family in ("ae", "vae"):
        config: dict[str, Any] = yaml.safe_load((ROOT / "configs" / family / "digits.yaml").read_text())
        config["trainer"] |= {"max_epochs": 1, "check_val_every_n_epoch": 1, "limit_train_batches": 4}
        config["trainer"] |= {"callbacks": [], "enable_model_summary": False}
        for network in ("encoder", "decoder"):
            config["model"]["init_args"][network]["init_args"]["hidden"] = [8]
        if family == "vae":
            config["trainer"] |= {"max_epochs": EPOCHS, "limit_train_batches": 20}
        (folder / f"{family}.yaml").write_text(yaml.safe_dump(config))
    return folder


class Pages:
    """In place of the comparison: what it was asked for."""

    def __init__(self) -> None:
        self.asked: list[dict[str, Any]] = []
        self.refusal: Exception | None = None

    def __call__(self, **arguments: Any) -> None:
        for run in arguments["runs"]:
            assert (Path(run) / "checkpoints" / "last.ckpt").is_file()
        Path(arguments["out"]).mkdir(exist_ok=True)
        self.asked.append(arguments)
        if self.refusal is not None:
            raise self.refusal


@contextmanager
def stand_in() -> Iterator[Pages]:
    """No page is made, and what a study in this process starts is forked."""
    pages, module = Pages(), ModuleType(COMPARE)
    module.compare = pages  # type: ignore[attr-defined]
    with pytest.MonkeyPatch.context() as patch:
        patch.setitem(sys.modules, COMPARE, module)
        forking = SimpleNamespace(**{**vars(subprocess), "Popen": warm.Popen})
        patch.setattr("lit_vae.tools.study.processes.subprocess", forking)
        yield pages


def record(run: Path) -> dict[str, Any]:
    return json.loads((run / "run.json").read_text())
