"""What /proc says of processes: who descends from whom, what they use, to whom they belong (Linux).

Elsewhere there is no /proc, and each function here finds nothing.
"""

from __future__ import annotations

import contextlib
import os
import signal
from collections.abc import Iterator
from pathlib import Path

from .private import private

MARK = "DISTSEARCH_AGENT"  # the variable by which what runs for an agent is known
MARK_FILE = "agent-mark"
PAGE_BYTES = os.sysconf("SC_PAGE_SIZE")


def children(pid: int | None = None) -> list[int]:
    """The process ids of the children of a process, or of this one."""
    root = f"/proc/{pid or os.getpid()}/task"
    found: list[int] = []
    with contextlib.suppress(OSError):
        for thread in os.listdir(root):
            # A thread may end while it is looked at; its children go to another one.
            with (
                contextlib.suppress(OSError),
                open(f"{root}/{thread}/children", "rb", buffering=0) as file,
            ):
                found += map(int, file.readall().split())
    return found


def family(pid: int) -> Iterator[int]:
    """A process and all that descends from it, in whatever sessions these are."""
    yield pid
    for child in children(pid):
        yield from family(child)


def kill(pid: int) -> None:
    """Send KILL to a process, if it is still there and ours."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        os.kill(pid, signal.SIGKILL)


def families_above(limits: dict[int, int]) -> Iterator[tuple[int, int]]:
    """The processes which, with all that descends from them, use more bytes than their limit.

    What counts is the proportional set size, in which shared pages are shared out; as that is dear
    to find, and never above the resident set, it is looked at only where that is above the limit.
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
        return next(sizes, 0) << 10  # a process that is just ending has none
    return 0


def mark_of(folder: Path) -> str:
    """The mark of whatever runs for the agent of a folder, the same whenever that is started.

    It is random, so that a new folder of the same name has another one, and names the folder
    itself, so that a copy has another one too, and nobody can make it that of another search.
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
    return os.urandom(16).hex()  # the disk is full, say: what is left is not found by this


def kill_marked(mark: str) -> None:
    """Kill every process that was started with this mark in its environment.

    The launcher has it, so all that descends from it has, in whatever session: this is for what is
    left when all who watch over it were killed. This process, and those above it, are spared.
    """
    wanted = f"{MARK}={mark}".encode()
    spared = set(_line_of(os.getpid()))
    for pid in _process_ids():
        with contextlib.suppress(OSError), open(f"/proc/{pid}/environ", "rb") as file:
            if pid not in spared and wanted in file.read().split(b"\0"):
                kill(pid)


def _line_of(pid: int) -> Iterator[int]:
    """A process and those above it."""
    with contextlib.suppress(OSError):
        while pid > 0:
            yield pid
            with open(f"/proc/{pid}/stat", "rb") as file:
                pid = int(file.read().rpartition(b")")[2].split()[1])


def _process_ids() -> Iterator[int]:
    with contextlib.suppress(OSError):
        yield from (int(name) for name in os.listdir("/proc") if name.isdigit())
