"""Where an experiment lives: its folder is found, and taken up or put aside; so is its storage."""

from __future__ import annotations

import os
import re
import time
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..errors import OptionError, StoreError
from . import store
from .imports import refuse_search_in_import
from .lock import Lock
from .phrases import called
from .storage import Storage, checked_url

RESUMED = "DISTSEARCH_RESUMED"  # set by `distsearch resume`: the folder that a program did not name


def find(checkpoint: str | os.PathLike[str] | None, name: str) -> Path:
    """The folder that a user has named, or a new one for an experiment of this name.

    The path is absolute, with `~` expanded. New folders are in ./distsearch_results, or in the
    folder that DISTSEARCH_RESULTS names. Raises StoreError for a file and where the current folder
    is gone, OptionError for what is no path, and UnguardedSearch where an import in a trial begins
    the experiment.
    """
    refuse_search_in_import()
    try:
        os.getcwd()
    except FileNotFoundError:  # trials run in it
        raise StoreError(
            "the current folder was deleted; os.chdir(...) to one that is there, and try again"
        ) from None
    # (The variable holds for the first search of this program.)
    given = os.environ.pop(RESUMED, None)
    if checkpoint is None and given is not None:
        return Path(given)
    if checkpoint is None:
        stamp = time.strftime("%Y%m%d-%H%M%S")
        root = Path(os.environ.get("DISTSEARCH_RESULTS", "distsearch_results"))
        new = root / f"{_for_a_path(name)}-{stamp}-{os.urandom(5).hex()}"
        return new.expanduser().absolute()
    is_path = isinstance(checkpoint, str | os.PathLike) and str(checkpoint) != ""
    if not is_path or "\0" in str(checkpoint):
        raise OptionError(
            f"{called('checkpoint=')}{checkpoint!r}; give the path of a folder, or None"
        )
    folder = Path(checkpoint).expanduser().absolute()
    if folder.is_file():
        raise StoreError(
            f"{called('checkpoint=')}{str(checkpoint)!r} is a file; name a folder, or a new one"
        )
    return folder


def take(folder: Path, resume: bool | None) -> store.Store:
    """Take a folder, before anything in it is looked at; its log, which no other driver has then.

    With resume=False an earlier experiment is put aside, under a name with a number: a fresh start
    deletes nothing. Raises StoreLocked and StoreError.
    """
    lock = Lock(folder)
    if resume is False:
        while (folder / store.FILE).exists():
            try:
                _archive(folder)  # with the lock, so that nobody takes it meanwhile
            finally:
                lock.release()
            lock = Lock(folder)
    return store.Store(folder, lock)


def earlier_run(folder: Path) -> dict[str, Any] | None:
    """What the experiment of a folder that was taken searched for: it is to be resumed."""
    earlier = None
    for event in store.read(folder, "experiment"):  # the last one counts
        earlier = dict(event.body)
    return earlier


def _archive(folder: Path) -> None:
    number = 1
    while (archive := folder.with_name(f"{folder.name}.{number}")).exists():
        number += 1
    folder.rename(archive)


def storage_of(
    folder: Path, storage: str | os.PathLike[str] | None, earlier: Mapping[str, Any] | None
) -> Storage | None:
    """Where checkpoints go: a place in the storage that is this experiment's own, also later.

    None where no storage is given: then checkpoints go into the experiment's folder. Raises
    StoreError when the earlier run had another storage, CheckpointError when this process cannot
    write to it.
    """
    root = None if storage is None else checked_url(storage)
    before = None if earlier is None else earlier.get("storage")
    if earlier is not None and root != (before and before.rpartition("/")[0]):
        raise StoreError(
            f"the checkpoints of {folder} are in storage={before and before.rpartition('/')[0]!r}, "
            f"not in {root!r}; give the same one, or {called('resume=False')} to start anew"
        )
    if root is None:
        return None
    own = before or f"{root}/{_for_a_path(folder.name)}-{os.urandom(4).hex()}"
    found = Storage(own, "of the driver")
    found.begin()
    return found


def _for_a_path(name: str) -> str:
    return re.sub(r"[^A-Za-z0-9._-]", "_", name)
