"""The starter on its own: whatever happens, it leaves nothing behind."""

from __future__ import annotations

import ast
import json
import os
import shlex
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import psutil
import pytest

from distsearch.resource import interpreter, starter
from distsearch.resource.interpreter import starter_command
from distsearch.resource.node import Node
from distsearch.resource.parcel import parcel
from distsearch.resource.versions import compare, own_versions

SOURCE = Path(starter.__file__).read_text()

GPU1 = Node("gpu1")
SLEEP = "import sys, time; print(sys.stdin.readline(), flush=True); time.sleep(600)"
STUBBORN = "import signal; signal.signal(signal.SIGTERM, signal.SIG_IGN);" + SLEEP
# A grandchild in a session of its own, whose parent is gone: nobody's child but the starter's.
LEAVES_AN_ORPHAN = (
    "import subprocess, sys, time;"
    "subprocess.run([sys.executable, '-c', 'import subprocess;"
    'p = subprocess.Popen(["sleep", "600"], start_new_session=True); print("orphan", p.pid)\'],'
    "check=True); print('ready', flush=True);"
)


class Started:
    """A starter, and the driver's end of the conversation with it."""

    def __init__(self, folder, python=sys.executable, source=SOURCE, through=()):
        self.folder = folder
        self.process = subprocess.Popen(
            [*through, python, "-u", "-c", source],
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            cwd=folder,
            env={**os.environ, "TMPDIR": str(folder)},
        )

    def tell(self, **message):
        self.process.stdin.write(json.dumps(message).encode() + b"\n")
        self.process.stdin.flush()

    def hear(self, op):
        while True:
            line = self.process.stdout.readline()
            message = json.loads(line) if line.strip() else {"op": "nothing"}
            if message["op"] == op:
                return message

    def hear_line(self, start):
        while True:
            line = self.hear("output")["line"]
            if line.startswith(start):
                return line

    def greet(self, **env):
        self.tell(env=env, packages=["distributed", "no-such-package"], distsearch=parcel().content)
        return self.hear("hello")

    def run(self, code, lease_s=30.0, grace_s=5.0, **spec):
        self.greet()
        self.tell(command=["-c", code], spec=spec, lease_s=lease_s, grace_s=grace_s)
        return self

    def family(self):
        return psutil.Process(self.process.pid).children(recursive=True)

    def hang_up(self):
        self.process.stdin.close()

    def left_nothing(self, family):
        self.process.wait(10)
        return not any(map(psutil.pid_exists, family)) and not any(self.folder.iterdir())


@pytest.fixture
def started(tmp_path):
    one = Started(tmp_path)
    yield one
    one.process.kill()
    one.process.wait(10)
    one.process.stdout.close()


def pids(processes):
    return [process.pid for process in processes]


@pytest.mark.parametrize("shell", ["sh", "bash"])
def test_a_start_up_file_may_print_half_a_line_and_read_what_is_there_already(tmp_path, shell):
    begun = f"{shutil.which(shell)} -c " + shlex.quote(
        f"printf '\\033]0;gpu1\\007'; printf 'no terminal ' >&2; read word; {starter_command(GPU1)}"
    )
    with subprocess.Popen(
        begun, shell=True, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=subprocess.STDOUT
    ) as process:
        process.stdin.write(b"a line that the start-up file takes\n")
        process.stdin.flush()
        lines = iter(process.stdout.readline, b"")
        assert any(json.loads(line)["op"] == "ready" for line in lines if line[:1] == b"{")
        process.stdin.write(b'\n\n{"env": {}, "packages": [], "distsearch": ""}\n\n')
        process.stdin.flush()
        hello = next(json.loads(line) for line in lines if line[:1] == b"{")
        assert (hello["op"], hello["executable"]) == ("hello", sys.executable)


def test_a_python_that_is_too_old_for_the_starter_still_says_what_it_is():
    ast.parse(interpreter._FIRST_LOOK, feature_version=(3, 4))
    assert (
        "f'" not in interpreter._FIRST_LOOK and "print(" not in interpreter._FIRST_LOOK
    )  # nor Python 2
    code = (
        f"import sys; sys.version_info = (3, 6, 15); exec({interpreter._FIRST_LOOK!r}); not reached"
    )
    said = subprocess.run([sys.executable, "-c", code], capture_output=True, timeout=30, check=True)
    hello = json.loads(said.stdout)
    assert (hello["op"], hello["python"]) == ("hello", [3, 6, 15])
    assert "runs Python 3.6.15" in compare(own_versions(), hello, "gpu1")


def test_of_the_interpreters_that_a_node_may_have_the_first_that_is_there_is_taken(monkeypatch):
    monkeypatch.setattr(sys, "executable", "/no/such/env/bin/python")
    command = starter_command(GPU1)
    said = subprocess.run(command, shell=True, input=b"", capture_output=True, timeout=30)
    assert b'"ready"' in said.stdout and said.returncode == 0
    empty = {"PATH": "/nowhere"}
    said = subprocess.run(
        command.replace("exec sh", "exec /bin/sh"), shell=True, env=empty, timeout=60
    )
    assert said.returncode == 127


def test_hello_tells_the_interpreter_and_the_packages(started):
    hello = started.greet()
    assert hello["python"] == list(sys.version_info[:3])
    assert hello["packages"]["distributed"] and hello["packages"]["no-such-package"] is None


def test_pings_that_come_before_the_orders_of_a_slow_login_are_no_orders(started):
    started.process.stdin.write(b"\n")
    started.greet()
    started.process.stdin.write(b"\n\n")
    started.tell(command=["-c", SLEEP], spec={"x": 1}, lease_s=30.0, grace_s=5.0)
    assert '"x": 1' in started.hear_line("{")


def test_a_pythonpath_given_for_the_node_is_searched_for_packages(started, tmp_path):
    information = tmp_path / "site" / "no_such_package-1.2.dist-info"
    information.mkdir(parents=True)
    (information / "METADATA").write_text("Name: no-such-package\nVersion: 1.2\n")
    hello = started.greet(PYTHONPATH=str(information.parent))
    assert hello["packages"]["no-such-package"] == "1.2"


def test_a_cache_into_which_others_can_write_is_not_trusted(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    content, zipped = parcel()
    home = starter.put_into_cache(zipped, content)
    assert starter.sent_before(content) == home == str(tmp_path / "distsearch" / content)
    Path(home).chmod(0o777)
    assert starter.sent_before(content) is None
    Path(home).chmod(0o700)
    (tmp_path / "distsearch").chmod(0o770)
    assert starter.sent_before(content) is None
    (tmp_path / "own").mkdir()
    assert starter.unpack(zipped, content, str(tmp_path / "own")) == str(tmp_path / "own/code")


def test_what_no_driver_has_asked_for_in_a_long_time_is_deleted(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    cache = tmp_path / "distsearch"
    for name, days in (("old", 100), ("new", 1)):
        (cache / name).mkdir(parents=True)
        os.utime(cache / name, (time.time() - 86400 * days,) * 2)
    cache.chmod(0o700)
    content, zipped = parcel()
    starter.put_into_cache(zipped, content)
    assert sorted(one.name for one in cache.iterdir()) == sorted(["new", content])


def test_the_port_it_offers_can_be_listened_on(started):
    import socket

    port = started.greet()["port"]
    with socket.socket() as listening:
        listening.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listening.bind(("127.0.0.1", port))
        listening.listen()


def test_the_node_gets_its_spec_on_standard_input_and_a_private_folder(started):
    started.run(SLEEP, secret="s3cret")
    spec = json.loads(started.hear_line("{"))
    assert spec["secret"] == "s3cret"
    assert os.stat(spec["folder"]).st_mode & 0o777 == 0o700
    (node,) = started.family()
    assert "s3cret" not in str(node.cmdline()) + str(node.environ())


def test_the_end_of_input_ends_everything(started):
    started.run(SLEEP).hear_line("{")
    family = pids(started.family())
    started.hang_up()
    assert started.hear("gone")["reason"] == "the driver closed the connection"
    assert started.left_nothing(family)


def test_silence_of_the_driver_ends_everything(started):
    started.run(SLEEP, lease_s=0.5).hear_line("{")
    family = pids(started.family())
    assert "no word from the driver" in started.hear("gone")["reason"]
    assert started.left_nothing(family)


def test_lines_of_the_driver_keep_the_node_alive(started):
    started.run("import time; time.sleep(1.2); print('still here')", lease_s=0.8)
    for _ in range(6):
        time.sleep(0.2)
        started.process.stdin.write(b"\n")
        started.process.stdin.flush()
    assert started.hear_line("still")


def test_a_node_that_ignores_term_is_killed(started):
    started.run(STUBBORN, grace_s=0.3).hear_line("{")
    family = pids(started.family())
    started.hang_up()
    started.hear("gone")
    assert started.left_nothing(family)


@pytest.mark.parametrize("ending", ["raise SystemExit(3)", "time.sleep(600)"])
def test_orphans_in_other_sessions_are_ended_too(started, ending):
    started.run(LEAVES_AN_ORPHAN + ending)
    orphan = int(started.hear_line("orphan").split()[1])
    if "sleep" in ending:
        started.hang_up()
    started.hear("gone")
    assert started.left_nothing([orphan])


def test_it_says_how_the_node_ended_after_its_last_words(started):
    started.run("raise ValueError('no luck')")
    assert started.hear_line("ValueError") == "ValueError: no luck"
    assert "ended by itself (exit code 1)" in started.hear("gone")["reason"]


def test_a_node_killed_by_a_signal_is_told_as_that(started):
    started.run("import os; os.kill(os.getpid(), 9)")
    assert "killed by signal 9" in started.hear("gone")["reason"]


def test_term_to_the_starter_ends_everything(started):
    started.run(SLEEP).hear_line("{")
    family = pids(started.family())
    started.process.send_signal(signal.SIGTERM)
    assert started.hear("gone")["reason"] == "signal 15"
    assert started.left_nothing(family)


def test_output_that_nobody_reads_does_not_stop_the_end(started):
    flood = "import os\nos.write(2, b'x\\n')\nwhile True: os.write(1, b'y' * 60 + b'\\n')"
    started.run(flood, grace_s=0.3).hear_line("x")
    family = pids(started.family())
    started.hang_up()
    assert started.left_nothing(family)


def test_a_long_line_of_output_comes_in_pieces(started):
    started.run("print('z' * 100_000)")
    assert len(started.hear_line("z")) == starter.LINE_LIMIT


def test_files_in_the_home_folder_do_not_shadow_modules(tmp_path):
    (tmp_path / "json.py").write_text("raise RuntimeError('shadowed')")
    started = Started(tmp_path)
    assert started.greet()["python"]
    started.hang_up()
    assert started.process.wait(10) == 0


@pytest.mark.parametrize("greeted", [False, True], ids=["before its hello", "after it"])
def test_a_starter_whose_orders_never_come_ends_by_itself(tmp_path, greeted):
    """A link that is cut while a node comes up sends no end of input."""
    hasty = SOURCE.replace(f"ORDERS_S = {starter.ORDERS_S}", "ORDERS_S = 2")
    assert hasty != SOURCE
    waiting = Started(tmp_path, source=hasty)
    if greeted:
        waiting.greet()
    assert waiting.process.wait(15) == -signal.SIGALRM


DEAF = (
    "import os, signal, sys\n"
    "for number in signal.valid_signals() - {signal.SIGKILL, signal.SIGSTOP}:\n"
    "    if sys.argv[1] == 'SIG_IGN': signal.signal(number, signal.SIG_IGN)\n"
    "    else: signal.pthread_sigmask(signal.SIG_BLOCK, (number,))\n"
    "os.execv(sys.argv[2], sys.argv[2:])\n"
)


@pytest.mark.parametrize("how", ["SIG_IGN", "SIG_BLOCK"])
def test_a_login_that_blocks_or_ignores_signals_takes_none_from_the_node(tmp_path, how):
    through = (sys.executable, "-c", DEAF, how)
    started = Started(tmp_path, through=through).run("import sys; sys.exit(7)")
    assert started.hear("gone")["reason"] == "the node's process ended by itself (exit code 7)"
    assert started.process.wait(10) == 0
    started = Started(tmp_path, through=through).run(SLEEP)
    started.hear("output")
    family = pids(started.family())
    started.process.terminate()
    assert started.hear("gone")["reason"] == "signal 15"
    assert started.left_nothing(family)
