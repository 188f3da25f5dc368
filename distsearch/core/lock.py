"""The lock of an experiment's folder: one driver at a time has it, and only then looks inside.

The lock ends with its process, in whatever way that ends: forked processes do not keep it.
"""

from __future__ import annotations

import contextlib
import errno
import fcntl
import os
import socket
import time
import weakref
from pathlib import Path

from ..errors import StoreError, StoreLocked
from ..resource.private import private
from .phrases import called
from .verify import cause

FILE = "lock"
TRIES, BETWEEN_S = 5, 0.01  # `holder` takes the lock for a moment, too
_NO_LOCKS = (errno.ENOLCK, errno.ENOSYS, errno.EOPNOTSUPP)
_held: weakref.WeakSet[Lock] = weakref.WeakSet()


class Lock:
    """The right to write to a folder, which is made if need be.

        lock = Lock(folder)     # now nobody else writes there
        lock.release()

    `there`: the names of what was in the folder before.

    Raises StoreLocked, which names the process that has the lock; StoreError where the folder
    cannot be locked.
    """

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.path = folder / FILE
        self._made = [one for one in (folder, *folder.parents) if not one.exists()]
        try:
            self.there = frozenset(os.listdir(folder) if folder.exists() else ())
            self._file = self._take()
        except OSError as error:
            raise StoreError(
                f"the folder {folder} cannot be taken: {_remedy(error, folder)}"
            ) from error
        _held.add(self)
        with contextlib.suppress(OSError):  # on a full disk nobody learns who has the lock
            os.ftruncate(self._file, 0)
            os.pwrite(self._file, f"process {os.getpid()} on {socket.gethostname()}".encode(), 0)

    def _take(self) -> int:
        while True:
            self.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            try:
                file = private(self.path, os.O_RDWR | os.O_CREAT)
            except FileNotFoundError:  # another driver has just put the folder aside
                continue
            try:
                self._lock(file)
                # The file may have been put aside, or deleted, between opening and locking.
                if self._is_at_its_path(file):
                    if os.fstat(file).st_nlink <= 1:
                        return file
                    self.path.unlink()  # it is a file of somebody, too, by another name
            except BaseException:
                os.close(file)
                raise
            os.close(file)

    def _lock(self, file: int) -> None:
        for _ in range(TRIES):
            with contextlib.suppress(BlockingIOError):
                fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
                return
            time.sleep(BETWEEN_S)
        is_own = any(os.path.sameopenfile(lock._file, file) for lock in _held)
        raise StoreLocked(_who(self.folder, _named_in(file), is_own=is_own))

    def _is_at_its_path(self, file: int) -> bool:
        try:
            return os.path.samestat(os.fstat(file), os.lstat(self.path))
        except FileNotFoundError:
            return False

    def check(self) -> None:
        """Raise StoreError where another folder has come to the place of the one that is locked."""
        if not self._is_at_its_path(self._file):
            raise StoreError(
                f"the folder {self.folder} was moved away, or replaced by another one, while its "
                "search was being opened; start again when it is where it belongs"
            )

    def release(self, *, unused: bool = False) -> None:
        """Let another driver have the folder; an `unused` folder is left as it was found."""
        if unused and self in _held:
            with contextlib.suppress(OSError):  # somebody may have put something into it
                if FILE not in self.there:
                    self.path.unlink()
                for made in self._made:
                    made.rmdir()
        if self in _held:
            _held.discard(self)
            fcntl.flock(self._file, fcntl.LOCK_UN)  # also for processes that C code has forked
            os.close(self._file)

    def forget(self) -> None:
        """In a forked child: close the file; the parent keeps the lock."""
        os.close(self._file)


def holder(folder: Path) -> str | None:
    """The process that has a folder now, as 'process 7 on gpu1'; None when no process has it.

    Raises StoreError where that cannot be known.
    """
    try:
        file = private(folder / FILE, os.O_RDONLY)
    except FileNotFoundError:
        return None
    except OSError as error:
        raise StoreError(f"{folder / FILE} cannot be looked at: {error}") from error
    try:
        fcntl.flock(file, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        return _named_in(file)
    except OSError as error:
        raise StoreError(f"{folder / FILE}: {_remedy(error, folder)}") from error
    finally:
        os.close(file)
    return None


def _named_in(file: int) -> str:
    return os.pread(file, 200, 0).decode(errors="replace").strip() or "another process"


def _who(folder: Path, holder: str, *, is_own: bool) -> str:
    text = f"the experiment in {folder} is being run by {holder}"
    if is_own:
        return (
            f"{text}: that is this very process, in which an earlier scheduler still has it. Call "
            "close() on that one, or use it in a `with` block (in a notebook: before the cell runs "
            "again)"
        )
    return f"{text}; wait for it, end it, or give this search another name"


def _remedy(error: OSError, folder: Path) -> str:
    if error.errno in _NO_LOCKS:
        return (
            f"its disk gives no locks ({error.strerror}), without which two drivers could write to "
            f"one log; choose a folder on another disk ({called('checkpoint=')}), or have locks "
            "turned on there "
            "(NFS: lockd)"
        )
    return cause(error, folder / FILE)


def _forget_all() -> None:
    """Close, in a forked child, its parent's lock files: open, they would hold the locks."""
    for lock in list(_held):
        _held.discard(lock)
        lock.forget()


os.register_at_fork(after_in_child=_forget_all)
