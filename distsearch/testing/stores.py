"""What holds for every store of events."""

from __future__ import annotations

import asyncio
import contextlib
import os
import re
import signal
import socket
import sqlite3
import subprocess
import sys
import textwrap
from collections.abc import Iterable, Iterator
from functools import partial
from pathlib import Path
from typing import IO, Any, ClassVar

import pytest

from ..errors import StoreError, StoreLocked

WAIT_S = 30.0

WRITER = """
    import asyncio, importlib, sys
    from pathlib import Path

    async def write(make, folder, count):
        store = make(folder)
        acknowledged = number = 0
        news = asyncio.Event()

        def acknowledge(upto):
            nonlocal acknowledged
            acknowledged = upto
            print(upto, flush=True)
            news.set()

        while acknowledged < count:
            while number - acknowledged < 200:  # a few batches are always on their way
                for _ in range(50):
                    store.append("report", number % 7, 1, number, {"n": number, "text": "x" * 100})
                    number += 1
                store.when_durable(lambda upto=number: acknowledge(upto))
                await asyncio.sleep(0)
            news.clear()
            await news.wait()
        await asyncio.sleep(60)  # until it is killed

    module, _, name = sys.argv[1].partition(":")
    make = getattr(importlib.import_module(module), name)
    asyncio.run(write(make, Path(sys.argv[2]), int(sys.argv[3])))
"""


class StoreKit:
    """What holds for every store of events; derive a test class of your own from it.

        class TestMyStore(StoreKit):
            where = "my_package.store:MyStore"
            file = "events.log"

            def make(self, folder):
                return MyStore(folder)

            def read(self, folder):
                return my_package.store.read(folder)

    A store is used as `distsearch.core.store.Store` is: `append(kind, trial, attempt, seq, body)`,
    `when_durable(callback)`, `await flush()`, `close()`. Writers are killed, and files damaged.

    `where`: what opens a store, as 'module:name', for processes that only write.
    `file`: the name of its file; others that belong to it begin with that name.
    """

    where: ClassVar[str]
    file: ClassVar[str]

    def make(self, folder: Path) -> Any:
        """Open the store of a folder."""
        raise NotImplementedError

    def read(self, folder: Path) -> Iterable[Any]:
        """All events of a folder, oldest first."""
        raise NotImplementedError

    def fill(self, folder: Path, count: int) -> None:
        """Write events 0 to count - 1, wait until they are durable, and close."""

        async def write() -> None:
            store = self.make(folder)
            for number in range(count):
                store.append("report", number % 3, 1, number, {"n": number})
            await asyncio.wait_for(store.flush(), WAIT_S)
            store.close()

        asyncio.run(write())

    def numbers(self, folder: Path) -> list[int]:
        """What `fill` has written."""
        return [event.seq for event in self.read(folder) if event.kind == "report"]

    @contextlib.contextmanager
    def writer(self, folder: Path, count: int) -> Iterator[subprocess.Popen[str]]:
        """A process of its own that writes without end and tells what it was acknowledged."""
        process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(WRITER), self.where, str(folder), str(count)],
            stdout=subprocess.PIPE,
            text=True,
        )
        try:
            yield process
        finally:
            process.kill()
            process.wait()
            said(process).close()

    def killed_writer(self, folder: Path, count: int) -> int:
        """Kill a writer after `count` acknowledgements; how many events it had acknowledged."""
        acknowledged = 0
        with self.writer(folder, 10**9) as process:
            while acknowledged < count:
                acknowledged = int(said(process).readline())
            process.send_signal(signal.SIGKILL)
            rest = said(process).read().split()
        return int(rest[-1]) if rest else acknowledged

    def test_what_was_appended_is_read_back_in_order(self, tmp_path: Path) -> None:
        self.fill(tmp_path, 1000)
        assert self.numbers(tmp_path) == list(range(1000))

    def test_bodies_come_back_as_they_were(self, tmp_path: Path) -> None:
        bodies = [None, 1.5, "text", "größe \n '; drop", [1, None], {"a": {"b": [True, "x"]}}, {}]

        async def write() -> None:
            store = self.make(tmp_path)
            for body in bodies:
                store.append("note", body={"value": body})
            await store.flush()
            store.close()

        asyncio.run(write())
        assert [event.body["value"] for event in self.read(tmp_path)] == bodies

    def test_nothing_is_acknowledged_before_it_can_be_read_by_others(self, tmp_path: Path) -> None:
        async def write() -> list[tuple[int, bool]]:
            store = self.make(tmp_path)
            seen: list[tuple[int, bool]] = []

            def look(number: int) -> None:
                seen.append((number, len(self.numbers(tmp_path)) > number))

            for number in range(20):
                store.append("report", 0, 1, number, {})
                store.when_durable(partial(look, number))
                if number % 3 == 0:
                    await asyncio.sleep(0)
            await asyncio.wait_for(store.flush(), WAIT_S)
            store.close()
            return seen

        assert asyncio.run(write()) == [(number, True) for number in range(20)]

    def test_what_is_appended_while_the_disk_is_busy_is_not_acknowledged_with_it(
        self, tmp_path: Path
    ) -> None:
        async def write() -> tuple[int, list[list[int]]]:
            store = self.make(tmp_path)
            order: list[list[int]] = []
            store.append("report", 0, 1, 0, {})
            store.when_durable(lambda: order.append(list(self.numbers(tmp_path))))
            while not order:
                store.append("report", 0, 1, len(order) + 1, {})
                await asyncio.sleep(0)
            first = len(order)
            store.when_durable(lambda: order.append(list(self.numbers(tmp_path))))
            await asyncio.wait_for(store.flush(), WAIT_S)
            store.close()
            return first, order

        first, order = asyncio.run(write())
        assert first == 1
        assert order[0][0] == 0
        assert order[-1] == self.numbers(tmp_path)

    def test_an_acknowledgement_without_anything_to_write_comes_too(self, tmp_path: Path) -> None:
        async def wait() -> None:
            store = self.make(tmp_path)
            await asyncio.wait_for(store.flush(), WAIT_S)
            store.close()

        asyncio.run(wait())

    def test_closing_writes_what_waits(self, tmp_path: Path) -> None:
        async def write() -> None:
            store = self.make(tmp_path)
            store.append("report", 0, 1, 0, {})
            store.close()

        asyncio.run(write())
        assert self.numbers(tmp_path) == [0]

    def test_a_killed_writer_leaves_all_it_had_acknowledged_in_order(self, tmp_path: Path) -> None:
        for kill in range(2):
            folder = tmp_path / str(kill)
            acknowledged = self.killed_writer(folder, 300 * (1 + 3 * kill))
            assert acknowledged >= 300
            numbers = self.numbers(folder)
            assert len(numbers) >= acknowledged
            assert numbers == list(range(len(numbers)))

    def test_a_killed_writers_log_can_be_continued(self, tmp_path: Path) -> None:
        acknowledged = self.killed_writer(tmp_path, 200)
        self.fill(tmp_path, 5)
        numbers = self.numbers(tmp_path)
        assert len(numbers) >= acknowledged + 5
        assert numbers[-5:] == [0, 1, 2, 3, 4]

    def test_a_second_writer_is_refused_at_once_and_told_who_the_first_is(
        self, tmp_path: Path
    ) -> None:
        with self.writer(tmp_path, 1) as process:
            assert said(process).readline()
            with pytest.raises(StoreLocked) as error:
                self.make(tmp_path)
            assert f"process {process.pid} on {socket.gethostname()}" in str(error.value)
        self.make(tmp_path).close()  # and let in once the first is gone

    def test_a_refused_writer_changes_nothing(self, tmp_path: Path) -> None:
        store = self.make(tmp_path)
        with pytest.raises(StoreLocked):
            self.make(tmp_path)
        with pytest.raises(StoreLocked, match=f"process {os.getpid()} on"):
            self.make(tmp_path)
        store.close()

    def contents(self, folder: Path) -> dict[str, bytes]:
        """The files of the log itself, with their bytes (not the lock, not shared memory)."""
        return {
            path.name: path.read_bytes()
            for path in folder.iterdir()
            if path.name.startswith(self.file)
            and not path.name.endswith("-shm")
            and path.stat().st_size
        }

    @pytest.mark.parametrize("clean", [True, False], ids=["closed", "killed"])
    def test_a_damaged_file_is_refused_and_its_bytes_kept(
        self, tmp_path: Path, clean: bool
    ) -> None:
        self.fill(tmp_path, 3000)
        if not clean:
            self.killed_writer(tmp_path, 500)
        path = tmp_path / self.file
        with open(path, "r+b") as file:
            file.seek(path.stat().st_size // 2 // 4096 * 4096)
            file.write(b"\xff" * 8192)
        before = self.contents(tmp_path)
        assert (len(before) > 1) is not clean
        for _ in range(2):
            with pytest.raises(StoreError, match=r"is damaged.*it was left as it is.*\.recover"):
                self.make(tmp_path)
        assert self.contents(tmp_path) == before

    @pytest.mark.parametrize("place", [0.02, 0.5, 0.97])
    @pytest.mark.parametrize("how", ["flipped", "ended"])
    def test_what_a_killed_writer_has_left_is_refused_if_a_bit_of_it_is_another(
        self, tmp_path: Path, how: str, place: float
    ) -> None:
        acknowledged = self.killed_writer(tmp_path, 600)
        whole = self.numbers(tmp_path)
        path = max(map(tmp_path.joinpath, self.contents(tmp_path)), key=lambda p: p.stat().st_size)
        data = bytearray(path.read_bytes())
        at = int(place * len(data))
        data[at] ^= 1
        path.write_bytes(data if how == "flipped" else data[:at])
        before = self.contents(tmp_path)
        try:
            self.make(tmp_path).close()
        except StoreError as error:
            assert re.search("is damaged.*it was left as it is", str(error))
            assert self.contents(tmp_path) == before
        else:  # the bit was in no use, or in an event that the writer was killed over
            left = self.numbers(tmp_path)
            assert left == whole[: len(left)]
            assert len(left) >= acknowledged

    def test_a_letter_that_changed_inside_an_event_is_refused(self, tmp_path: Path) -> None:
        self.fill(tmp_path, 500)
        path = tmp_path / self.file
        data = path.read_bytes()
        at = data.index(b'"n": ') + 1
        path.write_bytes(data[:at] + b"?" + data[at + 1 :])
        with pytest.raises(StoreError, match="is damaged"):
            self.make(tmp_path)
        with pytest.raises(StoreError, match="is damaged"):
            list(self.read(tmp_path))

    def test_what_is_no_log_at_all_is_refused_and_kept(self, tmp_path: Path) -> None:
        (tmp_path / self.file).write_bytes(b"my thesis\n" * 1000)
        with pytest.raises(StoreError, match="is damaged"):
            self.make(tmp_path)
        assert (tmp_path / self.file).read_bytes() == b"my thesis\n" * 1000

    def test_the_folder_is_made_and_private(self, tmp_path: Path) -> None:
        self.make(tmp_path / "a" / "b").close()
        assert (tmp_path / "a" / "b").stat().st_mode & 0o077 == 0


def said(process: subprocess.Popen[str]) -> IO[str]:
    """What a writer prints."""
    assert process.stdout is not None
    return process.stdout


class SQLStoreKit(StoreKit):
    """What holds besides for stores that anyone may read with SQL, in its views and `events`."""

    def query(self, folder: Path, sql: str) -> list[tuple[Any, ...]]:
        """What plain sqlite3 says, read-only."""
        connection = sqlite3.connect(f"file:{folder / self.file}?mode=ro", uri=True, timeout=0)
        try:
            return connection.execute(sql).fetchall()
        finally:
            connection.close()

    def test_the_views_can_be_read_while_it_is_being_written(self, tmp_path: Path) -> None:
        with self.writer(tmp_path, 10**6) as process:
            last = 0
            for _ in range(20):
                acknowledged = int(said(process).readline())
                ((count,),) = self.query(tmp_path, "select count(*) from reports")
                assert count >= max(acknowledged, last)
                last = count
                assert self.query(tmp_path, "select * from trials") == []

    def test_readers_do_not_hold_up_the_writer(self, tmp_path: Path) -> None:
        async def write() -> None:
            store = self.make(tmp_path)
            store.append("report", 0, 1, 0, {})
            await store.flush()
            reader = sqlite3.connect(tmp_path / self.file)
            reader.execute("begin")
            reader.execute("select count(*) from events").fetchone()
            for number in range(1, 50):
                store.append("report", 0, 1, number, {})
                await asyncio.wait_for(store.flush(), WAIT_S)
            reader.close()
            store.close()

        asyncio.run(write())
        assert len(self.numbers(tmp_path)) == 50
