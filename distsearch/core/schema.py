"""What the log's file holds: its tables and views, its version, and how each event is sealed.

Each event is sealed with a hash over itself and the seal of the event before; the first event
follows the log's own random id. So an event that was changed does not fit, nor does the event after
one that is missing, or an event of another log.
"""

from __future__ import annotations

import marshal
import os
import sqlite3
from collections.abc import Iterable
from hashlib import blake2b
from pathlib import Path
from typing import Any

from ..errors import StoreVersion
from .phrases import called

FILE = "events.db"
BUSY_S = 5.0  # how long to wait for another process that has locked the file
VERSION = 3  # of the log: it says what each kind of event holds
READ_BY = {1: "0.1", 2: "0.2"}  # the distsearch that reads the logs of each other version
TABLES = """
create table events (
    id integer primary key, time real not null, kind text not null,
    trial integer, attempt integer, seq integer, body text not null, seal integer not null);
create table log (id integer not null, version integer not null);
create index events_of_trial on events (trial, kind, id);
create view reports as
    select trial, attempt, seq, time, body as metrics from events where kind = 'report';
create view trials as
    select l.trial, json_extract(l.body, '$.config') as config,
        coalesce(json_extract(e.body, '$.status'), case when s.id is null then 'waiting'
            when p.id is null then 'running'
            when p.kind = 'paused' and g.id is null then 'paused' else 'waiting' end) as status,
        s.attempt as attempt, json_extract(s.body, '$.places[0].node') as host, s.time as started,
        e.time as ended,
        coalesce(json_extract(e.body, '$.best'), json_extract(p.body, '$.best')) as best,
        coalesce(json_extract(e.body, '$.reason'),
            case when g.id is null then json_extract(p.body, '$.reason') end) as reason,
        json_extract(e.body, '$.traceback') as traceback,
        json_extract(e.body, '$.max_rss_bytes') as max_rss_bytes,
        json_extract(e.body, '$.seconds') as seconds,
        json_extract(l.body, '$.is_final') as is_final
    from events l
    left join events s on s.id = (
        select max(id) from events where trial = l.trial and kind = 'started')
    left join events e on e.id = (
        select max(id) from events where trial = l.trial and kind in ('ended', 'again'))
        and e.kind = 'ended'
    left join events p on p.id = (
        select max(id) from events where trial = l.trial and kind in ('lost', 'again', 'paused'))
        and p.id > s.id
    left join events g on g.id = (
        select max(id) from events where trial = l.trial and kind = 'let_go') and g.id > p.id
    where l.kind = 'launched';
create view lineage as
    select l.trial, p.value as parent,
        json_extract(i.body, '$.from[' || p.key || ']') as inherited,
        json_extract(i.body, '$.policy') as policy, json_extract(i.body, '$.reason') as reason
    from events l, json_each(l.body, '$.parents') p
    left join events i on i.id = (
        select max(id) from events where trial = l.trial and kind = 'inherits')
    where l.kind = 'launched';
"""
INSERT = "insert into events (id, time, kind, trial, attempt, seq, body, seal) values "
ROW = "(?, ?, ?, ?, ?, ?, ?, ?)"
# The rows of the log with their seals, and the seal that each of them follows.
SELECT = (
    "select id, time, kind, trial, attempt, seq, body, seal, coalesce("
    "(select seal from events before where before.id = events.id - 1), (select id from log)) "
    "from events"
)

Row = tuple[Any, ...]  # id, time, kind, trial, attempt, seq, body (text)


def seal(row: Row, before: int) -> int:
    """The seal of a row of the log that follows the one with the seal `before`."""
    # Of what gives equal bytes for equal rows in each Python, marshal's second format is quickest.
    data = marshal.dumps((before, row), 2)
    return int.from_bytes(blake2b(data, digest_size=8).digest(), "little", signed=True)


def sealed(rows: Iterable[Row], before: int) -> list[Row]:
    """Rows with their seals; the first row follows the one with the seal `before`."""
    found = []
    for row in rows:
        before = seal(row, before)
        found.append((*row, before))
    return found


def create(connection: sqlite3.Connection, log_id: int) -> None:
    """Make an empty log, in one transaction."""
    about = f"insert into log values ({log_id}, {VERSION}); pragma user_version={VERSION};"
    connection.executescript(f"begin; {TABLES} {about} commit")


def is_empty(connection: sqlite3.Connection) -> bool:
    """Whether no log has been made yet."""
    return not connection.execute("select 1 from sqlite_master limit 1").fetchone()


def is_intact(connection: sqlite3.Connection) -> bool:
    """Whether the tables and views of this version are there, to the letter; others may be, too."""
    whole = sqlite3.connect(":memory:")
    try:
        create(whole, 0)
        query = "select type, name, tbl_name, sql from sqlite_master"
        return set(connection.execute(query)) >= set(whole.execute(query))
    finally:
        whole.close()


def check_version(version: int, what: str) -> None:
    """Raise StoreVersion for a log of another version, and say which distsearch reads it."""
    if version == VERSION:
        return
    reads = f"distsearch {READ_BY[version]}" if version in READ_BY else "a newer distsearch"
    raise StoreVersion(
        f"{what} is of version {version}, which {reads} reads; this one reads version {VERSION}. "
        f"Use {reads} for it, or start anew in another folder ({called('checkpoint=')})"
    )


def version_of(connection: sqlite3.Connection) -> int:
    """The version of a log that is not empty; logs of version 1 do not name it."""
    (version,) = connection.execute("pragma user_version").fetchone()
    return int(version) or 1


def reading(folder: Path) -> sqlite3.Connection:
    """A connection that only reads, and leaves the files of the log as they are."""
    path = folder / FILE
    log = path.with_name(f"{FILE}-wal")
    # The last connection that closes merges the write-ahead log into the file, if it may write; if
    # it may not, it leaves an empty write-ahead log where there was none. Where a disk is read-only
    # it can make no file, and has to be told that nobody else does.
    if log.exists() and log.stat().st_size:
        mode = "ro"
    else:
        mode = "rw" if os.access(folder, os.W_OK) else "ro&immutable=1"
    uri = f"{path.absolute().as_uri()}?mode={mode}"
    return sqlite3.connect(uri, uri=True, isolation_level=None, timeout=BUSY_S)
