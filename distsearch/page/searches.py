"""The folders that are looked at: opened, named, and followed while their searches run."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from ..core import store
from ..core.record import first_of
from ..core.story import Story
from .view import View

INSIDE = "search"  # where a coevolution has its experiment, within the folder that users name


def open_view(folder: str | os.PathLike[str], hear: Callable[[int], None] | None = None) -> View:
    """The search in a folder, read to its end.

    `hear`: called with the number of events read, now and then. Raises StoreError, and names what
    could be opened instead, when there is none.
    """
    place = check(folder)
    given = Path(folder).expanduser().absolute()
    return View(Story.of(place, hear), given.name, given, str(folder))


def check(folder: str | os.PathLike[str]) -> Path:
    """Where the search of a folder is. Raises StoreError when there is none."""
    given = Path(folder).expanduser().absolute()
    inside = given / INSIDE
    is_outer = not (given / store.FILE).is_file() and (inside / store.FILE).is_file()
    place = inside if is_outer else given
    first_of(place)
    return place
