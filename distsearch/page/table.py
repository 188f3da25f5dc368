"""The table of trials: its columns, sorted and filtered rows, and what is known of one trial."""

from __future__ import annotations

import math
import operator
import re
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, NamedTuple

from ..core.progress import format_value
from ..core.summary import status_of
from ..core.words import Status, Trial
from ..errors import OptionError, suggest
from ..plots.over_time import value_of
from ..resource.private import private
from .view import View

AT_ONCE = 200  # so many rows are sent at once at most
SHOWN_BYTES = 64 * 1024  # so much of a trial's output is shown
_TERM = re.compile(r"(?P<name>[^<>=!~\s]+)(?P<way><=|>=|!=|=|<|>|~)(?P<value>\S*)")
_WAYS: Mapping[str, Callable[[Any, Any], bool]] = {
    "<": operator.lt,
    ">": operator.gt,
    "<=": operator.le,
    ">=": operator.ge,
    "=": operator.eq,
    "!=": operator.ne,
}


class Row(NamedTuple):
    """One trial: a value for each column, and all values as text in small letters."""

    values: list[Any]
    text: str


class Page(NamedTuple):
    """Some of the rows that a filter leaves."""

    columns: list[str]
    rows: list[list[Any]]
    found: int
    of: int


def columns(view: View) -> list[str]:
    """The names of the columns: what became of a trial, then its parameters, then the reason.

    A parameter of the same name as another column gets `config.` before it.
    """
    ledger = view.story.ledger
    first = ["trial", "status", *ledger.objectives.names, ledger.time_attr, "seconds", "host"]
    taken = {*first, "reason"}
    own = [f"config.{name}" if name in taken else name for name in _parameters(view)]
    return [*first, *own, "reason"]


def _parameters(view: View) -> list[str]:
    def find() -> list[str]:
        trials = view.story.ledger.trials.values()
        return list(dict.fromkeys(name for trial in trials for name in trial.config))

    return view.once("parameters", find)


def rows(view: View) -> list[Row]:
    """A row for each trial, in the order of their ids."""
    return view.once("rows", lambda: _rows(view))


def _rows(view: View) -> list[Row]:
    count, names = len(view.story.ledger.objectives.names), _parameters(view)
    now, found = view.story.last, []
    for trial in view.story.ledger.trials.values():
        reached = trial.furthest if math.isfinite(trial.furthest) else None
        took = now - trial.started_at if trial.status is Status.RUNNING else trial.seconds
        values = [
            trial.id,
            status_of(view.story.ledger, trial),
            *(value_of(trial, n) for n in range(count)),
            reached,
            round(took, 3) if trial.attempt else None,
            trial.host,
            *(_plain(trial.config.get(name)) for name in names),
            trial.reason,
        ]
        text = " ".join(str(value) for value in values if value is not None).lower()
        found.append(Row(values, text))
    return found


def _plain(value: Any) -> Any:
    return value if value is None or isinstance(value, (int, float, str)) else str(value)


def page(
    view: View,
    *,
    sort: str = "trial",
    descending: bool = False,
    where: str = "",
    start: int = 0,
    count: int = 50,
) -> Page:
    """Some rows, sorted by a column; what is not known comes last.

        page(view, sort="accuracy", descending=True, where="status=finished lr<0.01 adam")

    `where`: terms that must all hold: text that a row contains, or a column, one of < > <= >= = !=
    ~ (contains), and a value. Raises OptionError for a column that is not there.
    """
    names = columns(view)
    chosen = _filtered(rows(view), names, where)
    place = _column(names, sort)
    known = [row for row in chosen if row.values[place] is not None]
    known.sort(key=lambda row: _sort_key(row.values[place]), reverse=descending)
    ordered = [*known, *(row for row in chosen if row.values[place] is None)]
    some = ordered[start : start + min(count, AT_ONCE)]
    of = len(view.story.ledger.trials)
    return Page(names, [row.values for row in some], len(chosen), of)


def _sort_key(value: Any) -> tuple[int, float, str]:
    if isinstance(value, (int, float)):
        return 0, float(value), ""
    return 1, 0.0, str(value)


def _column(names: Sequence[str], name: str) -> int:
    if name not in names:
        raise OptionError(f"no column {name!r}; {suggest(name, list(names))}")
    return names.index(name)


def _filtered(found: Sequence[Row], names: Sequence[str], where: str) -> list[Row]:
    kept = list(found)
    for term in where.split():
        match = _TERM.fullmatch(term)
        if match is None:
            words = term.lower()
            kept = [row for row in kept if words in row.text]
            continue
        place, way, wanted = _column(names, match["name"]), match["way"], match["value"]
        kept = [row for row in kept if _holds(row.values[place], way, wanted)]
    return kept


def _holds(value: Any, way: str, wanted: str) -> bool:
    if way == "~":
        return wanted.lower() in str(value).lower()
    if value is None:
        return way == "!="
    try:
        return _WAYS[way](float(value), float(wanted))
    except ValueError:
        return _WAYS[way](str(value).lower(), wanted.lower())


def detail(view: View, trial_id: int) -> dict[str, Any]:
    """All that is known of a trial. Raises OptionError where there is none of this id."""
    trials = view.story.ledger.trials
    if trial_id not in trials:
        raise OptionError(f"there is no trial {trial_id}; there are {len(trials)}, from 0 on")
    trial = trials[trial_id]
    return {
        "trial": trial.id,
        "status": status_of(view.story.ledger, trial),
        "is_open": not trial.status.is_end,
        "is_paused": trial.status is Status.PAUSED or trial.id in view.story.ledger.held,
        "config": {name: format_value(value) for name, value in trial.config.items()},
        "plain": dict(trial.config),
        "reached": _reached(view, trial),
        "attempt": trial.attempt,
        "hosts": list(trial.hosts),
        "parents": list(trial.parents),
        "reason": trial.reason,
        "traceback": trial.error,
        "output": output(view, trial_id),
    }


def _reached(view: View, trial: Trial) -> dict[str, float | None]:
    names = view.story.ledger.objectives.names
    return {name: value_of(trial, n) for n, name in enumerate(names)}


def output(view: View, trial_id: int) -> str:
    """The end of what a trial has printed, as text."""
    path = Path(view.story.folder) / "trials" / str(trial_id) / "output.txt"
    try:
        with open(path, "rb", opener=private) as file:
            size = file.seek(0, 2)
            file.seek(max(0, size - SHOWN_BYTES))
            text = file.read(SHOWN_BYTES).decode("utf-8", "replace")
    except OSError:
        return ""
    return text if size <= SHOWN_BYTES else f"[the last {SHOWN_BYTES} bytes]\n{text}"
