"""Keeps SQLite's locks on a database, whatever else its process does with the same files.

The locks that SQLite takes belong to the process, and the system frees all locks on a file as soon
as the process closes that file anywhere, as a backup, `tar` or a hash of the folder does. The next
program that reads the database then takes itself for the only one: it merges the write-ahead log
into the database, and deletes that log. What the process writes afterwards goes to a deleted file.
"""

from __future__ import annotations

import fcntl
import os
import sqlite3
import threading
import time
from pathlib import Path
from typing import NamedTuple

# Which bytes of its files an open connection locks, in SQLite's file format: the first, how many.
DATABASE_LOCK = 0x40000002, 510  # "shared": to delete the write-ahead log needs all these bytes
MEMORY_LOCK = 128, 1  # a process that has it alone takes the shared memory for a leftover
GONE = FileNotFoundError, NotADirectoryError
BUSY_S = 5.0
PAUSE_S = 0.005
# Two changes of a folder that are closer together than this may get the same time: FAT counts in
# steps of 2 s. Where a time shows that its system counts in finer steps than 10 ms, the clock ticks
# at least that often.
COARSE_NS, FINE_NS = 2_100_000_000, 30_000_000
STEP_NS = 10_000_000


class File(NamedTuple):
    """One file of the database, as this process has it open."""

    name: str
    number: int
    inode: int  # no other file gets this number while the file is open here
    lock: tuple[int, int] | None


class Hold:
    """The files of an open database, of a connection that uses a write-ahead log.

        hold = Hold(path)           # after the connection was opened
        hold.take()
        connection.execute("insert ...")
        if not hold.renew():
            ...                     # the row may be in a file that was deleted
        connection.close(); hold.close()

    When `renew` says True after a commit, the commit is in the files that all others find: no other
    process was about to delete the write-ahead log then, and one that does so later merges it.
    """

    def __init__(self, database: Path) -> None:
        self._database = database
        self._mutex = threading.Lock()
        self._files: list[File] = []
        # The folder's inode and change time when all files were in it.
        self._seen: tuple[int, int] | None = None
        memory = database.with_name(f"{database.name}-shm")
        log = database.with_name(f"{database.name}-wal")
        try:
            for path, lock in ((database, DATABASE_LOCK), (memory, MEMORY_LOCK), (log, None)):
                number = os.open(path, os.O_RDONLY | os.O_CLOEXEC)
                self._files.append(File(path.name, number, os.fstat(number).st_ino, lock))
        except FileNotFoundError:  # a file was deleted since the connection was opened
            self.close()

    def take(self) -> None:
        """Take the locks again.

        Raises sqlite3.OperationalError when another process has locked the files for long.
        """
        with self._mutex:
            for file in self._files:
                _take(file)

    @property
    def is_empty(self) -> bool:
        """Whether no file is held: they were gone, or could not be opened."""
        return not self._files

    def renew(self) -> bool:
        """Take the locks again; whether the files are still those that others find.

        Raises sqlite3.OperationalError as `take` does.
        """
        self.take()
        with self._mutex:
            return bool(self._files) and self._are_there()

    def has_database(self) -> bool:
        """Whether the database itself is where it was."""
        return self._has(self._database.name)

    def has_log(self) -> bool:
        """Whether the write-ahead log is where it was."""
        return self._has(f"{self._database.name}-wal")

    def _has(self, name: str) -> bool:
        with self._mutex:
            there = self._inodes()
            return all(there.get(name) == file.inode for file in self._files if file.name == name)

    def _are_there(self) -> bool:
        """Whether all the files are where they were.

        The change time of their folder (ctime, which nobody can set, while backups put back mtime)
        tells whether a file has come or gone there. (To ask for the times of the files themselves
        makes each commit a third dearer: since Linux 6.13 a file whose time was asked for gets a
        new one with each write.)
        """
        try:
            about = os.stat(self._database.parent)
        except GONE:
            return False
        state = about.st_ino, about.st_ctime_ns
        if state == self._seen:
            return True
        there = self._inodes()
        are_there = all(there.get(file.name) == file.inode for file in self._files)
        apart_ns = FINE_NS if about.st_ctime_ns % STEP_NS else COARSE_NS
        # (Another change within the same tick of its clock would not be seen.)
        is_old = time.time_ns() - about.st_ctime_ns > apart_ns
        self._seen = state if are_there and is_old else None
        return are_there

    def _inodes(self) -> dict[str, int]:
        """The inodes of what is in the folder, by their names."""
        try:
            with os.scandir(self._database.parent) as entries:
                return {entry.name: entry.inode() for entry in entries}
        except GONE:
            return {}

    def close(self) -> None:
        """Close the files; to be called once the connection is closed."""
        with self._mutex:
            for file in self._files:
                os.close(file.number)
            self._files = []


def _take(file: File) -> None:
    """Take the lock of a file again, which this process believes to have."""
    if file.lock is None:
        return
    start, length = file.lock
    deadline: float | None = None
    while True:
        try:
            fcntl.lockf(file.number, fcntl.LOCK_SH | fcntl.LOCK_NB, length, start)
            return
        except (BlockingIOError, PermissionError):  # (systems differ in which they raise)
            deadline = deadline or time.monotonic() + BUSY_S
            if time.monotonic() > deadline:
                raise sqlite3.OperationalError("database is locked") from None
        time.sleep(PAUSE_S)
