"""``lit-vae sync``: what a run directory keeps arrives at a server of the test's, once."""

import json
import os
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path

import pytest
import wandb
import yaml
from fake_wandb import FakeWandb, fake_wandb
from PIL import Image
from PIL.PngImagePlugin import PngInfo
from tools_helpers import Fails, Tools
from wandb_files import service_of

from lit_vae.run.lock import locked
from lit_vae.tools.upload import sync, wandb_upload

ROOT = Path(__file__).resolve().parents[3]
SETTINGS = {"project": "lit_vae", "entity": None, "name": "n", "group": "g", "tags": ["a", "b"], "notes": "why"}
CONFIG = {"seed": 3, "model": {"beta": 0.5}}

Keep = Callable[..., Path]


@pytest.fixture
def keep(tmp_path: Path) -> Keep:
    """A run directory with a row ``x = step`` for some steps, and a picture for some of them."""

    def make(name: str, steps: int, pictures: tuple[int, ...] = (), status: str = "finished") -> Path:
        run = tmp_path / "runs" / name
        (run / "wandb").mkdir(parents=True, exist_ok=True)
        (run / "wandb" / "run_id").write_text(f"{name}\n")
        (run / "wandb" / "settings.yaml").write_text(yaml.safe_dump({**SETTINGS, "config": CONFIG}))
        (run / "run.json").write_text(json.dumps({"status": status}))
        (run / "metrics.csv").write_text("step,epoch,x\n" + "".join(f"{step},0,{step}.5\n" for step in range(steps)))
        for step in pictures:
            path, metadata = run / "media" / "samples" / f"step_{step + 1}.png", PngInfo()
            metadata.add_itxt("Description", f"after {step + 1}")
            path.parent.mkdir(parents=True, exist_ok=True)
            Image.new("L", (2, 2), step).save(path, pnginfo=metadata)
        return run

    return make


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeWandb]:
    wandb.teardown()  # a process of W&B that an earlier test has left asks the server of that test
    with fake_wandb() as (state, address):
        monkeypatch.setenv("WANDB_BASE_URL", address)
        monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
        yield state


def assert_whole(server: FakeWandb, run: Path, steps: int, pictures: tuple[int, ...] = ()) -> None:
    """Each row once and in order, with its picture, whose file is that of the run directory."""
    found = server.rows[run.name]
    assert [(row["_step"], row["trainer/global_step"]) for row in found] == [(step, step) for step in range(steps)]
    assert [(row.get("x"), row.get("epoch")) for row in found] == [(step + 0.5, 0) for step in range(steps)]
    assert [row["_step"] for row in found if "media/samples" in row] == list(pictures)
    for step in pictures:
        shown = found[step]["media/samples"]
        assert shown["captions"] == [f"after {step + 1}"]
        (name,) = shown["filenames"]
        assert server.files[run.name][name] == (run / "media" / "samples" / f"step_{step + 1}.png").read_bytes()


def test_a_run_is_uploaded_once_however_often_it_is_continued(
    tools: Tools, keep: Keep, server: FakeWandb, tmp_path: Path
) -> None:
    run, empty = keep("a", 6, (2, 5)), keep("b", 0)
    nothing = f"{empty}: has no finished step\n"
    assert tools("sync", tmp_path, "--dry_run", "true") == (
        f"{run}: what the server lacks would be uploaded up to step 5\n{nothing}"
    )
    assert not server.rows
    assert tools("sync", tmp_path) == f"{run}: uploaded up to step 5 (rows: 6, pictures: 2, numbers: 0)\n{nothing}"
    assert_whole(server, run, 6, (2, 5))
    keep("a", 8, (2, 5, 7))
    with locked(run / "run.lock"):
        assert f"{run}: is being trained;" in tools("sync", tmp_path)
    with locked(run / "wandb" / "sync.lock"):
        assert f"{run}: is being uploaded already" in tools("sync", tmp_path)
    assert_whole(server, run, 6, (2, 5))
    assert tools("sync", run) == f"{run}: uploaded up to step 7 (rows: 2, pictures: 1, numbers: 0)\n"
    assert_whole(server, run, 8, (2, 5, 7))
    assert not list((run / "wandb").glob("run-*"))  # W&B's own copy is gone


def test_the_wandb_run_is_as_the_training_would_have_made_it(
    tools: Tools, keep: Keep, server: FakeWandb, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Whatever is set where it is uploaded."""
    for name in ("PROJECT", "NAME", "RUN_GROUP", "TAGS", "NOTES", "RUN_ID"):
        monkeypatch.setenv(f"WANDB_{name}", "of-this-shell")
    monkeypatch.setenv("WANDB_MODE", "offline")
    run = keep("a", 1)
    tools("sync", run)
    assert_whole(server, run, 1)
    seen = server.runs["a"]
    assert (seen["project"], seen["displayName"], seen["groupName"]) == ("lit_vae", "n", "g")
    assert (seen["tags"], seen["notes"]) == (["a", "b"], "why")
    config = json.loads(seen["config"])
    assert {name: config[name]["value"] for name in CONFIG} == CONFIG


def test_what_an_upload_or_a_lost_connection_left_behind_arrives_once(
    tools: Tools, keep: Keep, server: FakeWandb, tmp_path: Path
) -> None:
    """It was killed in mid-history. Of the files of rows that are there, one never arrived, and one is empty."""
    run, whole = keep("a", 6, (0, 1, 4)), keep("b", 2, (1,))
    tools("sync", tmp_path)
    del server.rows["a"][3:], server.summaries["a"]  # which come together
    first, second, _ = sorted(name for name in server.files["a"] if name.startswith("media/"))
    del server.files["a"][first]
    server.files["a"][second] = b""
    said = tools("sync", tmp_path)
    assert said == f"{run}: uploaded up to step 5 (rows: 3, pictures: 2, numbers: 0)\n{whole}: is uploaded already\n"
    assert_whole(server, run, 6, (0, 1, 4))
    assert_whole(server, whole, 2, (1,))
    server.runs.clear()
    assert tools("sync", tmp_path) == f"{run}: is uploaded already\n{whole}: is uploaded already\n"
    assert not server.runs  # no run was opened


@pytest.mark.parametrize("status", ["running", "preempted", "failed", "interrupted"])
def test_the_last_row_of_an_unfinished_run_waits_for_its_validation(
    tools: Tools, keep: Keep, server: FakeWandb, status: str
) -> None:
    run = keep("a", 3, (0, 2), status)
    assert tools("sync", run) == f"{run}: uploaded up to step 1 (rows: 2, pictures: 1, numbers: 0)\n"
    assert_whole(server, run, 2, (0,))
    keep("a", 4, (0, 2))
    (run / "metrics.csv").write_text("step,epoch,x,val\n0,0,0.5,\n1,0,1.5,\n2,0,2.5,7.0\n3,0,3.5,\n")
    tools("sync", run)
    assert_whole(server, run, 4, (0, 2))
    assert [row.get("val") for row in server.rows["a"]] == [None, None, 7, None]


def test_pictures_between_two_rows_are_rows_of_their_own(tools: Tools, keep: Keep, server: FakeWandb) -> None:
    run = keep("a", 4, (1, 2))
    text = (run / "metrics.csv").read_text()
    (run / "metrics.csv").write_text(text.replace("1,0,1.5\n", "").replace("2,0,2.5\n", ""))
    tools("sync", run)
    assert [(row["_step"], row.get("x"), "media/samples" in row) for row in server.rows["a"]] == [
        (0, 0.5, False), (1, None, True), (2, None, True), (3, 3.5, False),
    ]  # fmt: skip


def test_pictures_of_rows_far_apart_are_found_again(tools: Tools, keep: Keep, server: FakeWandb) -> None:
    """W&B names their files by a step of its own."""
    run = keep("a", 30, (9, 29))
    header, *rows = (run / "metrics.csv").read_text().splitlines(keepends=True)
    (run / "metrics.csv").write_text(header + "".join(rows[9::10]))
    assert "(rows: 3, pictures: 2, numbers: 0)" in tools("sync", run)
    assert tools("sync", run) == f"{run}: is uploaded already\n"
    assert [row["_step"] for row in server.rows["a"] if "media/samples" in row] == [9, 29]


def test_one_that_fails_is_named_and_the_others_go_on(
    tools: Tools, fails: Fails, keep: Keep, server: FakeWandb, tmp_path: Path
) -> None:
    refused, damaged, other = keep("a", 2), keep("b", 2), keep("c", 2)
    server.fails = {"a"}
    (damaged / "metrics.csv").write_text("st")
    message = fails(1, "sync", tmp_path)
    assert f"lit-vae sync: not uploaded: {refused}, {damaged}. Fix the errors above and give the same" in message
    assert_whole(server, other, 2)
    assert "b" not in server.rows
    server.fails = set()
    keep("b", 2)
    said = tools("sync", tmp_path)
    assert said.count("uploaded up to step 1 (rows: 2, pictures: 0, numbers: 0)") == 2
    assert f"{other}: is uploaded already" in said
    assert_whole(server, refused, 2)
    assert_whole(server, damaged, 2)


@pytest.mark.parametrize(
    ("file", "content", "said"),
    [
        ("wandb/settings.yaml", "project: 3\n", "wandb/settings.yaml: project (=3): Input should be a valid string"),
        ("wandb/settings.yaml", "- a\n", "wandb/settings.yaml: contains a list, and must contain keys and values"),
        ("metrics.csv", "st", "metrics.csv: its first line is damaged"),
        ("run.json", "[1]", "run.json contains a list, not keys and values"),
    ],
)
def test_a_damaged_file_is_named(
    keep: Keep, server: FakeWandb, capsys: pytest.CaptureFixture[str], file: str, content: str, said: str
) -> None:
    run = keep("a", 2)
    (run / file).write_text(content)
    with pytest.raises(ValueError, match="not uploaded"):
        sync([str(run)])
    assert capsys.readouterr().out.startswith(f"{run}: failed: {run}/{said}")
    assert not server.rows


def test_numbers_that_are_measured_later_are_in_the_summary_of_the_same_run(
    tools: Tools, keep: Keep, server: FakeWandb
) -> None:
    run = keep("a", 2)
    tools("sync", run)
    (run / "test_metrics.json").write_text(json.dumps({"metrics": {"test/psnr": 12.25, "test/fid": None}}))
    evaluation = {"model": {"metrics": {"test/kid": 0.1}}, "gmm": {"metrics": {"test/kid": 0.3}}}
    (run / "evaluation.json").write_text(json.dumps(evaluation))
    assert tools("sync", run) == f"{run}: uploaded up to step 1 (rows: 0, pictures: 0, numbers: 3)\n"
    measured = {name: value for name, value in server.summaries["a"].items() if name.startswith("test/")}
    assert measured == {"test/psnr": 12.25, "test/kid": 0.1, "test/kid_gmm": 0.3}
    assert tools("sync", run) == f"{run}: is uploaded already\n"
    assert_whole(server, run, 2)


def test_a_panel_may_have_any_name(tools: Tools, keep: Keep, server: FakeWandb) -> None:
    run = keep("a", 2, (1,))
    (run / "media" / "samples").rename(run / "media" / "p\xe4nel 1_3 50%")
    assert "(rows: 2, pictures: 1, numbers: 0)" in tools("sync", run)
    assert tools("sync", run) == f"{run}: is uploaded already\n"
    assert "media/p\xe4nel 1_3 50%" in server.rows["a"][1]


def test_the_reason_of_a_failure_is_said(keep: Keep, server: FakeWandb, capsys: pytest.CaptureFixture[str]) -> None:
    run = keep("a", 2)
    server.fails = {"a"}
    with pytest.raises(ValueError, match="not uploaded"):
        sync([str(run)])
    said = capsys.readouterr().out
    assert said.startswith(f"{run}: failed: starting: Error: ")
    assert "permission denied" in said
    assert len(said.splitlines()) == 1


def test_files_that_get_lost_on_their_way_are_a_failure(
    tools: Tools, fails: Fails, keep: Keep, server: FakeWandb, monkeypatch: pytest.MonkeyPatch
) -> None:
    """W&B ends such a run without an error."""
    run = keep("a", 3, (1, 2))
    monkeypatch.setattr(wandb_upload, "ANSWERING", 6.0)
    server.drops_files = True
    assert f"not uploaded: {run}." in fails(1, "sync", run)
    server.drops_files = False
    assert tools("sync", run) == f"{run}: uploaded up to step 2 (rows: 0, pictures: 2, numbers: 0)\n"
    assert_whole(server, run, 3, (1, 2))


def test_an_upload_that_hangs_is_ended_with_all_that_it_has_started(
    tools: Tools, keep: Keep, server: FakeWandb, tmp_path: Path, monkeypatch: pytest.MonkeyPatch,
    capsys: pytest.CaptureFixture[str],
) -> None:  # fmt: skip
    """The others are left for the next time: they would wait as long for the same server."""
    first, second = keep("a", 2), keep("b", 2)
    services: list[int] = []
    finalize = wandb_upload.Upload.finalize

    def finalize_with_a_hanging_server(self: wandb_upload.Upload, status: str) -> None:
        services.append(service_of(os.getpid()))
        server.hangs.set()
        finalize(self, status)

    with monkeypatch.context() as patch:
        patch.setattr(wandb_upload, "SENDING", 1.0)
        patch.setattr(wandb_upload.Upload, "finalize", finalize_with_a_hanging_server)
        with pytest.raises(ValueError, match=f"not uploaded: {first}, {second}\\."):
            sync([str(tmp_path)])
    assert capsys.readouterr().out == f"{first}: failed: finishing: TimeoutError: no answer within 1 seconds\n"
    assert len(services) == 1
    deadline = time.monotonic() + 30.0
    while _runs(services[0]):
        assert time.monotonic() < deadline, "W&B's process is left"
        time.sleep(0.05)
    server.hangs.clear()
    assert tools("sync", tmp_path).count("uploaded up to step 1") == 2
    assert_whole(server, first, 2)
    assert_whole(server, second, 2)


@pytest.mark.slow
def test_an_upload_that_is_interrupted_ends_at_once_and_is_completed_later(
    tools: Tools, keep: Keep, server: FakeWandb
) -> None:
    run = keep("a", 2)
    environment = {**os.environ, "PYTHONPATH": str(ROOT)}
    server.hangs.set()
    command = [sys.executable, "-m", "lit_vae.tools", "sync", str(run)]
    heard = partial(
        signal.signal, signal.SIGINT, signal.default_int_handler
    )  # also where the tests run in the background
    with subprocess.Popen(
        command,
        env=environment,
        stdout=-1,
        stderr=-1,
        text=True,
        preexec_fn=heard,  # noqa: PLW1509
    ) as process:
        deadline = time.monotonic() + 60.0
        while "a" not in server.rows:
            assert time.monotonic() < deadline
            time.sleep(0.05)
        time.sleep(1.0)
        process.send_signal(signal.SIGINT)
        process.communicate(timeout=30)
    assert process.returncode == 130
    server.hangs.clear()
    tools("sync", run)
    assert_whole(server, run, 2)


def _runs(pid: int) -> bool:
    stat = Path(f"/proc/{pid}/stat")
    return stat.exists() and stat.read_text().rpartition(")")[2].split()[0] != "Z"


def test_who_is_not_logged_in_is_told(
    fails: Fails, keep: Keep, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    keep("a", 1)
    monkeypatch.setenv("HOME", os.fspath(tmp_path))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    message = fails(1, "sync", tmp_path)
    assert message == "error: lit-vae sync: nobody is logged in to W&B here. Run wandb login, or set WANDB_API_KEY.\n"


def test_where_no_run_had_the_logger(fails: Fails, tmp_path: Path) -> None:
    assert f"there is no wandb/settings.yaml in {tmp_path}. Give run directories" in fails(1, "sync", tmp_path)


def test_offline_nothing_is_uploaded(fails: Fails, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIT_VAE_OFFLINE", "1")
    assert "error: lit-vae sync: LIT_VAE_OFFLINE (=1) says that the network is not" in fails(1, "sync", tmp_path)
