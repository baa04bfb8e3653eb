"""Ends of a run that are nobody's bug."""

import errno
import re
from collections.abc import Iterator
from typing import Literal

from lit_vae.ranks import world_size

PREEMPTED_EXIT_CODE = 75
"""Of a training that was asked to stop and did: ``EX_TEMPFAIL`` of ``sysexits.h``, "try again later"."""

_RANK_GONE = re.compile(r"(closed|reset) by peer|Broken pipe|remote process exiting")
_RANK_SILENT = re.compile(r"Timed out waiting \d+ms|Watchdog caught collective operation timeout")
"""What gloo and NCCL say; they raise nothing but RuntimeErrors of theirs."""

_OF_THE_DISK = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG, errno.EROFS)


class TrainingStopped(ValueError):
    """Training was stopped on purpose, and the message says why and what to do: ``lightning`` shows it alone."""


class Preempted(TrainingStopped):
    """Training was asked to stop and has saved where it is: it goes on from there."""


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
        return f"preempted: {error}"
    if isinstance(error, TrainingStopped) or _is_a_setting(error):
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
    of_the_program = isinstance(error, RuntimeError) and "loading state_dict" not in str(error)
    of_the_program |= isinstance(error, OSError) and not isinstance(error, FileNotFoundError)
    return None if begun or of_the_program else f"error: {without_noise(str(error))}"


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
    """Without the lines that repeat the whole configuration or list what an optional value may be."""
    noise = (
        r"\s*(Given value|Does not validate against any of the Union|Subtypes:|Errors:|- Expected a <class 'NoneType'>)"
    )
    kept = "\n".join(line for line in message.splitlines() if not re.match(noise, line))
    return kept.strip().removeprefix("- ")
