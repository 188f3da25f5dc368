"""Modules that trials import and a node lacks: which, and what puts them there."""

from __future__ import annotations

import importlib.metadata
import re
import sys
from collections.abc import Collection

from .travel import Packed

_NOT_FOUND = re.compile(r"ModuleNotFoundError: No module named '(\w+)")


def needed(packed: Packed) -> list[str]:
    """The top names of the modules that a node has to have for the trials of a function."""
    tops = {name.partition(".")[0] for name in packed.modules} | packed.own.keys()
    return sorted(tops - sys.stdlib_module_names)


def lacking(packed: Packed, host: str, names: Collection[str]) -> str:
    """What to say of a node that lacks some of them, with what puts them there."""
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
    """The reason of a failure, with what mends it if that is a module of the user's own."""
    found = _NOT_FOUND.search(reason)
    if found is None or found[1] not in packed.own:
        return reason
    return f"{reason}; scheduler.upload_files([{packed.own[found[1]]!r}]) puts it there"


def _distribution(module: str) -> str | None:
    """The package, with its version, from which the driver has a module.

    None where that is not known: an index may have a stranger's under the module's name.
    """
    names = importlib.metadata.packages_distributions().get(module)
    return f"'{names[0]}=={importlib.metadata.version(names[0])}'" if names else None
