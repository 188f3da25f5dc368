"""A space is made again from its description in the log."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..errors import SpaceError
from .base import Space
from .containers import Dict, List
from .domains import Bool, Choice, Int, Real


def described(description: Mapping[str, Any]) -> Space:
    """The space that `space.describe()` describes.

        described(record.searched["space"])

    Raises SpaceError where a description does not tell all: for objects, secrets, constants that
    are no plain values, and a Choice whose default is not its first option.
    """
    try:
        space = _part(description)
        same = isinstance(space, Space) and space.describe() == description
    except (KeyError, TypeError, SpaceError) as error:
        raise SpaceError(f"a space cannot be made again from its description: {error}") from error
    if not same:
        raise SpaceError("a space cannot be made again from its description: it does not tell all")
    return space  # type: ignore[no-any-return]


def _part(of: Any) -> Any:
    """A space, or one of its parts."""
    if not isinstance(of, Mapping):
        return of
    kind = of["type"]
    if kind == "constant":
        return of["value"]
    if kind == "dict":
        return Dict(**{name: _part(part) for name, part in of["items"].items()})
    if kind == "list":
        return List(*(_part(part) for part in of["items"].values()))
    if kind in ("real", "int"):
        make = Real if kind == "real" else Int
        more = {"step": of["step"]} if "step" in of else {}
        return make(of["lower"], of["upper"], default=of["default"], log=of["log"], **more)
    if kind == "bool":
        return Bool()
    if kind == "choice":
        return Choice(*(_part(option) for option in of["choices"]))
    raise SpaceError(f"there is no kind of space {kind!r}")
