"""The reporter: ordered lines to the agent, waiting only where an answer is due."""

from __future__ import annotations

import json
import os
import signal
import socket
import subprocess
import sys
import textwrap
import threading
import time
from pathlib import Path

import numpy as np
import psutil
import pytest

from distsearch.core.reporter import Reporter, StopTrial
from distsearch.errors import CheckpointError, ReportError

WAIT_S = 20


class Agent:
    """The other end of a reporter's channel."""

    def __init__(self, folder, **options):
        ours, theirs = socket.socketpair()
        ours.settimeout(WAIT_S)
        self.channel, self._file = ours, ours.makefile("rb")
        self.reporter = Reporter(theirs, folder=folder, **options)
        self._theirs = theirs

    def line(self):
        """The next line: (kind, number, due, body)."""
        kind, number, due, body = self._file.readline().decode().split(" ", 3)
        return kind, int(number), due == "1", json.loads(body) if body.strip() else None

    def say(self, text):
        self.channel.sendall(text)

    def close(self):
        self._file.close()
        self.channel.close()
        self._theirs.close()


@pytest.fixture
def agent(tmp_path):
    made = []

    def make(**options):
        made.append(Agent(tmp_path, **options))
        return made[-1]

    yield make
    for one in made:
        one.close()


def wait_until(condition):
    """Wait for what is no event: the state of another process."""
    deadline = time.monotonic() + WAIT_S
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.01)
    time.sleep(0.02)


def pending_signals(pid):
    """Whether a signal has been sent to a process that it has not yet taken."""
    lines = Path(f"/proc/{pid}/status").read_text().splitlines()
    return any(int(line.split()[1], 16) for line in lines if line.startswith(("SigPnd", "ShdPnd")))


def in_thread(function, *args, **kwargs):
    """Start a call; the thread's `outcome` is what it returned or raised."""

    def run():
        try:
            thread.outcome = function(*args, **kwargs)
        except BaseException as error:
            thread.outcome = error

    thread = threading.Thread(target=run, daemon=True)
    thread.outcome = "runs"
    thread.start()
    return thread


def test_reports_arrive_in_order_with_their_times(agent):
    link = agent()
    for epoch in range(1, 4):
        link.reporter(epoch=epoch, accuracy=np.float32(0.5))
    since_start = 0.0
    for epoch in range(1, 4):
        kind, number, due, body = link.line()
        assert (kind, number, due) == ("R", epoch, False)
        assert (body["epoch"], body["accuracy"]) == (epoch, 0.5)
        assert body["time_this_iter"] >= 0
        assert body["time_since_start"] >= since_start
        since_start = body["time_since_start"]


def test_what_the_user_measured_wins_over_the_added_times(agent):
    link = agent()
    link.reporter(time_this_iter=7)
    assert link.line()[3]["time_this_iter"] == 7


def test_a_report_that_is_not_due_does_not_wait(agent):
    link = agent()
    thread = in_thread(link.reporter, epoch=1)
    thread.join(WAIT_S)
    assert thread.outcome is None


def test_a_report_that_is_due_waits_for_the_answer(agent):
    link = agent(due="every")
    thread = in_thread(link.reporter, epoch=1)
    assert link.line()[2] is True
    assert thread.outcome == "runs"
    link.say(b"continue\n")
    thread.join(WAIT_S)
    assert thread.outcome is None


def test_an_answer_may_come_in_pieces(agent):
    link = agent(due="every")
    thread = in_thread(link.reporter, epoch=1)
    link.line()
    link.say(b"conti")
    link.say(b"nue\n")
    thread.join(WAIT_S)
    assert thread.outcome is None


def test_a_stop_that_is_waited_for_ends_the_trial(agent):
    link = agent(due="every")
    thread = in_thread(link.reporter, epoch=1)
    link.line()
    link.say(b"stop\n")
    thread.join(WAIT_S)
    assert isinstance(thread.outcome, StopTrial)


def test_a_stop_that_has_arrived_ends_the_trial_at_its_next_report(agent):
    link = agent()
    link.reporter(epoch=1)
    link.say(b"stop\n")
    with pytest.raises(StopTrial):
        link.reporter(epoch=2)
    assert [link.line()[1], link.line()[1]] == [1, 2]


def test_a_stop_cannot_be_swallowed_by_except_exception(agent):
    assert not issubclass(StopTrial, Exception)
    link = agent()
    link.say(b"stop\n")
    for epoch in range(3):  # not even by a bare except: it comes again
        with pytest.raises(StopTrial):
            link.reporter(epoch=epoch)


def test_the_agents_death_ends_a_trial_that_waits(agent):
    link = agent(due="every")
    thread = in_thread(link.reporter, epoch=1)
    link.line()
    link.channel.shutdown(socket.SHUT_RDWR)
    thread.join(WAIT_S)
    assert isinstance(thread.outcome, (StopTrial, OSError))


@pytest.mark.parametrize("kind", [float, np.float32, np.array])
def test_rungs_are_due_at_the_first_report_that_reaches_each(agent, kind):
    link = agent(due=[9, 3, 1])
    dues = []
    for epoch in (0.5, 2, 2.5, 4, 4, 20, 21):
        thread = in_thread(link.reporter, epoch=kind(epoch))
        dues.append(link.line()[2])
        link.say(b"continue\n")
        thread.join(WAIT_S)
    assert dues == [False, True, False, True, False, True, False]


@pytest.mark.parametrize("epoch", [None, float("nan"), "five", True])
def test_where_the_time_is_no_number_the_reports_are_counted(agent, epoch):
    link = agent(due=[2])
    link.reporter(epoch=epoch)
    assert link.line()[2] is False
    thread = in_thread(link.reporter, epoch=epoch)
    assert link.line()[2] is True
    link.say(b"continue\n")
    thread.join(WAIT_S)


def test_a_refused_report_is_not_counted(agent):
    link = agent()
    with pytest.raises(ReportError, match="65536"):
        link.reporter(weights="x" * 70_000)
    link.reporter(epoch=1)
    assert link.line()[:2] == ("R", 1)


def test_reports_of_several_threads_are_each_whole_and_numbered(agent):
    link = agent()

    def report():
        for _ in range(50):
            link.reporter(filler="x" * 2000)

    threads = [in_thread(report) for _ in range(4)]
    assert [link.line()[1] for _ in range(200)] == list(range(1, 201))
    for thread in threads:
        thread.join(WAIT_S)
        assert thread.outcome is None


def test_a_checkpoint_is_told_after_it_is_there(agent):
    link = agent()
    link.reporter(epoch=1)
    path = link.reporter.save({"w": np.ones(2)}, step=np.int64(7))
    assert [link.line()[:2], link.line()[:2]] == [("R", 1), ("S", 7)]
    assert (path / "manifest.json").exists()
    assert link.reporter.load()["w"].tolist() == [1, 1]


def test_a_checkpoint_that_failed_is_not_told(agent):
    link = agent()
    with pytest.raises(CheckpointError):
        link.reporter.save({"w": object()})
    link.reporter(epoch=1)
    assert link.line()[:2] == ("R", 1)


def test_a_restarted_trial_goes_on_from_its_own_last_save_although_steps_count_anew(agent):
    first = agent()
    for epoch in range(3):
        first.reporter(epoch=epoch)
        first.reporter.save({"epoch": epoch})
    second = agent()
    assert second.reporter.load() == {"epoch": 2}
    second.reporter(epoch=3)
    second.reporter.save({"epoch": 3})
    assert agent().reporter.load() == {"epoch": 3}


def test_a_trial_starts_with_nothing_to_load(agent):
    assert agent().reporter.load() is None


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="looks at /proc")
def test_a_signal_never_cuts_a_report_in_two(tmp_path):
    """TERM while a report waits for room in the channel: the line goes out whole, then it ends."""
    code = """
        import os, signal, socket, sys, threading
        from pathlib import Path
        from distsearch.core.reporter import Reporter, StopTrial
        channel = socket.socket(fileno=int(sys.argv[1]))
        reporter = Reporter(channel, folder=Path("."))
        signal.signal(signal.SIGTERM, lambda *_: reporter.request_stop())
        print("ready", flush=True)
        try:
            while True:
                reporter(filler="x" * 50_000)
        except StopTrial:
            print("stopped", flush=True)
    """
    ours, theirs = socket.socketpair()
    theirs.setsockopt(socket.SOL_SOCKET, socket.SO_SNDBUF, 8192)  # a report takes several sends
    with ours, theirs:
        process = subprocess.Popen(
            [sys.executable, "-c", textwrap.dedent(code), str(theirs.fileno())],
            pass_fds=[theirs.fileno()],
            stdout=subprocess.PIPE,
            text=True,
            cwd=tmp_path,
        )
        theirs.close()
        try:
            assert process.stdout.readline() == "ready\n"
            ours.settimeout(WAIT_S)
            data = ours.recv(1)  # it is reporting now, and soon waits for room
            state = psutil.Process(process.pid)
            for _ in range(3):
                wait_until(lambda: state.status() == psutil.STATUS_SLEEPING)
            os.kill(process.pid, signal.SIGTERM)
            wait_until(lambda: not pending_signals(process.pid))
            while more := ours.recv(1 << 20):
                data += more
            assert process.wait(WAIT_S) == 0
            assert process.stdout.read() == "stopped\n"
        finally:
            process.kill()
            process.wait(10)
            process.stdout.close()
    assert data.endswith(b"\n")
    for line in data.splitlines():
        assert len(json.loads(line.split(b" ", 3)[3])["filler"]) == 50_000


def test_term_ends_a_trial_that_waits_for_an_answer(agent):
    link = agent(due="every")
    previous = signal.signal(signal.SIGTERM, lambda *_: link.reporter.request_stop())
    try:
        killer = in_thread(lambda: (link.line(), os.kill(os.getpid(), signal.SIGTERM)))
        with pytest.raises(StopTrial):
            link.reporter(epoch=1)
        killer.join(WAIT_S)
    finally:
        signal.signal(signal.SIGTERM, previous)


def test_metrics_without_names_are_refused_with_the_spelling(agent):
    reporter = agent().reporter
    with pytest.raises(ReportError, match=r"reporter\(\*\*metrics\)"):
        reporter({"accuracy": 0.5})


def test_a_disk_or_a_machine_with_another_clock_has_no_fresh_checkpoint_deleted(agent, monkeypatch):
    now = time.time()
    monkeypatch.setattr(time, "time", lambda: now + 3600)  # as seen by a server of NFS
    reporter = agent().reporter
    kept = [reporter.save({"epoch": epoch}, step=epoch) for epoch in (1, 2, 3, 4)]
    assert all(path.exists() for path in kept)  # the log may know of none of them yet
