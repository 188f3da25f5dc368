"""What Linux's /proc says of processes: who descends from whom, what they use, whose they are.

On systems without /proc each function here finds nothing.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

from .private import private

MARK = "DISTSEARCH_AGENT"  # a variable in the environment of all that runs for an agent
MARK_FILE = "agent-mark"
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def children(pid: int | None = None) -> list[int]:
    """The process ids of the children of a process, by default this one."""
    root = f"/proc/{pid or os.getpid()}/task"
    found: list[int] = []
    with contextlib.suppress(OSError):
        for thread in os.listdir(root):
            # (A thread may end meanwhile; then its children go to another thread.)
            with (
                contextlib.suppress(OSError),
                open(f"{root}/{thread}/children", "rb", buffering=0) as file,
            ):
                found += map(int, file.readall().split())
    return found


def family(pid: int) -> Iterator[int]:
    """A process and all its descendants, in whatever sessions they are."""
    yield pid
    for child in children(pid):
        yield from family(child)


def kill(pid: int) -> None:
    """Send KILL to a process, if it is there, and may be killed by this user."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, signal.SIGKILL)


def families_above(limits: dict[int, int]) -> Iterator[tuple[int, int]]:
    """The processes that use, with their descendants, more bytes than their limits; and how many.

    The proportional set size counts, which divides shared pages among processes. It takes long to
    find, and is never above the resident set: so it is read only where that is above the limit.
    """
    for pid, limit in limits.items():
        members = list(family(pid))
        if sum(map(_resident_bytes, members)) > limit:
            used = sum(map(_proportional_bytes, members))
            if used > limit:
                yield pid, used


def _resident_bytes(pid: int) -> int:
    with contextlib.suppress(OSError, IndexError), open(f"/proc/{pid}/statm") as file:
        return int(file.read().split()[1]) * PAGE_BYTES
    return 0


def _proportional_bytes(pid: int) -> int:
    with contextlib.suppress(OSError), open(f"/proc/{pid}/smaps_rollup") as file:
        sizes = (int(line.split()[1]) for line in file if line.startswith("Pss:"))
        return next(sizes, 0) << 10  # (a process that is just ending has none)
    return 0


def mark_of(folder: Path) -> str:
    """The mark of all that runs for the agent of a folder; the same whenever that is started.

    It depends on a random number, so that a new folder of the same name has another mark, and on
    the folder itself, so that a copy has another mark, too, and no folder can have that of another.
    """
    path = folder / MARK_FILE
    about = os.stat(folder)
    with contextlib.suppress(OSError):
        with contextlib.suppress(FileNotFoundError), open(path, "rb", opener=private) as file:
            if token := file.read(16):
                return f"{token.hex()}-{about.st_dev:x}-{about.st_ino:x}"
        token = os.urandom(16)
        with open(path, "wb", opener=private) as file:
            file.write(token)
        return f"{token.hex()}-{about.st_dev:x}-{about.st_ino:x}"
    return os.urandom(16).hex()  # (on a full disk, say: then what is left is not found)


def kill_marked(mark: str) -> None:
    """Kill every process that was started with this mark in its environment.

    The launcher has the mark, and so have all its descendants, in whatever sessions: this finds
    what is left where guard and launcher were killed. This process, and those above it, are spared.
    """
    wanted = f"{MARK}={mark}".encode()
    spared = set(_line_of(os.getpid()))
    for pid in _process_ids():
        with contextlib.suppress(OSError), open(f"/proc/{pid}/environ", "rb") as file:
            if pid not in spared and wanted in file.read().split(b"\0"):
                kill(pid)


def _line_of(pid: int) -> Iterator[int]:
    """A process, its parent, the parent's parent, and so on."""
    with contextlib.suppress(OSError):
        while pid > 0:
            yield pid
            with open(f"/proc/{pid}/stat", "rb") as file:
                pid = int(file.read().rpartition(b")")[2].split()[1])


def _process_ids() -> Iterator[int]:
    with contextlib.suppress(OSError):
        yield from (int(name) for name in os.listdir("/proc") if name.isdigit())
