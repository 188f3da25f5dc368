"""Troubles of those who lack something: room for another trial, or the folder for themselves."""

from __future__ import annotations

import errno
from pathlib import Path
from typing import Protocol

from ...core.lock import Lock
from ...errors import StoreLocked
from .troubles import Victim


class Holder(Victim, Protocol):
    """What shortages touch of a story besides."""

    folder: Path

    def has_the_folder(self) -> bool:
        """Whether a driver lives, and has the folder of the search."""


def no_room(story: Victim) -> None:
    """A node can start no process for a while: no room, no descriptors, no process ids."""
    worker = story.draw.choice(story.nodes).worker
    seconds, lacks = story.draw.uniform(1, 30), story.draw.choice([errno.ENOSPC, errno.EMFILE])
    story.world.note(worker.address, f"can start nothing for {seconds:.1f} s")
    worker.lacks = lacks
    story.world.post(seconds, lambda: setattr(worker, "lacks", 0))


def racing_start(story: Holder) -> None:
    """The same command is started once more while the search runs: it is refused."""
    if not story.has_the_folder():
        return
    story.world.note("the command is started once more")
    try:
        Lock(story.folder / "search").release()
    except StoreLocked:
        return
    story.world.violated("two drivers have one folder")
