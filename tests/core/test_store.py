"""The log: its views, a full disk, and what it costs."""

from __future__ import annotations

import asyncio
import contextlib
import math
import os
import re
import resource
import shutil
import sqlite3
import subprocess
import sys
import time
import types

import pytest

import distsearch as ag
from distsearch.core import hold, schema, store
from distsearch.core.lock import Lock
from distsearch.core.metrics import to_json
from distsearch.core.store import FILE, Store, read
from distsearch.errors import StoreError, StoreVersion
from distsearch.resource.private import delete

WAIT_S = 30.0


def write(folder, *events):
    """Append events and close; each is the arguments of `append`."""

    async def run():
        log = Store(folder)
        for kind, trial, attempt, seq, body in events:
            log.append(kind, trial, attempt, seq, body)
        await asyncio.wait_for(log.flush(), WAIT_S)
        log.close()

    asyncio.run(run())


def sql(folder, query):
    connection = sqlite3.connect(folder / FILE)
    try:
        return connection.execute(query).fetchall()
    finally:
        connection.close()


def launched(trial, **config):
    return "launched", trial, None, None, {"config": config, "given": False}


def ended(trial, attempt, status, best=None, **more):
    return "ended", trial, attempt, None, {"status": status, "best": best, "reason": "", **more}


def started(trial, attempt, host="a"):
    return "started", trial, attempt, None, {"places": [{"rank": 0, "node": host}]}


def test_the_view_of_trials_tells_how_each_stands(tmp_path):
    write(
        tmp_path,
        launched(0, lr=0.1),
        started(0, 1),
        ended(0, 1, "finished", 0.9, seconds=1.5),
        launched(1, lr=0.2),
        started(1, 1, "b"),
        launched(2, lr=0.3),
        launched(3, lr=0.4),
        started(3, 1),
        ("lost", 3, 1, None, {"reason": "cut"}),
        launched(4, lr=0.5),
        started(4, 1, "a"),
        ("lost", 4, 1, None, {"reason": "cut"}),
        started(4, 2, "b"),
        ended(4, 2, "failed", None, traceback="Traceback ...", reason="boom"),
        launched(5, lr=0.6),
        started(5, 1),
        ("paused", 5, 1, None, {"reason": "rank 7", "best": 0.5}),
        launched(6, lr=0.7),
        started(6, 1),
        ("paused", 6, 1, None, None),
        started(6, 2),
    )
    columns = "trial, json_extract(config, '$.lr'), status, attempt, host, best, seconds, reason"
    assert sql(tmp_path, f"select {columns} from trials order by trial") == [
        (0, 0.1, "finished", 1, "a", 0.9, 1.5, ""),
        (1, 0.2, "running", 1, "b", None, None, None),
        (2, 0.3, "waiting", None, None, None, None, None),
        (3, 0.4, "waiting", 1, "a", None, None, "cut"),
        (4, 0.5, "failed", 2, "b", None, None, "boom"),
        (5, 0.6, "paused", 1, "a", 0.5, None, "rank 7"),
        (6, 0.7, "running", 2, "a", None, None, None),
    ]
    assert sql(tmp_path, "select traceback from trials where trial = 4") == [("Traceback ...",)]


def test_the_view_of_reports_has_a_row_for_each(tmp_path):
    write(tmp_path, *(("report", 3, 1, n, {"accuracy": n / 4}) for n in (1, 2)))
    query = "select trial, attempt, seq, json_extract(metrics, '$.accuracy') from reports"
    assert sql(tmp_path, query) == [(3, 1, 1, 0.25), (3, 1, 2, 0.5)]


def test_numbers_that_json_cannot_hold_are_logged_and_read_back(tmp_path):
    body = to_json({"loss": math.nan, "low": -math.inf})
    write(tmp_path, ("report", 0, 1, 1, body), ("ended", 0, 1, None, {"returned": math.inf}))
    report, end = store.read(tmp_path)
    assert math.isnan(report.body["loss"])
    assert report.body["low"] == -math.inf
    assert end.body["returned"] == "Infinity"


def test_events_can_be_read_by_kind_and_trial(tmp_path):
    write(tmp_path, launched(0), started(0, 1), launched(1), started(1, 1))
    assert [(e.kind, e.trial) for e in store.read(tmp_path, "started", "launched", trial=1)] == [
        ("launched", 1),
        ("started", 1),
    ]


def test_many_events_are_committed_together(tmp_path):
    """A group commit: writing 20,000 events costs few commits, and no more for a longer log."""

    async def run():
        log = Store(tmp_path)
        commits = 0
        commit = log._commit

        def count(rows):
            nonlocal commits
            commits += 1
            commit(rows)

        log._commit = count
        for number in range(20_000):
            log.append("report", number % 10, 1, number, '{"accuracy": 0.5}')
            if number % 1000 == 0:
                await asyncio.sleep(0)
        await asyncio.wait_for(log.flush(), WAIT_S)
        log.close()
        return commits

    assert asyncio.run(run()) <= 25
    assert sql(tmp_path, "select count(*) from events") == [(20_000,)]


def test_an_event_that_is_found_by_trial_needs_no_scan(tmp_path):
    write(tmp_path, launched(0))
    plans = [
        "select max(id) from events where trial = 1 and kind = 'started'",
        "select * from trials where trial = 1",
    ]
    for query in plans:
        steps = [row[3] for row in sql(tmp_path, f"explain query plan {query}")]
        assert not [step for step in steps if "SCAN" in step and "CONSTANT" not in step], steps


READER = """
import sqlite3, sys
for line in sys.stdin:
    log = sqlite3.connect(sys.argv[1])
    (count,) = log.execute("select count(*) from events").fetchone()
    log.close()
    print(count, flush=True)
"""


class Reader:
    """Another process, which opens the log, looks how many events it has, and closes it."""

    def __init__(self, folder):
        command = [sys.executable, "-c", READER, str(folder / FILE)]
        pipe = subprocess.PIPE
        self.process = subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True)

    def count(self):
        self.process.stdin.write("\n")
        self.process.stdin.flush()
        return int(self.process.stdout.readline())

    def __enter__(self):
        return self

    def __exit__(self, *error):
        self.process.stdin.close()
        self.process.wait(WAIT_S)
        self.process.stdout.close()


def back_up(folder, *names):
    """What a backup does in the driver's own process: open, read and close the log's files."""
    for path in [folder / name for name in names] or folder.glob("events*"):
        path.read_bytes()


def test_readers_see_all_that_is_acknowledged_though_the_driver_backs_up_its_folder(tmp_path):
    """Each close loses SQLite's locks; the next reader takes the log away from the driver."""

    async def run():
        log = Store(tmp_path)
        with Reader(tmp_path) as reader:
            for number in range(1, 20):
                log.append("report", 0, 1, number, {"n": number})
                await asyncio.wait_for(log.flush(), WAIT_S)
                if number % 3:
                    back_up(tmp_path)
                assert reader.count() == number
                assert len(list(store.read(tmp_path))) == number  # nor does it here
        log.close()

    asyncio.run(run())
    assert [event.seq for event in store.read(tmp_path)] == list(range(1, 20))


@pytest.mark.parametrize("moment", ["before", "after"])
def test_what_is_committed_while_a_reader_takes_the_files_away_is_committed_again(tmp_path, moment):
    async def run():
        log = Store(tmp_path)
        insert = log._insert

        def disturbed(rows):
            if moment == "before":
                disturb()
            insert(rows)
            if moment == "after":
                disturb()

        def disturb():
            if len(seen) < 2:
                seen.append(log._hold.has_database())
                back_up(tmp_path)
                reader.count()

        seen = []
        with Reader(tmp_path) as reader:
            log.append("report", 0, 1, 1, {})
            await asyncio.wait_for(log.flush(), WAIT_S)
            log._insert = disturbed
            log.append("report", 0, 1, 2, {})
            await asyncio.wait_for(log.flush(), WAIT_S)
            assert reader.count() == 2
        assert seen == [True, True]
        log.close()

    asyncio.run(run())
    assert [event.seq for event in store.read(tmp_path)] == [1, 2]


STAYS = """
import sqlite3, sys
connection = sqlite3.connect(sys.argv[1])
print(*connection.execute("select count(*) from events").fetchone(), flush=True)
sys.stdin.read()
"""


@pytest.mark.parametrize("deleted", [["-wal"], ["-shm"], ["-wal", "-shm"]])
def test_what_was_committed_outlives_its_write_ahead_log_though_others_have_the_log_open(
    tmp_path, deleted
):
    async def run():
        log = Store(tmp_path)
        log.append("report", 0, 1, 1, {})
        await asyncio.wait_for(log.flush(), WAIT_S)
        command, pipe = [sys.executable, "-c", STAYS, str(log.path)], subprocess.PIPE
        with subprocess.Popen(command, stdin=pipe, stdout=pipe, text=True) as other:
            assert other.stdout.readline() == "1\n"
            for ending in deleted:
                (tmp_path / f"{FILE}{ending}").unlink()
            log.append("report", 0, 1, 2, {})
            await asyncio.wait_for(log.flush(), WAIT_S)
            with Reader(tmp_path) as reader:
                assert reader.count() == 2
            other.stdin.close()
        log.close()

    asyncio.run(run())
    assert [event.seq for event in store.read(tmp_path)] == [1, 2]


@pytest.mark.parametrize("instead", ["nothing", "a file", "another folder"])
def test_a_log_that_was_moved_away_gets_nothing_acknowledged_until_it_is_back(
    tmp_path, monkeypatch, instead
):
    monkeypatch.setattr(store, "RETRY_S", 0.05)
    folder, elsewhere = tmp_path / "mine", tmp_path / "elsewhere"

    async def run():
        log = Store(folder)
        log.append("report", 0, 1, 1, {})
        await asyncio.wait_for(log.flush(), WAIT_S)
        folder.rename(elsewhere)
        if instead == "a file":
            folder.touch()
        elif instead == "another folder":
            shutil.copytree(elsewhere, folder)
        log.append("report", 0, 1, 2, {})
        flush = asyncio.ensure_future(log.flush())
        while not log.trouble:
            await asyncio.sleep(0.01)
        assert "no longer in its folder" in log.trouble and not flush.done()
        delete(folder)
        elsewhere.rename(folder)
        await asyncio.wait_for(flush, WAIT_S)
        assert log.trouble == ""
        log.close()

    asyncio.run(asyncio.wait_for(run(), WAIT_S))
    assert [event.seq for event in store.read(folder)] == [1, 2]


@pytest.mark.parametrize("granularity_s", [0.0, 2.0])
def test_a_file_that_goes_within_a_tick_of_the_clock_is_missed_and_so_are_files_of_an_old_time(
    tmp_path, monkeypatch, granularity_s
):
    """FAT and HFS+ count whole seconds; backups put back the times of folders that they read."""

    class Coarse(types.SimpleNamespace):
        """The system's calls, with times as such a disk has them."""

        def stat(self, path):
            about, tick = os.stat(path), int(granularity_s * 1e9) or 1
            times = {
                f"st_{one}time_ns": getattr(about, f"st_{one}time_ns") // tick * tick
                for one in "mc"
            }
            return types.SimpleNamespace(st_ino=about.st_ino, **times)

    monkeypatch.setattr(hold, "os", Coarse(**{**vars(os), "stat": None}))
    monkeypatch.delattr(hold.os, "stat")
    log = Store(tmp_path)
    before = os.stat(tmp_path)
    time.sleep(0.15)
    assert log._hold.renew()
    os.rename(tmp_path / "events.db-wal", tmp_path / "away")
    os.utime(tmp_path, ns=(before.st_atime_ns, before.st_mtime_ns))
    assert not log._hold.renew()
    os.rename(tmp_path / "away", tmp_path / "events.db-wal")
    log.close()


def test_a_log_that_could_not_be_opened_again_at_first_is_opened_later(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "RETRY_S", 0.05)
    connect, refused = store._connect, []

    def connect_later(path):
        if not refused:
            refused.append(path)
            raise sqlite3.OperationalError("unable to open database file")  # too many are open
        return connect(path)

    async def run():
        log = Store(tmp_path)
        log.append("report", 0, 1, 1, {})
        await asyncio.wait_for(log.flush(), WAIT_S)
        monkeypatch.setattr(store, "_connect", connect_later)
        for name in ("events.db-wal", "events.db-shm"):
            (tmp_path / name).unlink()
        log.append("report", 0, 1, 2, {})
        await asyncio.wait_for(log.flush(), WAIT_S)
        assert refused
        log.close()

    asyncio.run(run())
    assert [event.seq for event in store.read(tmp_path)] == [1, 2]


def killed(folder, count):
    """A log of so many events whose writer was killed: all of it is in the write-ahead log."""
    code = (
        "import asyncio, os, sys\nfrom pathlib import Path\n"
        "from distsearch.core.store import Store\n"
        "async def write():\n"
        "    log = Store(Path(sys.argv[1]))\n"
        "    for number in range(int(sys.argv[2])):\n"
        "        log.append('report', 0, 1, number, {'n': number})\n"
        "        await log.flush()\n"
        "    os.kill(os.getpid(), 9)\n"
        "asyncio.run(write())\n"
    )
    subprocess.run([sys.executable, "-c", code, str(folder), str(count)], timeout=WAIT_S)


def test_events_that_are_missing_at_the_end_are_counted_and_the_rest_can_be_rescued(tmp_path):
    killed(tmp_path, 30)
    log = tmp_path / "events.db-wal"
    log.write_bytes(log.read_bytes()[:-20_000])
    damage = {path.name: path.read_bytes() for path in tmp_path.glob("events*")}
    with pytest.raises(StoreError, match=r"events (\d+) to 30, .*, are missing") as error:
        Store(tmp_path)
    whole = int(re.search(r"Its first (\d+) events are whole", str(error.value))[1])
    assert 0 < whole < 30
    assert ag.rescue(tmp_path) == whole
    assert [event.seq for event in store.read(tmp_path)] == list(range(whole))
    for name in ("events.db", "events.db-wal", "events.end"):
        assert (tmp_path / "damaged-1" / name).read_bytes() == damage[name]
    write(tmp_path, ("report", 0, 1, 77, {}))  # and it goes on from there
    assert [event.seq for event in store.read(tmp_path)] == [*range(whole), 77]
    assert ag.rescue(tmp_path) == whole + 1  # nothing to be done
    assert not (tmp_path / "damaged-2").exists()


def test_what_a_rescued_log_knows_no_longer_is_put_aside_lest_another_trial_finds_it(tmp_path):
    about = {"step": 1, "name": "1000001-step-1", "bytes": 10}
    events = [launched(0), started(0, 1), ("saved", 0, 1, None, about), launched(1), launched(2)]
    write(tmp_path, *events)
    for name in ("0/checkpoints/1000001-step-1", "0/checkpoints/1000002-step-2", "1/checkpoints"):
        (tmp_path / "trials" / name).mkdir(parents=True)
    log = sqlite3.connect(tmp_path / FILE)
    log.execute("delete from events where id = 4")
    log.commit()
    log.close()
    assert ag.rescue(tmp_path) == 3
    left = [path.name for path in (tmp_path / "trials/0/checkpoints").iterdir()]
    assert left == ["1000001-step-1"] and not (tmp_path / "trials/1").exists()
    aside = tmp_path / "damaged-1/trials"
    assert (aside / "0/checkpoints/1000002-step-2").is_dir() and (aside / "1").is_dir()


def test_a_log_that_lost_the_power_before_its_end_mark_was_written_is_whole(tmp_path):
    killed(tmp_path, 5)
    for content in (None, b"", bytes(80)):
        (tmp_path / "events.end").unlink(missing_ok=True)
        if content is not None:
            (tmp_path / "events.end").write_bytes(content)
        Store(tmp_path).close()
        assert len(list(store.read(tmp_path))) == 5


def test_a_file_that_was_emptied_or_cannot_be_trusted_is_said_to_be_damaged(tmp_path):
    write(tmp_path, ("report", 0, 1, 1, {}))
    whole = (tmp_path / FILE).read_bytes()
    (tmp_path / FILE).write_bytes(b"")
    with pytest.raises(StoreError, match="is empty, but 1 events had been written"):
        Store(tmp_path)
    with pytest.raises(StoreError, match="not one event can be read"):
        ag.rescue(tmp_path)
    (tmp_path / FILE).write_bytes(whole)
    (tmp_path / "events.end").write_bytes(b"what is this?")
    with pytest.raises(StoreError, match=r"events\.end.*is damaged.*Delete it"):
        Store(tmp_path)


@pytest.mark.parametrize("changed", ["an event", "a view", "the version"])
def test_who_changes_the_log_with_sql_is_found_out(tmp_path, changed):
    write(tmp_path, launched(0), launched(1), launched(2))
    statement = {
        "an event": "delete from events where id = 2",
        "a view": "drop view lineage",
        "the version": "pragma user_version = 7",
    }[changed]
    log = sqlite3.connect(tmp_path / FILE)
    log.execute(statement)
    log.commit()
    log.close()
    with pytest.raises(StoreError, match="is damaged"):
        Store(tmp_path)


# Errors that are no damage: each by its name, and nothing is said to be damaged


def refused(folder):
    with pytest.raises(StoreError) as error:
        Store(folder)
    assert "damaged" not in str(error.value) and not error.value.is_damage
    return str(error.value)


def test_a_log_that_another_program_has_locked_is_said_to_be(tmp_path, monkeypatch):
    monkeypatch.setattr(schema, "BUSY_S", 0.1)
    write(tmp_path, ("report", 0, 1, 1, {}))
    other = sqlite3.connect(tmp_path / FILE, isolation_level=None)
    other.execute("pragma locking_mode=exclusive")
    other.execute("begin exclusive")
    try:
        assert "another program has locked it" in refused(tmp_path)
    finally:
        other.close()
    Store(tmp_path).close()


def test_too_many_open_files_are_called_that(tmp_path):
    write(tmp_path, ("report", 0, 1, 1, {}))
    files = []
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    lock = Lock(tmp_path)
    try:
        resource.setrlimit(resource.RLIMIT_NOFILE, (min(soft, 200), hard))
        with contextlib.suppress(OSError):
            while True:
                files.append(os.open(os.devnull, os.O_RDONLY))
        with pytest.raises(StoreError, match="Too many open files") as error:
            Store(tmp_path, lock)
    finally:
        for file in files:
            os.close(file)
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert "damaged" not in str(error.value)
    Store(tmp_path).close()


def test_a_full_disk_is_called_that_and_the_log_goes_on_when_there_is_space(tmp_path):
    with full_disk(tmp_path / "disk", 1 << 20):
        folder = tmp_path / "disk" / "mine"
        killed(folder, 3)
        for name in ("events.db-shm",):  # as after the power was gone
            (folder / name).unlink()
        ballast = tmp_path / "disk" / "ballast"
        with contextlib.suppress(OSError), open(ballast, "wb", buffering=0) as file:
            while True:
                file.write(bytes(4096))
        assert "its disk is full" in refused(folder)
        assert "its disk is full" in refused(tmp_path / "disk" / "another")
        ballast.unlink()
        write(folder, ("report", 0, 1, 3, {}))
        assert [event.seq for event in store.read(folder)] == [0, 1, 2, 3]


def test_a_limit_on_the_size_of_files_is_called_that_and_the_log_goes_on_when_it_is_gone(
    tmp_path, monkeypatch
):
    monkeypatch.setattr(store, "RETRY_S", 0.05)
    before = resource.getrlimit(resource.RLIMIT_FSIZE)

    async def run():
        log = Store(tmp_path)
        try:
            for seq in range(1, 101):
                log.append("report", 0, 1, seq, {"pad": "x" * 10_000})
            await log.flush()
            size = (tmp_path / f"{store.FILE}-wal").stat().st_size
            resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
            log.append("report", 0, 1, 101, {"pad": "x" * 100_000})
            flush = asyncio.ensure_future(log.flush())
            while not log.trouble:
                await asyncio.sleep(0.01)
            assert "allow larger files (`ulimit -f`)" in log.trouble
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
            await flush
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, before)
            log.close()

    asyncio.run(asyncio.wait_for(run(), WAIT_S))
    assert len(list(store.read(tmp_path))) == 101


@contextlib.contextmanager
def full_disk(folder, room_bytes):
    """A tiny disk of its own at `folder` (as root); call `more()` to make it larger."""
    folder.mkdir()
    if os.geteuid() != 0 or not sys.platform.startswith("linux"):
        pytest.skip("a disk of its own needs root on Linux")
    mount = ["mount", "-t", "tmpfs", "-o", f"size={room_bytes}", "tmpfs", str(folder)]
    if subprocess.run(mount, capture_output=True, timeout=60).returncode != 0:
        pytest.skip("mounting is not allowed here")

    def more(size_bytes):
        option = f"remount,size={size_bytes}"
        subprocess.run(["mount", "-o", option, str(folder)], check=True, timeout=60)

    try:
        yield more
    finally:
        subprocess.run(["umount", "-l", str(folder)], check=True, timeout=60)


async def fill_up(log, make_room):
    """Write until it no longer works, make room, and see that all goes on.

    Returns how many events were acknowledged when it was full, and how many were written.
    """
    acknowledged, number = 0, 0

    def acknowledge(upto):
        nonlocal acknowledged
        acknowledged = max(acknowledged, upto)

    deadline = asyncio.get_running_loop().time() + WAIT_S
    while not log.trouble:
        assert asyncio.get_running_loop().time() < deadline, "the disk never became full"
        for _ in range(20):
            log.append("report", 0, 1, number, {"text": "x" * 1000})
            number += 1
        log.when_durable(lambda upto=number: acknowledge(upto))
        await asyncio.sleep(0.005)
    at_full = acknowledged
    assert at_full < number
    with pytest.raises(asyncio.TimeoutError):
        await asyncio.wait_for(log.flush(), 1.5 * store.RETRY_S)  # it has tried again meanwhile
    assert acknowledged == at_full
    assert "trying again until there is space" in log.trouble
    make_room()
    await asyncio.wait_for(log.flush(), WAIT_S)
    assert log.trouble == ""
    assert acknowledged == number
    return number


def test_a_full_disk_stops_acknowledgement_until_there_is_space(tmp_path, monkeypatch):
    monkeypatch.setattr(store, "RETRY_S", 0.2)
    folder = tmp_path / "disk"
    with full_disk(folder, 1 << 20) as more:

        async def run():
            log = Store(folder)
            written = await fill_up(log, lambda: more(64 << 20))
            log.close()
            return written

        written = asyncio.run(run())
        assert [event.seq for event in store.read(folder)] == list(range(written))


def test_a_database_that_may_not_grow_stops_acknowledgement_until_it_may(tmp_path, monkeypatch):
    """SQLite's own limit stands for the full disk, where no disk can be mounted."""
    monkeypatch.setattr(store, "RETRY_S", 0.2)

    async def run():
        log = Store(tmp_path)
        limit = "pragma max_page_count = "
        log._connection.execute(f"{limit}{100}")
        written = await fill_up(log, lambda: log._connection.execute(f"{limit}{2**30}"))
        log.close()
        return written

    written = asyncio.run(run())
    assert [event.seq for event in store.read(tmp_path)] == list(range(written))


def test_a_log_of_another_version_is_refused_with_the_distsearch_that_reads_it(tmp_path):
    connection = sqlite3.connect(tmp_path / FILE)
    connection.execute("create table events (id integer primary key, kind text)")
    connection.commit()
    with pytest.raises(StoreVersion, match=r"version 1, which distsearch 0\.1 reads"):
        Store(tmp_path)
    with pytest.raises(StoreVersion, match=r"start anew in another folder \(checkpoint=\)"):
        list(read(tmp_path))
    connection.execute("pragma user_version=99")
    connection.commit()
    connection.close()
    with pytest.raises(StoreVersion, match="version 99, which a newer distsearch reads"):
        Store(tmp_path)


def test_an_event_is_returned_as_the_log_will_give_it_and_what_is_no_json_is_not_added(tmp_path):
    async def write():
        store = Store(tmp_path)
        first = store.append("launched", 0, body='{"config": {"sizes": [1, 2]}}')
        with pytest.raises(ValueError):
            store.append("report", 0, 1, 1, '{"epoch": 1, "accura')
        second = store.append("report", 0, 1, 1, '{"accuracy": "NaN"}')
        await store.flush()
        store.close()
        return [first, second]

    returned = asyncio.run(write())
    assert repr(returned) == repr(list(read(tmp_path)))
    assert [event.id for event in returned] == [1, 2]


def test_a_reader_can_follow_a_log_from_where_it_was(tmp_path):
    write(tmp_path, launched(0), started(0, 1))
    seen = list(read(tmp_path))
    write(tmp_path, ended(0, 1, "finished"))
    assert [event.kind for event in read(tmp_path, after=seen[-1].id)] == ["ended"]
