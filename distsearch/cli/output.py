"""What commands print: tables for a terminal, plain columns for a pipe, JSON for a program."""

from __future__ import annotations

import json
import math
import os
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import click

from ..core.lock import holder
from ..core.record import SearchRecord
from ..core.record import open as open_record
from ..core.schema import FILE as LOG
from ..core.words import Status, Trial
from ..errors import OptionError, RequestRefused, printable

Cell = Any
WIDE = 60  # a cell of a plain table has at most so many characters
# Columns that take several lines in a terminal.
LONG = ("configuration", "reason", "state", "how", "found")


def is_terminal() -> bool:
    """Whether somebody looks at the standard output."""
    return sys.stdout.isatty()


def one_line(value: Cell) -> str:
    """A value as one line that moves no cursor and hides nothing."""
    if value is None:
        return ""
    if isinstance(value, float):
        return format(value, ".6g")
    return printable(str(value)).replace("\n", " ").replace("\t", " ")


def table(columns: Sequence[str], rows: Sequence[Sequence[Cell]]) -> None:
    """Print rows: with lines in a terminal, else aligned, with two spaces between columns."""
    cells = [[one_line(cell) for cell in row] for row in rows]
    if is_terminal():
        from rich import box
        from rich.console import Console
        from rich.table import Table
        from rich.text import Text

        shown = Table(box=box.SIMPLE_HEAD, pad_edge=False)
        for column in columns:
            shown.add_column(column, overflow="fold", no_wrap=column not in LONG)
        for row in cells:
            shown.add_row(*map(Text, row))
        Console().print(shown)
        return
    shortened = [[c if len(c) <= WIDE else c[: WIDE - 1] + "…" for c in row[:-1]] for row in cells]
    shortened = [[*row, all_[-1]] for row, all_ in zip(shortened, cells, strict=True)]
    lines = [list(columns), *shortened]
    widths = [max(len(line[n]) for line in lines) for n in range(len(columns))]
    for line in lines:
        click.echo("  ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)).rstrip())


def as_json(value: Any) -> None:
    """Print a value as JSON; numbers that JSON does not have are null."""
    click.echo(json.dumps(plain(value), default=str))


def plain(value: Any) -> Any:
    """The value, with None for numbers that JSON does not have."""
    if isinstance(value, float) and not math.isfinite(value):
        return None
    if isinstance(value, dict):
        return {str(key): plain(part) for key, part in value.items()}
    if isinstance(value, (list, tuple)):
        return [plain(part) for part in value]
    return value


def opened(folder: str) -> SearchRecord:
    """The record of a search. Raises StoreError for a folder that has none that can be read."""
    return open_record(folder)


def own(record: SearchRecord, *files: Path) -> None:
    """Refuse to run code that others could have written into a folder.

    Raises RequestRefused unless the folder, its log and these files are this user's alone.
    """
    for path in (record.folder, record.folder / LOG, *files):
        about = path.lstat()
        if about.st_uid != os.geteuid() or about.st_mode & 0o022:
            raise RequestRefused(
                f"{path} is not yours alone (of user {about.st_uid}, mode "
                f"{about.st_mode & 0o777:o}), and what it says would run here; if you trust it: "
                f"chown -R $USER, chmod -R go-w {record.folder}"
            )


def trial_of(record: SearchRecord, number: int) -> Trial:
    """A trial by its id. Raises OptionError for one that is not there."""
    found = record.ledger.trials.get(number)
    if found is None:
        known = len(record.ledger.trials)
        there = f"there are trials 0 to {known - 1}" if known else "none was launched yet"
        raise OptionError(f"{record.folder} has no trial {number}; {there}")
    return found


def trial_facts(record: SearchRecord, trial: Trial) -> dict[str, Any]:
    """A trial for a program."""
    names = record.ledger.objectives.names
    values = None if trial.point is None else dict(zip(names, trial.point.values, strict=True))
    return {
        "id": trial.id,
        "status": trial.status.value,
        "config": dict(trial.config),
        "best": trial.best_reward,
        "values": values,
        "best_time": trial.best_time,
        "reached": trial.furthest,
        "attempt": trial.attempt,
        "hosts": list(trial.hosts),
        "seconds": trial.seconds,
        "started": trial.started_at or None,
        "parents": list(trial.parents),
        "reason": trial.reason,
        "error": trial.error,
        "is_given": trial.is_given,
        "is_final": trial.is_final,
    }


def name_of(folder: str | os.PathLike[str]) -> str:
    """What a folder's search is called: `digits` for `runs/digits` and for `runs/digits/search`.

    (The latter is where `distsearch gan`, `lanas` and `pc-darts` keep theirs.)
    """
    path = Path(os.path.abspath(Path(folder).expanduser()))
    return path.parent.name if path.name == "search" and path.parent.name else path.name


def state_of(record: SearchRecord, driver: str | None) -> str:
    """Whether a search runs, has ended, or waits to be resumed."""
    if driver is not None:
        return "running"
    is_open = any(not one.is_final for one in record.ledger.open.values())
    only_paused = all(one.status is Status.PAUSED for one in record.ledger.open.values())
    return "unfinished" if is_open and not only_paused else "ended"


def result_of(record: SearchRecord) -> str:
    """The best reward, or how large the front is."""
    ledger = record.ledger
    if ledger.objectives.several:
        return f"{len(ledger.front)} in the front"
    return "" if ledger.best is None else f"{ledger.best.best_reward:.6g}"


def ago(seconds: float) -> str:
    """An age: `3 s`, `5 min`, `2 h`, `4 d`."""
    for size, unit in ((86_400.0, "d"), (3600.0, "h"), (60.0, "min")):
        if seconds >= size:
            return f"{seconds / size:.0f} {unit}"
    return f"{max(0.0, seconds):.0f} s"


def driver_of(folder: Path) -> str | None:
    """Who runs the search in a folder."""
    return holder(folder)
