"""The supervisor of a node's trials: it starts their processes, hears them, and ends them.

It does what the agent's driver asks of trials (`start`, `decide`, `stop`, `follow` and `ack` of the
table in `messages.py`), and tells what becomes of them. It is the listener of `Processes`, which
forks, signals and reaps: what stands here is the state of each process of an attempt, its limits,
and how much of what trials have said is not acknowledged yet.

A trial never waits for the driver's disk: what a trial sends is read at once and kept until it is
acknowledged; only a trial that is more than `WINDOW` bytes ahead of the driver is held back.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
from collections.abc import Callable
from pathlib import Path
from typing import Any

from .lacks import SHORTAGES, with_remedy
from .meeting import MeetingPoints
from .messages import Message
from .proc import families_above
from .process import Process, ProcessListener
from .processes import Processes
from .running_trial import RunningTrial, how_it_ended, output_name, why_not_begun
from .stock import Stock

WINDOW = 8 << 20
KILL_GRACE_S = 10.0
LOOK_PERIOD_S = 0.2
STILL_S = 1.0  # a node that looks later than that was suspended, and has not heard its trials
MEMORY_PERIOD_S = 0.25
AFTER_SAVE_S = 1.0  # so long the report of what was saved may take


class Supervisor:
    """Runs the trials of one node, each rank of an attempt in a process.

        supervisor = Supervisor(folder, stock, meetings, tell, clock, Processes)
        supervisor.begin()
        supervisor.start(message)                 # as the driver has sent it
        await supervisor.close()

    `tell(op=..., ...)` gives the driver a message. A process without a trial is a spare: it waits
    for the next trial with the same environment, threads and folder.
    """

    def __init__(
        self,
        folder: Path,
        stock: Stock,
        meetings: MeetingPoints,
        tell: Callable[..., None],
        clock: Callable[[], float],
        make_processes: Callable[[Path, ProcessListener], Processes],
    ) -> None:
        self._stock = stock
        self._meetings = meetings
        self._tell = tell
        self._clock = clock
        self.processes = make_processes(folder, self)
        self._trials: dict[tuple[int, int, int], RunningTrial] = {}  # by trial, attempt and rank
        self._spares: list[Process] = []
        self._held_back: list[Process] = []
        self._unacknowledged = 0  # bytes of reports
        self._tasks: list[asyncio.Task[None]] = []

    # Life

    def begin(self) -> None:
        """Start the launcher, and look after the trials from now on."""
        self._loop = asyncio.get_running_loop()
        self.processes.start()
        self._tasks.append(self._loop.create_task(self._look_after_trials()))
        self._tasks.append(self._loop.create_task(self._watch_memory()))

    async def close(self) -> None:
        """Kill every trial and the launcher, and wait until they are gone; nothing is told."""
        for task in self._tasks:
            task.cancel()
        for trial in self._trials.values():
            trial.cancel_timers()
        await self.processes.close()

    async def keep_no_process(self) -> None:
        """End all processes and the launcher, wait until they are gone, and tell it."""
        await self.processes.close()
        for trial in list(self._trials.values()):
            self._finish(trial, {"code": None, "signal": signal.SIGKILL})
        self._spares.clear()

    # What the driver asks

    def start(self, message: Message) -> None:
        """Start one rank of an attempt: it begins once its process lives."""
        number, attempt, rank = message["trial"], message["attempt"], message["rank"]
        try:
            if lacks := self._stock.lacks(message["job"]["function"]):
                self._refuse(message, self._stock.why_lacking(lacks), lacks)
                return
            folder, is_new = self._stock.make_folder_of(number)
            process = self._spare_for(message) or self._new_process(message)
        except OSError as error:
            if error.errno in SHORTAGES:
                self._refuse(message, with_remedy(str(error), error.errno), [])
            else:
                self.cannot_start(message, "killed", f"it could not be started: {error}")
            return
        output = f"{folder}/{output_name(rank)}"
        job = {
            **message["job"],
            "reuse": message["reuse"],
            "folder": folder,
            "output": output,
            "work_folder": self._stock.work,
            "function": self._stock.path_of(message["job"]["function"]),
        }
        line = json.dumps(job).encode() + b"\n"
        limits = message["limits"]
        trial = RunningTrial(number, attempt, rank, process, output, line, limits, self._clock())
        if not is_new:
            with contextlib.suppress(OSError):
                trial.output_read = os.stat(trial.output).st_size
        process.work = trial
        self._trials[number, attempt, rank] = trial
        if process.pid is not None:
            self._begin(trial)
        if not message["reuse"]:
            self._keep_a_spare(message)

    def cannot_start(self, message: Message, status: str, reason: str) -> None:
        """Tell that an attempt is over before it has begun."""
        self._tell(op="ended", **_address(message), status=status, reason=reason, traceback="")

    def _refuse(self, message: Message, reason: str, lacks: list[str]) -> None:
        """Tell that the node has no room for an attempt, or lacks something, for now."""
        self._tell(op="refused", **_address(message), reason=reason, lacks=lacks)

    def decide(self, message: Message) -> None:
        """Give a trial the answer to its report; one that is to end has some time to do so."""
        for trial in self._ranks(message):
            if message["decision"] != "continue":
                pause = message["decision"] == "pause"
                self._end_soon(trial, "paused" if pause else "stopped", "by the rule")
            trial.goes_on(self._clock())
            self.processes.write(trial.process, message["decision"].encode() + b"\n")

    def stop(self, message: Message) -> None:
        """End a trial: now, or after its next checkpoint, but `after_save_s` from now at most."""
        status, reason = message["status"], message["reason"]
        after_save_s = message.get("after_save_s", 0.0)
        for trial in self._ranks(message):
            if not after_save_s or trial.process.pid is None:
                self._end_now(trial, status, reason)
            elif trial.leaving is None:
                trial.leaving = status, reason
                self._later(trial, after_save_s, self._end_now, trial, status, reason)

    def follow(self, message: Message) -> None:
        """Let the ranks here end, as another rank of their attempt is over.

        They wait for no decision any more. How each of them has ended is still its own, unless
        these signals end it: it may be the one that has died first.
        """
        term_s, kill_s = message["term_s"], message["kill_s"]
        for trial in self._ranks(message):
            trial.follows = message["status"], message["reason"]
            if trial.process.pid is not None:
                self.processes.write(trial.process, b"alone\n")
            elif term_s == 0:
                trial.status, trial.reason = trial.status or message["status"], message["reason"]
                self._never_begin(trial)
                continue
            if term_s is not None:
                self._later(trial, term_s, self._end_follower, trial, signal.SIGTERM)
                self._later(trial, term_s + kill_s, self._end_follower, trial, signal.SIGKILL)

    def _end_follower(self, trial: RunningTrial, number: int) -> None:
        trial.is_ended = True
        self.processes.signal(trial.process, number)

    def acknowledge(self, message: Message) -> None:
        """Know that some reports are durable, and hear again the trials that were held back."""
        self._unacknowledged -= message["bytes"]
        if self._held_back and self._unacknowledged < WINDOW // 2:
            held_back, self._held_back = self._held_back, []
            for process in held_back:
                if process.work is not None:
                    process.work.goes_on(self._clock())
                self.processes.listen(process)

    def _ranks(self, message: Message) -> list[RunningTrial]:
        """The ranks here of the attempt that a message is about."""
        trial, attempt = message["trial"], message["attempt"]
        there = (self._trials.get((trial, attempt, rank)) for rank in message["ranks"])
        return [one for one in there if one is not None]

    # Processes

    def _spare_for(self, message: Message) -> Process | None:
        setting = _setting(message)
        for process in self._spares:
            if process.setting == setting:
                self._spares.remove(process)
                return process
        return None

    def _keep_a_spare(self, message: Message) -> None:
        """Fork the process of the next trial like this one while this one runs."""
        if not any(process.setting == _setting(message) for process in self._spares):
            with contextlib.suppress(OSError):  # the next trial will say why it cannot start
                self._spares.append(self._new_process(message))

    def _new_process(self, message: Message) -> Process:
        return self.processes.fork(
            _setting(message),
            folder=message["job"]["cwd"] or self._stock.work,
            threads=message["threads"],
            env=message["env"],
            reuse=message["reuse"],
        )

    def on_started(self, process: Process) -> None:
        """Let the trial begin that waits for this process, if one does."""
        if process.work is not None:
            self._begin(process.work)

    def _begin(self, trial: RunningTrial) -> None:
        """Give a trial to its process: from now on its time counts."""
        trial.started = trial.heard = self._clock()
        self.processes.write(trial.process, trial.job)
        if trial.follows is not None:
            self.processes.write(trial.process, b"alone\n")
        trial.memory_bytes = trial.limits.get("memory_bytes")

    # What trials say

    def on_lines(self, process: Process, lines: list[bytes]) -> None:
        """Turn the lines of a trial into messages; a trial that sends something else is ended."""
        trial: RunningTrial | None = process.work
        if trial is None:
            return
        trial.heard = self._clock()
        try:
            for line in lines:
                self._take_line(process, trial, line)
        except (ValueError, RecursionError) as error:
            reason = "it sent what is no message (a signal handler that raises may have cut one)"
            self._end_now(trial, "failed", f"{reason}: {error}")
        if self._unacknowledged > WINDOW and not process.exited:
            trial.waits(self._clock())
            self.processes.hold_back(process)
            self._held_back.append(process)

    def _take_line(self, process: Process, trial: RunningTrial, line: bytes) -> None:
        kind, sequence, due, body = line.split(b" ", 3)
        if kind == b"R":
            if due == b"1":
                trial.waits(self._clock())
            self._unacknowledged += len(body)
            self._tell(
                op="report",
                trial=trial.trial,
                attempt=trial.attempt,
                seq=int(sequence),
                due=due == b"1",
                body=body.decode(),
            )
            if trial.leaving is not None and trial.has_saved:
                self._end_now(trial, *trial.leaving)
        elif kind == b"S":
            about = {"trial": trial.trial, "attempt": trial.attempt, "step": int(sequence)}
            self._tell(op="saved", **about, **json.loads(body))
            if trial.leaving is not None:
                # The report of what was saved may follow, and should not be lost.
                trial.has_saved = True
                self._later(trial, AFTER_SAVE_S, self._end_now, trial, *trial.leaving)
        elif kind == b"E":
            trial.end = json.loads(body)
            self._after_end(process, trial)
        else:
            raise ValueError(f"a line begins with {kind[:20]!r}")

    def _after_end(self, process: Process, trial: RunningTrial) -> None:
        """The train function is over: the process goes on to another, or has to exit."""
        end = trial.end or {}
        if trial.status or end["how"] == "stopped" or not process.reuse:
            self._kill_later(trial)
            return
        process.work = None
        self._spares.append(process)
        self._finish(trial, {"code": 0})

    # Ends

    def _end_now(self, trial: RunningTrial, status: str, reason: str) -> None:
        """Send TERM to the trial's process group now, and KILL if it has not ended in time."""
        if trial.status or (trial.trial, trial.attempt, trial.rank) not in self._trials:
            return
        trial.status, trial.reason = status, reason
        if trial.process.pid is None:
            self._never_begin(trial)
            return
        self.processes.signal(trial.process, signal.SIGTERM)
        self._kill_later(trial)

    def _end_soon(self, trial: RunningTrial, status: str, reason: str) -> None:
        """Send TERM and KILL later, if a trial does not do what it is about to be told."""
        if trial.status:
            return
        trial.status, trial.reason = status, reason
        send = self.processes.signal
        self._later(trial, KILL_GRACE_S, send, trial.process, signal.SIGTERM)
        self._later(trial, 2 * KILL_GRACE_S, send, trial.process, signal.SIGKILL)

    def _kill_later(self, trial: RunningTrial) -> None:
        """Send KILL to a process that has not ended by itself in time."""
        self._later(trial, KILL_GRACE_S, self.processes.signal, trial.process, signal.SIGKILL)

    def _later(
        self, trial: RunningTrial, after_s: float, call: Callable[..., None], *arguments: Any
    ) -> None:
        """Do something after some time, unless the trial has ended before."""
        trial.timers.append(self._loop.call_later(after_s, call, *arguments))

    def _never_begin(self, trial: RunningTrial) -> None:
        """End a trial whose process is still to come; that process will be free for another."""
        trial.process.work = None
        self._spares.append(trial.process)
        self._finish(trial, {})

    def end_all(self, reason: str) -> None:
        """Send KILL to all at once: the driver may already start these trials elsewhere."""
        for trial in list(self._trials.values()):
            if not trial.status:
                trial.status, trial.reason = "node_lost", reason
            if trial.process.pid is None:
                self._never_begin(trial)
            else:
                self.processes.signal(trial.process, signal.SIGKILL)
        for process in self._spares:
            self.processes.signal(process, signal.SIGKILL)
        self._spares = [process for process in self._spares if process.pid is None]  # not killed

    def on_exit(self, process: Process, exit_: Message) -> None:
        """Finish the trial of a process that is reaped, if it had one."""
        if process in self._spares:
            self._spares.remove(process)
        if process.work is not None:
            self._finish(process.work, exit_)

    def on_launcher_died(self, reason: str) -> None:
        """Take note that all trials are about to end, which is not their own doing."""
        for trial in self._trials.values():
            if not trial.status:
                trial.status, trial.reason = "node_lost", reason
                trial.launcher_died = True

    def on_trouble(self, text: str) -> None:
        """Tell the user what is not as it should be."""
        self._tell(op="notice", text=text)

    def on_given_up(self, reason: str) -> None:
        """Tell the driver that nothing can run here any more."""
        self._tell(op="problem", reason=reason)

    def _finish(self, trial: RunningTrial, exit_: Message) -> None:
        """Tell the driver that an attempt is over and its slot free."""
        del self._trials[trial.trial, trial.attempt, trial.rank]
        trial.cancel_timers()
        if trial.rank == 0:
            self._meetings.is_over(trial.trial, trial.attempt)
        if reason := why_not_begun(trial, exit_):
            self._tell(op="refused", **trial.address, reason=reason, lacks=[])
            return
        self._send_output(trial, last=True)
        end = trial.end or {}
        status, reason = how_it_ended(trial, exit_)
        self._tell(
            op="ended",
            **trial.address,
            status=status,
            reason=reason,
            error=end.get("error", ""),
            traceback=end.get("traceback", ""),
            returned=end.get("returned"),
            no_space=end.get("no_space", False),
            **({"kept": end["kept"]} if end.get("kept") else {}),
            exit_code=exit_.get("code"),
            signal=exit_.get("signal"),
            max_rss_bytes=exit_.get("max_rss_bytes"),
            cpu_s=exit_.get("cpu_s"),
            seconds=round(self._clock() - trial.started, 4),
        )

    # What is looked at from time to time: time limits, output, memory

    async def _look_after_trials(self) -> None:
        """Send what trials print, and end those whose time is over."""
        while True:
            before = self._clock()
            await asyncio.sleep(LOOK_PERIOD_S)
            now = self._clock()
            stood_still_s = now - before - LOOK_PERIOD_S
            for trial in list(self._trials.values()):
                self._send_output(trial)
                if stood_still_s > STILL_S:
                    trial.is_given(stood_still_s)
                elif trial.process.pid is not None and (over := trial.is_over(now)):
                    self._end_now(trial, *over)

    def _send_output(self, trial: RunningTrial, last: bool = False) -> None:
        """Send what the trial has printed since the last look."""
        if text := trial.new_output(last):
            self._tell(op="output", **trial.address, text=text)

    async def _watch_memory(self) -> None:
        """Kill trials that use more memory than they may."""
        while True:
            await asyncio.sleep(MEMORY_PERIOD_S)
            limited = {
                trial.process.pid: trial
                for trial in self._trials.values()
                if trial.memory_bytes is not None and trial.process.pid and not trial.status
            }
            limits = {pid: trial.memory_bytes or 0 for pid, trial in limited.items()}
            for pid, used in families_above(limits):
                trial, limit = limited[pid], limits[pid]
                reason = f"used {used / 1e9:.2f} GB, more than memory_gb={limit / 1e9:g}"
                trial.status, trial.reason = "out_of_memory", reason
                self.processes.signal(trial.process, signal.SIGKILL)


def _address(start: Message) -> Message:
    """Trial, attempt and rank that a start is about, for messages to the driver."""
    return {name: start[name] for name in ("trial", "attempt", "rank")}


def _setting(start: Message) -> tuple[Any, ...]:
    """What a process keeps as it is, so that only trials that ask the same can have it."""
    return sorted(start["env"].items()), start["threads"], start["job"]["cwd"]
