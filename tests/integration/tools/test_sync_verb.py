"""``lit-vae sync``: W&B's own ``wandb sync``, with a server of the test's."""

import os
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest
from fake_wandb import FakeWandb, fake_wandb
from tools_helpers import Fails, Tools

from lit_vae.run.lock import locked

Start = Callable[..., Path]


@pytest.fixture
def start(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Start]:
    """A start of a run, made by W&B itself: it logs ``x = step`` at some steps, and ends."""
    import wandb

    def run(name: str, steps: range) -> Path:
        folder = tmp_path / "runs" / name
        folder.mkdir(parents=True, exist_ok=True)
        before = set((folder / "wandb").glob("offline-run-*"))
        settings = wandb.Settings(silent=True, console="off")
        logged = wandb.init(
            project="lit_vae", mode="offline", dir=str(folder), id=name, resume="allow", settings=settings
        )
        for step in steps:
            logged.log({"x": step}, step=step, commit=True)
        logged.finish()
        wandb.teardown()
        (made,) = set((folder / "wandb").glob("offline-run-*")) - before
        return made.rename(made.with_name(f"offline-run-2026010{len(before) + 1}_000000-{name}"))

    yield run
    wandb.teardown()


@pytest.fixture
def server(monkeypatch: pytest.MonkeyPatch) -> Iterator[FakeWandb]:
    with fake_wandb() as (state, address):
        monkeypatch.setenv("WANDB_BASE_URL", address)
        monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
        yield state


def test_all_starts_of_a_run_are_one_history(tools: Tools, start: Start, server: FakeWandb, tmp_path: Path) -> None:
    """The second was killed: its record is torn off. The third wrote nothing. The fourth comes later."""
    first, second, third = start("a", range(3)), start("a", range(3, 6)), start("a", range(6, 6))
    (torn,) = second.glob("*.wandb")
    torn.write_bytes(torn.read_bytes()[:-20])
    (nothing,) = third.glob("*.wandb")
    nothing.write_bytes(nothing.read_bytes()[:7])
    empty = f"{third}: has no step: it ended before the first one\n"
    told = f"{first}: would be uploaded\n{second}: would be uploaded\n{empty}"
    assert tools("sync", tmp_path, "--dry_run", "true") == told
    assert not server.rows
    assert tools("sync", tmp_path) == told.replace("would be uploaded", "uploaded")
    assert [(row["_step"], row["x"]) for row in server.rows["a"]] == [(step, step) for step in range(6)]
    fourth = start("a", range(6, 8))
    with locked(tmp_path / "runs" / "a" / "run.lock"):
        assert f"{fourth}: is being written;" in tools("sync", tmp_path)
    said = tools("sync", tmp_path / "runs" / "a")
    assert said == told.replace("would be uploaded", "is uploaded already") + f"{fourth}: uploaded\n"
    assert [(row["_step"], row["x"]) for row in server.rows["a"]] == [(step, step) for step in range(8)]


def test_what_an_upload_or_a_lost_connection_left_behind_arrives_once(
    tools: Tools, start: Start, server: FakeWandb, tmp_path: Path
) -> None:
    """An upload was killed in mid-history; an online start lost its connection, and another is whole on the server."""
    killed, online, after = start("a", range(3)), start("a", range(3, 6)), start("a", range(6, 8))
    whole = start("b", range(2))
    lost = online.rename(online.with_name(online.name.removeprefix("offline-")))
    whole = whole.rename(whole.with_name(whole.name.removeprefix("offline-")))
    server.rows = {"a": [{"_step": 0, "x": 0}, {"_step": 1, "x": 1}], "b": [{"_step": 0}, {"_step": 1}]}
    said = tools("sync", tmp_path)
    assert said == "".join(f"{part}: uploaded\n" for part in (killed, lost, after)) + f"{whole}: is uploaded already\n"
    assert [(row["_step"], row["x"]) for row in server.rows["a"]] == [(step, step) for step in range(8)]
    server.rows = {}  # nobody is asked again
    assert tools("sync", tmp_path) == said.replace("is uploaded already", "uploaded").replace(
        "uploaded", "is uploaded already"
    )
    assert not server.rows


def test_one_that_fails_is_named_and_the_others_go_on(
    tools: Tools, fails: Fails, start: Start, server: FakeWandb, tmp_path: Path
) -> None:
    refused, waits, other = start("a", range(2)), start("a", range(2, 4)), start("b", range(2))
    server.fails = {"a"}
    message = fails(1, "sync", tmp_path)
    assert f"lit-vae sync: not uploaded: {refused}, {waits}. Give the same command again" in message
    assert [row["x"] for row in server.rows["b"]] == [0, 1]
    server.fails = set()
    assert f"{other}: is uploaded already" in tools("sync", tmp_path)
    assert [row["x"] for row in server.rows["a"]] == [0, 1, 2, 3]


def test_who_is_not_logged_in_is_told(
    fails: Fails, start: Start, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    start("a", range(1))
    monkeypatch.setenv("HOME", os.fspath(tmp_path))
    monkeypatch.delenv("WANDB_API_KEY", raising=False)
    message = fails(1, "sync", tmp_path)
    assert message == "error: lit-vae sync: nobody is logged in to W&B here. Give wandb login, or set WANDB_API_KEY.\n"


def test_where_no_run_was_offline(fails: Fails, tmp_path: Path) -> None:
    assert f"there is no wandb/[offline-]run-* in {tmp_path}. Give run directories" in fails(1, "sync", tmp_path)


def test_offline_nothing_is_uploaded(fails: Fails, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("LIT_VAE_OFFLINE", "1")
    assert "error: lit-vae sync: LIT_VAE_OFFLINE (=1) says that the network is not" in fails(1, "sync", tmp_path)
