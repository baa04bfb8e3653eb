"""Calls that may never return."""

import sys
import threading
import time

import pytest

from lit_vae.run.bounded import within


def test_what_a_function_returns_or_raises_comes_through() -> None:
    assert within(10.0, lambda: 3) == 3
    with pytest.raises(ZeroDivisionError):
        within(10.0, lambda: 1 / 0)


def test_who_asks_the_process_to_end_is_heard_at_once_and_does_not_end_it() -> None:
    begun = time.monotonic()
    with pytest.raises(RuntimeError, match="SystemExit: 3"):
        within(10.0, lambda: sys.exit(3))
    assert time.monotonic() - begun < 5.0


def test_who_hangs_is_left_to_itself() -> None:
    forever = threading.Event()
    with pytest.raises(TimeoutError, match=r"no answer within 0\.05 seconds"):
        within(0.05, forever.wait)
    forever.set()
