"""The open schedulers of this process: each is closed at exit, and stops what it runs."""

from __future__ import annotations

import atexit
import os
import weakref
from pathlib import Path
from typing import Protocol


class Closable(Protocol):
    """A scheduler, as the registry sees it."""

    folder: Path
    pid: int  # the process that made it

    @property
    def has_ended(self) -> bool:
        """Whether the scheduler's search has begun, and is over."""

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
    """The schedulers that are not closed."""
    return list(_open)


def close_ended(folder: Path) -> bool:
    """Close the scheduler of this process whose search in a folder has ended; False: there is none.

    So a cell of a notebook can run again. A search that has not begun, or goes on, keeps its
    folder.
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
