"""What a function reaches: the globals, classes and modules that it uses; which are the user's.

homes(train_fn)            # names of modules: where what it uses lives, and what it imports
own_files(train_fn)        # those of the user's own: {"helper": "/home/ada/helper.py"}
fingerprint(train_fn)      # a text that changes when the function's code does, or of what it uses
"""

from __future__ import annotations

import dis
import functools
import hashlib
import importlib.util
import inspect
import os
import sys
import sysconfig
import types
from collections.abc import Iterator
from typing import Any

from ..space import Space
from .decorators import TrainFunction

_LIBRARIES = tuple(
    path
    for key in ("stdlib", "platstdlib", "purelib", "platlib")
    if (path := sysconfig.get_path(key))
)
_MOST_THINGS = 2000  # at most so many functions, classes and objects are looked at
_VALUES = (bool, int, float, complex, str, bytes, type(None))
_CONTAINERS = (list, tuple, set, frozenset, dict)
_MOST_ENTRIES = 200  # a container with more entries is data, and not looked into
_READS_GLOBAL = ("LOAD_GLOBAL", "LOAD_NAME", "LOAD_FROM_DICT_OR_GLOBALS")  # the last of Python 3.12
_WAY = 3  # the version of how fingerprints are made: those of other versions are not compared


def is_in_this_package(name: str) -> bool:
    """Whether a module belongs to distsearch."""
    return name.partition(".")[0] == __name__.partition(".")[0]


def is_installed(module: types.ModuleType) -> bool:
    """Whether a module belongs to Python or to an installed package, which each node has itself."""
    if is_in_this_package(module.__name__):
        return True
    file = getattr(module, "__file__", None)
    # (A package without an `__init__.py` has folders and no file; a built-in module has neither.)
    places = getattr(module, "__path__", ()) if file is None else (file,)
    return all(is_of_package(str(place)) for place in places)


def is_of_package(file: str) -> bool:
    """Whether a file lies where packages are installed, of this environment or of one below it."""
    return file.startswith(_LIBRARIES) or any(
        f"{os.sep}{kind}-packages{os.sep}" in file for kind in ("site", "dist")
    )


def is_library(name: str) -> bool:
    """Whether a module, loaded or not, belongs to Python or to an installed package."""
    top = name.partition(".")[0]
    module = sys.modules.get(top)
    if module is not None:  # though it has the name of one of Python's, it may be the user's
        return is_installed(module)
    if top in sys.stdlib_module_names:
        return True
    file = _file_of(top)
    return file is not None and is_of_package(file)


def homes(function: Any) -> set[str]:
    """The modules where what a function uses is defined, and those that it imports when it runs.

    What installed packages use in their turn is not looked at.
    """
    found: set[str] = set()
    itself = inspect.unwrap(function)
    if isinstance(itself, types.FunctionType):
        found.update(_imports_in(itself.__code__))
    for thing in _things(function):
        if isinstance(thing, types.ModuleType):
            found.add(thing.__name__)
        elif isinstance(thing, types.CodeType):
            found.update(_imports_in(thing))
        elif isinstance(thing, types.FunctionType | type):
            found.add(thing.__module__ or "__main__")
        else:
            found.add(type(thing).__module__)
    return found


def own_files(function: Any) -> dict[str, str]:
    """The user's own modules among `homes`, with their files (of a package, its `__init__.py`)."""
    files = {}
    for name in sorted(homes(function) - {"__main__", "builtins"}):
        top = name.partition(".")[0]
        if not (is_in_this_package(name) or is_library(name)) and (file := _file_of(top)):
            files[top] = file
    return files


def fingerprint(function: Any) -> str:
    """A text that changes when the code of a function changes, or the code of what it uses.

    Installed packages, comments and line numbers do not count. Another version of Python gives
    another text.
    """
    digest = hashlib.sha256()
    for thing in _things(function):
        if isinstance(thing, types.FunctionType):
            _add_code(digest, thing.__code__, thing.__doc__)
        elif isinstance(thing, types.ModuleType) and not is_installed(thing):
            _add_file(digest, getattr(thing, "__file__", None))
        elif isinstance(thing, types.CodeType):
            for name in _imports_in(thing):
                if not is_library(name):
                    _add_file(digest, _file_of(name))
        elif isinstance(thing, _VALUES) or type(thing).__module__ == "numpy":
            digest.update(repr(thing).encode())
    return f"{sys.version_info[0]}.{sys.version_info[1]}-{_WAY}:{digest.hexdigest()[:16]}"


def referred(function: types.FunctionType) -> dict[str, Any]:
    """The globals and closed-over variables that a function uses, by name."""
    names: dict[str, Any] = {}
    codes = [function.__code__]
    while codes:
        code = codes.pop()
        # (`co_names` has attributes, too: `args.lr` does not use a global `lr`.)
        read = (one.argval for one in dis.get_instructions(code) if one.opname in _READS_GLOBAL)
        names.update({n: function.__globals__[n] for n in read if n in function.__globals__})
        codes.extend(c for c in code.co_consts if isinstance(c, types.CodeType))
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            names[name] = cell.cell_contents
        except ValueError:
            continue  # not yet bound
    return names


def _things(function: Any) -> Iterator[Any]:
    """A function and all that it uses, each thing once, always in the same order."""
    seen: set[int] = set()
    kept: list[Any] = []  # keeps what is made here alive: its id must stay its own
    waiting = [function]
    while waiting and len(seen) < _MOST_THINGS:
        thing = waiting.pop()
        kept.append(thing)
        if id(thing) in seen:
            continue
        seen.add(id(thing))
        yield thing
        if isinstance(thing, types.CodeType):
            waiting.extend(c for c in thing.co_consts if isinstance(c, types.CodeType))
        elif isinstance(thing, TrainFunction):
            waiting.extend([*_code_in(thing.space), thing.__wrapped__])
        elif isinstance(thing, types.FunctionType | type):
            if _is_own(thing):
                waiting.extend(_parts(thing))
        elif isinstance(thing, _CONTAINERS):
            if len(thing) <= _MOST_ENTRIES:
                waiting.extend(_entries(thing))
        elif isinstance(thing, functools.partial):
            waiting.extend([thing.func, thing.args, thing.keywords])
        elif isinstance(thing, types.MethodType):
            waiting.extend([thing.__func__, thing.__self__])
        elif _is_own(type(thing)):  # an object of the user's own class
            waiting.extend([type(thing), getattr(thing, "__dict__", {})])


def _is_own(thing: Any) -> bool:
    """Whether a function or a class is the user's own."""
    name = thing.__module__ or ""
    module = sys.modules.get(name)
    if is_in_this_package(name):
        return False
    return module is None or not is_installed(module) or name == "__main__"


def _code_in(given: Any) -> Iterator[Any]:
    """The functions and classes among the constants and options of a space."""
    if isinstance(given, types.FunctionType | type):
        yield given
    elif isinstance(given, Space | dict):
        for part in vars(given).values() if isinstance(given, Space) else given.values():
            yield from _code_in(part)
    elif isinstance(given, list | tuple):
        for part in given:
            yield from _code_in(part)
    elif _is_own(type(given)):
        yield type(given)


def _parts(thing: Any) -> Iterator[Any]:
    if isinstance(thing, type):
        yield from thing.__bases__
        for name, value in vars(thing).items():
            if isinstance(value, property):
                yield from (value.fget, value.fset, value.fdel)
            elif isinstance(value, staticmethod | classmethod):
                yield value.__func__
            elif inspect.isfunction(value) or not name.startswith("__"):
                yield value
        return
    yield thing.__code__
    yield from (thing.__defaults__, thing.__kwdefaults__)
    yield getattr(thing, "__wrapped__", None)  # the function inside a decorated one
    yield from referred(thing).values()


def _entries(container: Any) -> Iterator[Any]:
    if isinstance(container, set | frozenset):  # whose order is another one in each process
        yield from sorted((one for one in container if isinstance(one, _VALUES)), key=repr)
        return
    if isinstance(container, dict):
        yield from container.keys()
    yield from container.values() if isinstance(container, dict) else container


def _imports_in(code: types.CodeType) -> Iterator[str]:
    for instruction in dis.get_instructions(code):
        if instruction.opname == "IMPORT_NAME":
            yield str(instruction.argval)


def _file_of(name: str) -> str | None:
    """The file of a module, loaded or not; None if there is none."""
    module = sys.modules.get(name)
    if module is not None:
        return getattr(module, "__file__", None)
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return None
    return spec.origin if spec is not None and spec.has_location else None


def _add_code(digest: Any, code: types.CodeType, doc: str | None = None) -> None:
    digest.update(code.co_code)
    digest.update(repr((code.co_names, code.co_varnames, code.co_freevars)).encode())
    for constant in code.co_consts:
        if isinstance(constant, types.CodeType):
            _add_code(digest, constant)
        elif isinstance(constant, frozenset):  # whose order is another one in each process
            digest.update(repr(sorted(map(repr, constant))).encode())
        elif constant != doc:
            digest.update(repr(constant).encode())


def _add_file(digest: Any, file: str | None) -> None:
    try:
        with open(file or "", encoding="utf-8") as source:
            code = compile(source.read(), "", "exec", dont_inherit=True, optimize=2)
    except (OSError, ValueError, SyntaxError):  # the file is gone, or holds no source
        return
    _add_code(digest, code)
