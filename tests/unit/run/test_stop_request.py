"""A signal sets a flag and no more; a file asks, too; all ranks decide the same."""

import os
import signal
from pathlib import Path

import pytest
import torch
import torch.multiprocessing as mp
from torch import distributed

from lit_vae.run.errors import Preempted
from lit_vae.run.preemption import StopRequest

CPU = torch.device("cpu")


@pytest.mark.parametrize("number", [signal.SIGUSR1, signal.SIGTERM])
def test_a_signal_is_noted_while_it_is_listened_for(tmp_path: Path, number: signal.Signals) -> None:
    before, request = signal.getsignal(number), StopRequest(tmp_path)
    request.listen()
    try:
        assert not request.anywhere(True, CPU)
        os.kill(os.getpid(), number)
        assert request.anywhere(True, CPU)
    finally:
        request.leave()
    assert signal.getsignal(number) is before
    with pytest.raises(Preempted, match=rf"by {number.name}: saved at step 5 in .*--ckpt_path last goes on from there"):
        request.stop(True, 5)


def test_a_file_asks_and_is_taken_away_when_that_is_met(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    now = 100.0
    monkeypatch.setattr("lit_vae.run.preemption.time.monotonic", lambda: now)
    request = StopRequest(tmp_path)
    assert not request.here(first_rank=True)
    (tmp_path / "STOP").touch()
    assert not request.here(first_rank=True)  # it has just looked
    now += 1.0
    assert not request.here(first_rank=False)  # one rank looks for all
    assert request.here(first_rank=True)
    with pytest.raises(Preempted, match=r"asked to stop by the file .*STOP: saved at step 9"):
        request.stop(True, 9)
    assert {path.name: path.read_text() for path in tmp_path.iterdir()} == {"REQUEUE": "step 9\n"}


def _decide(rank: int, folder: Path) -> None:
    distributed.init_process_group("gloo", f"file://{folder}/meeting", rank=rank, world_size=2)
    request = StopRequest(folder)
    request.listen()
    first = request.anywhere(rank == 0, CPU)
    if rank == 1:
        os.kill(os.getpid(), signal.SIGUSR1)
    second = request.anywhere(rank == 0, CPU)
    (folder / f"decided_{rank}").write_text(f"{first} {second}")
    distributed.destroy_process_group()


def test_what_one_rank_is_asked_all_do(tmp_path: Path) -> None:
    mp.start_processes(_decide, args=(tmp_path,), nprocs=2, start_method="fork")
    assert [(tmp_path / f"decided_{rank}").read_text() for rank in range(2)] == ["False True", "False True"]
