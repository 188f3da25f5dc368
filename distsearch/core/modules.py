"""Modules that trials import and a node lacks: which these are, and what installs them there."""

from __future__ import annotations

import ast
import importlib.util
import os
import re
import sys
from collections.abc import Collection
from pathlib import Path

from ..errors import OptionError
from .travel import Packed

_NOT_FOUND = re.compile(r"ModuleNotFoundError: No module named '(\w+)")


def needed(packed: Packed) -> list[str]:
    """The top names of the modules that a node has to have for the trials of a function."""
    tops = {name.partition(".")[0] for name in packed.modules} | packed.own.keys()
    return sorted(tops - sys.stdlib_module_names)


def of_packages(packed: Packed) -> list[str]:
    """The top names of the modules of installed packages among those that are `needed`."""
    return sorted({name.partition(".")[0] for name in packed.modules} - sys.stdlib_module_names)


def imported_by(script: str | os.PathLike[str]) -> list[str]:
    """The top names of the modules of packages that a script imports, also through files beside it.

        imported_by("train.py") == ["numpy", "torch"]

    The script is read, not run. Modules that this machine lacks are left out: a script that works
    here does without them. Raises OptionError for a file that is no Python.
    """
    waiting, seen, found = [Path(script).expanduser()], set[Path](), set[str]()
    folder = waiting[0].parent
    while waiting:
        file = waiting.pop()
        if file in seen:
            continue
        seen.add(file)
        for top in _imports_of(file) - sys.stdlib_module_names:
            beside = [folder / f"{top}.py", *(folder / top).rglob("*.py")]
            own = [path for path in beside if path.is_file()]
            waiting += own
            if not own and importlib.util.find_spec(top) is not None:
                found.add(top)
    return sorted(found)


def _imports_of(file: Path) -> set[str]:
    try:
        tree = ast.parse(file.read_bytes(), str(file))
    except OSError as error:
        raise OptionError(f"{file} cannot be read: {error.strerror}") from error
    except (SyntaxError, ValueError) as error:
        raise OptionError(f"{file} is no Python: {error}") from error
    names: set[str] = set()
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            names.update(alias.name for alias in node.names)
        elif isinstance(node, ast.ImportFrom) and node.level == 0 and node.module:
            names.add(node.module)
    return {name.partition(".")[0] for name in names}


def lacking(packed: Packed, host: str, names: Collection[str]) -> str:
    """What to say of a node that lacks these modules, with the command that installs them."""
    own = [packed.own[name] for name in names if name in packed.own]
    others = {name: _distribution(name) for name in names if name not in packed.own}
    packages = [package for package in others.values() if package is not None]
    unknown = [name for name, package in others.items() if package is None]
    parts = [f"call scheduler.upload_files({own!r})"] if own else []
    parts += [f"install there: python -m pip install {' '.join(packages)}"] if packages else []
    parts += [f"put {' and '.join(unknown)} there (of no package known here)"] if unknown else []
    return (
        f"node {host} has no {' and no '.join(sorted(names))}, which trials import: "
        f"{'; '.join(parts)}"
    )


def with_remedy(packed: Packed, reason: str) -> str:
    """The reason of a failure; if a module of the user's is missing, also what brings it there."""
    found = _NOT_FOUND.search(reason)
    if found is None or found[1] not in packed.own:
        return reason
    return f"{reason}; scheduler.upload_files([{packed.own[found[1]]!r}]) puts it there"


def _distribution(module: str) -> str | None:
    """The package, with its version, from which the driver has a module.

    None where that is not known: a package that an index has under the module's name may be a
    stranger's.
    """
    from ..resource.environment import distribution_of, pin  # (10 ms, and only other nodes need it)

    package = distribution_of(module)
    return None if package is None else f"'{pin(package)}'"
