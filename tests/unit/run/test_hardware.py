"""Threads of a run: one for a small network, a share for each rank, a user's own number before all."""

from types import SimpleNamespace

import pytest
import torch

from lit_vae.run import hardware, threads
from lit_vae.run.threads import Cores


@pytest.fixture
def set_to(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """What torch's number of threads is set to, on a machine of sixteen cores."""
    numbers: list[int] = []
    for name in ("OMP_NUM_THREADS", "LIT_VAE_THREADS"):
        monkeypatch.setenv(name, "")
    monkeypatch.setenv("OMP_WAIT_POLICY", "PASSIVE")
    monkeypatch.setattr(threads.os, "cpu_count", lambda: 16)
    monkeypatch.setattr(hardware, "cores", lambda ranks: Cores(16 // ranks, f"{ranks} ranks"))
    monkeypatch.setattr(torch, "set_num_threads", numbers.append)
    return numbers


def trainer(device: str, ranks: int) -> SimpleNamespace:
    return SimpleNamespace(num_devices=ranks, strategy=SimpleNamespace(root_device=torch.device(device)))


@pytest.mark.parametrize(
    ("device", "ranks", "operations", "number", "limit"),
    [
        ("cpu", 1, 1e8, 1, "a small network"),
        ("cpu", 2, 1e8, 1, "a small network"),
        ("cpu", 2, 1e10, 8, "2 ranks"),
        ("cpu", 4, 0, 4, "4 ranks"),
        ("cuda", 4, 1e8, 4, "4 ranks"),
        ("cpu", 16, 1e8, 1, "16 ranks"),
    ],
)
def test_threads_by_size_and_ranks(
    set_to: list[int], device: str, ranks: int, operations: float, number: int, limit: str
) -> None:
    said = hardware.set_threads(trainer(device, ranks), operations)
    assert said == f"threads: {number} of 16 cores ({limit}), OMP_WAIT_POLICY=PASSIVE"
    assert set_to == [number]
    assert threads.os.environ["OMP_NUM_THREADS"] == str(number)  # for the ranks that this process starts
    assert threads.is_default()


def test_a_users_number_stays(set_to: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("OMP_NUM_THREADS", "3")
    monkeypatch.setattr(torch, "get_num_threads", lambda: 3)
    said = hardware.set_threads(trainer("cpu", 1), 1e8)
    assert said == "threads: 3 of 16 cores (OMP_NUM_THREADS), OMP_WAIT_POLICY=PASSIVE"
    assert set_to == []
