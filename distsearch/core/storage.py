"""Checkpoints in a folder that all nodes see, or at any fsspec URL: nothing passes the driver.

    STORAGE/EXPERIMENT/distsearch.json             the mark: a node that sees it is at this place
    STORAGE/EXPERIMENT/TRIAL/NNNNNNN-step-STEP/... files, then the manifest, which commits them

Nothing is renamed, and no reader relies on listings: object stores have no rename, and listings may
be old. A checkpoint never changes, no name is given twice, and the driver's log knows which
checkpoints there are: it tells readers their names. Where the storage is a folder, trials write
there in place; elsewhere they write to the node's disk, then send the files, and a copy that a node
has is not fetched again.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
import re
import shutil
import socket
import time
import uuid
import warnings
from collections.abc import Callable, Iterable, Mapping, Sequence
from pathlib import Path
from typing import Any, TypeVar

from ..errors import CheckpointError, MissingPackage, OptionError
from ..resource.cache import MANIFEST, delete
from ..resource.private import make_folders, make_private
from ..space.privacy import is_secret, without_secrets_in_text
from . import checkpoint

T = TypeVar("T")
MISSING_OR_DAMAGED = (FileNotFoundError, ValueError, KeyError, CheckpointError)
MARK = "distsearch.json"
PAUSES_S = (0.05, 0.1, 0.2, 0.4, 0.8, 1.6)  # between looks for a file that was just written
SECRET = re.compile("key|secret|token|passw|jwt|bearer|credential", re.IGNORECASE)


def checked_url(storage: str | os.PathLike[str]) -> str:
    """What `storage=` means: an absolute path or a URL. Raises OptionError, MissingPackage."""
    if not isinstance(storage, (str, os.PathLike)) or not os.fspath(storage):
        raise OptionError(f"storage={storage!r}; give a path or a URL such as 's3://bucket/folder'")
    url = os.fspath(storage)
    if "://" not in url:
        return str(Path(url).expanduser().absolute())
    if without_secrets_in_text(url) != url:
        raise OptionError(
            "storage= holds a password or a token, which would get into the log; leave it out, and "
            "give it to fsspec by the environment or its configuration (~/.config/fsspec)"
        )
    import fsspec

    try:
        fsspec.get_filesystem_class(url.partition("://")[0])
    except ImportError as error:
        raise MissingPackage(f"storage={url!r}: {error}, on every node too") from error
    except ValueError as error:
        raise OptionError(f"storage={url!r}: {error}") from error
    return url.rstrip("/")


class Storage:
    """The part of a storage that belongs to one experiment; `url` names it.

        storage = Storage("s3://bucket/search/train_fn-1a2b3c4d", node="gpu1")
        storage.check()

    Methods raise CheckpointError, which says that `node` cannot do what, where, and why.
    """

    def __init__(self, url: str, node: str = "") -> None:
        from fsspec.core import url_to_fs
        from fsspec.implementations.local import LocalFileSystem

        self.url = url
        self.node = node or socket.gethostname()
        try:
            self._files, root = url_to_fs(url, use_listings_cache=False)
        except Exception as error:
            raise self.cannot("use", error) from None
        self._root = str(root).rstrip("/")
        self.folder = Path(self._root) if type(self._files) is LocalFileSystem else None

    def begin(self) -> None:
        """Write the mark, by which trials know that they see the same place."""
        try:
            self._write(f"{self._root}/{MARK}", b"{}\n")
        except Exception as error:
            raise self.cannot("write to", error) from None

    def check(self) -> None:
        """Raise CheckpointError unless this node sees the mark."""
        try:
            self.patiently(lambda: self._files.cat_file(f"{self._root}/{MARK}"))
        except FileNotFoundError:
            reason = f"there is no {MARK}: it is not mounted there, or another place is"
            raise self.cannot("find", reason) from None
        except Exception as error:
            raise self.cannot("reach", error) from None

    def put(self, trial: int, name: str, source: Path, manifest: Mapping[str, Any]) -> None:
        """Send the files of a checkpoint, unless they were written in place; then its manifest."""
        target = self._path(trial, name)
        if self.folder is None:
            for path in manifest["files"]:
                self._send(str(source / path), f"{target}/{path}")
        self._write(f"{target}/{MANIFEST}", json.dumps(manifest).encode())

    def manifest(self, trial: int, name: str) -> dict[str, Any]:
        """The manifest of a checkpoint, which may take a while until this node sees it."""
        path = f"{self._path(trial, name)}/{MANIFEST}"
        manifest: dict[str, Any] = json.loads(
            self.patiently(lambda: self._files.cat_file(path)).decode()
        )
        for name in manifest["files"]:
            if os.path.isabs(name) or ".." in Path(name).parts:
                raise ValueError(f"its manifest names {name!r}")
        return manifest

    def get(self, trial: int, name: str, target: Path, manifest: Mapping[str, Any]) -> None:
        """Fetch the files of a checkpoint into a new folder."""
        for path in manifest["files"]:
            local = target / path
            make_folders(local.parent)
            remote = f"{self._path(trial, name)}/{path}"
            self.patiently(lambda r=remote, to=local: self._files.get_file(r, str(to)))  # type: ignore[misc]

    def delete(self, trial: int, name: str, files: Iterable[str] = ()) -> None:
        """Delete a checkpoint, its manifest first: what a kill leaves then is no checkpoint.

        `files`: what to delete of a checkpoint that has no manifest.
        """
        folder = self._path(trial, name)
        names = list(files)
        with contextlib.suppress(FileNotFoundError, ValueError, KeyError):
            names = list(json.loads(self._files.cat_file(f"{folder}/{MANIFEST}"))["files"])
        for path in [MANIFEST, *names]:  # (a listing may not know them yet)
            with contextlib.suppress(FileNotFoundError):
                self._files.rm_file(f"{folder}/{path}")
        with contextlib.suppress(FileNotFoundError):
            self._files.rm(folder, recursive=True)

    def names(self, trial: int) -> list[str]:
        """The checkpoints of a trial that a listing shows now, whole or not."""
        self._files.invalidate_cache()
        try:
            found = self._files.ls(f"{self._root}/{int(trial)}", detail=False)
        except FileNotFoundError:
            return []
        return [str(path).rstrip("/").rpartition("/")[2] for path in found]

    def delete_unknown(
        self, last_attempts: Mapping[int, int], known: Mapping[int, Iterable[str]]
    ) -> None:
        """Delete what killed attempts have left: checkpoints that are not `known`.

        `last_attempts`: the last attempt of each trial whose checkpoints are looked at.
        """
        for trial, attempt in last_attempts.items():
            for name in set(self.names(trial)) - set(known.get(trial, ())):
                number = name.partition("-")[0]
                if number.isdigit() and int(number) < (attempt + 1) * checkpoint.OF_AN_ATTEMPT:
                    self.delete(trial, name)

    def place(self, trial: int, name: str) -> Path:
        """The folder of a checkpoint, where the storage is a folder."""
        assert self.folder is not None
        return Path(self._path(trial, name))

    def _path(self, trial: int, name: str) -> str:
        return f"{self._root}/{int(trial)}/{name}"

    def _write(self, path: str, data: bytes) -> None:
        if self.folder is not None:
            make_folders(Path(path).parent)
            checkpoint.write_durably(Path(path), data)
        else:
            self._in_a_folder(path, lambda: self._files.pipe_file(path, data))

    def _send(self, source: str, path: str) -> None:
        self._in_a_folder(path, lambda: self._files.put_file(source, path))

    def _in_a_folder(self, path: str, write: Callable[[], object]) -> None:
        """Write a file; make its folder where the storage has folders."""
        try:
            write()
        except FileNotFoundError:
            self._files.makedirs(path.rpartition("/")[0], exist_ok=True)
            write()

    def patiently(self, read: Callable[[], T]) -> T:
        """Read what must be there, again and again for 3 s: it may have been written just now."""
        for pause_s in PAUSES_S:
            try:
                return read()
            except FileNotFoundError:
                self._files.invalidate_cache()
                time.sleep(pause_s)
        return read()

    def cannot(self, verb: str, why: object) -> CheckpointError:
        """The error that this node cannot do so; raise it `from None`: causes may hold secrets."""
        reason = without_known_secrets(str(why) or repr(why))
        return CheckpointError(f"node {self.node} cannot {verb} the storage {self.url}: {reason}")


class Shelf:
    """Where the reporter of one attempt saves and finds checkpoints, in a storage.

    `own`: the trial's checkpoints that the log knows, the newest first. `parents`: the checkpoints
    of each trial whose weights it inherits, the newest first. `trials` is the folder of the node's
    trials, which holds copies.
    """

    def __init__(
        self,
        url: str,
        node: str,
        trials: Path,
        trial: int,
        attempt: int,
        own: Sequence[str] = (),
        parents: Mapping[int, Sequence[str]] | None = None,
    ) -> None:
        self.trial = trial
        self._url, self._node = url, node
        self._trials = trials
        self._attempt = attempt
        self._own = list(own)
        self._parents = {trial: list(names) for trial, names in (parents or {}).items()}
        self._saved = 0

    def save(self, state: Any, step: int) -> tuple[Path, int]:
        """Write a checkpoint to the storage; returns its folder here, and its size in bytes."""
        self._saved += 1
        name = checkpoint.name_of(
            self._attempt * checkpoint.OF_AN_ATTEMPT + self._saved, step, self._attempt
        )
        in_place = self.storage.folder is not None
        target = self.storage.place(self.trial, name) if in_place else self._copy(self.trial, name)
        try:
            manifest = checkpoint.write(state, target, step)
            self.storage.put(self.trial, name, target, manifest)
        except BaseException as error:  # StopTrial is one, too
            files = [path.relative_to(target).as_posix() for path in checkpoint.files_of(target)]
            shutil.rmtree(target, ignore_errors=True)
            with contextlib.suppress(Exception):
                self.storage.delete(self.trial, name, files)
            if not isinstance(error, Exception) or isinstance(error, CheckpointError):
                raise
            reason = self.storage.cannot("write to", error)
            raise checkpoint.cannot_write(step, self._url, reason) from None
        if not in_place:
            checkpoint.write_durably(target / MANIFEST, json.dumps(manifest).encode())
            checkpoint.delete_all_but_newest(target.parent, 1)
        self._own.insert(0, name)
        return target, checkpoint.size_of(manifest)

    def load(self, parent: int | None = None) -> Any:
        """The newest whole checkpoint of the trial, else of its first parent that has one.

        With `parent`, the newest of that parent.
        """
        places = [(self.trial, self._own), *self._parents.items()]
        if parent is not None:
            places = [(parent, self._parents[parent])]
        for trial, names in places:
            for name in names:
                storage = self.storage
                try:
                    return self._read(trial, name)
                except Exception as error:
                    damage = MISSING_OR_DAMAGED if storage.folder is None else checkpoint.DAMAGED
                    if not isinstance(error, damage):
                        raise storage.cannot("read from", error) from None
                    where = f"{name} of trial {trial} in {self._url}"
                    why = CheckpointError(without_known_secrets(str(error) or repr(error)))
                    warnings.warn(checkpoint.damaged(where, why), RuntimeWarning, stacklevel=3)
            if names:  # all are damaged, and a parent's would be another state
                return None
        return None

    def leave_out_deleted(self) -> None:
        """Pass over older checkpoints of the trial that a listing does not show any more.

        What a trial deletes itself, beyond `keep`, is not logged, and to look for each file would
        take seconds. The newest is looked for in any case, as a listing may not know it yet.
        """
        storage = self.storage
        try:
            seen = set(storage.names(self.trial))
        except Exception as error:
            raise storage.cannot("read from", error) from None
        self._own = self._own[:1] + [name for name in self._own[1:] if name in seen]

    def _read(self, trial: int, name: str) -> Any:
        manifest = self.storage.manifest(trial, name)
        if self.storage.folder is not None:
            where = self.storage.place(trial, name)
            state = self.storage.patiently(lambda: checkpoint.read(where, manifest))
        else:
            where = self._copy(trial, name)
            if not self._is_here(where, manifest):
                self._fetch(trial, name, where, manifest)
            state = checkpoint.read(where, manifest)
        if manifest["kind"] != "folder":
            return state
        own = self._trials / str(self.trial) / "loaded" / f"{trial}-{name}"
        shutil.rmtree(own, ignore_errors=True)
        make_folders(own.parent)
        return Path(shutil.copytree(state, own))  # a copy of the trial's own, which it may change

    def _fetch(self, trial: int, name: str, target: Path, manifest: Mapping[str, Any]) -> None:
        unfinished = target.with_name(f"fetched-{uuid.uuid4().hex}")
        try:
            self.storage.get(trial, name, unfinished, manifest)
            checkpoint.write_durably(unfinished / MANIFEST, json.dumps(manifest).encode())
            make_private(unfinished)
            delete(target)
            unfinished.rename(target)
        except OSError:
            if not self._is_here(target, manifest):  # (another trial may have fetched it)
                raise
        finally:
            shutil.rmtree(unfinished, ignore_errors=True)

    def _is_here(self, copy: Path, manifest: Mapping[str, Any]) -> bool:
        with contextlib.suppress(OSError, ValueError):
            return bool(json.loads((copy / MANIFEST).read_text()) == manifest)
        return False

    def _copy(self, trial: int, name: str) -> Path:
        return self._trials / str(trial) / "checkpoints" / name

    @functools.cached_property
    def storage(self) -> Storage:
        """The storage, once it is sure that this node sees it."""
        storage = Storage(self._url, self._node)
        storage.check()
        return storage


def without_known_secrets(text: str) -> str:
    """A text without the secrets that this process knows: variables, and settings of fsspec."""
    import fsspec

    settings = [item for conf in fsspec.config.conf.values() for item in dict(conf).items()]
    for name, value in [*os.environ.items(), *settings]:
        looks_secret = SECRET.search(str(name)) or is_secret(str(name))
        if isinstance(value, str) and len(value) >= 8 and looks_secret:
            text = text.replace(value, "***")
    return text
