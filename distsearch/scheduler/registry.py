"""The schedulers of this process that are not closed: at exit each is, and stops what it runs."""

from __future__ import annotations

import atexit
import os
import weakref
from pathlib import Path
from typing import Protocol


class Closable(Protocol):
    """A scheduler, as this sees it."""

    folder: Path
    pid: int  # of the process that made it

    @property
    def has_ended(self) -> bool:
        """Whether its search has begun, and is over."""

    def close(self) -> None:
        """Stop what runs."""


_open: weakref.WeakSet[Closable] = weakref.WeakSet()


def add(scheduler: Closable) -> None:
    """Take note of a scheduler that is to be closed at exit."""
    _open.add(scheduler)


def remove(scheduler: Closable) -> None:
    """Take note that a scheduler is closed."""
    _open.discard(scheduler)


def all_open() -> list[Closable]:
    """Those that are not closed."""
    return list(_open)


def close_ended(folder: Path) -> bool:
    """Close a scheduler of this process whose search in a folder has ended; whether there was one.

    So a cell of a notebook can run again. One that has not begun, or goes on, keeps its folder.
    """
    for scheduler in all_open():
        is_own = scheduler.pid == os.getpid()
        if is_own and scheduler.has_ended and _is_same(scheduler.folder, folder):
            scheduler.close()
            return True
    return False


def _is_same(one: Path, other: Path) -> bool:
    return one == other or (one.exists() and other.exists() and one.samefile(other))


@atexit.register
def _close_all() -> None:
    for scheduler in all_open():
        scheduler.close()
