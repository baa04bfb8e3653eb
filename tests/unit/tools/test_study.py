"""What a study does next, what it compares, what it holds while it does it."""

import itertools
import json
import os
import signal
import sys
import threading
from pathlib import Path
from typing import Any

import pytest
import yaml

from lit_vae.run.lock import locked
from lit_vae.tools.study.experiments import Experiment, Found, differences, next_step
from lit_vae.tools.study.processes import interruptible, run_logged
from lit_vae.tools.study.verb import _make_page, _runs_folder, read_folder


@pytest.mark.parametrize(
    ("found", "step"),
    [
        (Found(), "train"),
        (Found(config=True), "start anew"),
        (Found(config=True, status="running"), "start anew"),
        (Found(config=True, status="failed"), "start anew"),
        (Found(config=True, last=True), "resume"),
        (Found(config=True, last=True, status="running"), "resume"),
        (Found(config=True, last=True, status="interrupted"), "resume"),
        (Found(config=True, last=True, status="preempted"), "resume"),
        (Found(config=True, last=True, status="failed"), "resume"),
        (Found(config=True, last=True, status="running", tested=True), "resume"),
        (Found(config=True, last=True, status="finished"), "test"),
        (Found(config=True, last=False, status="finished"), "test"),
        (Found(config=True, last=True, status="finished", tested=True), "nothing"),
        (Found(last=True), "start anew"),
        (Found(status="finished"), "start anew"),
    ],
)
def test_what_lies_there_says_what_is_next(found: Found, step: str) -> None:
    assert next_step(found) == step


def test_nothing_is_ever_trained_over() -> None:
    for config, last, status in itertools.product((False, True), (False, True), (None, "running", "finished")):
        trains = next_step(Found(config, last, status)) == "train"
        assert trains == (not config and not last and status is None)


def test_what_is_set_aside_is_kept_and_leaves_room(tmp_path: Path) -> None:
    experiment = Experiment(Path("x.yaml"), (), tmp_path / "x", "last")
    (experiment.run / "media").mkdir(parents=True)
    for name in ("config.yaml", "media/a.png", "study.log", "run.lock"):
        (experiment.run / name).write_text(name)
    assert next_step(experiment.find()) == "start anew"
    aside = experiment.set_aside()
    assert aside.parent == experiment.run / "abandoned"
    assert {path.name for path in experiment.run.iterdir()} == {"study.log", "run.lock", "abandoned"}
    assert (aside / "media" / "a.png").read_text() == "media/a.png"
    assert (aside / "config.yaml").read_text() == "config.yaml"
    assert next_step(experiment.find()) == "train"


@pytest.mark.parametrize(
    ("was", "now", "named"),
    [
        ({"a": 1}, {"a": 1}, []),
        ({"a": {"b": 1, "c": 2}}, {"a": {"b": 1, "c": 3}}, ["a.c: 2 -> 3"]),
        ({"a": [{"b": 1}, {"b": 2}]}, {"a": [{"b": 1}, {"b": 4}]}, ["a.1.b: 2 -> 4"]),
        ({"a": [1, 2]}, {"a": [1]}, ["a from 1 on: [2] -> []"]),
        ({"a": [1, 2]}, {"a": [3, 2, 1]}, ["a from 0 on: [1, 2] -> [3, 2, 1]"]),
        ({"a": [{"class_path": "b.C", "d": 1}]}, {"a": []}, ["a from 0 on: ['b.C'] -> []"]),
        ({"a": 1}, {"b": 2}, ["a: 1 -> None", "b: None -> 2"]),
        ({"a": {"b": 1}}, {"a": None}, ["a: {'b': 1} -> None"]),
        ({"a": "x" * 300}, {"a": 1}, [f"a: {'x' * 97}... -> 1"]),
    ],
)
def test_settings_that_differ_are_named(was: Any, now: Any, named: list[str]) -> None:
    assert list(differences(was, now)) == named


@pytest.mark.parametrize(
    ("configs", "out", "runs"),
    [
        ("configs/compare/bsds", None, "runs/compare/bsds"),
        ("/a/configs/b/configs/c", None, "runs/c"),
        ("configs", None, "runs/configs"),
        ("/mine/vae", None, "runs/vae"),
        ("configs/compare/bsds", "there", "there"),
    ],
)
def test_runs_lie_as_configurations_do(configs: str, out: str | None, runs: str) -> None:
    assert _runs_folder(configs, out) == Path(runs)


def test_a_folder_gives_its_configurations_in_order(tmp_path: Path) -> None:
    (tmp_path / "inner").mkdir()
    for name in ("b.yaml", "a.yaml", "notes.txt", "inner/c.yaml"):
        (tmp_path / name).write_text("")
    found = read_folder(tmp_path, [Path("o.yaml")], Path("runs"), "best")
    assert [(e.name, e.run) for e in found] == [("a", Path("runs/a")), ("b", Path("runs/b"))]
    assert found[0].files == (tmp_path / "a.yaml", Path("o.yaml"))


def test_a_base_is_no_experiment_and_lies_under_each(tmp_path: Path) -> None:
    for name in ("base.yaml", "a.yaml", "b.yaml"):
        (tmp_path / name).write_text("")
    found = read_folder(tmp_path, [Path("o.yaml")], Path("runs"), "last")
    assert [e.name for e in found] == ["a", "b"]
    assert found[0].files == (tmp_path / "base.yaml", tmp_path / "a.yaml", Path("o.yaml"))


def test_an_experiment_gets_as_many_steps_as_another_took(tmp_path: Path) -> None:
    leader, other = (Experiment(Path(f"{name}.yaml"), (Path("o.yaml"),), tmp_path / name, "last") for name in "ab")
    with pytest.raises(ValueError, match="a has not finished, so the number of steps of the others is not known"):
        other.for_as_long(leader)
    leader.run.mkdir()
    (leader.run / "run.json").write_text(json.dumps({"status": "finished", "step": 700}))
    changed = other.for_as_long(leader)
    assert changed.files == (Path("b.yaml"), Path("o.yaml"), tmp_path / "budget.yaml")
    assert yaml.safe_load((tmp_path / "budget.yaml").read_text()) == {"trainer": {"max_steps": 700, "min_steps": 700}}


def test_its_comparison_is_in_wandb_where_a_training_is(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    from lit_vae.tools import compare

    asked: list[dict[str, Any]] = []
    monkeypatch.setattr(compare, "compare", lambda **given: asked.append(given))
    every = [Experiment(Path(f"{name}.yaml"), (), tmp_path / name, "last") for name in "ab"]
    for experiment in every:
        (experiment.run / "checkpoints").mkdir(parents=True)
        (experiment.run / "checkpoints" / "last.ckpt").write_text("weights")
    assert _make_page(every, tmp_path / "comparison", "last", "psnr") is None
    (every[1].run / "wandb").mkdir()
    (every[1].run / "wandb" / "settings.yaml").write_text("project: p")
    assert _make_page(every, tmp_path / "comparison", "last", "psnr") is None
    assert [(given["wandb"], given["sort_by"]) for given in asked] == [(False, "psnr"), (True, "psnr")]


def test_a_folder_without_configurations_is_an_error(tmp_path: Path) -> None:
    (tmp_path / "outer" / "inner").mkdir(parents=True)
    with pytest.raises(ValueError, match=r"there is no configuration \(\*\.yaml\) in .*outer\. Give another folder\."):
        read_folder(tmp_path / "outer", [], Path("runs"), "last")
    (tmp_path / "outer" / "inner" / "a.yaml").write_text("")
    with pytest.raises(ValueError, match="There are some in inner: give one of these"):
        read_folder(tmp_path / "outer", [], Path("runs"), "last")
    with pytest.raises(ValueError, match=r"lit-vae study: nowhere is no folder\. Give one with a configuration"):
        read_folder(Path("nowhere"), [], Path("runs"), "last")
    (tmp_path / "outer" / "comparison.yaml").write_text("")
    with pytest.raises(ValueError, match=r"comparison\.yaml would write where the study does, into runs/comparison"):
        read_folder(tmp_path / "outer", [], Path("runs"), "last")


def test_the_output_of_a_program_is_appended_and_handed_back(tmp_path: Path) -> None:
    log = tmp_path / "study.log"
    with locked(tmp_path / "run.lock") as held:
        code = "import sys; print('out'); sys.stdout.flush(); print('err', file=sys.stderr); sys.exit(3)"
        assert run_logged([sys.executable, "-c", code], log, held) == (3, "out\nerr\n")
        assert run_logged([sys.executable, "-c", "print('more')"], log, held) == (0, "more\n")
    lines = log.read_text().splitlines()
    assert [line for line in lines if not line.startswith("==> ")] == ["out", "err", "more"]
    assert lines[0].endswith(f"{sys.executable} -c {code}")


WAITS = """if True:
    import signal, sys, time
    def handle(number, frame):
        print(signal.Signals(number).name, flush=True)
        if number in map(int, sys.argv[1:]):
            sys.exit(0)
    for number in (signal.SIGINT, signal.SIGTERM):
        signal.signal(number, handle)
    print("ready", flush=True)
    while True:
        time.sleep(60)
"""


@pytest.mark.parametrize(
    ("sent", "ends_at", "seen"),
    [
        (signal.SIGINT, [signal.SIGINT], ["SIGINT"]),
        (signal.SIGTERM, [signal.SIGINT], ["SIGINT"]),
        (signal.SIGINT, [signal.SIGTERM], ["SIGINT", "SIGTERM"]),
        (signal.SIGINT, [], ["SIGINT", "SIGTERM"]),
    ],
)
def test_a_program_ends_with_us_as_politely_as_it_lets_us(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, sent: signal.Signals, ends_at: list[int], seen: list[str]
) -> None:
    patience = ((signal.SIGINT, 0.5), (signal.SIGTERM, 0.5), (signal.SIGKILL, None))
    monkeypatch.setattr("lit_vae.tools.study.processes.PATIENCE", patience)
    log, done = tmp_path / "study.log", threading.Event()

    def interrupt() -> None:
        while not done.wait(0.02):
            if log.exists() and "ready" in log.read_text().splitlines():
                os.kill(os.getpid(), sent)
                return

    thread = threading.Thread(target=interrupt)
    thread.start()
    command = [sys.executable, "-c", WAITS, *(str(int(number)) for number in ends_at)]
    try:
        with (
            locked(tmp_path / "run.lock") as held,
            pytest.raises(KeyboardInterrupt, match="goes on"),
            interruptible("it goes on"),
        ):
            run_logged(command, log, held)
    finally:
        done.set()
        thread.join()
    lines = log.read_text().splitlines()
    assert lines[lines.index("ready") + 1 :] == seen
    with locked(tmp_path / "run.lock"):  # nobody is left who holds it
        pass
