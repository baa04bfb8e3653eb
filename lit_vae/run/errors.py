"""Ends of a run that are nobody's bug."""

import errno

PREEMPTED_EXIT_CODE = 75
"""Of a training that was asked to stop and did: ``EX_TEMPFAIL`` of ``sysexits.h``, "try again later"."""

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
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError) and seen.errno in _OF_THE_DISK:
            return seen
        seen = seen.__cause__ or seen.__context__
    return None
