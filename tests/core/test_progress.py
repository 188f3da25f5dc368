from __future__ import annotations

import contextlib
import dataclasses
import fcntl
import io
import os
import pty
import re
import struct
import subprocess
import sys
import termios
import threading
import time

import pytest

from distsearch.core import progress
from distsearch.core.progress import NodeUse, Progress, Snapshot, format_config, status_line

CONFIG = {"batch_size": 64, "lr": 0.0123456, "net": {"depth": 3, "drop": [0.123456, None]}}
NOW = Snapshot(
    total=100,
    running=16,
    done=30,
    stopped=10,
    failed=2,
    waiting=4,
    best_reward=0.98712345,
    best_task_id=17,
    best_config=CONFIG,
    reward_attr="accuracy",
    nodes=[NodeUse("local", 6, 8, 0, 0), NodeUse("gpu7:2222", 4, 16, 1.5, 2)],
    elapsed_s=192,
    time_left_s=3661,
    trials_per_minute=12.4321,
)


class Ticking(Progress):
    """A display of which one can await that it was drawn, or that its lines were written."""

    def __init__(self, verbose, snapshot):
        super().__init__(verbose, snapshot)
        self._ticked = threading.Semaphore(0)

    def _ticks(self):
        for said in super()._ticks():
            yield said
            self._ticked.release()

    def ticks(self, count):
        """Wait until so many more looks at the search are over."""
        for _ in range(count):
            assert self._ticked.acquire(timeout=20), "the display stands still"


CHILD = """
import os, sys, time
sys.path[:0] = [{root!r}, {tests!r}]
from test_progress import *
{setup}
shown = Ticking(1, lambda: NOW)
shown.start()
shown.ticks(2)
{body}
"""


def child(body: str, setup: str = "") -> list[str]:
    here = os.path.dirname(os.path.abspath(__file__))
    root = os.path.dirname(os.path.dirname(here))
    script = CHILD.format(root=root, tests=here, setup=setup, body=body)
    return [sys.executable, "-c", script]


def in_terminal(body: str, setup: str = "", columns: int = 100, **env: str) -> str:
    """What a program writes to a terminal; its standard error too."""
    master, slave = pty.openpty()
    fcntl.ioctl(slave, termios.TIOCSWINSZ, struct.pack("HHHH", 30, columns, 0, 0))
    hidden = ("COLUMNS", "LINES", "NO_COLOR", "FORCE_COLOR", "TTY_COMPATIBLE")
    outer = {name: value for name, value in os.environ.items() if name not in hidden}
    with subprocess.Popen(
        child(body, setup),
        stdin=slave,
        stdout=slave,
        stderr=slave,
        env=outer | {"TERM": "xterm"} | env,
    ) as process:
        os.close(slave)
        written = b""
        while True:
            try:
                chunk = os.read(master, 65536)
            except OSError:  # the other end is closed
                break
            if not chunk:
                break
            written += chunk
    os.close(master)
    assert process.returncode in (0, 1)
    return written.decode()


def readable(written: str) -> str:
    return re.sub(r"\x1b\[[0-9;?]*[A-Za-z]", "", written).replace("\r", "\n")


def drawn(now: Snapshot, width: int) -> list[str]:
    from rich.console import Console

    console = Console(file=io.StringIO(), width=width)
    console.print(progress.picture(now, width))
    return console.file.getvalue().splitlines()


def test_trials_that_are_paused_are_not_called_stopped():
    line = status_line(dataclasses.replace(NOW, paused=7))
    assert "10 stopped, 7 paused, 2 failed" in line
    assert "paused" not in status_line(NOW)


def test_a_terminal_shows_how_the_search_stands():
    text = readable(in_terminal("shown.stop()"))
    assert "━" in text
    assert "42/100 · 0:03:12 · 1:01:01 left" in text
    assert "16 running · 30 done · 10 stopped · 2 failed · 4 waiting · 12.4 trials/min" in text
    best = (
        "accuracy 0.9871 (task 17: batch_size=64, lr=0.01235, net.depth=3, net.drop=[0.1235, None])"
    )
    assert best in " ".join(text.split())
    assert re.search(r"local +6/8 CPUs +\n", text)
    assert re.search(r"gpu7:2222 +4/16 CPUs, 1.5/2 GPUs +\n", text)


def test_the_display_is_gone_at_the_end_and_one_summary_stays():
    written = in_terminal("shown.stop(); print('after')")
    end = written[written.rindex("\x1b[2K") :]  # what follows the last line that was wiped
    assert readable(end).split("\n")[0].startswith("42 trials in 0:03:12: 16 running, 30 done")
    assert "search" not in end
    assert readable(end).rstrip().endswith("after")


def test_lines_stay_whole_and_as_they_were_said_above_the_display():
    lines = "[red]1[/red] " + "x" * 150
    text = readable(
        in_terminal(f"shown.say({lines!r}); print('printed'); shown.stop()", columns=60)
    )
    assert lines in text
    assert "printed\n" in text


def test_the_colour_of_one_line_does_not_run_into_the_next():
    written = in_terminal(r"shown.show('\x1b[31mred'); shown.say('plain'); shown.stop()")
    assert "\x1b[31mred\x1b[0m" in written


@pytest.mark.parametrize("terminal", ["xterm", "dumb"])
def test_a_line_that_quotes_others_does_nothing_to_the_terminal(terminal):
    evil = r"\x1b]0;title\x07\x1b[32mall is well"
    written = in_terminal(f"shown.say('{evil}'); shown.show('{evil}'); shown.stop()", TERM=terminal)
    assert "\x1b]0" not in written and "\x07" not in written
    assert evil in readable(written), "it is shown as text"
    assert written.count("\x1b[32m") == 1, "the colours of the user's own program stay"


def test_a_program_that_dies_gets_its_cursor_back():
    written = in_terminal("raise SystemError('died')")
    assert "SystemError: died" in readable(written)  # Python colours it from 3.13 on
    assert written.rindex("\x1b[?25h") > written.rindex("\x1b[?25l")


def test_a_second_display_in_the_same_terminal_writes_plain_lines():
    body = "other = Ticking(1, lambda: NOW); other.start(); other.ticks(2); shown.stop(); "
    text = readable(in_terminal(body + "other.stop()"))
    assert text.count("16 running · 30 done") >= 2  # as often as the first display was drawn
    assert text.count("42 trials in") == 2


def test_a_dumb_terminal_gets_plain_lines():
    written = in_terminal("shown.stop()", TERM="dumb")
    assert "\x1b" not in written
    assert "42 trials in" in written


def test_a_notebook_gets_plain_lines():
    shell = "type('Shell', (), {'__module__': 'ipykernel.zmqshell'})()"
    setup = "from types import SimpleNamespace\n"
    setup += f"sys.modules['IPython'] = SimpleNamespace(get_ipython=lambda: {shell})"
    written = in_terminal("shown.stop()", setup)
    assert "\x1b" not in written
    assert "42 trials in" in written


@pytest.mark.parametrize("columns", [40, 60, 100])
def test_the_display_fits_its_terminal(columns):
    long = dataclasses.replace(
        NOW,
        best_config={f"layer{n}": {"kind": "convolution" * n} for n in range(30)},
        nodes=[
            NodeUse(f"node{n}.a.very.long.name.example.org:2222", n, 64, 0, 0) for n in range(8)
        ],
        note="node 172.31.3.9 was lost; its 2 trials start again",
    )
    lines = drawn(long, columns)
    assert max(map(len, lines)) <= columns
    assert len(lines) <= 24
    assert sum("/64 CPUs" in line for line in lines) == 8


def test_many_nodes_are_summed_up_and_the_idle_ones_named():
    nodes = [NodeUse(f"n{n}", 0 if n == 9 else 8, 8, 0, 0) for n in range(64)]
    text = "\n".join(drawn(dataclasses.replace(NOW, nodes=nodes), 80))
    assert "64 nodes, 504/512 CPUs" in text
    assert "63 full, 1 idle: n9" in text
    assert len(text.splitlines()) < 10


def test_without_a_number_of_trials_the_bar_is_about_time():
    timed = dataclasses.replace(NOW, total=None, elapsed_s=30, time_left_s=10)
    assert "0:00:30 · 0:00:10 left" in drawn(timed, 80)[0]
    assert "42" not in drawn(timed, 80)[0]


def test_nothing_known_yet_is_shown_too():
    new = Snapshot(None, 0, 0, 0, 0, 0, None, None, {}, "accuracy")
    text = "\n".join(drawn(new, 80))
    assert "no accuracy reported" in text
    assert "none is up" in text
    assert status_line(new).startswith("[0:00:00] 0 trials: 0 done, 0 failed; no accuracy")


def test_a_configuration_stays_in_one_line():
    text = format_config({"a": "two\nlines", "b": 1e-05, "c": True, "d": {}, "e": (1, 0.30000001)})
    assert text == "a='two\\nlines', b=1e-05, c=True, d={}, e=[1, 0.3]"


def test_a_pipe_gets_plain_lines_and_a_summary(capsys):
    shown = Progress(1, lambda: NOW)
    shown.start()
    shown.say("task_id: 5")
    shown.say("")
    shown.stop()
    lines = capsys.readouterr().out.split("\n")
    assert lines[:2] == ["task_id: 5", ""]
    assert lines[2].startswith("42 trials in 0:03:12: 16 running, 30 done, 10 stopped, 2 failed")
    assert "best accuracy 0.9871 (task 17: batch_size=64, lr=0.01235" in lines[2]
    assert lines[3:] == [""]


def test_a_pipe_gets_a_line_for_a_new_best_and_none_while_nothing_changes(monkeypatch, capsys):
    monkeypatch.setattr(progress, "TICK_S", 0.01)
    monkeypatch.setattr(progress, "PLAIN_EVERY_S", 0.0)
    now = [NOW]
    shown = Ticking(1, lambda: now[0])
    shown.start()
    shown.ticks(5)
    assert capsys.readouterr().out == ""
    now[0] = dataclasses.replace(NOW, best_reward=0.99)
    shown.ticks(5)
    shown.stop()
    status, final, rest = capsys.readouterr().out.split("\n")
    assert status.startswith("[0:03:12] 42/100 trials: 16 running")
    assert "best accuracy 0.99 (task 17" in status
    assert final.startswith("42 trials")
    assert rest == ""


def test_plain_lines_come_no_faster_than_every_five_seconds(monkeypatch, capsys):
    monkeypatch.setattr(progress, "TICK_S", 0.01)
    rewards = iter(range(1000))
    shown = Ticking(1, lambda: dataclasses.replace(NOW, best_reward=next(rewards)))
    shown.start()
    shown.ticks(20)
    shown.stop()
    assert capsys.readouterr().out.count("\n") == 1


def test_where_each_epoch_has_a_line_none_on_how_the_search_stands_is_between(monkeypatch, capsys):
    monkeypatch.setattr(progress, "TICK_S", 0.01)
    monkeypatch.setattr(progress, "PLAIN_EVERY_S", 0.0)
    rewards = iter(range(1000))
    shown = Ticking(1, lambda: dataclasses.replace(NOW, best_reward=next(rewards)))
    shown.says_milestones = False
    shown.start()
    shown.say("epoch 1/2")
    shown.ticks(5)
    shown.say("epoch 2/2")
    shown.stop()
    first, second, final, _ = capsys.readouterr().out.split("\n")
    assert (first, second) == ("epoch 1/2", "epoch 2/2")
    assert final.startswith("42 trials")


def test_verbose_zero_writes_nothing(capsys):
    shown = Progress(0, lambda: NOW)
    shown.start()
    shown.say("a line")
    shown.stop()
    assert capsys.readouterr().out == ""


def test_it_can_be_stopped_twice_and_started_again(capsys):
    shown = Progress(1, lambda: NOW)
    shown.say("before")
    for _ in range(2):
        shown.start()
        shown.start()
        shown.stop()
        shown.stop()
    shown.say("after")
    first, *summaries, last, _ = capsys.readouterr().out.split("\n")
    assert (first, last, len(summaries)) == ("before", "after", 2)


class Tee:
    def __init__(self, stream):
        self.write = stream.write


@pytest.mark.parametrize("stream", ["closed", "missing", "broken", "of one method"])
def test_an_output_that_nobody_can_write_to_does_no_harm(monkeypatch, stream):
    reading, writing = os.pipe()
    os.close(reading)
    output = os.fdopen(writing, "w")
    if stream == "closed":
        output.close()
    put = {"missing": None, "of one method": Tee(output)}.get(stream, output)
    monkeypatch.setattr(sys, "stdout", put)
    shown = Progress(1, lambda: NOW)
    shown.start()
    shown.say("a line")
    shown.stop()
    shown.say("another")
    monkeypatch.undo()
    with contextlib.suppress(BrokenPipeError):
        output.close()


def test_letters_that_the_output_does_not_know_are_replaced(monkeypatch):
    raw = io.BytesIO()
    monkeypatch.setattr(sys, "stdout", io.TextIOWrapper(raw, encoding="ascii"))
    Progress(1, lambda: NOW).say("naïve")
    assert raw.getvalue() == b"na?ve\n"


def test_a_terminal_that_stands_still_does_not_hold_up_the_search(monkeypatch):
    monkeypatch.setattr(progress, "GIVE_UP_S", 0.3)
    master, slave = pty.openpty()
    monkeypatch.setattr(sys, "stdout", os.fdopen(slave, "w"))
    shown = Progress(1, lambda: NOW)
    began = time.monotonic()
    shown.start()
    for _ in range(20_000):
        shown.say("x" * 80)
    assert time.monotonic() - began < 20
    while shown._lines:  # until the display writes what the terminal does not take
        assert time.monotonic() - began < 25
        time.sleep(0.01)
    shown.stop()
    assert time.monotonic() - began < 30
    os.close(master)
    for thread in threading.enumerate():  # its terminal is gone: it ends
        if thread.name == "distsearch-progress":
            thread.join(5)
            assert not thread.is_alive()


def test_importing_it_imports_neither_rich_nor_matplotlib():
    code = (
        "import sys, distsearch.core.progress, distsearch.core.curves;"
        "print([m for m in ('rich', 'matplotlib', 'numpy') if m in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout == "[]\n"


def test_with_several_objectives_the_size_of_the_front_is_shown_in_place_of_a_best():
    now = dataclasses.replace(NOW, best_reward=None, reward_attr="accuracy and latency")
    line = status_line(dataclasses.replace(now, front_size=7))
    assert "; 7 trials in the Pareto front of accuracy and latency; " in line
    line = status_line(dataclasses.replace(now, front_size=0, limits="latency <= 20"))
    assert "; no accuracy and latency with latency <= 20 reported; " in line
