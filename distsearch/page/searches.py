"""The folders that are looked at: opened, named, and followed while their searches run."""

from __future__ import annotations

import os
from collections.abc import Callable
from pathlib import Path

from ..core.record import first_of, place_of
from ..core.story import Story
from .view import View


def open_view(folder: str | os.PathLike[str], hear: Callable[[int], None] | None = None) -> View:
    """The search in a folder, read to its end.

    `hear`: called with the number of events read, now and then. Raises StoreError, and names what
    could be opened instead, when there is none.
    """
    place = find_search(folder)
    given = Path(folder).expanduser().absolute()
    return View(Story.of(place, hear), given.name, given, str(folder))


def find_search(folder: str | os.PathLike[str]) -> Path:
    """Where the search of a folder is. Raises StoreError when there is none."""
    place = place_of(folder)
    first_of(place)
    return place
