"""What `upload_files` takes: files, folders and modules, and the name under which each lands."""

from __future__ import annotations

import importlib.util
import os
import stat
import types
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Union, cast

from ..errors import UploadError

_KINDS = "the path of a file or a folder, or a module"
Source = Union[str, "os.PathLike[str]", types.ModuleType]


def collect(sources: Source | Iterable[Source]) -> dict[str, Path]:
    """The files behind `sources`: {name in the work folder: path here}.

    A relative path keeps its folders, so that `open('data/train.csv')` finds the file there as
    here; an absolute path lands under its last name. A folder brings all that it holds, a module
    its source.

    >>> collect(['data.txt', 'images/', helper])

    Raises UploadError for what does not exist, and for links and devices inside a folder.
    """
    single = isinstance(sources, (str, os.PathLike, types.ModuleType))
    if not single and (isinstance(sources, bytes) or not isinstance(sources, Iterable)):
        raise UploadError(f"{sources!r} cannot be uploaded; give {_KINDS}, or a list of those")
    found: dict[str, Path] = {}
    for source in cast("Iterable[Source]", [sources] if single else sources):
        for name, path in _files_of(source):
            if name in found and found[name] != path:
                raise UploadError(f"{found[name]} and {path} would both land as {name!r}")
            found[name] = path
    return found


def _files_of(source: Source) -> Iterator[tuple[str, Path]]:
    if isinstance(source, types.ModuleType):
        path = _source_of(source)
        name = path.name
    elif not isinstance(source, (str, os.PathLike)):
        raise UploadError(f"{source!r} cannot be uploaded; give {_KINDS}")
    else:
        path = Path(source).expanduser()
        if not path.exists() and path.name == str(source) and str(source).isidentifier():
            spec = importlib.util.find_spec(str(source))
            if spec is not None and spec.origin is not None:
                path = Path(spec.origin)
                path = path.parent if path.name == "__init__.py" else path
        name = _landing_name(path)
    if not path.exists():
        raise UploadError(f"{str(source)!r} cannot be uploaded: there is no such file or folder")
    if path.is_file():
        yield name, path.resolve()
        return
    if not path.is_dir():
        raise UploadError(f"{path} is neither a file nor a folder; only those can be uploaded")
    for inner in sorted(path.rglob("*")):
        mode = inner.lstat().st_mode
        if stat.S_ISLNK(mode) or not (stat.S_ISREG(mode) or stat.S_ISDIR(mode)):
            raise UploadError(f"{inner} is a link or a device; only files and folders travel")
        if stat.S_ISREG(mode) and "__pycache__" not in inner.parts:
            yield f"{name}/{inner.relative_to(path).as_posix()}", inner.resolve()


def _source_of(module: types.ModuleType) -> Path:
    file = getattr(module, "__file__", None)
    if file is None or not file.endswith(".py"):
        raise UploadError(f"module {module.__name__} has no Python source; install it on the nodes")
    path = Path(file)
    return path.parent if path.name == "__init__.py" else path


def _landing_name(path: Path) -> str:
    normal = Path(os.path.normpath(path))
    if normal.is_absolute() or ".." in normal.parts or normal == Path():
        return path.resolve().name
    return normal.as_posix()
