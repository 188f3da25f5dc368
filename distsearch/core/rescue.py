"""Takes a damaged log back to its events that are whole, so that the search can go on."""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
from pathlib import Path

from ..errors import StoreError
from ..resource.private import make_folders
from . import schema
from .belongings import LOG_FILES, new_folder
from .lock import Lock
from .schema import FILE, Row
from .verify import damaged, opened, verify, whole_rows


def rescue(folder: str | os.PathLike[str]) -> int:
    """Take a damaged log back to its last event before the damage; returns the number of events.

        distsearch.rescue("distsearch_results/train_fn-20260101-120000-1a2b")

    The same command goes on with the search from there. The damaged files are kept, in a folder
    `damaged-1` (-2, ...) beside the log, with the trials and checkpoints that came later. A log
    that is whole stays as it is. Raises StoreError when no event is whole, StoreLocked while a
    driver runs.
    """
    place = Path(folder).expanduser().absolute()
    if not (place / FILE).is_file():
        raise StoreError(f"{place} holds no experiment: there is no {FILE} in it")
    lock = Lock(place)
    try:
        try:
            found = verify(place)
            return 0 if found is None else found.last
        except StoreError as error:
            if not error.is_damage:
                raise
        log_id, rows = _whole_part(place)
        if not rows:
            raise damaged(place / FILE, "not one event can be read", 0)
        _replace(place, log_id, rows)
        return len(rows)
    finally:
        lock.release()


def _whole_part(folder: Path) -> tuple[int, list[Row]]:
    log_id, rows = 0, []
    with contextlib.suppress(StoreError, ValueError), opened(folder) as connection:
        ((log_id,),) = connection.execute("select id from log").fetchall()
        for row, seal in whole_rows(connection):
            rows.append((*row, seal))
    return log_id, rows


def _replace(folder: Path, log_id: int, rows: list[Row]) -> None:
    """Put the files of the log aside, and a new log with these rows in their place."""
    aside = new_folder(folder, "damaged")
    new = aside / "new.db"
    connection = sqlite3.connect(new, isolation_level=None)
    try:
        connection.execute("pragma synchronous=full")
        schema.create(connection, log_id)
        connection.execute("begin")
        connection.executemany(schema.INSERT + schema.ROW, rows)
        connection.execute("commit")
    finally:
        connection.close()
    new.chmod(0o600)
    for name in LOG_FILES:
        with contextlib.suppress(FileNotFoundError):
            (folder / name).rename(aside / name)
    new.rename(folder / FILE)
    _put_unknown_aside(folder, aside, rows)


def _put_unknown_aside(folder: Path, aside: Path, rows: list[Row]) -> None:
    """Put aside trials and checkpoints that the log does not know any more.

    Else a new trial of the same number would go on from the weights of the old one.
    """
    events = [(row[2], row[3], json.loads(row[6])) for row in rows if row[3] is not None]
    launched = {str(trial) for kind, trial, _ in events if kind == "launched"}
    saved = {(str(trial), body["name"]) for kind, trial, body in events if kind == "saved"}
    for trial in (path for path in (folder / "trials").glob("*") if path.name.isdigit()):
        found = (trial / "checkpoints").glob("*-step-*")
        unknown = [path for path in found if (trial.name, path.name) not in saved]
        for path in [trial] if trial.name not in launched else unknown:
            target = aside / path.relative_to(folder)
            make_folders(target.parent)
            path.rename(target)
