"""One of two ranks raises, hangs or is killed: all end, soon; the log shows the one that failed; the run can go on."""

import json
import os
import re
import sys
import time
from dataclasses import dataclass
from datetime import timedelta
from pathlib import Path
from typing import Any

import pytest
import warm
import yaml
from exact_helpers import COMMON, assert_same_run, schedule_and_ema
from injected_faults import fault

ROOT = Path(__file__).resolve().parents[2]
TIMEOUT = 20  # seconds of the process group: as many as the ranks may be apart when they start on a busy machine


@pytest.fixture(scope="module")
def config(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """Two ranks of 11 steps an epoch, a checkpoint every third step, a validation at each epoch's end."""
    path = schedule_and_ema(ROOT / "configs" / "vae" / "digits.yaml", tmp_path_factory.mktemp("config"), 1)
    content = yaml.safe_load(path.read_text())
    content["trainer"]["callbacks"].append({"class_path": "injected_faults.Fault"})
    overlay = yaml.safe_load((ROOT / "configs" / "overlays" / "ddp.yaml").read_text())["trainer"]
    overlay["strategy"]["init_args"]["timeout"] = str(timedelta(seconds=TIMEOUT))
    content["trainer"] |= overlay | {"accelerator": "cpu", "devices": 2}
    content["last_checkpoint"] = {"every_n_steps": 3}
    path.write_text(yaml.safe_dump(content))
    return path


@pytest.fixture(scope="module")
def straight(config: Path, tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The uninterrupted run."""
    run = tmp_path_factory.mktemp("straight") / "run"
    assert train(config, run).code == 0
    return run


@dataclass(frozen=True)
class Ended:
    code: int
    said: str
    seconds: float
    """From the fault to the end of the process that was started."""
    left: list[str]
    """What still ran eight seconds later; data workers look for their process every five."""


def train(config: Path, run: Path, **variables: str) -> Ended:
    """A training of a configuration to its end, whatever that is; no process of it is left when this returns."""
    log = run.with_suffix(".log")
    arguments = ["fit", "--config", config, "--run_dir", run, "--ckpt_path=auto", *COMMON]
    variables |= {"PYTHONPATH": f"{ROOT}/tests/integration:{ROOT}"}
    with log.open("w") as out:
        process = warm.Popen(
            [sys.executable, "-m", "lit_vae.cli", *map(str, arguments)],
            env={**os.environ, **variables}, stdout=out, stderr=out, start_new_session=True,
        )  # fmt: skip
    try:
        code = process.wait(120)
    finally:
        ended, left = time.time(), session(process.pid)
        while left and time.time() < ended + 8:
            time.sleep(0.1)
            left = session(process.pid)
        for pid in left:
            os.kill(int(pid), 9)
        process.kill()
        process.wait()
    said = log.read_text()
    injected = re.search(r"injected at ([\d.]+)", said)
    return Ended(code, said, ended - float(injected.group(1)) if injected else 0.0, left)


def session(leader: int) -> list[str]:
    """The processes that belong to those of a session's leader, and have not ended."""
    found = []
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            state, _, _, number = stat.read_text().rpartition(")")[2].split()[:4]
        except OSError:  # gone
            continue
        if int(number) == leader and state != "Z":
            found.append(stat.parent.name)
    return found


def record(run: Path) -> dict[str, Any]:
    return json.loads((run / "run.json").read_text())


@pytest.mark.slow
@pytest.mark.parametrize(
    ("rank", "where"),
    [
        (1, "on_before_backward"),
        (0, "on_before_backward"),
        (0, "on_validation_end"),  # where panels are drawn, by the first rank alone
    ],
)
def test_a_rank_that_raises_ends_all_and_its_traceback_is_the_only_one(
    config: Path, tmp_path: Path, rank: int, where: str
) -> None:
    ended = train(config, tmp_path / "run", **fault("raise", where, rank))
    assert ended.code == 1
    assert ended.left == []
    assert ended.seconds < 10
    assert ended.said.count("Traceback (most recent call last)") == 1
    assert f"[rank{rank}]: RuntimeError: injected into rank {rank}\n" in ended.said
    assert record(tmp_path / "run")["status"] == "failed"
    if rank == 1:
        *_, last = ended.said.splitlines()
        assert last.startswith("[rank0]: ended, because another rank has ended; see its error message (")
        assert record(tmp_path / "run")["error"] == "another rank has failed: its error is in the log"
    else:
        assert ended.said.splitlines()[-1] == "[rank0]: RuntimeError: injected into rank 0"
        assert record(tmp_path / "run")["error"] == "injected into rank 0"


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_that_hangs_ends_all_in_the_time_of_the_configuration(config: Path, tmp_path: Path, rank: int) -> None:
    """And it is said where it hangs."""
    ended = train(config, tmp_path / "run", **fault("hang", rank=rank))
    assert ended.code != 0
    assert ended.left == []
    assert TIMEOUT - 1 < ended.seconds < TIMEOUT + 10
    assert "injected_faults.py" in ended.said.partition("(most recent call first)")[2].splitlines()[1]
    assert f"[rank{1 - rank}]: Another rank has not answered in time" in ended.said
    assert f"Timed out waiting {TIMEOUT}000ms" in ended.said


@pytest.mark.slow
@pytest.mark.parametrize("rank", [0, 1])
def test_a_rank_that_is_killed_ends_all_and_the_run_goes_on_exactly(
    config: Path, straight: Path, tmp_path: Path, rank: int
) -> None:
    run = tmp_path / "run"
    ended = train(config, run, **fault("kill", rank=rank, step=14))
    assert ended.code == (1 if rank else -9)
    assert ended.left == []
    assert ended.seconds < 10
    assert "Traceback" not in ended.said
    assert f"[rank{1 - rank}]: ended, because another rank has" in ended.said
    if rank == 1:
        assert "[rank1]: killed by SIGKILL" in ended.said
    assert record(run)["status"] == ("failed" if rank else "running")
    resumed = train(config, run)
    assert resumed.code == 0, resumed.said
    assert "Restoring states from the checkpoint path" in resumed.said
    assert_same_run(straight, run)


def test_missing_weights_are_said_once_before_any_rank_is_started(config: Path, tmp_path: Path) -> None:
    content = yaml.safe_load(config.read_text())
    perceptual = {
        "class_path": "lit_vae.realism.Perceptual",
        "init_args": {"weight": 1.0, "distance": "lit_vae.features.LPIPS"},
    }
    realism = {"class_path": "lit_vae.realism.Realism", "init_args": {"perceptual": perceptual}}
    content["model"]["init_args"]["realism"] = realism
    (tmp_path / "config.yaml").write_text(yaml.safe_dump(content))
    ended = train(tmp_path / "config.yaml", tmp_path / "run", TORCH_HOME=str(tmp_path / "empty"))
    assert ended.code == 1
    assert ended.said.count("Run  lit-vae prepare vgg16  where there is internet") == 1
    assert "Traceback" not in ended.said
    assert "[rank" not in ended.said
