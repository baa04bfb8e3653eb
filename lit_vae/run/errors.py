"""Errors that are not bugs of the program, and what is said about them."""

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
"""The exit code after Ctrl-C, as in shells: 128 + SIGINT."""

_RANK_GONE = re.compile(r"(closed|reset) by peer|Broken pipe|remote process exiting")
_RANK_SILENT = re.compile(r"Timed out waiting \d+ms|Watchdog caught collective operation timeout")
"""Messages of gloo and NCCL, which raise plain RuntimeErrors."""

PLAIN = (bool, int, float, str, list, tuple, type, type(None))
_DISK_ERRORS = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)


class TrainingStopped(ValueError):
    """Training was stopped on purpose. The message says why and what to do, so ``lightning`` shows no traceback."""


class Preempted(TrainingStopped):
    """Training was asked to stop, and has saved a checkpoint to resume from."""

    exit_code = 75
    """``EX_TEMPFAIL`` of ``sysexits.h``, "try again later"."""


class Interrupted(Preempted):
    """Training was stopped by Ctrl-C, and has saved a checkpoint to resume from."""

    exit_code = INTERRUPTED_EXIT_CODE


def disk_error(error: BaseException) -> OSError | None:
    """The error of the disk behind another error (full, read-only, over quota), or None.

    If torch cannot write a file, it raises an error of its own. So the causes are searched, too.
    """
    for seen in _causes(error):
        if isinstance(seen, OSError) and seen.errno in _DISK_ERRORS:
            return seen
    return None


def lost_rank(error: BaseException) -> Literal["gone", "silent"] | None:
    """What happened to another rank, if that made a collective operation of this one fail; otherwise None.

    ``gone``: the other rank has ended, so the cause is there. ``silent``: it did not answer before the timeout of the
    process group.
    """
    for seen in _causes(error) if world_size() > 1 else ():
        if isinstance(seen, RuntimeError):
            if _RANK_GONE.search(str(seen)):
                return "gone"
            if _RANK_SILENT.search(str(seen)):
                return "silent"
    return None


def is_interrupt(error: BaseException) -> bool:
    """Whether Ctrl-C caused the error; Lightning replaces KeyboardInterrupt by exit code 1."""
    return any(isinstance(seen, KeyboardInterrupt) for seen in _causes(error))


def _causes(error: BaseException | None) -> Iterator[BaseException]:
    """An error, its cause, the cause of that, and so on."""
    while error is not None:
        yield error
        error = error.__cause__ or error.__context__


def message_for_user(error: Exception, begun: bool) -> str | None:
    """A message for an error that the user can correct. None for a bug of the program, which needs its traceback.

    Once training or an evaluation has ``begun``, an error is not a mistake in the configuration.
    """
    if isinstance(error, Preempted):
        return f"{type(error).__name__.lower()}: {error}"
    if isinstance(error, (TrainingStopped, DirectoryMoved)) or _is_setting_error(error) or _names_a_setting(error):
        return f"error: {error}"
    if lost_rank(error) == "gone":
        return f"ended, because another rank has ended; see its error message ({error})"
    if lost_rank(error) == "silent":
        error.add_note(_SILENT)
        return None
    if begun and (refusal := disk_error(error)) is not None:
        return (
            f"error: the run directory can no longer be written to ({refusal}). The last checkpoint is complete. Make"
            " room, or repair the directory, and resume with --ckpt_path last."
        )
    return None if begun else _user_mistake(error)


def _user_mistake(error: Exception) -> str | None:
    """A message about a mistake in the configuration, or about missing files; None for a bug."""
    if (words := _component_failure(error)) is not None:
        return f"error: {words}"
    of_the_program = not isinstance(error, (ValueError, OSError, MisconfigurationException, RuntimeError))
    of_the_program |= isinstance(error, RuntimeError) and "loading state_dict" not in str(error)
    of_the_program |= isinstance(error, OSError) and not isinstance(error, FileNotFoundError)
    return None if of_the_program else f"error: {without_noise(str(error))}"


def _names_its_component(error: BaseException) -> bool:
    """Whether lit_vae raised it and it names the component: ``MLP: hidden (=[0]) must be ...``."""
    return isinstance(error, ValueError) and re.match(r"\w+: ", str(error)) is not None


def _names_a_setting(error: BaseException) -> bool:
    """Whether a component of lit_vae refuses one of its settings, perhaps as late as in training."""
    ours = _raised_in(error).startswith(("lit_vae.", "callbacks."))
    return ours and _names_its_component(error) and "(=" in str(error)


def _raised_in(error: BaseException) -> str:
    """The module that raised an error; blank if nobody did."""
    frames = [frame for frame, _ in traceback.walk_tb(error.__traceback__)]
    return str(frames[-1].f_globals.get("__name__", "")) if frames else ""


def _component_failure(error: Exception) -> str | None:
    """Which component could not be built, its arguments, and why; None if no component raised the error.

    torch, Lightning and Python raise many kinds of error for a bad argument. Few of them name the component.
    """
    led = [*_causes(error)]
    if any(map(_names_its_component, led)):
        return None
    for seen in reversed(led):  # the parser tries one type after the other and raises an error of its own
        for frame, _ in reversed([*traceback.walk_tb(seen.__traceback__)]):
            built, code = frame.f_locals.get("self"), frame.f_code
            if code.co_name == "__init__" and is_named_by_user(type(built)):
                why = next(iter(str(seen).strip().splitlines()), "") or type(seen).__name__
                name = _public_name(type(built))
                if name == "torch.nn.Module":
                    why = "a network needs a class_path"
                return f"{name}: cannot be built: {why:.300}\n{_arguments_of(frame)}"
    return None


def _public_name(cls: type) -> str:
    """The path by which a class is documented, and so named in configurations: the shortest one that leads to it."""
    parts = cls.__module__.split(".")
    packages = (".".join(parts[:length]) for length in range(1, len(parts)))
    found = (package for package in packages if getattr(sys.modules.get(package), cls.__name__, None) is cls)
    return f"{next(found, cls.__module__)}.{cls.__name__}"


def _arguments_of(frame: FrameType) -> str:
    code = frame.f_code
    names = code.co_varnames[1 : code.co_argcount + code.co_kwonlyargcount]
    given = {name: frame.f_locals.get(name) for name in names}
    shown = [f"{name} (={value!r:.50})" for name, value in given.items() if isinstance(value, PLAIN)]
    return f"Change one of its init_args: {', '.join(shown)}." if shown else "It was given no settings."


def _is_setting_error(error: Exception) -> bool:
    """Whether Lightning refuses a setting. It may do so late, for example when it has counted the batches."""
    by_lightning = isinstance(error, ValueError) and _raised_in(error).startswith("lightning.pytorch.")
    early = "Early stopping conditioned on metric" in str(error)
    return by_lightning or early or isinstance(error, MisconfigurationException)


_SILENT = (
    "Another rank has not answered in time: it hangs, or it does something long alone. `kill -USR2 PID` makes a process"
    " print its traceback; processes of this machine have just been told to. To wait longer, set timeout of DDPStrategy"
    " in trainer.strategy, as in configs/overlays/ddp.yaml (default: 30 minutes)."
)


def without_noise(message: str) -> str:
    """A message without lines that repeat the configuration, list types of an optional value, or come from C++."""
    noise = (
        r"\s*(Given value|Does not validate against any of the Union|Subtypes:|Errors:|- Expected a <class 'NoneType'>"
        r"|Subclass types expect one of:|- a class path \(str\)|- a dict with|frame #\d+:|Exception raised from)"
    )
    kept = "\n".join(line for line in message.splitlines() if not re.match(noise, line))
    return kept.strip().removeprefix("- ")
