"""The checkpoints that lie on a node, as the driver asks for them: by name, in pieces.

Names are those of the checkpoints' folders, paths those of files in them. A checkpoint never
changes once its manifest is there, so pieces can be read and written in any order.
"""

from __future__ import annotations

import contextlib
import hashlib
import os
import shutil
import time
from collections.abc import Callable, Generator, Mapping
from pathlib import Path
from typing import NamedTuple

from .private import make_folders, private

MANIFEST = "manifest.json"  # the commit mark of a checkpoint
UNFINISHED_MANIFEST = f".{MANIFEST}.part"
RETURNED = "returned"  # the folder, beside `checkpoints`, for what a train function has returned
COPY_S = 10.0  # so long one call of `hold` copies, where a disk has no links
BLOCK_BYTES = 1 << 20

Data = bytes | bytearray


class Piece(NamedTuple):
    """A piece of a file of a checkpoint: its path there, where it begins, its size in bytes."""

    path: str
    offset: int
    size: int
    is_last: bool  # whether the file ends with this piece

    @property
    def lands_as(self) -> str:
        """The path under which it is to be written: a manifest has its name once it is whole."""
        is_unfinished = self.path == MANIFEST and not self.is_last
        return UNFINISHED_MANIFEST if is_unfinished else self.path


def returned_by(trial: int) -> int:
    """The number under which a cache finds what a trial has returned, kept as a checkpoint is."""
    return -1 - trial


class CheckpointCache:
    """The checkpoints below `trials/N/checkpoints` of a node's folder; see also `returned_by`."""

    def __init__(self, trials: Path) -> None:
        self._trials = trials

    def folder(self, trial: int) -> Path:
        """Where the checkpoints of a trial are."""
        if trial < 0:
            return self._trials / str(returned_by(trial)) / RETURNED
        return self._trials / str(int(trial)) / "checkpoints"

    def newest(self, trial: int) -> str | None:
        """The name of a trial's newest whole checkpoint."""
        whole = [path.parent.name for path in self.folder(trial).glob(f"*-step-*/{MANIFEST}")]
        return max(whole, key=lambda name: int(name.partition("-")[0]), default=None)

    def hold(self, trial: int, name: str) -> dict[str, int] | None:
        """Keep a checkpoint readable while its trial may delete it; None: it has done so already.

        Gives its files and their sizes in bytes, the manifest last. What is held is the same files
        under other names, until `release`. Where the disk has no links they are copies; {} says
        that a call has copied for `COPY_S` and is to be repeated.
        """
        checkpoint, held = self._inside(trial, name), self._held(trial, name)
        deadline = time.monotonic() + COPY_S
        try:
            files = {
                path.relative_to(checkpoint).as_posix(): path.stat().st_size
                for path in sorted(checkpoint.rglob("*"))
                if path.is_file()
            }
            # Who deletes a checkpoint begins with the manifest: if it is still there when all else
            # is held, nothing was missing.
            files[MANIFEST] = files.pop(MANIFEST)
            for path in files:
                if not _is_held(checkpoint / path, held / path, deadline):
                    return {}
            return files
        except (OSError, KeyError):
            self.release(trial, name)
            if (checkpoint / MANIFEST).exists():
                raise
            return None

    def release(self, trial: int, name: str) -> None:
        """Keep a held checkpoint no longer: it has been read."""
        shutil.rmtree(self._held(trial, name), ignore_errors=True)

    def has(self, trial: int, name: str, sha256: str) -> bool:
        """Whether a checkpoint is here that has the manifest with this sha256.

        That is the very same one, as a manifest has the sha256 of every file.
        """
        try:
            manifest = self._inside(trial, name, MANIFEST).read_bytes()
        except FileNotFoundError:
            return False
        return hashlib.sha256(manifest).hexdigest() == sha256

    def read(self, trial: int, name: str, path: str, offset: int, size: int) -> bytes:
        """A piece of a file of a checkpoint that is held."""
        with open(inside(self._held(trial, name), path), "rb") as file:
            file.seek(offset)
            return file.read(size)

    def write(self, trial: int, name: str, path: str, offset: int, data: Data) -> None:
        """Write a piece of a file; the last piece of the manifest comes after all others."""
        receive_piece(self._inside(trial, name), path, offset, data)

    def delete(self, trial: int, name: str) -> None:
        """Delete a checkpoint."""
        delete(self._inside(trial, name))

    def _held(self, trial: int, name: str) -> Path:
        folder = self.folder(trial)
        return inside(folder.parent / "held" / folder.name, name)

    def _inside(self, trial: int, *parts: str) -> Path:
        return inside(self.folder(trial), *parts)


def inside(folder: Path, *parts: str) -> Path:
    """A path below a folder, made of what another machine has sent. Raises ValueError otherwise."""
    path = folder.joinpath(*parts)
    if ".." in path.parts or not path.resolve().is_relative_to(folder.resolve()):
        raise ValueError(f"{'/'.join(parts)!r} is not below the checkpoints")
    return path


def link_or_copy(source: str, target: str) -> None:
    """Give a file another name; copy it to another file system, or to one without links."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def _is_held(source: Path, target: Path, deadline: float) -> bool:
    """Link a file, or copy it, or go on copying it; whether the target is whole in time."""
    if target.exists() and target.stat().st_size == source.stat().st_size:
        return True
    make_folders(target.parent)
    with contextlib.suppress(OSError):  # no links here, or the copy has been begun
        os.link(source, target)
        return True
    with open(source, "rb") as original, open(target, "ab", opener=private) as copy:
        original.seek(copy.tell())
        while block := original.read(BLOCK_BYTES):
            copy.write(block)
            if time.monotonic() > deadline:
                return False
    return True


def receive_piece(checkpoint: Path, path: str, offset: int, data: Data) -> None:
    """Write a piece to where it lands (`Piece.lands_as`); a manifest is there at once."""
    if path != MANIFEST:
        write_piece(inside(checkpoint, path), offset, data)
        return
    unfinished = checkpoint / UNFINISHED_MANIFEST
    write_piece(unfinished, offset, data)
    os.truncate(unfinished, offset + len(data))  # what a broken copy has left of it may be longer
    os.replace(unfinished, checkpoint / MANIFEST)


def write_piece(path: Path, offset: int, data: Data) -> None:
    """Write a piece of a file that may not be there yet."""
    make_folders(path.parent)
    file = private(path, os.O_WRONLY | os.O_CREAT)
    try:
        rest = memoryview(data)
        while rest:  # a disk that fills up meanwhile takes what it can, and raises nothing
            written = os.pwrite(file, rest, offset)
            rest, offset = rest[written:], offset + written
    finally:
        os.close(file)


def delete(checkpoint: Path) -> None:
    """Delete a checkpoint; its manifest first, so that what a kill leaves is none any more."""
    with contextlib.suppress(FileNotFoundError):
        (checkpoint / MANIFEST).unlink()
    shutil.rmtree(checkpoint, ignore_errors=True)


def pieces(
    sizes: Mapping[str, int], piece_bytes: Callable[[], int]
) -> Generator[Piece, None, None]:
    """The pieces of some files, each as large as `piece_bytes` says then; an empty file has one."""
    for path, size in sizes.items():
        offset, is_last = 0, False
        while not is_last:
            some = min(piece_bytes(), size - offset)
            is_last = offset + some == size
            yield Piece(path, offset, some, is_last)
            offset += some
