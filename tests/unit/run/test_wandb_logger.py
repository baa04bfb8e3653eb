"""When W&B is online, and what it is taken to have."""

import json
from pathlib import Path
from types import SimpleNamespace

import pytest
import wandb
from wandb.proto import wandb_internal_pb2

from lit_vae.run.wandb_logger import WandB
from lit_vae.run.wandb_records import in_blocks, mark_synced


def kept(run: Path, name: str, steps: int) -> Path:
    """A start of a run, as W&B keeps it, of steps from 0 on."""
    rows = [wandb_internal_pb2.Record() for _ in range(steps)]  # type: ignore[attr-defined]
    for step, row in enumerate(rows):
        item = row.history.item.add()
        item.key, item.value_json = "_step", json.dumps(step)
    segment = run / "wandb" / name
    segment.mkdir(parents=True)
    (segment / "run-a.wandb").write_bytes(in_blocks(bytes(7), [row.SerializeToString() for row in rows]))
    return segment


@pytest.fixture
def begun(monkeypatch: pytest.MonkeyPatch) -> list[str]:
    """The modes in which W&B is started: online it can be, and its server has four steps."""
    modes: list[str] = []

    def init(**settings: object) -> SimpleNamespace:
        modes.append(str(settings["mode"]))
        return SimpleNamespace(starting_step=4, define_metric=lambda *_, **__: None)

    monkeypatch.setenv("WANDB_MODE", "online")
    monkeypatch.setattr(wandb, "run", None)
    monkeypatch.setattr(wandb, "init", init)
    monkeypatch.setattr("lightning.pytorch.loggers.wandb.Run", SimpleNamespace, raising=False)
    return modes


def test_a_run_that_has_been_offline_stays_so_until_it_is_uploaded(tmp_path: Path, begun: list[str]) -> None:
    start = kept(tmp_path, "offline-run-20260101_000000-a", 9)
    logger = WandB(run_dir=str(tmp_path))
    with pytest.warns(UserWarning, match=f"logged offline, .* and lit-vae sync {tmp_path} uploads it later"):
        _ = logger.experiment
    assert begun == ["offline"]
    assert logger._sent == 8
    mark_synced(start)
    _ = WandB(run_dir=str(tmp_path)).experiment
    assert begun == ["offline", "online"]


def test_of_online_starts_the_server_is_asked_and_offline_all_of_them_are_to_be_sent(
    tmp_path: Path, begun: list[str], monkeypatch: pytest.MonkeyPatch
) -> None:
    kept(tmp_path, "run-20260101_000000-a", 9)
    logger = WandB(run_dir=str(tmp_path))
    _ = logger.experiment
    assert logger._sent == 3
    monkeypatch.setenv("WANDB_MODE", "offline")
    logger = WandB(run_dir=str(tmp_path))
    _ = logger.experiment
    assert logger._sent == 8  # lit-vae sync sends what the server lacks of them
    assert begun == ["online", "offline"]
