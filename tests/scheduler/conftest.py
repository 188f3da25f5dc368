"""Searches on a few declared slots of this machine, and a way to hear from their trials."""

from __future__ import annotations

import os
import queue
import select
import subprocess
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

import distsearch
from distsearch import Node
from distsearch.scheduler import FIFOScheduler

WAIT_S = 30.0  # what a test waits at most for something that should come at once


@pytest.fixture(autouse=True)
def own_folder(tmp_path, monkeypatch):
    """Each test runs in an empty folder, where its results land too."""
    monkeypatch.chdir(tmp_path)


@pytest.fixture
def search():
    """Make a scheduler on four slots that prints nothing; it is closed after the test."""
    made = []

    def make(train_fn, scheduler=FIFOScheduler, slots=4, **options):
        options = {"local": Node("localhost", num_cpus=slots), "verbose": 0, **options}
        made.append(scheduler(train_fn, **options))
        return made[-1]

    yield make
    for scheduler in made:
        scheduler.close()


class Mailbox:
    """Lines from trials of this machine, through a named pipe.

    In a trial: `with open(args.mailbox, "w") as mailbox: print("here", file=mailbox)`.
    """

    def __init__(self, path: Path) -> None:
        os.mkfifo(path)
        self.path = str(path)
        self._pipe = os.open(path, os.O_RDWR | os.O_NONBLOCK)
        self._lines: list[str] = []

    def take(self, timeout_s: float = WAIT_S) -> str:
        """The next line; waits for it."""
        unread = b""
        while not self._lines:
            assert select.select([self._pipe], [], [], timeout_s)[0], "no trial wrote anything"
            unread += os.read(self._pipe, 4096)
            if unread.endswith(b"\n"):
                self._lines = unread.decode().splitlines()
        return self._lines.pop(0)

    def close(self) -> None:
        os.close(self._pipe)


@pytest.fixture
def mailbox(tmp_path_factory):
    box = Mailbox(tmp_path_factory.mktemp("mail") / "box")
    yield box
    box.close()


class Driver:
    """A program of its own that runs a search; its lines can be awaited."""

    def __init__(self, script: str, folder: Path) -> None:
        (folder / "driver.py").write_text(script)
        path = str(Path(distsearch.__file__).parents[1])
        self.process = subprocess.Popen(
            [sys.executable, "driver.py"],
            cwd=folder,
            env={**os.environ, "PYTHONPATH": path},
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        self.output = ""
        self._lines: queue.Queue[str | None] = queue.Queue()
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    def _read(self) -> None:
        assert self.process.stdout is not None
        for line in self.process.stdout:
            self._lines.put(line)
        self._lines.put(None)

    def say(self, line: str) -> None:
        """Write a line to its standard input."""
        assert self.process.stdin is not None
        self.process.stdin.write(line + "\n")
        self.process.stdin.flush()

    def words_after(self, mark: str) -> list[str]:
        """Wait for a line that starts with `mark`; the words that follow it there."""
        deadline = time.monotonic() + WAIT_S
        while True:
            line = self._lines.get(timeout=max(0.0, deadline - time.monotonic()))
            assert line is not None, f"the driver ended without saying {mark!r}:\n{self.output}"
            self.output += line
            if line.startswith(mark):
                return line.removeprefix(mark).split()

    def end(self, timeout_s: float = WAIT_S) -> str:
        """Wait until the driver has ended; all that it printed."""
        self.process.wait(timeout_s)
        while (line := self._lines.get(timeout=WAIT_S)) is not None:
            self.output += line
        return self.output


@pytest.fixture
def driver(tmp_path):
    """Start programs that search; those still running after the test are killed."""
    made = []

    def start(script):
        made.append(Driver(script, tmp_path))
        return made[-1]

    yield start
    for one in made:
        one.process.kill()
        one.process.wait(10)


def left_after(pids, timeout_s=5.0):
    """Those of the processes that have not ended within the time."""
    processes = []
    for pid in pids:
        try:
            processes.append(psutil.Process(int(pid)))
        except psutil.NoSuchProcess:
            continue
    deadline = time.monotonic() + timeout_s
    while processes and time.monotonic() < deadline:
        processes = [p for p in processes if _runs(p)]
        time.sleep(0.02)  # not our children: their end is no event that we could await
    return processes


def _runs(process):
    try:
        return process.is_running() and process.status() != psutil.STATUS_ZOMBIE
    except psutil.NoSuchProcess:
        return False


@pytest.fixture(name="left_after")
def _left_after():
    return left_after
