"""Whether a log is as it was written, and the name and the remedy of each error of SQLite."""

from __future__ import annotations

import contextlib
import errno
import os
import resource
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import NamedTuple

from ..errors import StoreError
from ..resource.private import link_error
from . import schema
from .end_mark import EndMark
from .phrases import called
from .schema import FILE, Row, seal

FILES = 6  # so many files SQLite may have open for one connection
FULL_BYTES = 1 << 18  # a disk with less free space is called full
SOME_BYTES = 1 << 16  # of what is written at once
TOO_MANY = "Too many open files: raise the limit (ulimit -n), or close some in this program"
# What SQLite, in all its versions, says of a damaged file.
DAMAGE = ("malformed", "not a database", "unsupported", "could not decode", "corrupt", "encoding")


class Verified(NamedTuple):
    """A log that is whole: its id, the id of its last event (0: there is none) and its seal."""

    log_id: int
    last: int
    seal: int


def verify(folder: Path) -> Verified | None:
    """Read all of a log, which may be written meanwhile; None for a file without a log yet.

    Nothing in the folder is changed. Raises StoreError where an event is not as it was written,
    where one is missing that was acknowledged, and where the log cannot be read; StoreVersion for a
    log of another version.
    """
    path = folder / FILE
    mark = EndMark.read(folder)  # read before the log, which may grow meanwhile
    with opened(folder) as connection:
        connection.execute("begin")  # so that all reads see the same moment
        if schema.is_empty(connection):
            if mark is not None:
                raise damaged(path, f"it is empty, but {mark.last} events had been written", 0)
            return None
        _check_form(connection, path)
        (log_id,) = connection.execute("select id from log").fetchone()
        if mark is not None and mark.log_id != log_id:  # the mark is of another log
            mark = None
        last, before, seal_at_mark = 0, log_id, log_id
        for row, before in whole_rows(connection):
            last = row[0]
            if mark is not None and last == mark.last:
                seal_at_mark = before
        (count,) = connection.execute("select count(*) from events").fetchone()
        if count != last:
            raise damaged(path, f"event {last + 1} is not as it was written", last)
        if mark is not None and mark.last > last:
            missing = f"events {last + 1} to {mark.last}, which had been written, are missing"
            raise damaged(path, missing, last)
        if mark is not None and mark.last and mark.seal != seal_at_mark:
            raise damaged(path, f"event {mark.last} is not the one that had been written", 0)
        return Verified(log_id, last, before)


def whole_rows(connection: sqlite3.Connection) -> Iterator[tuple[Row, int]]:
    """The events of a log with their seals, up to the first that is not as it was written."""
    ((before,),) = connection.execute("select id from log").fetchall()
    query = "select id, time, kind, trial, attempt, seq, body, seal from events order by id"
    for place, (*row, own) in enumerate(connection.execute(query), start=1):
        before = seal(tuple(row), before)
        if own != before or row[0] != place:
            return
        yield tuple(row), before


@contextlib.contextmanager
def opened(folder: Path) -> Iterator[sqlite3.Connection]:
    """The log of a folder, to be read; each error of SQLite is raised as a StoreError."""
    path = folder / FILE
    for name in (FILE, f"{FILE}-wal", f"{FILE}-shm"):
        if (folder / name).is_symlink():
            raise StoreError(f"the log cannot be read: {link_error(folder / name)}")
        if (folder / name).exists() and not (folder / name).is_file():
            raise StoreError(
                f"the log cannot be read: {folder / name} is no file, but a folder, a pipe or a "
                "device; move it away, or choose another folder"
            )
    try:
        connection = schema.reading(folder)
    except sqlite3.Error as error:
        raise in_words(error, path) from error
    try:
        yield connection
    except sqlite3.Error as error:
        raise in_words(error, path, _number_of_whole(connection)) from error
    finally:
        connection.close()


def _check_form(connection: sqlite3.Connection, path: Path) -> None:
    """Raise StoreError unless the file is a log of this version, StoreVersion for another one."""
    version, recorded = schema.version_of(connection), None
    if connection.execute("select 1 from sqlite_master where name = 'log'").fetchone():
        recorded = [one for (one,) in connection.execute("select version from log")]
    if recorded in (None, [version]):  # (logs of version 1 name their version in one place)
        schema.check_version(version, f"the log {path}")
    (state,) = connection.execute("pragma integrity_check(1)").fetchone()
    if state != "ok":
        raise damaged(path, " ".join(str(state).split()), _number_of_whole(connection))
    if recorded != [version] or not schema.is_intact(connection):
        raise damaged(path, "its tables are not those of a log", _number_of_whole(connection))


def _number_of_whole(connection: sqlite3.Connection) -> int:
    number = 0
    with contextlib.suppress(sqlite3.Error, ValueError):
        for _ in whole_rows(connection):
            number += 1
    return number


def damaged(path: Path, what: str, whole: int) -> StoreError:
    """The error for a damaged log, which says what is wrong, what is whole, and how to keep it."""
    folder = str(path.parent)
    if whole:
        keep = (
            f"Its first {whole} events are whole: distsearch.rescue({folder!r}) goes back to them "
            "and keeps the damaged files beside them; "
        )
    else:
        keep = "None of its events can be trusted; "
    return StoreError(
        f"the log {path} is damaged ({what}); it was left as it is. {keep}"
        f"{called('resume=False')} starts anew, and the whole folder is kept; "
        f"sqlite3 {path} .recover shows what else can be read",
        is_damage=True,
    )


def in_words(error: sqlite3.Error | OSError, path: Path, whole: int = 0) -> StoreError:
    """The StoreError for an error of SQLite: what it means, and what to do about it."""
    if is_damage(error):
        return damaged(path, str(error), whole)
    return StoreError(f"the log {path} cannot be used: {cause(error, path)}")


def is_damage(error: sqlite3.Error | OSError) -> bool:
    """Whether the file is damaged; a full disk or another program's lock are no damage."""
    text = str(error).lower()
    return isinstance(error, sqlite3.Error) and any(word in text for word in DAMAGE)


def is_full(error: BaseException, path: Path) -> bool:
    """Whether an error comes from a full disk."""
    text = str(error).lower()
    if "is full" in text or getattr(error, "errno", None) in (errno.ENOSPC, errno.EDQUOT):
        return True
    with contextlib.suppress(OSError):
        asks_for_space = "i/o error" in text or "unable to open" in text
        return asks_for_space and shutil.disk_usage(path.parent).free < FULL_BYTES
    return False


def cause(error: BaseException, path: Path) -> str:
    """The reason of an error that is no damage, and its remedy."""
    text = str(error)
    if getattr(error, "errno", None) in (errno.EMFILE, errno.ENFILE):
        return TOO_MANY
    if is_full(error, path):
        return f"its disk is full ({text}); the log is as it was: free some space there"
    if "locked" in text:
        return (
            f"another program has locked it ({text}); the log is as it was: end that program "
            f"(`fuser {path}` names it), or wait for it"
        )
    if "unable to open" in text or "readonly" in text or "read-only" in text:
        return f"{_why_not_opened(path) or text}; the log is as it was"
    if "i/o error" in text.lower() and _may_not_grow(path):
        return f"it may not become larger ({text}): allow larger files (`ulimit -f`)"
    if "i/o error" in text.lower():
        return f"its disk does not read or write ({text}); see what the system's log says of it"
    return text


def _why_not_opened(path: Path) -> str:
    # (Not the log: to close the log would free the locks that this process has on it.)
    try:
        with contextlib.ExitStack() as opened:
            for _ in range(FILES):
                opened.enter_context(open(os.devnull, "rb", buffering=0))
    except OSError:
        return TOO_MANY
    for place in (path, path.parent):
        if not place.exists():
            return f"there is no {place}"
        if not os.access(place, os.R_OK | os.W_OK):
            return f"this process may not read and write {place}"
    return ""


def _may_not_grow(path: Path) -> bool:
    """Whether files of the log have nearly the size that a file of this process may have."""
    most, _ = resource.getrlimit(resource.RLIMIT_FSIZE)
    sizes = [file.stat().st_size for file in path.parent.glob(f"{path.name}*")]
    return most != resource.RLIM_INFINITY and max(sizes, default=0) + SOME_BYTES > most
