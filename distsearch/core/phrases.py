"""Parts of messages: '1 trial' or '2 trials'; options by the names that the user knows.

with typed_as({"checkpoint=": "--out="}):    # a command does so
    called("checkpoint=")                    # '--out=' here, elsewhere 'checkpoint='
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from contextlib import contextmanager

_names: dict[str, str] = {}


@contextmanager
def typed_as(names: Mapping[str, str]) -> Iterator[None]:
    """Have messages call options by these names, until the block is left."""
    before = dict(_names)
    _names.update(names)
    try:
        yield
    finally:
        _names.clear()
        _names.update(before)


def called(name: str) -> str:
    """The name of an argument where the search was started: in Python its own, or a command's."""
    return _names.get(name, name)


def counted(count: int, noun: str = "trial") -> str:
    """A number of things in words.

    >>> counted(1), counted(2)
    ('1 trial', '2 trials')
    """
    return f"{count} {noun}" if count == 1 else f"{count} {noun}s"
