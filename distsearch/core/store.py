"""The log of an experiment: one SQLite file to which events are only ever added.

    events   id (1, 2, ...), time (Unix seconds), kind, trial, attempt, seq, body (JSON)
    trials   a view: one row a trial, with its configuration, status and end
    reports  a view: one row a report
    lineage  a view: one row for each trial and parent of it; `inherited` is whose weights it has
             in place of that parent's, `policy` and `reason` say why if it is another

Kinds of events:

    experiment  what is searched, once per run of the driver
    warm        what was known before the search
    node        a node came or went
    launched    a trial has a configuration
    inherits    from whose weights a child goes on
    started     an attempt of a trial begins, on these places
    report      a trial has reported
    decided     what the rule made of a report, and why, when the trial is not to go on
    saved       a trial has saved a checkpoint
    deleted     a checkpoint is deleted, to keep within `max_bytes`
    paused      an attempt is over; its trial may be resumed by the rule
    lost        an attempt is over, and its trial is to run again
    ended       a trial has ended
    again       a trial that had ended runs once more, for its children

What each of them does to a trial is the business of `ledger.py`. Anyone may read the file with SQL
or pandas while the search runs:

    sqlite3 distsearch_results/NAME/events.db 'select * from trials order by best desc limit 3'

There is one writer, the driver. An event is durable (WAL, synchronous=FULL) once it is committed;
events that arrive while the disk is busy are committed together.
"""

from __future__ import annotations

import asyncio
import contextlib
import os
import sqlite3
import time
import weakref
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from itertools import chain
from pathlib import Path
from typing import Any, NamedTuple

from ..errors import StoreError, StoreVersion
from .hold import Hold
from .lock import Lock
from .metrics import decode, from_json, strict_json

FILE = "events.db"
VERSION = 2  # of the log; what each kind of event says
READ_BY = {1: "0.1"}  # which distsearch reads a log of another version
SCHEMA = """
create table if not exists events (
    id integer primary key, time real not null, kind text not null,
    trial integer, attempt integer, seq integer, body text not null);
create index if not exists events_of_trial on events (trial, kind, id);
create view if not exists reports as
    select trial, attempt, seq, time, body as metrics from events where kind = 'report';
create view if not exists trials as
    select l.trial, json_extract(l.body, '$.config') as config,
        coalesce(json_extract(e.body, '$.status'), case when s.id is null then 'waiting' else
            coalesce((select case kind when 'paused' then 'paused' else 'waiting' end from events
                where trial = l.trial and kind in ('lost', 'again', 'paused') and id > s.id
                order by id desc limit 1), 'running') end) as status,
        s.attempt as attempt, json_extract(s.body, '$.places[0].node') as host, s.time as started,
        e.time as ended, json_extract(e.body, '$.best') as best,
        json_extract(e.body, '$.reason') as reason,
        json_extract(e.body, '$.traceback') as traceback,
        json_extract(e.body, '$.max_rss_bytes') as max_rss_bytes,
        json_extract(e.body, '$.seconds') as seconds
    from events l
    left join events s on s.id = (
        select max(id) from events where trial = l.trial and kind = 'started')
    left join events e on e.id = (
        select max(id) from events where trial = l.trial and kind in ('ended', 'again'))
        and e.kind = 'ended'
    where l.kind = 'launched';
create view if not exists lineage as
    select l.trial, p.value as parent,
        json_extract(i.body, '$.from[' || p.key || ']') as inherited,
        json_extract(i.body, '$.policy') as policy, json_extract(i.body, '$.reason') as reason
    from events l, json_each(l.body, '$.parents') p
    left join events i on i.id = (
        select max(id) from events where trial = l.trial and kind = 'inherits')
    where l.kind = 'launched';
"""
INSERT = "insert into events (id, time, kind, trial, attempt, seq, body) values "
ROW = "(?, ?, ?, ?, ?, ?, ?)"
FEW = 40
RETRY_S = 1.0
TRIES = 3
WAIT_S = 10.0
_open_stores: weakref.WeakSet[Store] = weakref.WeakSet()


class Event(NamedTuple):
    """One row of the log; `body` is decoded."""

    id: int
    time: float
    kind: str
    trial: int | None
    attempt: int | None
    seq: int | None
    body: Any


class Store:
    """The one writer of an experiment's log; used in the loop's thread.

        event = store.append("started", trial=3, attempt=1, body={"places": []})
        store.when_durable(lambda: tell_the_node(event))

    `lock`: that of the folder, where the caller has it already. Raises StoreLocked when another
    driver writes to this folder (its process and host are named), StoreVersion when another version
    of distsearch wrote it, StoreError when the file is damaged.
    """

    def __init__(self, folder: Path, lock: Lock | None = None) -> None:
        self.folder = folder
        self.path = folder / FILE
        self._lock = lock or Lock(folder)
        self._made_file = not self.path.exists()
        try:
            _make_private(self.path)
            self._connection = self._open()
            self._hold = Hold(self.path)
        except BaseException:
            self._lock.release()
            raise
        (last,) = self._connection.execute("select max(id) from events").fetchone()
        self._next_id = 1 + (last or 0)
        self._pending: list[tuple[Any, ...]] = []
        self._callbacks: list[Callable[[], None]] = []
        self._writing = False
        self._scheduled = False
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="distsearch-store")
        self._is_unsure = False  # whether some of what is to be written is in the file already
        self.trouble = ""
        self._closed = False
        _open_stores.add(self)

    def _open(self) -> sqlite3.Connection:
        connection = _connect(self.path)
        try:
            quick_check(self.path)
            _check_version(connection, self.path)
            connection.execute("pragma journal_mode=wal")
            connection.execute("pragma synchronous=full")
            connection.executescript(SCHEMA)
            connection.execute(f"pragma user_version={VERSION}")
        except StoreVersion:
            connection.close()
            raise
        except sqlite3.DatabaseError as error:
            connection.close()
            raise StoreError(
                f"the log {self.path} is damaged ({error}); it was left as it is. Move it away to "
                f"start anew, or rescue it with: sqlite3 {self.path} .recover"
            ) from error
        return connection

    def append(
        self,
        kind: str,
        trial: int | None = None,
        attempt: int | None = None,
        seq: int | None = None,
        body: Any = None,
        *,
        apply: Callable[[Event], object] | None = None,
    ) -> Event:
        """Add an event, and return it as whoever reads the log will find it.

        `body` is JSON text, or a value that JSON holds as it is (lists, no tuples). `apply` is
        called with the event first: what it refuses is not added. Nor is text that is no JSON:
        ValueError.
        """
        if isinstance(body, str):
            text, value = body, from_json(body) if kind == "report" else decode(body)
        else:
            text, value = strict_json(body), body
        number, at = self._next_id, time.time()
        event = Event(number, at, kind, trial, attempt, seq, value)
        if apply is not None:
            apply(event)
        self._next_id = number + 1
        self._pending.append((number, at, kind, trial, attempt, seq, text))
        self._write_soon()
        return event

    def when_durable(self, callback: Callable[[], None]) -> None:
        """Call back in the loop once everything that has been appended so far is on the disk."""
        self._callbacks.append(callback)
        self._write_soon()

    def keep_output(self, trial: int, text: str) -> None:
        """Add to what a trial of another node has printed, in `trials/N/output.txt`."""
        folder = self.folder / "trials" / str(int(trial))
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        with open(folder / "output.txt", "a", encoding="utf-8") as file:
            file.write(text)

    async def flush(self) -> None:
        """Return once everything that has been appended so far is on the disk."""
        durable: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def arrived() -> None:
            if not durable.done():  # the waiter may have given up
                durable.set_result(None)

        self.when_durable(arrived)
        await durable

    def _write_soon(self) -> None:
        if not self._scheduled and not self._writing:
            self._scheduled = True
            asyncio.get_running_loop().call_soon(self._write)

    def _write(self) -> None:
        """Commit everything that waits, in the writer's thread, then call back."""
        self._scheduled = False
        if self._closed or self._writing or not (self._pending or self._callbacks):
            return
        rows, self._pending = self._pending, []
        callbacks, self._callbacks = self._callbacks, []
        loop = asyncio.get_running_loop()
        self._writing = True
        try:
            done = loop.run_in_executor(self._writer, self._commit, rows)
        except RuntimeError:  # Python is exiting, and its threads take no more work
            done = loop.create_future()
            try:
                self._commit(rows)
                done.set_result(None)
            except sqlite3.Error as error:
                done.set_exception(error)
        done.add_done_callback(lambda done: self._written(done, rows, callbacks))

    def _commit(self, rows: list[tuple[Any, ...]]) -> None:
        """Write rows; when this returns they are on the disk, and where readers find them."""
        if not rows:
            return
        for _ in range(TRIES):
            if not self._hold.renew():
                self._reopen()
            if self._is_unsure:
                (last,) = self._connection.execute("select max(id) from events").fetchone()
                rows = [row for row in rows if row[0] > (last or 0)]
            self._is_unsure = True
            self._insert(rows)
            if self._hold.renew():
                self._is_unsure = False
                return
        raise sqlite3.OperationalError("others delete its files again and again")

    def _reopen(self) -> None:
        """Open the log again: another process has deleted files of it that this one has open."""
        if not self._hold.has_database():
            raise sqlite3.OperationalError("it is no longer in its folder: put it back")
        self._is_unsure = True
        self._connection.close()
        self._hold.close()
        self._connection = _connect(self.path)
        self._connection.execute("pragma synchronous=full")
        self._hold = Hold(self.path)

    def mend(self) -> None:
        """Make sure that readers in this process find the files that all others do."""
        if not self._closed and not self._hold.renew():
            self._writer.submit(self._mend).result(WAIT_S)

    def _mend(self) -> None:
        if not self._hold.renew():
            self._reopen()

    def _insert(self, rows: list[tuple[Any, ...]]) -> None:
        if not rows:
            return
        if len(rows) <= FEW:  # one statement, which lets the loop's thread run meanwhile
            values = ", ".join([ROW] * len(rows))
            self._connection.execute(INSERT + values, list(chain.from_iterable(rows)))
            return
        try:
            self._connection.execute("begin")
            self._connection.executemany(INSERT + ROW, rows)
            self._connection.execute("commit")
        except BaseException:
            with contextlib.suppress(sqlite3.Error):
                self._connection.execute("rollback")
            raise

    def _written(
        self,
        done: asyncio.Future[None],
        rows: list[tuple[Any, ...]],
        callbacks: list[Callable[[], None]],
    ) -> None:
        self._writing = False
        error = done.exception()
        if error is not None:
            # A full disk, most likely: nothing is acknowledged or started until it is written.
            self.trouble = f"cannot write {self.path}: {error}; trying again until there is space"
            self._pending[:0] = rows
            self._callbacks[:0] = callbacks
            self._scheduled = True
            asyncio.get_running_loop().call_later(RETRY_S, self._write)
            return
        self.trouble = ""
        for callback in callbacks:
            done.get_loop().call_soon(callback)  # so that the error of one spares the others
        if self._pending or self._callbacks:
            self._write_soon()

    def close(self) -> None:
        """Write what is left and let go of the folder."""
        self._close()

    def _close(self, is_unused: bool = False) -> None:
        self._closed = True
        self._writer.shutdown(wait=True)
        with contextlib.suppress(sqlite3.Error):
            self._commit(self._pending)
        self._pending = []
        self._connection.close()
        self._hold.close()
        _open_stores.discard(self)
        if is_unused:
            self.path.unlink()
        self._lock.release(unused=is_unused)

    @contextlib.contextmanager
    def closed_on_error(self) -> Iterator[None]:
        """Let go of the folder if what follows fails; a new log without events goes then."""
        try:
            yield
        except BaseException:
            self._close(is_unused=self._made_file and self._next_id == 1)
            raise


def _connect(path: Path) -> sqlite3.Connection:
    """The connection of the one writer, to a file that is there."""
    uri = f"{path.absolute().as_uri()}?mode=rw"
    return sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False)


def quick_check(path: Path) -> None:
    """Raise sqlite3.DatabaseError for a damaged database, of which no byte is changed."""
    # Read-only: the last writer to close would merge the write-ahead log into the damaged file.
    connection = sqlite3.connect(f"{path.absolute().as_uri()}?mode=ro", uri=True)
    try:
        if connection.execute("pragma quick_check").fetchone()[0] != "ok":
            raise sqlite3.DatabaseError("its quick_check failed")
    finally:
        connection.close()


def check_version(version: int, what: str) -> None:
    """Raise StoreVersion for a log of another version, and say which distsearch reads it."""
    if version == VERSION:
        return
    reads = f"distsearch {READ_BY[version]}" if version in READ_BY else "a newer distsearch"
    raise StoreVersion(
        f"{what} is of version {version}, which {reads} reads; this one reads version {VERSION}. "
        f"Use {reads} for it, or start anew in another folder (checkpoint=)"
    )


def _check_version(connection: sqlite3.Connection, path: Path) -> None:
    (version,) = connection.execute("pragma user_version").fetchone()
    if not version:  # an empty file, or of the first version, which did not say so
        is_empty = not connection.execute("select 1 from sqlite_master limit 1").fetchone()
        version = VERSION if is_empty else 1
    check_version(version, f"the log {path}")


def read(folder: Path, *kinds: str, trial: int | None = None, after: int = 0) -> Iterator[Event]:
    """The events of an experiment's log, oldest first; from any thread or process.

    >>> for event in read(Path("distsearch_results/toy"), "report", trial=3): ...

    `after`: only those with a larger id, to follow a search that runs:

    >>> for event in read(Path("distsearch_results/toy"), after=last.id): ...

    Raises StoreVersion.
    """
    where = ["id > ?"]
    values: list[Any] = [after]
    if kinds:
        where.append(f"kind in ({', '.join('?' * len(kinds))})")
        values.extend(kinds)
    if trial is not None:
        where.append("trial = ?")
        values.append(trial)
    query = "select id, time, kind, trial, attempt, seq, body from events"
    query += " where " + " and ".join(where) + " order by id"
    for store in list(_open_stores):  # of this process, which would read the files that it has open
        if store.folder == folder:
            store.mend()
    # (Not made, where there is none.)
    connection = sqlite3.connect(f"{(folder / FILE).absolute().as_uri()}?mode=rw", uri=True)
    try:
        _check_version(connection, folder / FILE)
        for row in connection.execute(query, values):
            number, at, kind, of, attempt, seq, body = row
            yield Event(number, at, kind, of, attempt, seq, _decode(kind, body))
    finally:
        connection.close()


def _decode(kind: str, text: str) -> Any:
    return from_json(text) if kind == "report" else decode(text)


def _make_private(path: Path) -> None:
    """Make an empty file of mode 0600, if there is none; SQLite's other files take its mode."""
    os.close(os.open(path, os.O_CREAT | os.O_RDWR, 0o600))
