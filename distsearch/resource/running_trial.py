"""A process of an attempt on its node: its job, what it has said, how it has ended."""

from __future__ import annotations

import asyncio
import os
import signal
from dataclasses import dataclass, field
from typing import Any

from .messages import Message
from .private import private
from .process import Process

OUTPUT_LIMIT = 64 << 10  # of what is printed between two looks so many bytes are taken


@dataclass(eq=False)
class RunningTrial:
    """One process of an attempt of a trial on this node."""

    trial: int
    attempt: int
    rank: int
    process: Process
    output: str
    job: bytes  # what the process gets to do, once it has started
    limits: dict[str, Any]  # the part of that name of a message `start`
    started: float  # when the process got its job; until then, when the driver asked for it
    heard: float = 0.0  # when the trial last said something, or was answered
    waits_since: float | None = None  # for the driver: for its answer, or until it takes more
    waited_s: float = 0.0  # for the driver, before `waits_since`
    output_read: int = 0
    end: Message | None = None
    launcher_died: bool = False  # the process ended, as the launcher has died
    status: str = ""  # set when the agent ends the trial; it counts, whatever the process says
    reason: str = ""
    leaving: tuple[str, str] | None = None  # status and reason of its end after a checkpoint
    follows: tuple[str, str] | None = None  # status and reason of its end after another rank's
    is_ended: bool = False  # the agent has ended it, as another rank is over
    has_saved: bool = False  # the checkpoint for which `leaving` waits is there
    timers: list[asyncio.TimerHandle] = field(default_factory=list)
    memory_bytes: int | None = None

    @property
    def address(self) -> dict[str, int]:
        """Trial, attempt and rank of the process, for messages to the driver."""
        return {"trial": self.trial, "attempt": self.attempt, "rank": self.rank}

    def waits(self, now: float) -> None:
        """Know that it waits for the driver: that is none of its own time."""
        if self.waits_since is None:
            self.waits_since = now

    def goes_on(self, now: float) -> None:
        """Know that it has got what it waited for."""
        if self.waits_since is not None:
            self.waited_s += now - self.waits_since
            self.waits_since, self.heard = None, now

    def is_given(self, seconds: float) -> None:
        """Have so many seconds more, as its agent stood still meanwhile and did not hear it."""
        self.started += seconds
        self.heard += seconds
        if self.waits_since is not None:
            self.waits_since += seconds

    def is_over(self, now: float) -> tuple[str, str] | None:
        """As what its time has ended it, and why, if it has.

        What the trial waits for its driver is none of its time: that may be suspended, or its disk
        be full.
        """
        now = now if self.waits_since is None else self.waits_since
        seconds = self.limits.get("trial_timeout_s")
        if seconds is not None and now - self.started - self.waited_s > seconds:
            return "timed_out", f"ran longer than trial_timeout={seconds:g} s"
        seconds = self.limits.get("report_timeout_s")
        if seconds is not None and now - self.heard > seconds:
            return "hung", f"no report for report_timeout={seconds:g} s"
        return None

    def cancel_timers(self) -> None:
        """Cancel all that was to happen to the process later."""
        for timer in self.timers:
            timer.cancel()

    def new_output(self, last: bool = False) -> str:
        """What the process has printed since the last call, in whole lines."""
        try:
            size = os.stat(self.output).st_size
            if size == self.output_read:
                return ""
            with open(self.output, "rb", opener=private) as file:
                file.seek(self.output_read)
                text = file.read(OUTPUT_LIMIT)
                skipped = size - self.output_read - len(text)
        except OSError:
            return ""
        if not last and skipped <= 0:
            text = text[: text.rfind(b"\n") + 1]
        self.output_read += len(text)
        if skipped > 0:
            self.output_read = size
            where = self.output
            text += f"\n[{skipped} bytes of output left out here; all: {where}]\n".encode()
        return text.decode(errors="replace")


def output_name(rank: int) -> str:
    """The name of the file, in a trial's folder, with what a rank prints.

    >>> output_name(0), output_name(3)
    ('output.txt', 'output-rank3.txt')
    """
    return "output.txt" if rank == 0 else f"output-rank{rank}.txt"


def why_not_begun(trial: RunningTrial, exit_: Message) -> str:
    """Why a process has not begun its job; '' if it has, or if it was ended on purpose."""
    if trial.end is not None and trial.end["how"] == "not begun" and not trial.status:
        return str(trial.end["error"])
    if trial.process.pid is None and (not trial.status or trial.launcher_died):
        return str(trial.reason or exit_.get("error") or "the process could not be started")
    return ""


def how_it_ended(trial: RunningTrial, exit_: Message) -> tuple[str, str]:
    """The status with which a process has ended, and the reason in words."""
    end = trial.end
    if trial.status:
        return trial.status, trial.reason
    if trial.follows is not None and trial.is_ended and _obeyed(end, exit_):
        return trial.follows
    if end is not None and end["how"] == "raised":
        if end.get("no_space"):
            return "killed", f"the disk is full: {end['error']}"
        return ("out_of_memory" if end.get("memory") else "failed"), end["error"]
    if end is not None and end["how"] == "exit" and end["code"] != 0:
        return "exited", end["error"] or f"sys.exit({end['code']})"
    if end is not None and end["how"] == "stopped":
        return "killed", "killed by SIGTERM, which the search did not send"
    if end is not None:
        return "finished", ""
    if exit_.get("signal") is not None:
        name = signal_name(exit_["signal"])
        hint = " (perhaps the machine ran out of memory)" if name == "SIGKILL" else ""
        return "killed", exit_.get("error") or f"killed by {name}{hint}"
    if exit_.get("code") is None:
        return "killed", exit_.get("error") or "the process could not be started"
    return "exited", f"the process left with exit code {exit_['code']} without returning"


def _obeyed(end: Message | None, exit_: Message) -> bool:
    """Whether TERM or KILL has ended a process, perhaps before it had begun its job."""
    if end is not None:
        return bool(end["how"] == "stopped")
    return exit_.get("signal") in (signal.SIGTERM, signal.SIGKILL) or exit_.get("code") == 0


def signal_name(number: int) -> str:
    """The name of a signal; real-time signals, and those of other systems, have only numbers.

    >>> signal_name(9), signal_name(40)
    ('SIGKILL', 'signal 40')
    """
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"
