"""Everything that distsearch raises on purpose.

DistsearchError
├── SpaceError (ValueError)         a space or a configuration that makes no sense
├── OptionError (ValueError)        an argument of a scheduler or searcher that makes no sense
├── DataError (ValueError)          images that are not there, or that nothing can be learned from
├── MissingPackage (ImportError)    an optional package that is not installed
├── ResourceError (ValueError)      a request that no node can ever meet
├── PicklingError (TypeError)       a train function that cannot travel to a node
├── UnguardedSearch (RuntimeError)  an import in a trial, or in a worker process, starts a search
├── NodeError (RuntimeError)        a node could not be brought up, or was refused
│   └── HostKeyError                the SSH host key is unknown, or has changed
├── UploadError (ValueError)        a file that cannot be uploaded
├── StoreError (RuntimeError)       the experiment's log cannot be opened
│   ├── StoreLocked                 another driver writes to it
│   ├── NoExperiment                the folder holds no search
│   ├── NoDriver                    nobody runs the search of which something was asked
│   └── StoreVersion                another version of distsearch wrote it
├── RequestRefused (RuntimeError)   the running search does not do what it was asked
├── InvalidMove (RuntimeError)      an event that cannot happen to a trial as it stands
├── LineageError (ValueError)       parents that cannot be: unknown ones, a circle
├── ReportError (ValueError)        a report that cannot be sent (raised inside the trial)
├── CheckpointError (RuntimeError)  a checkpoint that cannot be written, a storage not reached
├── Diverged (FloatingPointError)   a loss or score that is no number (raised inside the trial)
├── TrialFailed (RuntimeError)      the trial that run_with_config started has failed
├── NothingReported (LookupError)   the best was asked for before any trial reported
└── SearchFailed (RuntimeError)     the first trials all failed alike
"""

from __future__ import annotations

import difflib
import re
import unicodedata
from collections.abc import Iterable

TEXT_LIMIT = 50_000  # characters of one text that is shown
TURNS = ("LRE", "RLE", "LRO", "RLO", "PDF", "LRI", "RLI", "FSI", "PDI")  # the way text runs
COLOUR = re.compile(r"(\x1b\[[0-9;:]*m)")


def printable(text: str, limit: int = TEXT_LIMIT) -> str:
    """A text of whoever, as it can be shown: it moves no cursor, sets no title, hides nothing.

    >>> printable("all is well\\x1b[2J\\u202e")
    'all is well\\\\x1b[2J\\\\u202e'

    Control and format characters, other than ends of lines and tabs, are shown as Python would
    write them. Of a longer text the middle is left out.
    """
    if len(text) > limit:
        half = limit // 2
        left_out = f"\n[{len(text) - 2 * half} characters left out]\n"
        text = text[:half] + left_out + text[-half:]
    if text.isprintable():
        return text
    return "".join(sign if _is_harmless(sign) else _escaped(sign) for sign in text)


def with_colours(text: str) -> str:
    """Printable text of what the user's own program prints: colours and letters of all kinds stay.

    Of format characters those are shown which let a line read other than it is (`\\u202e`).
    """
    if text.isprintable():
        return text
    parts = COLOUR.split(text)  # every second part is a colour
    for index in range(0, len(parts), 2):
        signs = (_escaped(sign) if _is_control(sign) else sign for sign in parts[index])
        parts[index] = "".join(signs)
    return "".join(parts)


def _is_harmless(sign: str) -> bool:
    return sign.isprintable() or sign in "\n\t" or unicodedata.category(sign) == "Zs"


def _is_control(sign: str) -> bool:
    turns = unicodedata.bidirectional(sign) in TURNS
    return turns or (unicodedata.category(sign) in ("Cc", "Cs") and sign not in "\n\t")


def _escaped(sign: str) -> str:
    return sign.encode("unicode_escape").decode("ascii")


def shown(value: object) -> str:
    """A value as Python shows it, or its type where a class of the user's own fails at that.

    >>> shown(ValueError("boom"))
    "ValueError('boom')"
    """
    try:
        return repr(value)
    except BaseException as another:  # (that of `sys.exit()`, too)
        return f"{type(value).__name__} (whose text could not be made: {type(another).__name__})"


def suggest(name: str, valid: Iterable[str]) -> str:
    """The end of an error about an unknown name: the closest ones, then all the valid ones."""
    names = sorted(valid)
    return f"{nearest(name, names)}valid are: {', '.join(map(repr, names)) or 'none at all'}"


def nearest(name: str, valid: Iterable[str]) -> str:
    """A question after the closest of the valid names; '' if none is close."""
    close = difflib.get_close_matches(name, list(valid), n=1)
    return f"did you mean {close[0]!r}? " if close else ""


class DistsearchError(Exception):
    """The root of all errors that distsearch raises on purpose; `printable` is their text."""

    def __init__(self, text: str = "") -> None:
        super().__init__(printable(text))


class SpaceError(DistsearchError, ValueError):
    """A space or a configuration that makes no sense."""


class OptionError(DistsearchError, ValueError):
    """An argument of a scheduler or a searcher that makes no sense, or that it does not have."""


class DataError(DistsearchError, ValueError):
    """Images that are not there, cannot be read, or cannot be learned from."""


class MissingPackage(DistsearchError, ImportError):
    """A package that only some options need is not installed; the text says how to get it."""


class ResourceError(DistsearchError, ValueError):
    """A request that no node can ever meet."""


class PicklingError(DistsearchError, TypeError):
    """A train function, or something it refers to, that cannot travel to a node."""


class UnguardedSearch(DistsearchError, RuntimeError):
    """An import in a trial, or in a worker process, starts a search: a guard is missing."""


class NodeError(DistsearchError, RuntimeError):
    """A node could not be brought up, or was refused; the text says which, why and what to do.

    `remedy` is the command of the text that mends it, '' if no command alone does.
    """

    def __init__(self, text: str = "", remedy: str = "") -> None:
        super().__init__(text)
        self.remedy = printable(remedy)


class HostKeyError(NodeError):
    """The node's SSH host key is unknown, or is not the one that was known."""


class UploadError(DistsearchError, ValueError):
    """A file that cannot be uploaded."""


class StoreError(DistsearchError, RuntimeError):
    """The log of an experiment cannot be opened or written.

    `is_damage`: because it is not as it was written; the text says what of it is whole.
    """

    def __init__(self, text: str = "", *, is_damage: bool = False) -> None:
        super().__init__(text)
        self.is_damage = is_damage


class StoreLocked(StoreError):
    """Another driver writes to this experiment."""


class NoExperiment(StoreError, ValueError):
    """A folder that holds no search; the text names those near it."""


class NoDriver(StoreError):
    """Something was asked of a search that nobody runs now."""


class StoreVersion(StoreError):
    """The log was written by a version of distsearch whose logs this one does not read."""


class RequestRefused(DistsearchError, RuntimeError):
    """The running search does not do what it was asked; the text says why."""


class InvalidMove(DistsearchError, RuntimeError):
    """An event that cannot happen to a trial as it stands; the text tells the trial's story."""


class LineageError(DistsearchError, ValueError):
    """A trial, or a layer, whose parents cannot be: they are unknown, or form a circle."""


class ReportError(DistsearchError, ValueError):
    """A report that cannot be sent; raised inside the trial."""


class CheckpointError(DistsearchError, RuntimeError):
    """A checkpoint cannot be written (raised inside the trial), or a storage cannot be reached."""


class Diverged(DistsearchError, FloatingPointError):
    """A loss or a score is no finite number any more (raised inside the trial).

    Its text is all that is told of it: where in the program a number became NaN says nothing.
    """


class TrialFailed(DistsearchError, RuntimeError):
    """The one trial that was asked for has failed; the text has its traceback."""


class NothingReported(DistsearchError, LookupError):
    """The best trial was asked for before any has reported, or a trial that there is not."""


class SearchFailed(DistsearchError, RuntimeError):
    """The first trials all failed alike, so the search was ended; the text shows why."""
