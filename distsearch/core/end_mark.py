"""The end mark: a line beside the log that says how far it has been acknowledged.

SQLite takes a damaged write-ahead log for a log that ends where the damage begins, so that another
file has to say what is lost. The mark is written after each commit, without waiting for the disk:
it may be behind the log, but is never ahead of it.
"""

from __future__ import annotations

import contextlib
import os
import zlib
from pathlib import Path
from typing import NamedTuple

from ..errors import StoreError
from ..resource.private import private

FILE = "events.end"
SIZE = 80
_MASK = (1 << 64) - 1


class EndMark(NamedTuple):
    """The id of a log, and the id and the seal of its last acknowledged event."""

    log_id: int
    last: int
    seal: int

    @classmethod
    def read(cls, folder: Path) -> EndMark | None:
        """The mark of a folder, if there is one. Raises StoreError when it is damaged."""
        path = folder / FILE
        try:
            with open(path, "rb", opener=private) as file:
                text = file.read(2 * SIZE).rstrip(b"\0 \n")
        except FileNotFoundError:
            return None
        if not text:  # the power went before the text was on the disk
            return None
        try:
            line, _, check = text.rpartition(b" ")
            log_id, last, seal = (int(part, 16) for part in line.split())
            if zlib.crc32(line) == int(check, 16):
                return cls(_signed(log_id), last, _signed(seal))
        except ValueError:
            pass
        raise StoreError(
            f"{path}, which says where the log ends, is damaged; it was left as it is. Delete it "
            "to go on with the log as far as it goes",
            is_damage=True,
        )


class MarkFile:
    """Where the writer of a log keeps its end mark."""

    def __init__(self, folder: Path, log_id: int) -> None:
        self._name = b"%016x" % (log_id & _MASK)
        self._file = os.open(os.devnull, os.O_WRONLY | os.O_CLOEXEC)
        with contextlib.suppress(OSError):  # (that a disk is full the log says itself)
            file = private(folder / FILE, os.O_WRONLY | os.O_CREAT)
            os.dup2(file, self._file, inheritable=False)
            os.close(file)

    def write(self, last: int, seal: int) -> None:
        """Say that the log is acknowledged up to an event."""
        line = b"%s %016x %016x" % (self._name, last, seal & _MASK)
        text = b"%-*s\n" % (SIZE - 1, b"%s %08x" % (line, zlib.crc32(line)))
        with contextlib.suppress(OSError):  # an older mark says less, but nothing wrong
            os.pwrite(self._file, text, 0)

    def close(self) -> None:
        """Close the file."""
        if self._file >= 0:
            os.close(self._file)
            self._file = -1


def _signed(number: int) -> int:
    return number - (1 << 64) if number >> 63 else number
