"""Checkpoints of a trial: tensors in safetensors, the rest in JSON, a manifest written last.

A checkpoint is a folder `NNNNNN-step-STEP`, numbered in the order of saving, that holds
`*.safetensors` and `state.json` (or a saved file, or the files of a folder), and `manifest.json`
with the size and sha256 of each. The manifest is the commit mark: without it there is no
checkpoint. Nothing is ever unpickled.
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
import shutil
import sys
import warnings
from collections.abc import Container, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from typing import Any

from ..errors import CheckpointError
from ..resource.cache import MANIFEST, checkpoints, delete, number_of
from ..resource.private import make_folders, make_private, private

KEPT = 2  # the newest, and the one before it in case the newest is damaged
YOUNG_S = 1.0  # checkpoints that are younger may not be in the log yet
OF_AN_ATTEMPT = 1_000_000  # numbers that each attempt has for its checkpoints
LOAD_TRIES = 10
SYNCS_AT_ONCE = 8


def save(
    state: Any,
    folder: Path,
    step: int,
    *,
    attempt: int = 0,
    keep: int = KEPT,
    young: Iterable[str] | None = None,
) -> Path:
    """Write `state` as a new checkpoint below `folder`; return the checkpoint's own folder.

    Older checkpoints are deleted, but for the newest `keep`; with `young`, the names of those that
    the log may not know yet, also but for these and the last one before them.

    `state`: nested dicts, lists and tuples of torch tensors, NumPy arrays, numbers, strings, bytes,
    booleans and None (a `state_dict()` is one), or the path of a file or a folder, which is copied.
    Raises CheckpointError when it cannot be written; the previous checkpoint then stays.
    """
    # Numbered, because an attempt may count its steps anew, and clocks may jump.
    number = 1 + max(map(number_of, folder.glob("*-step-*")), default=0)
    target = folder / name_of(number, step, attempt)
    try:
        manifest = _written(state, target, step)
        unfinished = target / f".{MANIFEST}.part"
        with open(unfinished, "wb", opener=private) as file:
            file.write(json.dumps(manifest).encode())
        _bring_to_disk(files_of(target))
        os.replace(unfinished, target / MANIFEST)
    except BaseException as error:  # StopTrial is one, too
        shutil.rmtree(target, ignore_errors=True)
        if isinstance(error, OSError):
            raise cannot_write(step, str(folder), error) from error
        raise
    delete_all_but_newest(folder, keep, None if young is None else {target.name, *young})
    return target


def name_of(number: int, step: int, attempt: int = 0) -> str:
    """The name of a checkpoint; no attempt gives a name that an earlier attempt has given."""
    return f"{max(number, attempt * OF_AN_ATTEMPT + 1):06d}-step-{step}"


def _of_system(error: Exception) -> Exception:
    """The OSError behind an error of safetensors, whose text alone names it: (os error 28)."""
    number = re.search(r"\(os error (\d+)\)", str(error))
    return error if number is None else OSError(int(number[1]), str(error))


def cannot_write(step: int, where: str, error: BaseException) -> CheckpointError:
    """What a trial is told whose checkpoint failed."""
    return CheckpointError(
        f"the checkpoint of step {step} could not be written to {where}: {error}; "
        "the previous one is still there"
    )


def write(state: Any, target: Path, step: int) -> dict[str, Any]:
    """Write the files of a checkpoint to a new folder; return the manifest that will commit them.

    They are on the disk when this returns. Raises CheckpointError.
    """
    manifest = _written(state, target, step)
    try:
        _bring_to_disk(files_of(target))
    except OSError as error:
        raise cannot_write(step, str(target.parent), error) from error
    return manifest


def _written(state: Any, target: Path, step: int) -> dict[str, Any]:
    """Do what `write` does, but without waiting for the disk."""
    try:
        make_folders(target.parent)
        target.mkdir(mode=0o700)
        if isinstance(state, (str, os.PathLike)):
            kind = _copy(state, target / "files")
        else:
            _write_state(state, target)
            kind = "state"
        make_private(target)
    except CheckpointError:
        raise
    except Exception as error:  # safetensors and torch raise many kinds
        raise cannot_write(step, str(target.parent), error) from _of_system(error)
    files = {path.relative_to(target).as_posix(): _facts(path) for path in files_of(target)}
    return {"step": step, "kind": kind, "files": files}


def _copy(source: str | os.PathLike[str], target: Path) -> str:
    """Copy a file or a folder of the user's; returns whether it is a 'file' or a 'folder'."""
    path = Path(source).expanduser()
    if path.is_dir() and os.fspath(source):  # (an empty path would be the current folder)
        if target.resolve().is_relative_to(path.resolve()):
            raise CheckpointError(
                f"{os.fspath(source)!r} holds the checkpoints themselves; save a folder of its own"
            )
        shutil.copytree(path, target, ignore=_refuse_circle)
        return "folder"
    if not path.is_file():
        raise CheckpointError(
            f"{os.fspath(source)!r} is no file and no folder; save one that is there, or a state"
        )
    target.mkdir()
    shutil.copy2(path, target / path.name)
    return "file"


def _refuse_circle(folder: str, names: list[str]) -> list[str]:
    """Raise CheckpointError where links lead from a folder back to it: a copy would have no end."""
    path = Path(folder)
    own = path.resolve()
    if any(above.resolve() == own for above in path.parents):
        raise CheckpointError(f"{folder!r} leads to a folder around it; delete that link")
    return []


def manifest_of(path: Path) -> dict[str, Any]:
    """The manifest of a checkpoint."""
    manifest: dict[str, Any] = json.loads((path / MANIFEST).read_text())
    return manifest


def size_of(manifest: Mapping[str, Any]) -> int:
    """The bytes of the files that a manifest names."""
    return sum(facts["bytes"] for facts in manifest["files"].values())


def delete_all_but_newest(
    folder: Path, keep: int = KEPT, young: Container[str] | None = None, *, is_over: bool = False
) -> None:
    """Delete all but the newest `keep` checkpoints, and what a kill has left half written.

    `young`: checkpoints of these names stay too, and the last one before them: it may be the newest
    that the log knows, from which the trial goes on if its driver is killed now. When the trial is
    over (`is_over`), and has saved itself, what it has inherited is deleted as well.
    """
    found = checkpoints(folder)
    if is_over:
        found = [path for path in found if number_of(path)] or found
    kept = found[-keep:]
    if young is not None:
        known = [n for n, path in enumerate(found) if path.name not in young]
        kept = found[min(max(known, default=0), max(0, len(found) - keep)) :]
    for old in folder.glob("*-step-*"):
        if old not in kept:
            delete(old)


def load(folder: Path) -> Any:
    """The newest whole checkpoint below a folder, or None.

    A damaged checkpoint is passed over with a warning. What was saved as a file or a folder comes
    back as a `Path`. The trial may save and delete meanwhile; raises CheckpointError when it does
    so faster than a checkpoint can be read.
    """
    for _ in range(LOAD_TRIES):
        for path in reversed(checkpoints(folder)):
            try:
                return read(path, manifest_of(path))
            except DAMAGED as error:
                if not (path / MANIFEST).exists():  # the trial has deleted it, and has a newer one
                    break
                warnings.warn(damaged(path, error), RuntimeWarning, stacklevel=2)
        else:
            return None
    raise CheckpointError(
        f"the checkpoints in {folder} are deleted faster than they can be read; try again, or give "
        "the search a larger keep="
    )


DAMAGED = (OSError, ValueError, KeyError, CheckpointError)


def damaged(path: object, error: Exception) -> str:
    """What is said when a checkpoint is passed over."""
    return f"the checkpoint {path} is damaged ({error}); trying the one before it"


def read(path: Path, manifest: Mapping[str, Any]) -> Any:
    """What was saved in a folder, if it is what the manifest says. Raises one of `DAMAGED`."""
    for name, facts in manifest["files"].items():
        if os.path.isabs(name) or ".." in Path(name).parts or not (path / name).is_file():
            raise CheckpointError(f"{name} is no file of it")
        if _facts(path / name) != facts:
            raise CheckpointError(f"{name} is not what was written")
    if manifest["kind"] == "file":
        (file,) = (path / "files").iterdir()
        return file
    return path / "files" if manifest["kind"] == "folder" else _read_state(path)


def _write_state(state: Any, target: Path) -> None:
    tensors: dict[str, Any] = {}
    plain = _take_out(state, tensors, "state")
    torch_tensors = {key: value for key, value in tensors.items() if _is_torch(value)}
    arrays = {key: value for key, value in tensors.items() if key not in torch_tensors}
    if torch_tensors:
        from safetensors.torch import save_file as save_torch

        # Tensors that share memory cannot be written as they are: each becomes its own.
        whole = {key: value.detach().cpu().contiguous() for key, value in torch_tensors.items()}
        seen: set[int] = set()
        for key, value in whole.items():
            pointer = value.untyped_storage().data_ptr()
            if pointer in seen:
                whole[key] = value.clone()
            seen.add(pointer)
        save_torch(whole, target / "torch.safetensors")
    if arrays:
        from safetensors.numpy import save_file as save_numpy

        save_numpy(arrays, target / "numpy.safetensors")
    with open(target / "state.json", "wb", opener=private) as file:
        file.write(json.dumps(plain).encode())


def _read_state(path: Path) -> Any:
    tensors: dict[str, Any] = {}
    if (path / "torch.safetensors").exists():
        from safetensors.torch import load_file as load_torch

        tensors.update(load_torch(path / "torch.safetensors"))
    if (path / "numpy.safetensors").exists():
        from safetensors.numpy import load_file as load_numpy

        tensors.update(load_numpy(path / "numpy.safetensors"))
    return _put_back(json.loads((path / "state.json").read_text()), tensors)


def _is_torch(value: Any) -> bool:
    torch = sys.modules.get("torch")
    return torch is not None and isinstance(value, torch.Tensor)


def _take_out(value: Any, tensors: dict[str, Any], where: str) -> Any:
    """The state with each tensor replaced by its name; the tensors go into `tensors`."""
    if value is None or (
        isinstance(value, (bool, int, float, str)) and type(value).__module__ == ("builtins")
    ):
        return value
    if isinstance(value, dict):
        if all(isinstance(key, str) and not key.startswith("__") for key in value):
            return {key: _take_out(item, tensors, f"{where}.{key}") for key, item in value.items()}
        pairs = [
            [_take_out(k, tensors, where), _take_out(item, tensors, f"{where}.{k}")]
            for k, item in value.items()
        ]
        return {"__pairs__": pairs}
    if isinstance(value, (list, tuple)):
        items = [_take_out(item, tensors, f"{where}.{n}") for n, item in enumerate(value)]
        return items if isinstance(value, list) else {"__tuple__": items}
    if _is_torch(value):
        if value.device.type == "meta" or str(value.layout) != "torch.strided":
            raise CheckpointError(f"{where} is a tensor of {value.layout} on {value.device.type}")
        if str(value.dtype) == "torch.complex128":
            raise CheckpointError(
                f"{where} is a tensor of complex128; save it as torch.view_as_real"
            )
        name = str(len(tensors))
        tensors[name] = value
        return {"__tensor__": name}
    if isinstance(value, (bytes, bytearray)):
        import numpy as np

        name = str(len(tensors))
        tensors[name] = np.frombuffer(value, np.uint8)
        return {"__bytes__": name}
    numpy = sys.modules.get("numpy")
    if numpy is not None and isinstance(value, (numpy.ndarray, numpy.generic)):
        array = numpy.asarray(value)
        if array.dtype.kind not in "biufc" or array.dtype.char in "gG":  # long doubles
            raise CheckpointError(f"{where} is an array of {array.dtype}; only numbers are saved")
        name = str(len(tensors))
        if array.dtype == numpy.complex128:  # safetensors has no such type
            tensors[name] = numpy.ascontiguousarray(array).reshape(-1).view(numpy.float64)
            return {"__complex__": name, "shape": list(array.shape)}
        tensors[name] = numpy.ascontiguousarray(array).reshape(array.shape)
        return {"__scalar__" if isinstance(value, numpy.generic) else "__tensor__": name}
    raise CheckpointError(
        f"{where} is a {type(value).__qualname__}, which a checkpoint cannot hold without "
        "pickling; save tensors, arrays, numbers, strings, bytes, dicts, lists, or the path of a "
        "file or folder to which its library has written it"
    )


def check(value: Any, where: str) -> None:
    """Raise CheckpointError, which calls the value `where`, for what no checkpoint can hold."""
    _take_out(value, {}, where)


def _put_back(value: Any, tensors: dict[str, Any]) -> Any:
    if isinstance(value, list):
        return [_put_back(item, tensors) for item in value]
    if not isinstance(value, dict):
        return value
    if "__tensor__" in value:
        return tensors[value["__tensor__"]]
    if "__bytes__" in value:
        return tensors[value["__bytes__"]].tobytes()
    if "__complex__" in value:
        return tensors[value["__complex__"]].view(complex).reshape(value["shape"])
    if "__scalar__" in value:
        return tensors[value["__scalar__"]][()]
    if "__tuple__" in value:
        return tuple(_put_back(item, tensors) for item in value["__tuple__"])
    if "__pairs__" in value:
        return {_put_back(k, tensors): _put_back(v, tensors) for k, v in value["__pairs__"]}
    return {key: _put_back(item, tensors) for key, item in value.items()}


def files_of(folder: Path) -> Iterator[Path]:
    """The files below a folder, in order."""
    return (path for path in sorted(folder.rglob("*")) if path.is_file())


def _facts(path: Path) -> dict[str, Any]:
    digest, block = hashlib.sha256(), memoryview(bytearray(1 << 18))
    with open(path, "rb", buffering=0) as file:
        while size := file.readinto(block):
            digest.update(block[:size])
    return {"bytes": path.stat().st_size, "sha256": digest.hexdigest()}


def _bring_to_disk(paths: Iterable[Path]) -> None:
    """Wait until files are on the disk, for all at once: each wait costs a turn of its journal.

    Three files of together 1 MB took four times as long when each was waited for by itself.
    """
    paths = list(paths)
    try:
        with ThreadPoolExecutor(SYNCS_AT_ONCE) as pool:
            list(pool.map(_sync, paths))
    except RuntimeError:  # no more threads are to be had
        for path in paths:
            _sync(path)


def _sync(path: Path) -> None:
    descriptor = os.open(path, os.O_RDONLY)
    try:
        os.fsync(descriptor)
    except OSError as error:
        if error.errno not in (errno.EINVAL, errno.ENOTSUP):  # (some file systems cannot do it)
            raise
    finally:
        os.close(descriptor)


def write_durably(path: Path, data: bytes) -> None:
    """Write a file; it is on the disk when this returns, and nobody sees a part of it."""
    unfinished = path.with_name(f".{path.name}.part")
    with open(unfinished, "wb", opener=private) as file:
        file.write(data)
        file.flush()
        os.fsync(file.fileno())
    os.replace(unfinished, path)
