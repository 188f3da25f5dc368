"""What belongs to a log beside it: its trials' checkpoints and output, and what was uploaded.

A log has a random id, and `trials/log-id` says to which log the trials beside it belong. Trials of
another log, which was moved away or replaced, are put aside: else trial 0 of a new search would go
on from the weights of another trial 0.
"""

from __future__ import annotations

import contextlib
import os
from collections.abc import Collection
from pathlib import Path

from ..resource.agent import MADE
from ..resource.private import delete, make_folder, make_private, private
from . import end_mark
from .schema import FILE

LOG_FILES = (FILE, f"{FILE}-wal", f"{FILE}-shm", end_mark.FILE)
FOLDERS = ("trials", "work")
ID_FILE = "log-id"
REQUESTS, LIVE = "requests", "live.json"


def put_aside_leftovers(folder: Path) -> Path | None:
    """Move what another log has left, before a new one is made; returns where it is now."""
    return _put_aside(folder, LOG_FILES)


def claim(folder: Path, log_id: int, aside: Path | None = None) -> Path | None:
    """Make the folders of a log's trials; the folders of another log are put aside.

    `aside` is the folder where leftovers of that log are already. Returns where leftovers are now,
    None where there are none.
    """
    trials = folder / "trials"
    own_id = f"{log_id & (1 << 64) - 1:016x}\n"
    if _id_of(trials) != own_id:
        aside = _put_aside(folder, FOLDERS, aside)
    for name in FOLDERS:
        make_folder(folder / name)
    if _id_of(trials) != own_id:
        with open(trials / ID_FILE, "w", encoding="ascii", opener=private) as file:
            file.write(own_id)
    return aside


def _id_of(trials: Path) -> str:
    with contextlib.suppress(OSError, ValueError):
        if not trials.is_symlink():
            with open(trials / ID_FILE, encoding="ascii", opener=private) as file:
                return file.read(100)
    return ""


def _put_aside(folder: Path, names: tuple[str, ...], aside: Path | None = None) -> Path | None:
    """Move files, and folders that are not empty, into `aside`, or a new folder; which it was."""
    found = [folder / name for name in names if os.path.lexists(folder / name)]
    found = [path for path in found if path.is_symlink() or not _is_empty_folder(path)]
    if not found:
        return aside
    aside = aside or new_folder(folder, "put-aside")
    for path in found:
        path.rename(aside / path.name)
    make_private(aside)
    return aside


def delete_new(folder: Path, there: Collection[str]) -> None:
    """Delete what a search has made in its folder; the names in `there` were there before it."""
    for name in {*LOG_FILES, *FOLDERS, *MADE, REQUESTS, LIVE}.difference(there):
        delete(folder / name)


def new_folder(folder: Path, name: str) -> Path:
    """Make the first folder NAME-1, NAME-2, ... that is not there yet."""
    number = 1
    while os.path.lexists(made := folder / f"{name}-{number}"):
        number += 1
    make_folder(made)
    return made


def _is_empty_folder(path: Path) -> bool:
    return path.is_dir() and not any(path.iterdir())
