"""The checkpoints that lie on a node, as the driver asks for them: by name, in pieces.

Names are those of the checkpoints' folders, paths those of files in them. A checkpoint never
changes once its manifest is there, so pieces can be read and written in any order.
"""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Generator
from pathlib import Path

MANIFEST = "manifest.json"  # the commit mark of a checkpoint

Data = bytes | bytearray
Piece = tuple[str, int, int]  # a file's path, an offset and a size in bytes


class CheckpointCache:
    """The checkpoints below `trials/N/checkpoints` of a node's folder."""

    def __init__(self, trials: Path) -> None:
        self._trials = trials

    def folder(self, trial: int) -> Path:
        """Where the checkpoints of a trial are."""
        return self._trials / str(int(trial)) / "checkpoints"

    def newest(self, trial: int) -> str | None:
        """The name of a trial's newest whole checkpoint."""
        whole = [path.parent.name for path in self.folder(trial).glob(f"*-step-*/{MANIFEST}")]
        return max(whole, key=lambda name: int(name.partition("-")[0]), default=None)

    def hold(self, trial: int, name: str) -> dict[str, int] | None:
        """Keep a checkpoint readable while its trial may delete it; None: it has done so already.

        Gives its files and their sizes in bytes, the manifest last. What is held is the same files
        under other names (copies where the disk has no links), until `let_go`.
        """
        held = self._held(trial, name)
        shutil.rmtree(held, ignore_errors=True)
        try:
            shutil.copytree(self._inside(trial, name), held, copy_function=link_or_copy)
            files = {
                path.relative_to(held).as_posix(): path.stat().st_size
                for path in sorted(held.rglob("*"))
                if path.is_file()
            }
            files[MANIFEST] = files.pop(MANIFEST)
            return files
        except (OSError, KeyError):
            self.let_go(trial, name)
            if self.manifest(trial, name) is not None:
                raise
            return None

    def let_go(self, trial: int, name: str) -> None:
        """A held checkpoint has been read."""
        shutil.rmtree(self._held(trial, name), ignore_errors=True)

    def manifest(self, trial: int, name: str) -> str | None:
        """The manifest of a checkpoint, which names its files and their sha256; None: not here."""
        try:
            return self._inside(trial, name, MANIFEST).read_text()
        except FileNotFoundError:
            return None

    def read(self, trial: int, name: str, path: str, offset: int, size: int) -> bytes:
        """A piece of a file of a checkpoint that is held."""
        with open(inside(self._held(trial, name), path), "rb") as file:
            file.seek(offset)
            return file.read(size)

    def write(self, trial: int, name: str, path: str, offset: int, data: Data) -> None:
        """Write a piece of a file; the manifest, in one piece, comes last."""
        receive_piece(self._inside(trial, name), path, offset, data)

    def drop(self, trial: int, name: str) -> None:
        """Delete a checkpoint."""
        delete(self._inside(trial, name))

    def _held(self, trial: int, name: str) -> Path:
        return inside(self.folder(trial).parent / "held", name)

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


def receive_piece(checkpoint: Path, path: str, offset: int, data: Data) -> None:
    """Take a piece of a file of a checkpoint; the manifest comes whole, and is there at once."""
    if path != MANIFEST:
        write_piece(inside(checkpoint, path), offset, data)
        return
    unfinished = checkpoint / f".{MANIFEST}.part"
    write_piece(unfinished, 0, data)
    os.replace(unfinished, checkpoint / MANIFEST)


def write_piece(path: Path, offset: int, data: Data) -> None:
    """Write a piece of a file that may not be there yet."""
    path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
    file = os.open(path, os.O_WRONLY | os.O_CREAT, 0o600)
    try:
        rest = memoryview(data)
        while rest:  # a disk that fills up on the way takes what it can, and says nothing
            written = os.pwrite(file, rest, offset)
            rest, offset = rest[written:], offset + written
    finally:
        os.close(file)


def delete(checkpoint: Path) -> None:
    """Delete a checkpoint; its manifest first, so that what a kill leaves is none any more."""
    with contextlib.suppress(FileNotFoundError):
        (checkpoint / MANIFEST).unlink()
    shutil.rmtree(checkpoint, ignore_errors=True)


def pieces(sizes: dict[str, int], piece_bytes: int) -> Generator[Piece, None, None]:
    """The pieces of some files. An empty file has one."""
    for path, size in sizes.items():
        for offset in range(0, max(size, 1), piece_bytes):
            yield path, offset, min(piece_bytes, size - offset)
