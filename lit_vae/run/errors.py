"""Ends of a run that are nobody's bug."""

import errno
import re
import sys
import traceback
from collections.abc import Iterator
from types import FrameType
from typing import Literal

from lightning.pytorch.utilities.exceptions import MisconfigurationException

from lit_vae.ranks import world_size
from lit_vae.run.files import DirectoryMoved
from lit_vae.run.trust import is_named_by_user

INTERRUPTED_EXIT_CODE = 130
"""Of a program that Ctrl-C has ended, as shells have it: 128 + SIGINT."""

_RANK_GONE = re.compile(r"(closed|reset) by peer|Broken pipe|remote process exiting")
_RANK_SILENT = re.compile(r"Timed out waiting \d+ms|Watchdog caught collective operation timeout")
"""What gloo and NCCL say; they raise nothing but RuntimeErrors of theirs."""

PLAIN = (bool, int, float, str, list, tuple, type, type(None))
_OF_THE_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)


class TrainingStopped(ValueError):
    """Training was stopped on purpose, and the message says why and what to do: ``lightning`` shows it alone."""


class Preempted(TrainingStopped):
    """Training was asked to stop and has saved where it is: it goes on from there."""

    exit_code = 75
    """``EX_TEMPFAIL`` of ``sysexits.h``, "try again later"."""


class Interrupted(Preempted):
    """Training was asked to stop by Ctrl-C, and has saved where it is."""

    exit_code = INTERRUPTED_EXIT_CODE


def of_the_disk(error: BaseException) -> OSError | None:
    """What the disk has refused, if that is what an error comes from: it is full, read-only, or over a quota.

    torch stumbles over a file that could not be written and raises something else in its place, so what led to an error
    is looked at, too.
    """
    for seen in _led_to(error):
        if isinstance(seen, OSError) and seen.errno in _OF_THE_DISK:
            return seen
    return None


def lost_rank(error: BaseException) -> Literal["gone", "silent"] | None:
    """What became of another rank, if that is what a collective of this one has failed of.

    ``gone``: it has ended, so what went wrong went wrong there. ``silent``: it has not answered within the time of the
    process group. Without other ranks it was something else that hung up.
    """
    for seen in _led_to(error) if world_size() > 1 else ():
        if isinstance(seen, RuntimeError):
            if _RANK_GONE.search(str(seen)):
                return "gone"
            if _RANK_SILENT.search(str(seen)):
                return "silent"
    return None


def is_interrupt(error: BaseException) -> bool:
    """Whether Ctrl-C has ended it at once; Lightning leaves with exit code 1 in its place."""
    return any(isinstance(seen, KeyboardInterrupt) for seen in _led_to(error))


def _led_to(error: BaseException | None) -> Iterator[BaseException]:
    """An error, and those that it came of."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def in_few_words(error: Exception, begun: bool) -> str | None:
    """What there is to say of an error that is not the program's; of one that is, None: its traceback is wanted.

    Args:
        error: that ended the command.
        begun: whether training or an evaluation was under way, so that a mistake of the user's is none any more.
    """
    if isinstance(error, Preempted):
        return f"{type(error).__name__.lower()}: {error}"
    if isinstance(error, (TrainingStopped, DirectoryMoved)) or _is_a_setting(error):
        return f"error: {error}"
    if lost_rank(error) == "gone":
        return f"ended, because another rank has; what it failed of stands in its own words ({error})"
    if lost_rank(error) == "silent":
        error.add_note(_SILENT)
        return None
    if begun and (refusal := of_the_disk(error)) is not None:
        return (
            f"error: the run directory can no longer be written to ({refusal}). The last checkpoint is whole: make"
            " room, or mend the directory, and go on with --ckpt_path last."
        )
    return None if begun else _of_the_user(error)


def _of_the_user(error: Exception) -> str | None:
    """What there is to say of a mistake in the configuration, or of files that are not there."""
    if (words := _of_a_component(error)) is not None:
        return f"error: {words}"
    of_the_program = not isinstance(error, (ValueError, OSError, MisconfigurationException, RuntimeError))
    of_the_program |= isinstance(error, RuntimeError) and "loading state_dict" not in str(error)
    of_the_program |= isinstance(error, OSError) and not isinstance(error, FileNotFoundError)
    return None if of_the_program else f"error: {without_noise(str(error))}"


def _names_its_component(error: BaseException) -> bool:
    """Whether it is a refusal in our own words: ``MLP: hidden (=[0]) must be ...``."""
    return isinstance(error, ValueError) and re.match(r"\w+: ", str(error)) is not None


def _of_a_component(error: Exception) -> str | None:
    """The component that could not be built, what it was given, and why; None: it is of no component's making.

    torch, Lightning and Python refuse arguments with all kinds of errors, few of which say whose argument it was.
    """
    led = [*_led_to(error)]
    if any(map(_names_its_component, led)):
        return None
    for seen in reversed(led):  # the command line's parser tries one type after the other, and raises of its own
        for frame, _ in reversed([*traceback.walk_tb(seen.__traceback__)]):
            built, code = frame.f_locals.get("self"), frame.f_code
            if code.co_name == "__init__" and is_named_by_user(type(built)):
                why = next(iter(str(seen).strip().splitlines()), "") or type(seen).__name__
                return f"{_public_name(type(built))}: cannot be built: {why:.300}\n{_what_it_was_given(frame)}"
    return None


def _public_name(cls: type) -> str:
    """The path by which a class is documented, and so named in configurations: the shortest one that leads to it."""
    parts = cls.__module__.split(".")
    packages = (".".join(parts[:length]) for length in range(1, len(parts)))
    found = (package for package in packages if getattr(sys.modules.get(package), cls.__name__, None) is cls)
    return f"{next(found, cls.__module__)}.{cls.__name__}"


def _what_it_was_given(frame: FrameType) -> str:
    code = frame.f_code
    names = code.co_varnames[1 : code.co_argcount + code.co_kwonlyargcount]
    given = {name: frame.f_locals.get(name) for name in names}
    shown = [f"{name} (={value!r:.50})" for name, value in given.items() if isinstance(value, PLAIN)]
    return f"Change one of its init_args: {', '.join(shown)}." if shown else "It was given no settings."


def _is_a_setting(error: Exception) -> bool:
    """Whether Lightning finds fault with a setting, which it may do late: at the first validation, for a monitor."""
    from lightning.pytorch.utilities.exceptions import MisconfigurationException

    return isinstance(error, MisconfigurationException) or "Early stopping conditioned on metric" in str(error)


_SILENT = (
    "Another rank has not answered in time: it hangs, or it does alone what takes long. Where it is, `kill -USR2` of"
    " its process prints; between processes of one machine that has just been asked. The time is timeout of DDPStrategy"
    " in trainer.strategy, as in configs/overlays/ddp.yaml; where that does not say, 30 minutes."
)


def without_noise(message: str) -> str:
    """Without the lines that repeat the configuration, list what an optional value may be, or are of C++."""
    noise = (
        r"\s*(Given value|Does not validate against any of the Union|Subtypes:|Errors:|- Expected a <class 'NoneType'>"
        r"|Subclass types expect one of:|- a class path \(str\)|- a dict with|frame #\d+:|Exception raised from)"
    )
    kept = "\n".join(line for line in message.splitlines() if not re.match(noise, line))
    return kept.strip().removeprefix("- ")
