"""Calls that may never return."""

import queue
import threading
from collections.abc import Callable
from typing import Any, TypeVar

T = TypeVar("T")


def within(seconds: float, function: Callable[[], T]) -> T:
    """What a function returns, or raises, if it does so in time.

    It runs in a thread of its own, which is left to itself where it hangs and does not keep the process from ending.

    Raises:
        TimeoutError: it did not return in time.
        RuntimeError: it asked the process to end, as by SystemExit; the thread alone has ended.
    """
    outcome: queue.SimpleQueue[Any] = queue.SimpleQueue()

    def run() -> None:
        try:
            outcome.put((function(), None))
        except BaseException as error:  # whatever it is: who waits would wait in vain
            outcome.put((None, error))

    threading.Thread(target=run, daemon=True, name=f"within {seconds:g} s").start()
    try:
        result, error = outcome.get(timeout=seconds)
    except queue.Empty:
        raise TimeoutError(f"no answer within {seconds:g} seconds") from None
    if error is not None and not isinstance(error, Exception):
        raise RuntimeError(f"{type(error).__name__}: {error}".rstrip(": ")) from error
    if error is not None:
        raise error
    return result
