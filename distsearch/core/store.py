"""The log of an experiment: one SQLite file to which events are only ever added.

    events   id (1, 2, ...), time (Unix seconds), kind, trial, attempt, seq, body (JSON), and seal,
             by which damage is found (see `schema.py`)
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
    held        a trial is paused by request, until it is let go or ends
    let_go      a trial that was paused, by request or by the rule, goes on by request
    saved       a trial has saved a checkpoint
    deleted     a checkpoint is deleted, to keep within `max_bytes`
    paused      an attempt is over; its trial may be resumed by the rule
    lost        an attempt is over, and its trial is to run again
    ended       a trial has ended
    again       a trial that had ended runs once more, for its children
    request     what somebody has asked of the running search, and what came of it
    search_held, search_let_go
                the whole search is paused by request, and goes on

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

from ..errors import StoreError
from ..resource.private import make_folders, make_private, private
from .belongings import claim, delete_new, put_aside_leftovers
from .end_mark import MarkFile
from .forks import undisturbed
from .hold import Hold
from .lock import Lock
from .metrics import decode, from_json, report_json, strict_json
from .schema import FILE as FILE
from .schema import INSERT, ROW, SELECT, create, is_empty, seal, sealed, version_of
from .schema import VERSION as VERSION
from .schema import check_version as check_version
from .verify import Verified, cause, damaged, in_words, is_full, opened
from .verify import verify as verify

FEW = 40
RETRY_S = 1.0
LOOK_S = 0.2
TRIES = 3
WAIT_S = 10.0
_open_stores: weakref.WeakSet[Store] = weakref.WeakSet()
os.register_at_fork(after_in_child=lambda: _open_stores.clear())  # their writers live in the parent


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

    `lock`: the lock of the folder, where the caller has it already. `on_deleted` is called with an
    error when the log was deleted while it was open: nothing can be written any more.

    Raises StoreLocked when another driver writes to this folder (its process and host are named),
    StoreVersion when another version of distsearch wrote it, StoreError when the file is damaged.
    """

    def __init__(self, folder: Path, lock: Lock | None = None) -> None:
        self.folder = folder
        self.path = folder / FILE
        self._lock = lock or Lock(folder)
        self._made_file = not self.path.exists()
        self.put_aside: Path | None = None  # where another log's leftovers lie now
        try:
            if self._made_file:
                self.put_aside = put_aside_leftovers(folder)
                os.close(private(self.path, os.O_RDWR | os.O_CREAT))
            for path in folder.glob(f"{FILE}*"):  # what SQLite makes besides gets the same mode
                make_private(path)
            self._connection = self._open()
            self._hold = Hold(self.path)
            self._file = os.open(self.path, os.O_RDONLY | os.O_CLOEXEC)
            self._lock.check()  # nobody else has this very log
            self.put_aside = claim(folder, self.log_id, self.put_aside)
        except BaseException as error:
            self._lock.release()
            if isinstance(error, OSError):
                raise in_words(error, self.path) from error
            raise
        self._mark = MarkFile(folder, self.log_id)
        self._acknowledged = self._next_id - 1
        self._mark.write(self._acknowledged, self._seal)
        self._pending: list[tuple[Any, ...]] = []
        self._callbacks: list[Callable[[], None]] = []
        self._writing = False
        self._scheduled = False
        self._writer = ThreadPoolExecutor(1, thread_name_prefix="distsearch-store")
        self._is_unsure = False  # whether rows that wait may be in the file already
        self.trouble = ""
        self.on_deleted: Callable[[StoreError], None] = lambda error: None
        self._trouble_since: float | None = None
        self._closed = False
        self._is_unused = False
        _open_stores.add(self)

    def _open(self) -> sqlite3.Connection:
        found = verify(self.folder)
        log_id = int.from_bytes(os.urandom(8), "little", signed=True) if found is None else found[0]
        try:
            connection = _connect(self.path)
            try:
                connection.execute("pragma journal_mode=wal")
                connection.execute("pragma synchronous=full")
                if found is None:
                    create(connection, log_id)
            except BaseException:
                connection.close()
                raise
        except sqlite3.Error as error:
            raise in_words(error, self.path) from error
        self.log_id, last, self._seal = found or Verified(log_id, 0, log_id)
        self._next_id = last + 1
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
            encode = report_json if kind == "report" else strict_json
            text, value = encode(body), body
        number, at = self._next_id, time.time()
        event = Event(number, at, kind, trial, attempt, seq, value)
        if apply is not None:
            apply(event)
        self._next_id = number + 1
        self._pending.append((number, at, kind, trial, attempt, seq, text))
        if not self._scheduled:
            self._write_soon()
        return event

    def when_durable(self, callback: Callable[[], None]) -> None:
        """Call back in the loop once everything that has been appended so far is on the disk."""
        self._callbacks.append(callback)
        if not self._scheduled:
            self._write_soon()

    def keep_output(self, trial: int, text: str, name: str = "output.txt") -> None:
        """Add what a trial of another node has printed to `trials/N/output.txt`."""
        folder = self.folder / "trials" / str(int(trial))
        make_folders(folder)
        with open(folder / name, "a", encoding="utf-8", opener=private) as file:
            file.write(text)

    async def flush(self) -> None:
        """Return once everything that has been appended so far is on the disk."""
        durable: asyncio.Future[None] = asyncio.get_running_loop().create_future()

        def arrived() -> None:
            if not durable.done():  # the waiter may have given up
                durable.set_result(None)

        self.when_durable(arrived)
        await durable

    async def flush_or_give_up(self, patience_s: float) -> bool:
        """Flush, or give up when nothing could be written for so long; whether all is written."""
        flushed = asyncio.ensure_future(self.flush())
        while not flushed.done() and self.stuck_s < patience_s and not self._is_deleted:
            await asyncio.wait([flushed], timeout=LOOK_S)
        is_written = flushed.done()
        flushed.cancel()
        return is_written

    @property
    def stuck_s(self) -> float:
        """For how many seconds nothing could be written, for the reason that `trouble` gives."""
        return 0.0 if self._trouble_since is None else time.monotonic() - self._trouble_since

    @property
    def _is_deleted(self) -> bool:
        """Whether the log has no name any more in any folder."""
        try:
            return os.fstat(self._file).st_nlink == 0
        except OSError:  # a file server that does not answer, which may come back
            return False

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
            except (sqlite3.Error, OSError) as error:
                done.set_exception(error)
        done.add_done_callback(lambda done: self._written(done, rows, callbacks))

    def _commit(self, rows: list[tuple[Any, ...]]) -> None:
        """Write rows; when this returns they are on the disk, and where readers find them."""
        if rows:
            with undisturbed():
                self._write_whole(rows)

    def _write_whole(self, rows: list[tuple[Any, ...]]) -> None:
        for _ in range(TRIES):
            if self._hold.is_empty:  # the log could not be opened again
                self._reopen()
            self._hold.take()
            if self._is_unsure:
                rows = self._missing_of(rows)
            self._is_unsure = True
            new = sealed(rows, self._seal)
            self._insert(new)
            if self._hold.renew():
                self._is_unsure = False
                if new:
                    self._acknowledged, self._seal = new[-1][0], new[-1][-1]
                    self._mark.write(self._acknowledged, self._seal)
                return
            self._reopen()
        raise sqlite3.OperationalError("others delete its files again and again")

    def _missing_of(self, rows: list[tuple[Any, ...]]) -> list[tuple[Any, ...]]:
        """The rows that are not in the file yet; the others are the last events there."""
        query = "select id, seal from events order by id desc limit 1"
        last, self._seal = self._connection.execute(query).fetchone() or (0, self.log_id)
        if last + 1 < rows[0][0]:
            raise sqlite3.OperationalError(f"events {last + 1} to {rows[0][0] - 1} are gone")
        return [row for row in rows if row[0] > last]

    def _reopen(self) -> None:
        """Open the log again: another process has deleted files of it that this one has open."""
        if not self._hold.has_database():
            raise sqlite3.OperationalError("it is no longer in its folder: put it back")
        self._is_unsure = True
        self._save_what_is_deleted()
        self._connection.close()
        self._hold.close()
        self._connection = _connect(self.path)
        self._connection.execute("pragma synchronous=full")
        self._hold = Hold(self.path)

    def _save_what_is_deleted(self) -> None:
        """Merge the write-ahead log, if that was deleted before anybody had merged it.

        (If a reader has merged that log, others may read the database now: it must not change.)
        """
        if self._hold.has_log() or self._is_merged():
            return
        with contextlib.suppress(sqlite3.Error):
            self._connection.execute("pragma wal_checkpoint(truncate)")

    def _is_merged(self) -> bool:
        uri = f"{self.path.absolute().as_uri()}?immutable=1"  # without any write-ahead log
        query = "select coalesce(max(id), 0) from events"
        try:
            with contextlib.closing(sqlite3.connect(uri, uri=True)) as database:
                return bool(database.execute(query).fetchone()[0] >= self._acknowledged)
        except sqlite3.Error:
            return False

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
            # Nothing is acknowledged or started until it is written.
            until = " until there is space" if is_full(error, self.path) else ""
            self.trouble = (
                f"cannot write {self.path}: {cause(error, self.path)}; trying again{until}"
            )
            self._trouble_since = self._trouble_since or time.monotonic()
            self._pending[:0] = rows
            self._callbacks[:0] = callbacks
            self._scheduled = True
            if self._is_deleted:  # there is nothing that could be put back
                self.trouble = f"cannot write {self.path}: it was deleted, or replaced by another"
                self.on_deleted(StoreError(self.trouble))
            else:
                asyncio.get_running_loop().call_later(RETRY_S, self._write)
            return
        self.trouble, self._trouble_since = "", None
        self._write()  # what has come meanwhile is written while the loop does what follows
        for callback in callbacks:
            try:
                callback()
            except Exception as raised:  # the error of one spares the others
                context = {"message": f"error in {callback!r}", "exception": raised}
                done.get_loop().call_exception_handler(context)

    def disown(self) -> None:
        """Have `close` delete what this search has made in its folder, as it could not be made.

        (A log that an earlier run has made stays.)
        """
        self._is_unused = self._made_file

    def close(self) -> None:
        """Write what is left and let go of the folder."""
        self._closed = True
        self._writer.shutdown(wait=True)
        with contextlib.suppress(sqlite3.Error, OSError):
            self._commit(self._pending)
        self._pending = []
        self._connection.close()
        self._hold.close()
        os.close(self._file)
        self._mark.close()
        _open_stores.discard(self)
        if self._is_unused:
            with contextlib.suppress(OSError):
                delete_new(self.folder, self._lock.there)
        self._lock.release(unused=self._is_unused)

    @contextlib.contextmanager
    def closed_on_error(self) -> Iterator[None]:
        """Close the store if what follows fails; its folder is then as it was before."""
        try:
            yield
        except BaseException:
            self.disown()
            self.close()
            raise


def _connect(path: Path) -> sqlite3.Connection:
    """The connection of the one writer, to a file that is there."""
    uri = f"{path.absolute().as_uri()}?mode=rw"
    return sqlite3.connect(uri, uri=True, isolation_level=None, check_same_thread=False)


def read(folder: Path, *kinds: str, trial: int | None = None, after: int = 0) -> Iterator[Event]:
    """The events of an experiment's log, oldest first; from any thread or process.

    >>> for event in read(Path("distsearch_results/toy"), "report", trial=3): ...

    `after`: only those with a larger id, to follow a search that runs:

    >>> for event in read(Path("distsearch_results/toy"), after=last.id): ...

    Each is checked by its seal; see `verify` for what is missing. Raises StoreError and
    StoreVersion.
    """
    where = ["id > ?"]
    values: list[Any] = [after]
    if kinds:
        where.append(f"kind in ({', '.join('?' * len(kinds))})")
        values.extend(kinds)
    if trial is not None:
        where.append("trial = ?")
        values.append(trial)
    query = f"{SELECT} where {' and '.join(where)} order by id"
    # (SQLite reads the files that a store of this process has open, even if they were deleted.)
    for store in list(_open_stores):
        if store.folder == folder:
            store.mend()
    path = folder / FILE
    with opened(folder) as connection:
        if is_empty(connection):
            return
        check_version(version_of(connection), f"the log {path}")
        for *row, own, before in connection.execute(query, values):
            number, at, kind, of, attempt, seq, body = row
            if before is None or seal(tuple(row), before) != own:
                raise damaged(path, f"event {number} is not as it was written", 0)
            yield Event(number, at, kind, of, attempt, seq, _decode(kind, body))


def _decode(kind: str, text: str) -> Any:
    return from_json(text) if kind == "report" else decode(text)
