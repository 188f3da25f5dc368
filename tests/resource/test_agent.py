"""The agent of a node, with its real launcher and real trial processes; the test is the driver."""

from __future__ import annotations

import asyncio
import contextlib
import errno
import hashlib
import json
import os
import resource
import signal
import subprocess
import sys
import time

import psutil
import pytest

from distsearch.core.decorators import args
from distsearch.core.surroundings import of_this_process
from distsearch.core.travel import pack
from distsearch.resource import processes as processes_module
from distsearch.resource import supervisor as supervisor_module
from distsearch.resource.agent import Agent

WAIT_S = 30.0


def returns(args, reporter):
    reporter(epoch=1, accuracy=0.5)
    return 7


def sleeps(args, reporter):
    import time

    reporter(epoch=1, accuracy=0.5)
    time.sleep(60)


def ignores_term(args, reporter):
    import signal
    import time

    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    reporter(epoch=1, accuracy=0.5)
    time.sleep(60)


def reports_endlessly(args, reporter):
    number = 0
    while True:
        number += 1
        reporter(number=number, filler="x" * 20_000)


class Driver:
    """What a driver would do for one node: it hears, and answers beats while `answers`."""

    def __init__(self, folder, spawn=False, modules=(), sys_path=(), **options):
        self.agent = Agent(folder=folder, send=self.hear, **options)
        self.spawn = spawn
        self.imports = {"modules": [*modules], "sys_path": [*sys_path]}
        self.heard = []
        self.news = asyncio.Event()
        self.answers = True
        self.acknowledges = True

    async def __aenter__(self):
        await self.agent.start()
        self.say(
            op="preload",
            **self.imports,
            entry="distsearch.core.trial_process",
            spawn=self.spawn,
            surroundings=of_this_process().text(),
        )
        return self

    async def __aexit__(self, *exception):
        await asyncio.wait_for(self.agent.close(), WAIT_S)

    def say(self, **message):
        self.agent.handle([message])

    def hear(self, messages):
        self.heard += messages
        for message in messages:
            if message["op"] == "beat" and self.answers:
                self.agent.handle([message])
            if message["op"] == "report" and self.acknowledges:
                self.say(op="ack", bytes=len(message["body"]))
        self.news.set()

    def start(self, function, trial=0, attempt=1, reuse=False, due=None, **limits):
        packed = pack(args()(function))
        self.say(op="function", name=packed.name, data=packed.data)
        job = {
            "function": packed.name,
            "config": {},
            "time_attr": "epoch",
            "reward_attr": "accuracy",
            "has_reported": False,
            "is_final": False,
            "due": due,
            "cwd": None,
            "resume": False,
            "saved_step": None,
            "seed": 0,
            "parents": [],
            "sources": [],
            "attempt": attempt,
            "keep": 2,
            "storage": None,
            "rank": 0,
            "ranks": None,
            "args": {"task_id": trial, "num_cpus": 1, "num_gpus": 0, "gpu_ids": []},
        }
        self.say(
            op="start",
            trial=trial,
            attempt=attempt,
            rank=0,
            job=job,
            env={"CUDA_VISIBLE_DEVICES": ""},
            threads=1,
            limits=limits,
            reuse=reuse,
        )

    def pid(self, trial=0, attempt=1):
        return self.agent.supervisor._trials[trial, attempt, 0].process.pid

    def of(self, op, trial=0):
        return [m for m in self.heard if m["op"] == op and m.get("trial", trial) == trial]

    async def begins_no_more_than_it_needs(self, trial=1):
        """Start a trial; afterwards there is no process but those that are kept for others."""
        self.start(returns, trial=trial)
        assert (await self.first("ended", trial))["status"] == "finished"
        assert len(self.agent.supervisor.processes._all) == len(self.agent.supervisor._spares)

    def of_all(self, op):
        return [message for message in self.heard if message["op"] == op]

    async def until(self, condition, timeout_s=WAIT_S):
        async def wait():
            while not (found := condition()):
                self.news.clear()
                await self.news.wait()
            return found

        return await asyncio.wait_for(wait(), timeout_s)

    async def first(self, op, trial=0):
        return (await self.until(lambda: self.of(op, trial)))[0]

    async def until_true(self, condition, timeout_s=WAIT_S):
        """Wait for what nobody tells the driver."""
        deadline = time.monotonic() + timeout_s
        while not condition():
            assert time.monotonic() < deadline
            await asyncio.sleep(0.01)

    def output(self, trial=0):
        return "".join(message["text"] for message in self.of("output", trial))


@pytest.fixture
def play(tmp_path, monkeypatch):
    """Run a scene with a driver; afterwards nothing of its node may be left."""

    def run(scene, kill_grace_s=supervisor_module.KILL_GRACE_S, **options):
        monkeypatch.setattr(supervisor_module, "KILL_GRACE_S", kill_grace_s)

        async def story():
            before = set(psutil.Process().children(recursive=True))
            async with Driver(tmp_path / "node", **options) as driver:
                await scene(driver)
            left = set(psutil.Process().children(recursive=True)) - before
            assert not [process for process in left if process.is_running()]

        asyncio.run(story())

    return run


async def gone(pid, timeout_s=5.0):
    """Whether a process that is not ours ends within the time."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        with contextlib.suppress(psutil.NoSuchProcess):
            if psutil.Process(pid).status() != psutil.STATUS_ZOMBIE:
                await asyncio.sleep(0.02)
                continue
        return True
    return False


@pytest.mark.parametrize("spawn", [False, True], ids=["fork", "spawn"])
def test_a_trial_runs_reports_and_ends(play, spawn):
    async def scene(driver):
        driver.start(returns)
        end = await driver.first("ended")
        assert (end["status"], end["exit_code"], end["returned"]) == ("finished", 0, 7)
        assert [message["seq"] for message in driver.of("report")] == [1]
        assert end["max_rss_bytes"] > 1 << 20

    play(scene, spawn=spawn)


def test_a_stop_is_term_first(play):
    def says_good_bye(args, reporter):
        import time

        try:
            reporter(epoch=1)
            time.sleep(60)
        finally:
            print("good-bye")

    async def scene(driver):
        driver.start(says_good_bye)
        await driver.first("report")
        driver.say(op="stop", trial=0, attempt=1, ranks=[0], status="stopped", reason="enough")
        end = await driver.first("ended")
        assert (end["status"], end["reason"], end["signal"]) == ("stopped", "enough", None)
        assert driver.output() == "good-bye\n"

    play(scene, kill_grace_s=20)


@pytest.mark.parametrize("spawn", [False, True], ids=["fork", "spawn"])
def test_a_trial_that_ignores_term_is_killed_after_the_grace(play, spawn):
    async def scene(driver):
        driver.start(ignores_term)
        await driver.first("report")
        asked = time.monotonic()
        driver.say(op="stop", trial=0, attempt=1, ranks=[0], status="stopped", reason="enough")
        end = await driver.first("ended")
        assert 0.4 <= time.monotonic() - asked < 5
        assert (end["status"], end["signal"]) == ("stopped", signal.SIGKILL)

    play(scene, kill_grace_s=0.4, spawn=spawn)


def test_a_stop_before_the_process_has_begun_ends_it_too(play):
    async def scene(driver):
        driver.start(sleeps)
        driver.say(op="stop", trial=0, attempt=1, ranks=[0], status="stopped", reason="enough")
        assert (await driver.first("ended"))["status"] == "stopped"

    play(scene, kill_grace_s=0.5)


def test_a_stop_for_another_attempt_changes_nothing(play):
    async def scene(driver):
        driver.start(returns, attempt=2)
        driver.say(op="stop", trial=0, attempt=1, ranks=[0], status="stopped", reason="old")
        assert (await driver.first("ended"))["status"] == "finished"

    play(scene)


def test_grandchildren_end_with_their_trial(play):
    def has_children(args, reporter):
        import subprocess
        import sys

        sleep = [sys.executable, "-c", "import time; time.sleep(60)"]
        plain = subprocess.Popen(sleep)
        apart = subprocess.Popen(sleep, start_new_session=True)
        reporter(pids=[plain.pid, apart.pid])

    async def scene(driver):
        driver.start(has_children)
        assert (await driver.first("ended"))["status"] == "finished"
        for pid in json.loads(driver.of("report")[0]["body"])["pids"]:
            assert await gone(pid)

    play(scene)


def test_closing_ends_trials_that_ignore_everything(play):
    async def scene(driver):
        driver.start(ignores_term)
        await driver.first("report")
        pid, begun = driver.pid(), time.monotonic()
        await driver.agent.close()
        assert time.monotonic() - begun < 4.5
        assert await gone(pid)

    play(scene)


def test_a_launcher_that_died_gives_its_trials_back_and_another_one_takes_its_place(play):
    async def scene(driver):
        driver.start(ignores_term)
        await driver.first("report")
        pid = driver.pid()
        os.kill(driver.agent.supervisor.processes._launcher.pid, signal.SIGKILL)
        end = await driver.first("ended")
        assert end["status"] == "node_lost"
        assert "launcher died" in end["reason"]
        assert await gone(pid)
        driver.start(returns, trial=1)
        assert (await driver.first("ended", 1))["status"] == "finished"
        assert not driver.of("problem")

    play(scene)


def test_a_launcher_that_trials_kill_again_and_again_is_replaced_every_time(play, monkeypatch):
    """Though not at once, when no other trial has ended between so many deaths."""
    monkeypatch.setattr(processes_module, "LAUNCHERS", 1)
    monkeypatch.setattr(processes_module, "LONGEST_REST_S", 0.2)

    async def scene(driver):
        for trial in range(4):
            driver.start(sleeps, trial=trial)
            await driver.first("report", trial)
            os.kill(driver.agent.supervisor.processes._launcher.pid, signal.SIGKILL)
            assert (await driver.first("ended", trial))["status"] == "node_lost"
        driver.start(returns, trial=9)
        assert (await driver.first("ended", 9))["status"] == "finished"
        texts = [message["text"] for message in driver.of_all("notice")]
        assert texts[0] == "2 launchers in a row died; the next one starts in 0.2 s"
        assert len(texts) == 3 and not driver.of_all("problem")

    play(scene)


def test_a_node_whose_launchers_never_start_a_process_is_given_up(play, slow_import, monkeypatch):
    monkeypatch.setattr(processes_module, "LAUNCHERS", 1)

    async def scene(driver):
        first = driver.agent.supervisor.processes._launcher
        os.kill(first.pid, signal.SIGKILL)
        await driver.until_true(lambda: driver.agent.supervisor.processes._launcher != first)
        os.kill(driver.agent.supervisor.processes._launcher.pid, signal.SIGKILL)
        assert "launcher died" in (await driver.first("problem"))["reason"]

    play(scene, **slow_import)


def launcher_of(driver):
    (launcher,) = psutil.Process(driver.agent.supervisor.processes._launcher.pid).children()
    return launcher


def test_a_launcher_that_was_stopped_is_made_to_go_on(play, monkeypatch):
    monkeypatch.setattr(processes_module, "PING_S", 0.1)

    async def scene(driver):
        driver.start(returns)
        await driver.first("ended")
        launcher_of(driver).suspend()
        driver.start(returns, trial=1)
        assert (await driver.first("ended", 1))["status"] == "finished"
        assert not driver.of_all("notice")

    play(scene)


def test_a_launcher_without_a_sign_of_life_is_replaced(play, tmp_path, monkeypatch):
    monkeypatch.setattr(processes_module, "PING_S", 0.1)
    (tmp_path / "hangs_once.py").write_text(
        "import os, signal, time\n"
        f"note = {str(tmp_path / 'once')!r}\n"
        "if not os.path.exists(note):\n"
        "    open(note, 'w').close()\n"
        "    signal.signal(signal.SIGALRM, lambda *_: time.sleep(60))\n"
        "    signal.setitimer(signal.ITIMER_REAL, 0.2)\n"
    )

    async def scene(driver):
        driver.start(sleeps)
        await driver.first("report")
        assert "no sign of life for 0.6 s" in (await driver.first("ended"))["reason"]
        driver.start(returns, trial=1)
        assert (await driver.first("ended", 1))["status"] == "finished"

    play(scene, modules=["hangs_once"], sys_path=[str(tmp_path)])


# What the launcher imports before it forks


@pytest.fixture
def slow_import(tmp_path):
    """A module whose import is over when there is a file (or after two minutes)."""
    folder = tmp_path / "modules"
    folder.mkdir()
    (folder / "slow_import.py").write_text(
        "import os, time\n"
        "end = time.monotonic() + 120\n"
        f"while not os.path.exists({str(tmp_path / 'go on')!r}) and time.monotonic() < end:\n"
        "    time.sleep(0.01)\n"
    )
    return {"modules": ["slow_import"], "sys_path": [str(folder)]}


def let_it_import(tmp_path):
    (tmp_path / "go on").touch()


def test_what_the_launcher_imports_first_counts_as_no_time_of_a_trial(play, slow_import, tmp_path):
    async def scene(driver):
        driver.start(sleeps, trial=0, trial_timeout_s=1.0)
        driver.start(returns, trial=1, report_timeout_s=1.2)
        await asyncio.sleep(1.5)  # nothing may happen in this time
        assert not driver.of("ended") and not driver.of("report")
        let_it_import(tmp_path)
        assert (await driver.first("ended", 1))["status"] == "finished"
        end = await driver.first("ended", 0)
        assert end["status"] == "timed_out" and driver.of("report", 0)
        assert 1.0 <= end["seconds"] < 2.0

    play(scene, **slow_import)


@pytest.mark.parametrize("after_save_s", [0, 30])
def test_a_trial_that_is_stopped_while_the_launcher_imports_never_begins(
    play, slow_import, tmp_path, after_save_s
):
    async def scene(driver):
        driver.start(returns)
        stop = {"status": "stopped", "reason": "enough", "after_save_s": after_save_s}
        driver.say(op="stop", trial=0, attempt=1, ranks=[0], **stop)
        assert (await driver.first("ended"))["status"] == "stopped"
        let_it_import(tmp_path)
        await driver.begins_no_more_than_it_needs()
        assert not driver.of("report", 0)

    play(scene, **slow_import)


def test_a_trial_whose_lease_ends_while_the_launcher_imports_never_begins(
    play, slow_import, tmp_path
):
    async def scene(driver):
        driver.answers = False
        driver.start(returns)
        assert (await driver.first("ended"))["status"] == "node_lost"
        driver.answers = True
        let_it_import(tmp_path)
        await driver.until(lambda: driver.agent._silent_s < 0.6)
        await driver.begins_no_more_than_it_needs()
        assert not driver.of("report", 0)

    play(scene, lease_s=0.6, **slow_import)


def test_a_node_of_many_slots_can_start_them_all_while_the_launcher_imports(
    play, slow_import, tmp_path
):
    """More requests than fit into the socket to the launcher, which nobody reads meanwhile."""

    async def scene(driver):
        for trial in range(200):
            driver.start(returns, trial=trial)
        let_it_import(tmp_path)
        await driver.until(lambda: len(driver.of_all("ended")) == 200)
        assert {message["status"] for message in driver.of_all("ended")} == {"finished"}

    play(scene, **slow_import)


def test_an_import_that_never_ends_is_left_to_the_trials(play, slow_import, monkeypatch):
    monkeypatch.setattr(processes_module, "IMPORT_S", 2.0)

    async def scene(driver):
        driver.start(returns)
        text = (await driver.first("notice"))["text"]
        assert "importing slow_import took longer than 2 s" in text
        assert (await driver.first("ended"))["status"] == "finished"
        assert len(driver.of_all("notice")) == 1

    play(scene, **slow_import)


def test_a_node_whose_launcher_does_not_even_start_is_given_up(play, monkeypatch, tmp_path):
    """As when Python itself is on a disk that is gone."""
    monkeypatch.setattr(processes_module, "IMPORT_S", 0.3)
    sleeper = tmp_path / "python"
    sleeper.write_text("#!/bin/sh\nexec sleep 60\n")
    sleeper.chmod(0o700)
    monkeypatch.setattr(sys, "executable", str(sleeper))

    async def scene(driver):
        driver.start(returns)
        assert "did not start within 0.3 s" in (await driver.first("problem"))["reason"]
        assert "did not start within 0.3 s" in (await driver.first("refused"))["reason"]

    play(scene)


def test_a_launcher_that_has_imported_all_may_live_long(play, monkeypatch):
    monkeypatch.setattr(processes_module, "IMPORT_S", 2.0)

    async def scene(driver):
        driver.start(sleeps)
        await driver.first("report")
        await asyncio.sleep(2.2)  # nothing may happen in this time
        assert not driver.of("ended") and not driver.of_all("notice")

    play(scene)


def test_a_launcher_that_dies_amid_imports_leaves_no_descriptor_open(play, slow_import, tmp_path):
    async def scene(driver):
        before = len(os.listdir("/proc/self/fd"))
        for trial in range(20):
            driver.start(returns, trial=trial)
        os.kill(driver.agent.supervisor.processes._launcher.pid, signal.SIGKILL)
        await driver.until(lambda: len(driver.of_all("refused")) == 20)
        assert len(os.listdir("/proc/self/fd")) <= before
        let_it_import(tmp_path)
        await driver.begins_no_more_than_it_needs(trial=99)

    play(scene, **slow_import)


def test_a_node_without_descriptors_for_another_launcher_tries_again(play, monkeypatch):
    monkeypatch.setattr(processes_module, "LONGEST_REST_S", 0.1)
    start = subprocess.Popen

    def fails(*arguments, **options):
        monkeypatch.setattr(processes_module.subprocess, "Popen", start)
        raise OSError("too many open files")

    async def scene(driver):
        driver.start(sleeps)
        await driver.first("report")
        monkeypatch.setattr(processes_module.subprocess, "Popen", fails)
        os.kill(driver.agent.supervisor.processes._launcher.pid, signal.SIGKILL)
        assert "too many open files" in (await driver.first("notice"))["text"]
        driver.start(returns, trial=1)
        assert (await driver.first("ended", 1))["status"] == "finished"

    play(scene)


def no_process(*arguments, **options):
    raise OSError(errno.EAGAIN, "Resource temporarily unavailable")


def test_a_node_that_comes_up_without_room_for_a_process_has_a_launcher_later(play, monkeypatch):
    popen = subprocess.Popen
    monkeypatch.setattr(processes_module, "LONGEST_REST_S", 0.1)
    monkeypatch.setattr(processes_module.subprocess, "Popen", no_process)

    async def scene(driver):
        assert "(`ulimit -u`; pids.max of a" in (await driver.first("notice"))["text"]
        driver.start(returns)
        assert "(`ulimit -u`; pids.max of a" in (await driver.first("refused"))["reason"]
        monkeypatch.setattr(processes_module.subprocess, "Popen", popen)
        driver.start(returns, trial=1)
        assert (await driver.first("ended", 1))["status"] == "finished"

    play(scene)


CANNOT_FORK = """
import errno, os, sys
from distsearch.resource import launcher

def fork():
    raise OSError(errno.EAGAIN, os.strerror(errno.EAGAIN))

os.fork = fork
launcher.main(sys.argv[1:])
"""


@pytest.mark.skipif(sys.platform != "linux", reason="elsewhere a launcher has no guard to fork")
def test_a_node_whose_launchers_cannot_fork_is_not_given_up_however_long_that_lasts(
    play, monkeypatch
):
    launchers = []

    def command(*arguments):
        launchers.append(arguments)
        return [sys.executable, "-c", CANNOT_FORK, *arguments]

    real = processes_module.command

    monkeypatch.setattr(processes_module, "LAUNCHERS", 1)
    monkeypatch.setattr(processes_module, "LONGEST_REST_S", 0.05)
    monkeypatch.setattr(processes_module, "command", command)

    async def scene(driver):
        driver.start(returns)
        reason = (await driver.first("refused"))["reason"]
        assert reason.startswith("[Errno 11] ") and "(`ulimit -u`; pids.max of a" in reason
        await driver.until_true(lambda: len(launchers) > 3)
        monkeypatch.setattr(processes_module, "command", real)
        driver.start(returns, trial=1)  # (it may still meet the last launcher that cannot)
        await driver.until(lambda: driver.of("ended", 1) or driver.of("refused", 1))
        driver.start(returns, trial=2)
        assert (await driver.first("ended", 2))["status"] == "finished"
        assert not driver.of("problem")

    play(scene)


def test_a_node_that_imports_for_ever_is_closed_at_once(play, slow_import):
    async def scene(driver):
        driver.start(returns)
        begun = time.monotonic()
        await driver.agent.close()
        assert time.monotonic() - begun < 5, "it imports for two minutes"

    play(scene, **slow_import)


# The lease


@pytest.mark.parametrize("function", [sleeps, ignores_term])
def test_trials_end_by_themselves_when_beats_are_not_answered(play, function):
    async def scene(driver):
        driver.start(function)
        await driver.first("report")
        driver.answers = False
        begun = time.monotonic()
        end = await driver.first("ended")
        took = time.monotonic() - begun
        assert (end["status"], 0.4 < took < 3) == ("node_lost", True)
        assert "heard nothing from the driver for 0.6 s" in end["reason"]

    play(scene, lease_s=0.6, kill_grace_s=20)


def test_trials_live_while_beats_are_answered(play):
    async def scene(driver):
        driver.start(sleeps)
        await driver.first("report")
        beats = len(driver.of("beat"))
        await driver.until(lambda: len(driver.of("beat")) >= beats + 24)  # four leases
        assert not driver.of("ended")

    play(scene, lease_s=0.6)


def test_the_lease_runs_from_the_sending_of_the_beat_that_is_answered(play):
    """An answer that is on its way for longer than the lease does not prolong it."""
    now = 1000.0

    async def scene(driver):
        nonlocal now
        driver.answers = False
        driver.start(sleeps)
        await driver.first("report")
        old = driver.of("beat")[-1]
        now += 0.9 * 3.0
        beats = len(driver.of("beat"))
        driver.say(**old)  # sent at 1000, answered at 1002.7: good until 1003
        await driver.until(lambda: len(driver.of("beat")) >= beats + 2)
        assert not driver.of("ended")
        now += 0.2 * 3.0
        assert (await driver.first("ended"))["status"] == "node_lost"

    play(scene, lease_s=3.0, clock=lambda: now)


def test_an_answer_to_a_beat_that_was_never_sent_counts_nothing(play):
    async def scene(driver):
        driver.start(sleeps)
        await driver.first("report")
        driver.answers = False
        for number in range(100, 103):
            driver.say(op="beat", number=number)
        assert (await driver.first("ended"))["status"] == "node_lost"

    play(scene, lease_s=0.6)


# Output


def test_output_comes_in_whole_lines_that_of_grandchildren_too(play):
    def talks(args, reporter):
        import os
        import subprocess
        import sys
        import time

        os.write(1, b"half a ")
        time.sleep(0.5)  # longer than a look at the output takes to come
        os.write(1, b"line\n")
        subprocess.run([sys.executable, "-c", "print('from the grandchild')"])
        print("größe", file=sys.stderr)
        sys.stdout.write("no end of line")

    async def scene(driver):
        driver.start(talks)
        await driver.first("ended")
        texts = [message["text"] for message in driver.of("output")]
        assert "".join(texts) == "half a line\nfrom the grandchild\ngröße\nno end of line"
        assert all(text.endswith("\n") for text in texts[:-1])

    play(scene)


def test_of_a_flood_the_middle_is_left_out_and_marked(play):
    def floods(args, reporter):
        for _ in range(20_000):
            print("x" * 999)
        print("the end")

    async def scene(driver):
        driver.start(floods)
        await driver.first("ended")
        text = driver.output()
        assert "bytes of output left out here" in text
        assert len(text) < 2_000_000
        kept = driver.agent.folder / "trials" / "0" / "output.txt"
        assert str(kept) in text
        assert kept.stat().st_size == 20_000_000 + len("the end\n")

    play(scene)


def test_what_is_not_text_is_forwarded_as_far_as_it_is(play):
    def binary(args, reporter):
        import os

        os.write(1, b"a\xff\xfeb\n")

    async def scene(driver):
        driver.start(binary)
        await driver.first("ended")
        assert driver.output() == "a\ufffd\ufffdb\n"

    play(scene)


def test_a_start_that_comes_when_the_lease_is_over_is_refused(play):
    """Its trial may run elsewhere by then."""

    async def scene(driver):
        driver.start(sleeps)
        await driver.first("report")
        driver.answers = False
        await driver.first("ended")  # by the lease
        driver.start(sleeps, attempt=2)
        again = await driver.until(lambda: driver.of("ended")[1:])
        assert (again[0]["status"], again[0]["attempt"]) == ("node_lost", 2)
        assert [message["attempt"] for message in driver.of("report")] == [1]

    play(scene, lease_s=0.6)


def test_a_node_whose_driver_stays_silent_keeps_no_process_until_it_speaks_again(play):
    async def scene(driver):
        driver.start(returns)
        await driver.first("ended")  # what is left are a spare process and the launcher
        launcher = driver.agent.supervisor.processes._launcher.pid
        driver.answers = False
        assert await gone(launcher)
        assert not driver.agent.supervisor.processes._all
        driver.answers = True
        await driver.until(
            lambda: driver.agent.supervisor.processes._launcher.pid != launcher or None
        )
        driver.start(returns, trial=1)
        assert (await driver.first("ended", 1))["status"] == "finished"

    play(scene, lease_s=0.6)


# Backpressure


def test_a_trial_far_ahead_of_its_acknowledgements_is_held_back_and_then_goes_on(play, monkeypatch):
    window = 1 << 20
    monkeypatch.setattr(supervisor_module, "WINDOW", window)

    async def scene(driver):
        driver.acknowledges = False
        driver.start(reports_endlessly)
        await driver.until(lambda: driver.agent.supervisor._held_back and not driver.agent._outbox)
        count = len(driver.of("report"))
        size = sum(len(message["body"]) for message in driver.of("report"))
        assert window <= size < window + (1 << 19)
        process = psutil.Process(driver.pid())
        await driver.until(lambda: process.status() == psutil.STATUS_SLEEPING or None)
        assert len(driver.of("report")) == count
        driver.say(op="ack", bytes=size)
        await driver.until(lambda: len(driver.of("report")) > count + 20)
        seqs = [message["seq"] for message in driver.of("report")]
        assert seqs == list(range(1, len(seqs) + 1))

    async def awake(driver):
        ticking = asyncio.create_task(tick(driver))
        try:
            await scene(driver)
        finally:
            ticking.cancel()

    async def tick(driver):
        while True:
            await asyncio.sleep(0.02)
            driver.news.set()

    play(awake)


def test_one_that_is_held_back_can_be_stopped(play, monkeypatch):
    monkeypatch.setattr(supervisor_module, "WINDOW", 1 << 20)

    async def scene(driver):
        driver.acknowledges = False
        driver.start(reports_endlessly)
        await driver.until(lambda: sum(len(m["body"]) for m in driver.of("report")) > 1 << 20)
        driver.say(op="stop", trial=0, attempt=1, ranks=[0], status="stopped", reason="enough")
        assert (await driver.first("ended"))["status"] == "stopped"

    play(scene, kill_grace_s=0.5)


# Limits


def test_a_trial_that_takes_too_long_or_is_silent_too_long_is_ended(play):
    def talks_on(args, reporter):
        import time

        for number in range(100):
            reporter(number=number)
            time.sleep(0.1)

    async def scene(driver):
        driver.start(talks_on, trial=0, trial_timeout_s=1.2)
        driver.start(sleeps, trial=1, report_timeout_s=0.6)
        driver.start(talks_on, trial=2, report_timeout_s=5.0, trial_timeout_s=1.5)
        ends = [await driver.first("ended", trial) for trial in range(3)]
        assert [end["status"] for end in ends] == ["timed_out", "hung", "timed_out"]
        assert ends[0]["reason"] == "ran longer than trial_timeout=1.2 s"
        assert ends[1]["reason"] == "no report for report_timeout=0.6 s"

    play(scene)


def test_what_a_trial_waits_for_its_driver_is_none_of_its_time(play):
    def asks(args, reporter):
        reporter(number=0)
        time.sleep(60)

    async def scene(driver):
        driver.start(asks, trial=0, due="every", report_timeout_s=0.4, trial_timeout_s=0.9)
        await driver.first("report")
        await asyncio.sleep(1.2)  # the driver's disk is full, or it is suspended
        assert driver.of("ended") == []
        began = time.monotonic()
        driver.say(op="decide", trial=0, attempt=1, ranks=[0], decision="continue")
        assert (await driver.first("ended"))["status"] == "hung"
        assert time.monotonic() - began > 0.35

    play(scene)


def eats(args, reporter):
    import time

    reporter(epoch=1)
    held = b"x" * 300_000_000
    time.sleep(60)
    return len(held)


def has_a_child_that_eats(args, reporter):
    import subprocess
    import sys

    eater = "import time; held = b'x' * 300_000_000; time.sleep(60)"
    subprocess.run(["setsid", "-w", sys.executable, "-c", eater])


@pytest.mark.parametrize("function", [eats, has_a_child_that_eats])
def test_a_trial_above_its_memory_is_killed_and_says_so(play, function):
    """What its children use counts, in whatever session they are."""

    async def scene(driver):
        driver.start(function, memory_bytes=150_000_000)
        end = await driver.first("ended")
        assert end["status"] == "out_of_memory"
        assert "more than memory_gb=0.15" in end["reason"]

    play(scene)


# What a node lacks


def clears_its_folder(args, reporter):
    import os
    import shutil

    shutil.rmtree(os.getcwd())
    reporter(epoch=1)


def clears_the_uploads(args, reporter):
    import os
    import shutil

    shutil.rmtree(os.path.dirname(os.path.realpath("a")))
    reporter(epoch=1)


def test_a_trial_that_clears_its_current_folder_leaves_the_uploads_to_others(play):
    async def scene(driver):
        driver.say(op="upload", path="a/b", data=b"3", done=True, sha256=SHA_OF_3, mode=0o600)
        driver.start(clears_its_folder)
        await driver.first("ended")
        driver.start(returns, trial=1)
        assert (await driver.first("ended", 1))["status"] == "finished"

    play(scene)


def test_a_trial_that_clears_the_uploads_spoils_no_other(play):
    async def scene(driver):
        driver.say(op="upload", path="a/b", data=b"3", done=True, sha256=SHA_OF_3, mode=0o600)
        driver.start(clears_the_uploads)
        await driver.first("ended")
        driver.start(returns, trial=1)
        refused = await driver.first("refused", 1)
        assert refused["lacks"] == ["the uploaded files"]
        assert "a trial has deleted what all of them need" in refused["reason"]
        driver.say(op="upload", path="a/b", data=b"3", done=True, sha256=SHA_OF_3, mode=0o600)
        driver.start(returns, trial=1, attempt=2)
        assert (await driver.first("ended", 1))["status"] == "finished"

    play(scene)


def test_a_node_without_room_for_the_train_function_says_so_and_blames_no_trial(play):
    async def scene(driver):
        limits = resource.getrlimit(resource.RLIMIT_FSIZE)
        resource.setrlimit(resource.RLIMIT_FSIZE, (1, limits[1]))
        try:
            driver.start(returns)
        finally:
            resource.setrlimit(resource.RLIMIT_FSIZE, limits)
        refused = await driver.first("refused")
        assert refused["lacks"] == ["the train function"]
        expected = "the train function cannot be stored: [Errno 27] File too large: allow larger"
        assert refused["reason"].startswith(expected)
        driver.start(returns, trial=1)
        assert (await driver.first("ended", 1))["status"] == "finished"

    play(scene)


SHA_OF_3 = hashlib.sha256(b"3").hexdigest()


def test_a_trial_whose_process_cannot_be_made_has_not_begun(play, monkeypatch):
    """And so it is when it has no room for its folder, or its output."""

    def full(*arguments, **options):
        raise OSError(errno.EMFILE, "too many open files")

    async def scene(driver):
        (driver.agent.folder / "trials" / "1").mkdir()
        monkeypatch.setattr(processes_module.socket, "socketpair", full)
        driver.start(returns, trial=0)
        assert "too many open files" in (await driver.first("refused", 0))["reason"]
        monkeypatch.undo()
        output = driver.agent.folder / "trials" / "1" / "output.txt"
        output.symlink_to("/dev/full")  # what is no file is no shortage
        driver.start(returns, trial=1)
        assert (await driver.first("ended", 1))["status"] == "failed"
        driver.start(returns, trial=2)
        assert (await driver.first("ended", 2))["status"] == "finished"

    play(scene)


def test_trials_that_wait_for_a_launcher_that_dies_have_not_begun(play, slow_import, tmp_path):
    async def scene(driver):
        driver.start(returns)
        os.kill(driver.agent.supervisor.processes._launcher.pid, signal.SIGKILL)
        assert "launcher died" in (await driver.first("refused"))["reason"]
        let_it_import(tmp_path)
        driver.start(returns, trial=1)
        assert (await driver.first("ended", 1))["status"] == "finished"

    play(scene, **slow_import)


def needs_room(args, reporter):
    with open("/dev/full", "w", buffering=1) as file:
        print("3", file=file)


def test_a_trial_that_fails_for_want_of_room_may_run_again(play):
    async def scene(driver):
        driver.start(needs_room)
        end = await driver.first("ended")
        assert (end["status"], end["no_space"]) == ("killed", True)
        assert end["reason"].startswith("the disk is full: OSError: [Errno 28]")

    play(scene)


# Reuse


def test_reused_processes_run_one_trial_after_another(play):
    async def scene(driver):
        for trial in range(3):
            driver.start(returns, trial=trial, reuse=True)
            assert (await driver.first("ended", trial))["status"] == "finished"
        assert len(driver.agent.supervisor.processes._all) == 1

    play(scene)


def test_a_reused_process_whose_trial_raised_runs_the_next(play):
    def raises(args, reporter):
        raise KeyError("lr")

    async def scene(driver):
        driver.start(raises, trial=0, reuse=True)
        end = await driver.first("ended", 0)
        assert (end["status"], end["error"]) == ("failed", "KeyError: 'lr'")
        assert end["traceback"].splitlines()[-2].strip() == 'raise KeyError("lr")'
        driver.start(returns, trial=1, reuse=True)
        assert (await driver.first("ended", 1))["status"] == "finished"
        assert len(driver.agent.supervisor.processes._all) == 1

    play(scene)


def test_folders_are_private(play):
    async def scene(driver):
        driver.start(returns)
        await driver.first("ended")
        folder = driver.agent.folder
        for path in (folder, folder / "functions", folder / "trials", folder / "trials" / "0"):
            assert path.stat().st_mode & 0o077 == 0

    play(scene)


def test_a_train_function_that_comes_in_pieces_runs_whatever_an_earlier_run_has_left(play):
    async def scene(driver):
        whole = driver.agent.handle

        def in_pieces(messages):
            for message in messages:
                for part in parts(message):
                    whole([part])

        def parts(message):
            if message["op"] != "function":
                yield message
                return
            left = driver.agent.folder / "functions" / f".{message['name']}.part"
            left.write_bytes(b"the beginning of")
            data = message["data"]
            yield {**message, "data": data[:100], "offset": 0, "done": False}
            yield {**message, "data": data[100:], "offset": 100, "done": True}

        driver.agent.handle = in_pieces
        driver.start(returns)
        assert (await driver.first("ended"))["returned"] == 7

    play(scene)
