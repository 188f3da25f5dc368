"""Keeps SQLite's locks on a database, whatever else its process does with the same files.

The locks that SQLite takes are the process's own, and the system frees all of them on a file as
soon as the process closes that file anywhere: a backup, `tar`, a hash of the folder do. The next
program that reads the database then takes itself for the only one: it merges the write-ahead log
into the database, and deletes it. What the process writes after that goes to a deleted file.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import sqlite3
import threading
import time
from pathlib import Path
from typing import NamedTuple

# What a connection holds as long as it is open, in SQLite's file format: first byte, and how many.
DATABASE_LOCK = 0x40000002, 510  # "shared"; who wants to delete the write-ahead log needs all of it
MEMORY_LOCK = 128, 1  # who gets this one for itself takes the shared memory for a leftover
BUSY_S = 5.0
PAUSE_S = 0.005


class File(NamedTuple):
    """One file of the database, as this process has it open."""

    path: Path
    number: int
    lock: tuple[int, int] | None


class Hold:
    """The files of an open database, of a connection that uses a write-ahead log.

        hold = Hold(path)           # after the connection was opened
        connection.execute("insert ...")
        if not hold.renew():
            ...                     # it may have gone to a file that was deleted
        connection.close(); hold.close()

    What was committed when `renew` says True afterwards is in the files that everybody else finds:
    nobody can have been about to delete them at that moment, and who does so later, merges it.
    """

    def __init__(self, database: Path) -> None:
        self._database = database
        self._mutex = threading.Lock()
        self._files: list[File] = []
        memory = database.with_name(f"{database.name}-shm")
        log = database.with_name(f"{database.name}-wal")
        try:
            for path, lock in ((database, DATABASE_LOCK), (memory, MEMORY_LOCK), (log, None)):
                number = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
                self._files.append(File(path, number, lock))
        except FileNotFoundError:  # deleted since it was opened
            self.close()

    def renew(self) -> bool:
        """Take the locks again; whether the files are still those that others find.

        Raises sqlite3.OperationalError when another process has locked them for long.
        """
        with self._mutex:
            for file in self._files:
                _take(file)
            return bool(self._files) and all(map(_is_there, self._files))

    def has_database(self) -> bool:
        """Whether the database itself is where it was."""
        with self._mutex:
            return not self._files or _is_there(self._files[0])

    def close(self) -> None:
        """Let go of the files, once the connection is closed."""
        with self._mutex:
            for file in self._files:
                os.close(file.number)
            self._files = []


def _take(file: File) -> None:
    """Take the lock of a file that this process is believed to have."""
    if file.lock is None:
        return
    start, length = file.lock
    deadline = time.monotonic() + BUSY_S
    while True:
        with contextlib.suppress(BlockingIOError, PermissionError):  # systems call it differently
            fcntl.lockf(file.number, fcntl.LOCK_SH | fcntl.LOCK_NB, length, start)
            return
        if time.monotonic() > deadline:
            raise sqlite3.OperationalError("database is locked")
        time.sleep(PAUSE_S)


def _is_there(file: File) -> bool:
    try:
        return os.path.samestat(os.fstat(file.number), os.stat(file.path))
    except FileNotFoundError:
        return False
