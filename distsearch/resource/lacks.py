"""What a machine may lack for a while, for trials to start: by error, and what to do about it."""

from __future__ import annotations

import errno

NO_SPACE = (errno.ENOSPC, errno.EDQUOT, errno.EFBIG)
_ON_A_DISK = "make room on its disk (see `df -h` and `df -i` there)"
_REMEDIES = {
    errno.ENOSPC: _ON_A_DISK,
    errno.EDQUOT: _ON_A_DISK,
    errno.EFBIG: "allow larger files (`ulimit -f`)",
    errno.EMFILE: "allow more open files (`ulimit -n`), or close some",
    errno.ENFILE: "allow more open files (`sysctl fs.file-max`), or end programs",
    errno.EAGAIN: "no more processes can be started: end some, or allow more "
    "(`ulimit -u`; pids.max of a container or a service)",
    errno.ENOMEM: "end programs that take its memory, or let fewer trials run at once",
    errno.EIO: "see whether its disk fails",
    errno.ESTALE: "mount its disk again",
}
# Errors of what a machine may lack for a while: room, descriptors, processes, memory, the disk.
SHORTAGES = tuple(_REMEDIES)


def with_remedy(text: str, number: int | None) -> str:
    """The text of an error with this number, and what to do about it.

    >>> with_remedy("Too many open files", errno.EMFILE)
    'Too many open files: allow more open files (`ulimit -n`), or close some'
    """
    remedy = _REMEDIES.get(number or 0)
    return f"{text}: {remedy}" if remedy else text
