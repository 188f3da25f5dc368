"""Standard output that a full disk does not stop: what does not fit is lost, which it says.

A trial should not fail because it prints. What trials print goes to a file in the experiment's
folder, and else each `print` would raise while that disk is full.
"""

from __future__ import annotations

import contextlib
import errno
import io
import sys
from typing import Any

from .lacks import NO_SPACE

# How this program writes to its output: Python has that from PYTHONIOENCODING and the locale.
_FORMS = {
    number: (getattr(text, "encoding", None), getattr(text, "errors", None))
    for number, text in ((1, sys.__stdout__), (2, sys.__stderr__))
}
_LOST_TOO = (*NO_SPACE, errno.EIO, errno.ESTALE)  # (a disk that fails, or is gone)


class PatientFile(io.FileIO):
    """A file that takes all that is written to it, though not all may get onto the disk."""

    def __init__(self, descriptor: int) -> None:
        super().__init__(descriptor, "w", closefd=False)
        self._lost = 0

    def write(self, data: Any) -> int:
        """Write the bytes, or drop and count them; once there is room, write how many were lost."""
        try:
            if self._lost:
                super().write(f"\n[{self._lost} bytes of output were lost: no space]\n".encode())
                self._lost = 0
            return super().write(data) or 0
        except OSError as error:
            if error.errno not in _LOST_TOO:
                raise
            self._lost += len(data)
            return len(data)


def stream(descriptor: int) -> io.TextIOWrapper:
    """A text stream to standard output (1) or standard error (2), which is written line by line."""
    encoding, own_errors = _FORMS.get(descriptor, (None, None))
    raw = PatientFile(descriptor)
    raw.name = {1: "<stdout>", 2: "<stderr>"}.get(descriptor, descriptor)  # (Python's names)
    errors = own_errors or ("backslashreplace" if descriptor == 2 else None)
    return io.TextIOWrapper(io.BufferedWriter(raw), encoding, errors, line_buffering=True)


def make_patient() -> None:
    """Let standard output and error of this process and its forked children be patient files."""
    for descriptor, name in ((1, "stdout"), (2, "stderr")):
        with contextlib.suppress(OSError):  # there is no such descriptor
            made = stream(descriptor)
            setattr(sys, name, made)
            setattr(sys, f"__{name}__", made)
