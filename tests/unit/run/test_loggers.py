"""metrics.csv and W&B go on where they were."""

import csv
import os
import sys
import warnings
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
import warm

from lit_vae.run.loggers import MetricsCSV, WandB
from lit_vae.run.wandb_settings import wandb_mode


def read(run: Path) -> list[dict[str, str]]:
    with (run / "metrics.csv").open(newline="") as file:
        return list(csv.DictReader(file))


def test_one_row_for_each_step_and_columns_as_they_come(tmp_path: Path) -> None:
    logger = MetricsCSV(str(tmp_path))
    logger.log_metrics({"train/loss": 3.0, "epoch": 0}, step=9)
    logger.save()
    logger.log_metrics({"train/loss": 2.0, "epoch": 0}, step=19)
    logger.log_metrics({"val/loss": 2.5, "epoch": 0}, step=19)
    logger.save()
    assert read(tmp_path) == [
        {"step": "9", "epoch": "0", "train/loss": "3.0", "val/loss": ""},
        {"step": "19", "epoch": "0", "train/loss": "2.0", "val/loss": "2.5"},
    ]


def test_rows_are_appended_without_writing_the_file_anew(tmp_path: Path) -> None:
    logger = MetricsCSV(str(tmp_path))
    logger.log_metrics({"a": 1.0}, step=0)
    logger.save()
    inode = (tmp_path / "metrics.csv").stat().st_ino
    logger.log_metrics({"a": 2.0}, step=1)
    logger.save()
    assert (tmp_path / "metrics.csv").stat().st_ino == inode
    assert [row["a"] for row in read(tmp_path)] == ["1.0", "2.0"]


def test_a_value_for_a_step_that_is_on_disk_is_added_to_its_row(tmp_path: Path) -> None:
    logger = MetricsCSV(str(tmp_path))
    logger.log_metrics({"a": 1.0, "b": 1.0}, step=0)
    logger.log_metrics({"a": 1.0}, step=1)
    logger.save()
    logger.log_metrics({"b": 2.0}, step=1)
    logger.save()
    assert [(row["a"], row["b"]) for row in read(tmp_path)] == [("1.0", "1.0"), ("1.0", "2.0")]


ROWS = b"step,epoch,a\r\n0,0,1.5\r\n1,0,2.5\r\n2,0,3.5\r\n"
KNOWN = {"rows": 2, "columns": ["step", "epoch", "a"]}
"""Of a checkpoint after step 2: its own row comes after it."""


@pytest.mark.parametrize(
    ("content", "damaged", "kept"),
    [
        pytest.param(ROWS + b"3,0,4.", 1, 3, id="torn last row"),
        pytest.param(ROWS + b"3,0\r\n", 1, 3, id="row that is too short"),
        pytest.param(ROWS + b"\0" * 4096, 1, 3, id="tail of NULs"),
        pytest.param(ROWS[:30] + b"\0" * (len(ROWS) - 30) + b"\r\n3,0,4.5\r\n", 1, 2, id="NULs in the middle"),
        pytest.param(ROWS + b"3,0,4.4,0,5.5\r\n", 1, 3, id="torn row glued to the next"),
        pytest.param(ROWS.replace(b"2.5", b"\xff\xfe\xff"), 1, 2, id="bytes that are no text"),
    ],
)
def test_damaged_rows_are_left_out_and_counted(tmp_path: Path, content: bytes, damaged: int, kept: int) -> None:
    (tmp_path / "metrics.csv").write_bytes(content)
    logger = MetricsCSV(str(tmp_path))
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        logger.rewind(3)
        logger.expect(KNOWN, before=2)
    first, *lost = [str(warning.message) for warning in caught]
    assert first.startswith(f"{tmp_path}/metrics.csv: {damaged} damaged row left out, {kept} read.")
    assert lost == ([] if b"1,0,2.5\r" in content else [f"{tmp_path}/metrics.csv: rows before step 2 are missing: 1."])
    logger.log_metrics({"a": 4.5, "epoch": 0}, step=3)
    logger.save()
    assert [row["step"] for row in read(tmp_path)][-2:] == ["2" if b"3.5" in content else "0", "3"]
    assert MetricsCSV(str(tmp_path)).rows() == [*logger.rows()[:-1], {"step": "3", "epoch": "0", "a": "4.5"}]


@pytest.mark.parametrize(
    "content",
    [
        pytest.param(b"", id="emptied"),
        pytest.param(b"step,ep", id="torn header"),
        pytest.param(b"st\0p" + ROWS[4:], id="NUL in the header"),
        pytest.param(b"0,0,1.5\r\n", id="no header"),
        pytest.param(ROWS.replace(b"epoch", b"epo\xffh"), id="bytes that are no text"),
        pytest.param(ROWS.replace(b"epoch", b"epocj"), id="another letter"),
    ],
)
def test_a_damaged_header_is_an_error_but_not_to_a_new_start(tmp_path: Path, content: bytes) -> None:
    path = tmp_path / "metrics.csv"
    path.write_bytes(content)
    logger = MetricsCSV(str(tmp_path))
    with pytest.raises(ValueError, match=rf"{path}: its first line is damaged, or the file is empty: .* move the file"):
        logger.expect(KNOWN, before=2) if logger.rows() else None
    assert path.read_bytes() == content
    new = MetricsCSV(str(tmp_path))
    new.rewind(0)
    new.log_metrics({"a": 1.0}, step=0)
    new.save()
    assert read(tmp_path) == [{"step": "0", "a": "1.0"}]


def test_a_file_that_was_moved_away_is_begun_anew_with_its_header(tmp_path: Path) -> None:
    logger = MetricsCSV(str(tmp_path))
    logger.log_metrics({"a": 1.0}, step=0)
    logger.save()
    assert logger.synced(before=9) == {"rows": 1, "columns": ["step", "a"]}
    (tmp_path / "metrics.csv").unlink()
    logger.log_metrics({"a": 2.0}, step=1)
    logger.save()
    assert [row["a"] for row in read(tmp_path)] == ["1.0", "2.0"]
    resumed = MetricsCSV(str(tmp_path / "elsewhere"))
    resumed.expect(KNOWN, before=2)  # a user's wish


def test_a_resumed_run_drops_what_was_logged_after_its_checkpoint(tmp_path: Path) -> None:
    first = MetricsCSV(str(tmp_path))
    for step in range(5):
        first.log_metrics({"a": float(step)}, step=step)
    first.finalize("failed")
    second = MetricsCSV(str(tmp_path))
    second.rewind(3)
    second.log_metrics({"a": 30.0}, step=3)
    second.save()
    assert [(row["step"], row["a"]) for row in read(tmp_path)] == [
        ("0", "0.0"),
        ("1", "1.0"),
        ("2", "2.0"),
        ("3", "30.0"),
    ]


@pytest.mark.parametrize(
    ("variables", "netrc", "expected"),
    [
        ({}, "", "offline"),
        ({"WANDB_API_KEY": "x"}, "", "online"),
        ({"WANDB_MODE": "disabled", "WANDB_API_KEY": "x"}, "", "disabled"),
        ({}, "machine api.wandb.ai login user password x\n", "online"),
        ({}, "machine elsewhere.org login user password x\n", "offline"),
        ({"WANDB_BASE_URL": "https://elsewhere.org"}, "machine elsewhere.org login user password x\n", "online"),
    ],
)
def test_wandb_is_offline_unless_the_user_is_logged_in(
    variables: dict[str, str], netrc: str, expected: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    for name in ("WANDB_MODE", "WANDB_API_KEY", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    monkeypatch.setenv("HOME", str(tmp_path))
    if netrc:
        (tmp_path / ".netrc").write_text(netrc)
        (tmp_path / ".netrc").chmod(0o600)
    assert wandb_mode() == expected


def test_a_resumed_run_is_the_same_wandb_run(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    monkeypatch.delenv("WANDB_RUN_ID", raising=False)
    first = WandB(run_dir=str(tmp_path))
    assert WandB(run_dir=str(tmp_path)).version == first.version
    assert WandB(run_dir=str(tmp_path / "other")).version != first.version
    monkeypatch.setenv("WANDB_RUN_ID", "of-a-sweep")
    assert WandB(run_dir=str(tmp_path)).version == first.version
    assert WandB(run_dir=str(tmp_path / "drawn")).version == "of-a-sweep"
    assert (tmp_path / "drawn" / "wandb" / "run_id").read_text() == "of-a-sweep\n"


def settings_of(logger: WandB, monkeypatch: pytest.MonkeyPatch) -> dict[str, Any]:
    """What W&B makes of its variables and of what the logger gives it."""
    import wandb

    told = {}
    monkeypatch.setattr(wandb, "run", None)
    monkeypatch.setattr(
        wandb, "init", lambda **given: told.update(given) or SimpleNamespace(define_metric=ignored, starting_step=0)
    )
    _ = logger.experiment
    merged = wandb.Settings()
    merged.update_from_env_vars(dict(os.environ))
    names = {"group": "run_group", "tags": "run_tags", "name": "run_name", "notes": "run_notes"}
    names |= {"job_type": "run_job_type", "id": "run_id"}
    return {
        name: getattr(merged, names.get(name, name)) if told.get(name) is None else told[name]
        for name in ("project", "name", "entity", "group", "tags", "notes", "job_type", "id")
    }


def ignored(*args: object, **kwargs: object) -> None:
    """A method of W&B's that does nothing."""


def test_wandbs_own_variables_hold_where_the_configuration_says_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("WANDB_MODE", "offline")
    run = tmp_path / "study" / "vae"
    found = settings_of(WandB(run_dir=str(run)), monkeypatch)
    assert (found["project"], found["name"]) == ("lit_vae", "study/vae")
    assert found["group"] == "study"
    assert [found[name] for name in ("entity", "tags", "notes", "job_type")] == [None] * 4
    variables = {
        "PROJECT": "p", "NAME": "n", "ENTITY": "e", "TAGS": "a,b", "RUN_GROUP": "g", "NOTES": "why", "JOB_TYPE": "j",
    }  # fmt: skip
    for name, value in variables.items():
        monkeypatch.setenv(f"WANDB_{name}", value)
    found = settings_of(WandB(run_dir=str(run)), monkeypatch)
    found["tags"] = list(found["tags"])
    run_id = found.pop("id")
    expected = {"project": "p", "name": "n", "entity": "e", "tags": ["a", "b"], "group": "g"}
    assert found == {**expected, "notes": "why", "job_type": "j"}
    mine = WandB(project="mine", name="x", entity="y", tags=["z"], group="w", run_dir=str(run))
    monkeypatch.setenv("WANDB_RUN_ID", "other")
    found = settings_of(mine, monkeypatch)
    expected = {"project": "mine", "name": "x", "entity": "y", "tags": ["z"], "group": "w"}
    assert found == {**expected, "notes": "why", "job_type": "j", "id": run_id}


@pytest.mark.slow
def test_wandb_offline_keeps_numbers_and_pictures(
    digits_config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    environment = {**os.environ, "WANDB_MODE": "offline"}
    command = [
        sys.executable,
        "-m",
        "lit_vae.cli",
        "fit",
        "--config",
        str(digits_config),
        "--run_dir",
        str(tmp_path / "run"),
    ]
    fast = ["--trainer.limit_train_batches=3", "--trainer.check_val_every_n_epoch=1", "--trainer.log_every_n_steps=1"]
    warm.run([*command, *fast, "--trainer.max_epochs=1"], env=environment, check=True)
    resume = ["--trainer.max_epochs=2", "--ckpt_path=last"]
    warm.run([*command, *fast, *resume], env=environment, check=True)
    records = sorted((tmp_path / "run" / "wandb").glob("offline-run-*"))
    assert len(records) == 2
    assert len({record.name.rsplit("-", 1)[1] for record in records}) == 1  # one W&B run, in two parts
    for record in records:
        pictures = list((record / "files" / "media" / "images" / "media").glob("samples_*.png"))
        assert pictures, sorted(record.rglob("*.png"))
        blob = next(record.glob("*.wandb")).read_bytes()
        assert b"val/elbo" in blob
        assert b"train/rate" in blob
