"""A command leaves signals as it found them, and does not hear one that was ignored before."""

import os
import signal
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from torch.optim import Adam

Lightning = Callable[..., None]
SHORT = ["--trainer.callbacks=[]", "--trainer.max_epochs=1", "--trainer.limit_train_batches=2"]
HELD = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR1)


@pytest.fixture
def owner() -> Iterator[Callable[..., None]]:
    """A handler that all signals of a training have before it."""

    def handler(number: int, _: Any) -> None:
        raise AssertionError(f"{signal.Signals(number).name} came to its owner")

    before = {number: signal.signal(number, handler) for number in HELD}
    yield handler
    for number, earlier in before.items():
        signal.signal(number, earlier)


def at_a_step(monkeypatch: pytest.MonkeyPatch, action: Callable[[], object]) -> None:
    """Do something in the middle of the first optimizer step."""
    step = Adam.step

    def interrupted(self: Adam, *args: Any, **kwargs: Any) -> Any:
        monkeypatch.setattr(Adam, "step", step)
        action()
        return step(self, *args, **kwargs)

    monkeypatch.setattr(Adam, "step", interrupted)


def fails() -> None:
    raise ValueError("it fails")


@pytest.mark.parametrize(
    ("action", "code"),
    [
        (lambda: None, None),
        (fails, 1),
        (lambda: os.kill(os.getpid(), signal.SIGTERM), 75),
        (lambda: os.kill(os.getpid(), signal.SIGUSR1), 75),
        (lambda: os.kill(os.getpid(), signal.SIGINT), 130),
    ],
    ids=["finished", "failed", "SIGTERM", "SIGUSR1", "SIGINT"],
)
def test_signals_belong_to_whom_they_belonged_before_a_fit(
    lightning: Lightning,
    owner: Callable[..., None],
    digits_config: Path,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
    action: Callable[[], object],
    code: int | None,
) -> None:
    at_a_step(monkeypatch, action)
    every = signal.valid_signals()
    before = {number: signal.getsignal(number) for number in every}
    try:
        lightning("fit", "--config", digits_config, "--run_dir", tmp_path / "run", *SHORT)
        ended = None
    except SystemExit as left:
        ended = left.code
    except ValueError:
        ended = 1  # a mistake of the code shows its traceback
    assert ended == code
    assert {number: signal.getsignal(number) for number in every} == before
    assert all(signal.getsignal(number) is owner for number in HELD)


def test_ctrl_c_that_is_ignored_stays_ignored(
    lightning: Lightning, digits_config: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A shell starts a job in the background so, and Ctrl-C is for the job in the foreground."""
    before = signal.signal(signal.SIGINT, signal.SIG_IGN)
    try:
        at_a_step(monkeypatch, lambda: os.kill(os.getpid(), signal.SIGINT))
        lightning("fit", "--config", digits_config, "--run_dir", tmp_path / "run", *SHORT)
        assert signal.getsignal(signal.SIGINT) is signal.SIG_IGN
    finally:
        signal.signal(signal.SIGINT, before)
