"""Which checkpoints there are, what they take, and which may go. It deletes nothing itself."""

from __future__ import annotations

import re
from collections import defaultdict
from collections.abc import Callable, Iterator
from numbers import Real
from typing import NamedTuple

from ..errors import ResourceError

UNITS = {"": 1, "B": 1, "KB": 10**3, "MB": 10**6, "GB": 10**9, "TB": 10**12}
UNITS |= {"KIB": 2**10, "MIB": 2**20, "GIB": 2**30, "TIB": 2**40}


class Checkpoint(NamedTuple):
    """One checkpoint of a trial."""

    trial: int
    name: str


def parse_bytes(value: str | float | None) -> int | None:
    """Bytes from a number or a text.

    >>> parse_bytes("20GB"), parse_bytes("1.5 MiB"), parse_bytes(1000), parse_bytes(None)
    (20000000000, 1572864, 1000, None)
    """
    if value is None:
        return None
    number: float = 0
    if isinstance(value, Real) and not isinstance(value, bool):
        number = float(value)
    elif isinstance(value, str) and (
        found := re.fullmatch(r"\s*(\d+(?:\.\d+)?)\s*([KMGT]?(?:i?B)?)\s*", value, re.IGNORECASE)
    ):
        unit = found[2].upper()
        number = float(found[1]) * UNITS.get(unit, UNITS.get(f"{unit}B", 0))
    if not 1 <= number < float("inf"):
        raise ResourceError(f"max_bytes={value!r}; give a number of bytes, '20GB', or None")
    return int(number)


def in_words(size: float) -> str:
    """A number of bytes for people: '20 GB'."""
    for unit in ("TB", "GB", "MB", "KB"):
        if size >= UNITS[unit]:
            return f"{size / UNITS[unit]:.3g} {unit}"
    return f"{size:g} bytes"


class Budget:
    """The checkpoints of an experiment, the oldest first, and how many bytes they may take.

    budget = Budget(max_bytes=20 * 10**9)
    budget.add(3, "1000001-step-1", 10**9)
    for checkpoint in budget.victims(is_needed, is_kept):
        ...                                         # delete its files, then
        budget.remove(checkpoint)
    """

    def __init__(self, max_bytes: int | None = None) -> None:
        self.max_bytes = max_bytes
        self.total = 0
        self._bytes: dict[Checkpoint, int] = {}
        self._names: defaultdict[int, list[str]] = defaultdict(list)

    def add(self, trial: int, name: str, size: int) -> None:
        """Take note of a new checkpoint."""
        self.remove(Checkpoint(trial, name))
        self._bytes[Checkpoint(trial, name)] = size
        self._names[trial].append(name)
        self.total += size

    def remove(self, checkpoint: Checkpoint) -> None:
        """Take note that a checkpoint is gone."""
        size = self._bytes.pop(checkpoint, None)
        if size is not None:
            self.total -= size
            self._names[checkpoint.trial].remove(checkpoint.name)

    def names(self, trial: int) -> list[str]:
        """The checkpoints of a trial, the oldest first."""
        return list(self._names.get(trial, ()))

    def too_old(self, trial: int, keep: int, *, but: str | None) -> list[Checkpoint]:
        """The checkpoints of a trial beyond its `keep` newest, except the one of this name."""
        return [Checkpoint(trial, name) for name in self.names(trial)[:-keep] if name != but]

    def __iter__(self) -> Iterator[Checkpoint]:
        """All of them, the oldest first."""
        return iter(list(self._bytes))

    @property
    def trials(self) -> list[int]:
        """The trials that have checkpoints."""
        return [trial for trial, names in self._names.items() if names]

    @property
    def is_exceeded(self) -> bool:
        """Whether the checkpoints take more than they may."""
        return self.max_bytes is not None and self.total > self.max_bytes

    def victims(
        self, is_needed: Callable[[int], bool], is_kept: Callable[[Checkpoint], bool]
    ) -> Iterator[Checkpoint]:
        """What to delete until the rest fits: first trials that are not needed, the oldest first.

        Then the older checkpoints of trials that are needed. The newest of a needed trial always
        stays, and so does whatever `is_kept` names: so the rest may still be too large.
        """
        excess = self.total - (self.total if self.max_bytes is None else self.max_bytes)
        older = []
        for checkpoint, size in list(self._bytes.items()):
            if excess <= 0:
                return
            if is_kept(checkpoint):
                continue
            if not is_needed(checkpoint.trial):
                excess -= size
                yield checkpoint
            elif checkpoint.name != self._names[checkpoint.trial][-1]:
                older.append((checkpoint, size))
        for checkpoint, size in older:
            if excess <= 0:
                return
            excess -= size
            yield checkpoint
