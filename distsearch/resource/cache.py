"""The checkpoints on a node's disk, which the driver asks for by name, and reads in pieces.

A name is that of a checkpoint's folder, a path that of a file in it. A checkpoint never changes
once its manifest is there, so pieces can be read and written in any order.
"""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import shutil
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from pathlib import Path
from typing import NamedTuple

from .private import FOLDER_MODE, make_folders, private

MANIFEST = "manifest.json"  # the commit mark of a checkpoint
UNFINISHED_MANIFEST = f".{MANIFEST}.part"
RETURNED = "returned"  # the folder, beside `checkpoints`, for what a train function has returned
COPY_S = 10.0  # where a disk has no links, one call of `hold` copies for so long
BLOCK_BYTES = 1 << 20
INHERIT_TRIES = 10
LIST_TRIES = 100

Data = bytes | bytearray


class Piece(NamedTuple):
    """A piece of a file of a checkpoint: the file's path, where the piece begins, its bytes."""

    path: str
    offset: int
    size: int
    is_last: bool  # whether the file ends with this piece

    @property
    def lands_as(self) -> str:
        """The path under which the piece is written: a manifest gets its name when it is whole."""
        is_unfinished = self.path == MANIFEST and not self.is_last
        return UNFINISHED_MANIFEST if is_unfinished else self.path


def returned_by(trial: int) -> int:
    """The number for `CheckpointCache` under which the value that a trial returned is kept."""
    return -1 - trial


class CheckpointCache:
    """The checkpoints below `trials/N/checkpoints` of a node's folder; see also `returned_by`."""

    def __init__(self, trials: Path) -> None:
        self._trials = trials

    def folder(self, trial: int) -> Path:
        """The folder of a trial's checkpoints."""
        if trial < 0:
            return self._trials / str(returned_by(trial)) / RETURNED
        return self._trials / str(int(trial)) / "checkpoints"

    def newest(self, trial: int) -> str | None:
        """The name of a trial's newest whole checkpoint."""
        found = checkpoints(self.folder(trial))
        return found[-1].name if found else None

    def begin(
        self, trial: int, step: int | None, parents: Sequence[tuple[int, int | None]]
    ) -> list[str]:
        """Put the checkpoints in place with which all ranks of an attempt begin; their names.

        What the trial saved after the checkpoint of `step` is deleted, see `delete_newer`. Where
        nothing is left, it gets the checkpoint of the first parent that has one (`parents` has, for
        each, the id of the trial whose weights stand for it). The trial's newest lies below
        `begins_with`, too, where it stays while the attempt saves and deletes; those of parents lie
        below `parents`. The names are in this order.
        """
        own = self.folder(trial)
        kept = own.parent / "begins_with"
        shutil.rmtree(kept, ignore_errors=True)
        if own.is_dir():
            delete_newer(own, step)
        sources = {parent: self._trials / str(int(n)) for parent, n in parents if n is not None}
        inherit(own, list(sources.values()))
        inherit(kept, [own.parent])
        folders = [own]
        for parent, source in sources.items():
            folders.append(own.parent / "parents" / str(int(parent)))
            inherit(folders[-1], [source])
        return [found[-1].name for folder in folders if (found := checkpoints(folder))]

    def hold(self, trial: int, name: str) -> dict[str, int] | None:
        """Keep a checkpoint readable until `release`, though its trial may delete it.

        Returns its files with their sizes in bytes, the manifest last; None if it is deleted
        already. The files get second names (links), or are copied where the disk has no links; {}
        says that the call has copied for `COPY_S`, and is to be repeated.
        """
        checkpoint, held = self._inside(trial, name), self._held(trial, name)
        deadline = time.monotonic() + COPY_S
        try:
            files = {
                path.relative_to(checkpoint).as_posix(): path.stat().st_size
                for path in sorted(checkpoint.rglob("*"))
                if path.is_file()
            }
            # (A deletion begins with the manifest: if that is still there when all else is held,
            # nothing is missing.)
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
        """Keep a checkpoint no longer that `hold` has kept."""
        shutil.rmtree(self._held(trial, name), ignore_errors=True)

    def has(self, trial: int, name: str, sha256: str) -> bool:
        """Whether a checkpoint is here whose manifest has this sha256.

        Then it is the same checkpoint, as a manifest has the sha256 of every file.
        """
        try:
            manifest = self._inside(trial, name, MANIFEST).read_bytes()
        except FileNotFoundError:
            return False
        return hashlib.sha256(manifest).hexdigest() == sha256

    def read(self, trial: int, name: str, path: str, offset: int, size: int) -> bytes:
        """A piece of a file of a checkpoint that `hold` keeps."""
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
    """A path below a folder, of parts that another machine has sent; ValueError if it leads out."""
    path = folder.joinpath(*parts)
    if ".." in path.parts or not path.resolve().is_relative_to(folder.resolve()):
        raise ValueError(f"{'/'.join(parts)!r} is not below the checkpoints")
    return path


def link_or_copy(source: str, target: str) -> None:
    """Give a file a second name; copy it where that cannot be."""
    try:
        os.link(source, target)
    except OSError:
        shutil.copy2(source, target)


def _is_held(source: Path, target: Path, deadline: float) -> bool:
    """Link a file, or copy it, or go on with a copy; whether it is whole by the deadline."""
    if target.exists() and target.stat().st_size == source.stat().st_size:
        return True
    make_folders(target.parent)
    with contextlib.suppress(OSError):  # (no links here, or a copy has begun)
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
    """Write a piece to where it lands (`Piece.lands_as`); a manifest gets its name at the end."""
    if path != MANIFEST:
        write_piece(inside(checkpoint, path), offset, data)
        return
    unfinished = checkpoint / UNFINISHED_MANIFEST
    write_piece(unfinished, offset, data)
    os.truncate(unfinished, offset + len(data))  # (a broken copy may have left more)
    os.replace(unfinished, checkpoint / MANIFEST)


def write_piece(path: Path, offset: int, data: Data) -> None:
    """Write a piece of a file that may not be there yet."""
    make_folders(path.parent)
    file = private(path, os.O_WRONLY | os.O_CREAT)
    try:
        rest = memoryview(data)
        while rest:  # (a disk that fills up takes a part, and raises nothing)
            written = os.pwrite(file, rest, offset)
            rest, offset = rest[written:], offset + written
    finally:
        os.close(file)


def delete(checkpoint: Path) -> None:
    """Delete a checkpoint, its manifest first: what a kill leaves then is no checkpoint."""
    with contextlib.suppress(FileNotFoundError):
        (checkpoint / MANIFEST).unlink()
    shutil.rmtree(checkpoint, ignore_errors=True)


def pieces(
    sizes: Mapping[str, int], piece_bytes: Callable[[], int]
) -> Generator[Piece, None, None]:
    """The pieces of files, of `piece_bytes()` at that moment; an empty file has one piece."""
    for path, size in sizes.items():
        offset, is_last = 0, False
        while not is_last:
            some = min(piece_bytes(), size - offset)
            is_last = offset + some == size
            yield Piece(path, offset, some, is_last)
            offset += some


def checkpoints(folder: Path) -> list[Path]:
    """The committed checkpoints below a folder, oldest first; a trial may save and delete there."""
    names = _saved_in(folder)
    for _ in range(LIST_TRIES):
        whole = [name for name in names if os.path.exists(f"{folder}/{name}/{MANIFEST}")]
        if whole or not names:
            break
        before, names = names, _saved_in(folder)
        if names == before:  # else the trial has deleted what was seen first, and saved another
            break
    return sorted((folder / name for name in whole), key=number_of)


def _saved_in(folder: Path) -> set[str]:
    """The names of the checkpoints below a folder, committed or not."""
    # (`glob` would take several times as long, and short trials look often.)
    with contextlib.suppress(FileNotFoundError, NotADirectoryError, PermissionError):
        return {name for name in os.listdir(folder) if "-step-" in name}
    return set()


def delete_newer(folder: Path, step: int | None) -> None:
    """Delete the checkpoints that were saved after the one of `step`; all of them if it is None.

    Unless that would leave none. A trial that starts again goes on from the last checkpoint that
    the log knows: a later one may hold epochs whose reports were lost with the driver or the node.
    """
    found = checkpoints(folder)
    known = [] if step is None else up_to(found, step) or found[:1]
    for path in found[len(known) :]:
        delete(path)


def up_to(found: Sequence[Path], step: int) -> Sequence[Path]:
    """The checkpoints of a trial up to the one of `step`, the oldest first."""
    steps = [int(path.name.rpartition("-")[2]) for path in found]
    # (That one may be missing; inherited checkpoints, the oldest, have steps of their own.)
    places = [n for n, one in enumerate(steps) if one == step] or [
        n for n, one in enumerate(steps) if one < step
    ]
    return found[: max(places, default=-1) + 1]


def inherit(folder: Path, sources: Sequence[Path]) -> None:
    """Give a trial without a checkpoint the newest one of the first source that has any.

    `sources` are the folders of trials, which may save and delete meanwhile. So the trial gets
    files of its own: links to files that nobody writes again, copies of a folder that was saved.
    """
    if checkpoints(folder):
        return
    for source in sources:
        for _ in range(INHERIT_TRIES):
            found = checkpoints(source / "checkpoints")
            if not found:
                break
            unfinished = folder / "inherited"
            try:
                if (found[-1] / "files").exists():
                    shutil.copytree(found[-1], unfinished)
                else:
                    _link_all(found[-1], unfinished)
                names = json.loads((unfinished / MANIFEST).read_text())["files"]
                if all((unfinished / name).exists() for name in names):
                    # The trial's oldest, whatever number the source had given it.
                    unfinished.rename(folder / f"000000-{found[-1].name.partition('-')[2]}")
                    return
            except (OSError, ValueError):  # the trial has deleted it, and has a newer one
                pass
            shutil.rmtree(unfinished, ignore_errors=True)


def _link_all(source: Path, target: Path) -> None:
    """Link the files of a folder, which has no folders inside, into a new folder."""
    make_folders(target.parent)
    target.mkdir(FOLDER_MODE)
    for name in os.listdir(source):
        link_or_copy(f"{source}/{name}", f"{target}/{name}")


def number_of(path: Path) -> int:
    """The number of a checkpoint: of a trial's checkpoints the newer one has the larger number."""
    return int(path.name.partition("-")[0])
