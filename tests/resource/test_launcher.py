"""The launcher: forks processes, says how they ended, leaves none behind."""

from __future__ import annotations

import json
import os
import select
import signal
import socket
import subprocess
import sys
import textwrap
import time
from pathlib import Path

import psutil
import pytest

import distsearch
from distsearch.resource.launcher import command

WAIT_S = 20.0

ENTRY = """
    import os, signal, subprocess, sys, time

    found = []
    set_up = found.append

    def main(channel, threads):
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGTERM, signal.SIGINT))
        what = channel.recv(4096).decode()
        exec(what, {"channel": channel, "threads": threads, "say": lambda value: channel.sendall(
            repr(value).encode() + b"\\n"), "os": os, "signal": signal, "subprocess": subprocess,
            "found": found, "sys": sys, "time": time})
        return 0
"""


class Parent:
    """The launcher's parent, as the agent would be."""

    def __init__(self, folder, spawn=False, first=None):
        self.folder = folder
        (folder / "my_entry.py").write_text(textwrap.dedent(ENTRY))
        self.control, theirs = socket.socketpair()
        with theirs, open(folder / "launcher.log", "wb") as log:
            self.launcher = subprocess.Popen(
                command(str(theirs.fileno())),
                pass_fds=[theirs.fileno()],
                cwd=folder,
                start_new_session=True,
                stderr=log,
                preexec_fn=first,
            )
        self.control.settimeout(WAIT_S)
        self.replies = self.control.makefile("rb")
        self.heard = []
        self.channels = []
        self.ask(
            op="configure",
            preload=["no_such"],
            sys_path=[str(folder)],
            entry="my_entry",
            spawn=spawn,
            surroundings="as in the script",
        )

    def ask(self, descriptor=None, **request):
        data = json.dumps(request).encode() + b"\n"
        if descriptor is None:
            self.control.sendall(data)
        else:
            socket.send_fds(self.control, [data], [descriptor])

    def fork(self, key, what="", env=None, folder=None, threads=1):
        """Start a process that executes `what`; its channel, and what it says there as lines."""
        ours, theirs = socket.socketpair()
        ours.settimeout(WAIT_S)
        with theirs:
            self.ask(
                theirs.fileno(),
                op="fork",
                key=key,
                env=env or {},
                folder=str(folder or self.folder),
                threads=threads,
            )
        ours.sendall(textwrap.dedent(what).encode() or b"pass")
        self.channels.append(ours)
        return ours.makefile("rb")

    def hears(self, op, key):
        """The reply of this kind about this process."""
        while True:
            for reply in self.heard:
                if (reply["op"], reply.get("key")) == (op, key):
                    return reply
            line = self.replies.readline()
            assert line, f"the launcher died: {(self.folder / 'launcher.log').read_text()}"
            self.heard.append(json.loads(line))

    def close(self):
        self.replies.close()
        self.control.close()
        try:
            self.launcher.wait(WAIT_S)
        finally:
            self.launcher.kill()
            self.launcher.wait(10)
            for channel in self.channels:
                channel.close()


@pytest.fixture
def parent(tmp_path):
    made = []

    def make(**options):
        made.append(Parent(tmp_path, **options))
        return made[-1]

    yield make
    for one in made:
        one.close()


def ends(pid, timeout_s=5.0):
    """Whether a process that is not our child ends within the time."""
    deadline = time.monotonic() + timeout_s
    while time.monotonic() < deadline:
        try:
            if psutil.Process(pid).status() == psutil.STATUS_ZOMBIE:
                return True
        except psutil.NoSuchProcess:
            return True
        time.sleep(0.01)  # its end is no event for us
    return False


both = pytest.mark.parametrize("spawn", [False, True], ids=["fork", "spawn"])


@both
@pytest.mark.parametrize(
    ("what", "code", "number"),
    [
        ("pass", 0, None),
        ("os._exit(3)", 3, None),
        ("os.kill(os.getpid(), signal.SIGSEGV)", None, signal.SIGSEGV),
        ("os.kill(os.getpid(), signal.SIGKILL)", None, signal.SIGKILL),
    ],
)
def test_how_a_process_ended_is_told(parent, spawn, what, code, number):
    launcher = parent(spawn=spawn)
    launcher.fork("1", what)
    end = launcher.hears("exited", "1")
    assert (end["code"], end["signal"]) == (code, number)
    assert end["max_rss_bytes"] > 1 << 20
    assert end["cpu_s"] >= 0
    assert not ends(launcher.launcher.pid, 0.0)


@both
def test_a_process_has_its_own_session_folder_environment_and_threads(parent, tmp_path, spawn):
    (tmp_path / "own").mkdir()
    launcher = parent(spawn=spawn)
    lines = launcher.fork(
        "1",
        "say((os.getsid(0) == os.getpid(), os.getcwd(), os.environ['MINE'], threads))",
        env={"MINE": "3"},
        folder=tmp_path / "own",
        threads=5,
    )
    assert lines.readline().decode() == f"{(True, str(tmp_path / 'own'), '3', 5)!r}\n"


@pytest.mark.parametrize("spawn", [False, True], ids=["fork", "spawn"])
def test_files_of_the_current_folder_are_not_taken_for_pythons(parent, tmp_path, spawn):
    """Nor are those of the user's path, where its own modules come from."""
    for name in ("json", "select", "socket", "queue", "typing", "pathlib"):
        (tmp_path / f"{name}.py").write_text("raise ImportError('a file of mine')\n")
    (tmp_path / "mine.py").write_text("WORD = 'found'\n")
    lines = parent(spawn=spawn).fork("a", "import mine; say((mine.WORD, sys.path[0]))")
    assert lines.readline().decode().strip() == repr(("found", str(tmp_path)))


def test_what_the_script_has_set_up_is_set_up_once_for_all_that_is_forked(parent):
    """What is spawned sets it up itself."""
    launcher = parent()
    lines = launcher.fork("1", "say(found)")
    assert lines.readline() == b"['as in the script']\n"


def test_each_process_has_its_own_environment(parent):
    launcher = parent()
    for key in ("1", "2"):
        lines = launcher.fork(key, "say(os.environ.get('MINE'), )", env={"MINE": key})
        assert lines.readline().decode() == f"{key!r}\n"
    assert launcher.fork("3", "say(os.environ.get('MINE'))").readline() == b"None\n"


@both
def test_a_kill_reaches_the_whole_process_group(parent, spawn):
    launcher = parent(spawn=spawn)
    lines = launcher.fork(
        "1", "child = subprocess.Popen(['sleep', '60']); say(child.pid); time.sleep(60)"
    )
    child = int(lines.readline())
    launcher.ask(op="kill", key="1", signal=int(signal.SIGTERM))
    assert launcher.hears("exited", "1")["signal"] == signal.SIGTERM
    assert ends(child)


def deaf():
    """What a process inherits from one that hears no signals."""
    for number in (signal.SIGHUP, signal.SIGCHLD, signal.SIGALRM):
        signal.signal(number, signal.SIG_IGN)
    signal.pthread_sigmask(signal.SIG_BLOCK, signal.valid_signals())


@both
def test_a_driver_that_blocks_and_ignores_all_signals_has_trials_that_end(parent, spawn):
    launcher = parent(spawn=spawn, first=deaf)
    child = int(launcher.fork("0", "say(subprocess.Popen(['sleep', '60']).pid)").readline())
    assert launcher.hears("exited", "0")["code"] == 0  # the end of a child was heard
    assert ends(child)
    said = launcher.fork(
        "1",
        "say([signal.pthread_sigmask(signal.SIG_BLOCK, ()), signal.getsignal(signal.SIGALRM)]); "
        "time.sleep(60)",
    )
    assert said.readline() == b"[set(), <Handlers.SIG_DFL: 0>]\n"
    launcher.ask(op="kill", key="1", signal=int(signal.SIGTERM))
    assert launcher.hears("exited", "1")["signal"] == signal.SIGTERM


@both
def test_a_kill_right_after_the_start_is_not_lost(parent, spawn):
    launcher = parent(spawn=spawn)
    launcher.fork("1", "time.sleep(60)")
    launcher.hears("started", "1")
    launcher.ask(op="kill", key="1", signal=int(signal.SIGKILL))
    assert launcher.hears("exited", "1")["signal"] == signal.SIGKILL


def test_a_kill_for_a_process_that_has_ended_does_nothing(parent):
    launcher = parent()
    launcher.fork("1")
    launcher.hears("exited", "1")
    launcher.ask(op="kill", key="1", signal=9)
    launcher.ask(op="kill", key="never", signal=9)
    launcher.fork("2")
    assert launcher.hears("exited", "2")["code"] == 0


@both
@pytest.mark.parametrize("apart", [False, True], ids=["same session", "own session"])
def test_what_a_process_leaves_behind_is_killed(parent, spawn, apart):
    launcher = parent(spawn=spawn)
    lines = launcher.fork(
        "1",
        f"say(subprocess.Popen(['sleep', '60'], start_new_session={apart}).pid)",
    )
    child = int(lines.readline())
    launcher.hears("exited", "1")
    assert ends(child)


def test_what_a_process_left_ends_with_a_killed_launcher_whatever_its_session_and_environment(
    parent,
):
    launcher = parent()
    lines = launcher.fork(
        "1",
        "child = subprocess.Popen(['/bin/sleep', '60'], start_new_session=True, env={});"
        "say([os.getppid(), os.getpid(), child.pid]); time.sleep(60)",
    )
    own, *others = json.loads(lines.readline())
    os.kill(own, signal.SIGKILL)
    assert all(map(ends, others))
    assert launcher.launcher.wait(WAIT_S) == 0


AGENT = """
    import os, socket, subprocess, sys, time
    from distsearch.resource.launcher import command

    control, theirs = socket.socketpair()
    launcher = subprocess.Popen(command(str(theirs.fileno())), pass_fds=[theirs.fileno()])
    control.sendall(
        b'{"op": "configure", "preload": ["slow"], "sys_path": ["' + os.getcwd().encode()
        + b'"], "entry": "my_entry", "spawn": false, "surroundings": ""}\\n'
    )
    time.sleep(60)
"""
SLOW = """
    import os, subprocess, time

    child = subprocess.Popen(["/bin/sleep", "60"], start_new_session=True, env={})
    with open("pids.new", "w") as file:
        print(os.getppid(), os.getpid(), child.pid, file=file)
    os.rename("pids.new", "pids")
    time.sleep(60)
"""


@pytest.mark.parametrize("also", ["nobody else", "the guard", "the launcher"])
def test_a_killed_agent_leaves_no_launcher_that_imports_nor_what_the_import_started(tmp_path, also):
    for name, text in (("my_entry", ENTRY), ("slow", SLOW), ("agent", AGENT)):
        (tmp_path / f"{name}.py").write_text(textwrap.dedent(text))
    path = str(Path(distsearch.__file__).parents[1])
    agent = subprocess.Popen(
        [sys.executable, "agent.py"], cwd=tmp_path, env={**os.environ, "PYTHONPATH": path}
    )
    try:
        deadline = time.monotonic() + WAIT_S
        while not (tmp_path / "pids").exists():
            assert time.monotonic() < deadline, "the launcher never came to the import"
            time.sleep(0.01)
        guard, launcher, child = map(int, (tmp_path / "pids").read_text().split())
        if also != "nobody else":
            os.kill(guard if also == "the guard" else launcher, signal.SIGKILL)
    finally:
        agent.kill()
        agent.wait(10)
    assert all(map(ends, (guard, launcher, child)))


@pytest.mark.parametrize("guard_is", ["stopped", "killed"])
def test_a_guard_that_is_stopped_or_killed_amid_a_fork_leaves_nothing(parent, guard_is):
    launcher = parent()
    for number in range(20):
        launcher.fork(str(number), "time.sleep(60)")
    pid = launcher.hears("started", "0")["pid"]
    guard = psutil.Process(launcher.launcher.pid)
    guard.send_signal(signal.SIGSTOP if guard_is == "stopped" else signal.SIGKILL)
    family = [psutil.Process(pid), psutil.Process(pid).parent()]
    launcher.replies.close()
    launcher.control.close()
    assert all(ends(process.pid) for process in family)
    assert launcher.launcher.wait(WAIT_S) == (0 if guard_is == "stopped" else -signal.SIGKILL)


def test_a_guard_is_not_called_python_for_those_who_kill_all_that_is(parent):
    launcher = parent()
    launcher.fork("1")
    launcher.hears("exited", "1")
    guard = launcher.launcher.pid
    assert psutil.Process(guard).name() == "distsearch"


def test_a_neighbours_end_does_not_touch_a_running_process(parent):
    launcher = parent()
    lines = launcher.fork(
        "1",
        "child = subprocess.Popen(['cat'], stdin=-1, start_new_session=True); say(child.pid);"
        "time.sleep(60)",
    )
    child = int(lines.readline())
    launcher.fork("2", "os.kill(os.getpid(), 11)")
    launcher.hears("exited", "2")
    assert psutil.Process(child).status() != psutil.STATUS_ZOMBIE
    assert not [
        reply for reply in launcher.heard if reply["op"] == "exited" and reply["key"] == "1"
    ]


@both
def test_when_the_parent_closes_everything_ends_and_the_launcher_too(parent, spawn):
    launcher = parent(spawn=spawn)
    what = """
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        child = subprocess.Popen(['sleep', '60'], start_new_session=True)
        say([os.getpid(), child.pid])
        time.sleep(60)
    """
    pids = [pid for key in "12" for pid in json.loads(launcher.fork(key, what).readline())]
    launcher.replies.close()
    launcher.control.close()
    launcher.launcher.wait(WAIT_S)
    assert all(map(ends, pids))


@both
def test_when_the_launcher_is_killed_its_processes_end(parent, spawn):
    launcher = parent(spawn=spawn)
    lines = launcher.fork("1", "say(os.getpid()); time.sleep(60)")
    pid = int(lines.readline())
    launcher.launcher.kill()
    assert ends(pid)


@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_signals_to_the_launcher_itself_do_not_end_it(parent, number):
    launcher = parent()
    launcher.fork("1")
    launcher.hears("exited", "1")
    os.kill(launcher.launcher.pid, number)
    launcher.fork("2")
    assert launcher.hears("exited", "2")["code"] == 0


def test_a_process_that_cannot_enter_its_folder_leaves_that_to_its_job(parent, tmp_path):
    launcher = parent()
    launcher.fork("1", folder=tmp_path / "nothing")
    assert launcher.hears("exited", "1")["code"] == 0
    launcher.fork("2")
    assert launcher.hears("exited", "2")["code"] == 0


def test_many_processes_at_once_are_all_told(parent):
    launcher = parent()
    for number in range(60):
        launcher.fork(str(number), f"os._exit({number})")
    assert [launcher.hears("exited", str(n))["code"] for n in range(60)] == list(range(60))


def test_a_process_holds_no_descriptors_but_its_own(parent):
    launcher = parent()
    launcher.fork("1", "time.sleep(60)")
    lines = launcher.fork("2", "say(sum(os.path.exists(f'/proc/self/fd/{n}') for n in range(99)))")
    first = int(lines.readline())
    for number in range(3, 13):
        launcher.fork(str(number), "time.sleep(60)")
    lines = launcher.fork(
        "last", "say(sum(os.path.exists(f'/proc/self/fd/{n}') for n in range(99)))"
    )
    assert int(lines.readline()) == first


def test_an_idle_launcher_burns_no_cpu(parent):
    launcher = parent()
    launcher.fork("1")
    launcher.hears("exited", "1")
    process = psutil.Process(launcher.launcher.pid)
    before = process.cpu_times()
    select.select([launcher.control], [], [], 0.5)
    after = process.cpu_times()
    assert after.user + after.system - before.user - before.system < 0.05
