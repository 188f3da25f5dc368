"""The agent: lives on a node, runs trials there and speaks for them.

It is driven by one asyncio loop (of the node's Dask worker, or of the driver for the local node)
and knows nothing of Dask or SSH: `handle(messages)` takes what the driver says, `send(messages)`
is given what the driver should hear. Messages are dicts of JSON-able values with a key `op`:

    from the driver
        preload    modules, sys_path, entry, spawn, surroundings      before the first start
        function   name, data (offset, done)             a pickled train function (a piece of it)
        find       modules                               are they there?
        upload     path, data, done, sha256, mode        a piece of a file for the work folder
        meet       trial, attempt, alone, goes_on        rank 0 starts here: choose it a port
        reach      trial, attempt, goes_on, addresses,   other ranks start here: prove that they
                   port, token                           reach that port
        start      trial, attempt, rank, job, env, threads, limits, reuse
        decide     trial, attempt, ranks, decision       'continue', 'stop' or 'pause'
        stop       trial, attempt, ranks, status,        TERM; KILL after `KILL_GRACE_S`
                   reason, after_save_s                  (at its next checkpoint, or so much later)
        follow     trial, attempt, ranks, status,        another rank is over: wait for no decision,
                   reason, term_s, kill_s                TERM then, KILL so much later
        ack        bytes                                 that much of what was sent is durable
        beat       number                                answers the agent's own beat

    to the driver
        report     trial, attempt, seq, due, body        body: JSON text
        saved      trial, attempt, step, name, bytes
        output     trial, attempt, rank, text            whole lines
        ended      trial, attempt, rank, status, ...     the process is reaped: its slot is free
        refused    trial, attempt, rank, reason, lacks   it has not begun, for want of something
        meets      trial, attempt, port, token, interfaces, begins_with, error
        reached    trial, attempt, interfaces, begins_with, error
        problem    reason                                the node cannot go on
        lacks      modules                               that were to be found and are not there
        notice     text                                  what the user should know of the node
        uploaded   path, error
        beat       number

A trial may have several processes, its ranks, on this node and on others; what they have to do
with each other is in `meeting.py`.

Checkpoints travel beside the messages: the driver asks `checkpoints`, the node's `CheckpointCache`.
Forking, signals and channels are the business of `Processes`: what stands here is the state machine
of attempts, their limits, the lease and the acknowledgements. A trial never waits for the driver's
disk: what it sends is read at once and kept until it is acknowledged; only a trial that is more
than `WINDOW` bytes ahead of the driver is held back.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from .cache import CheckpointCache
from .lacks import SHORTAGES, with_remedy
from .meeting import MeetingPoints, Network
from .proc import MARK_FILE, families_above
from .process import Process
from .processes import LOG_FILE, Processes
from .running_trial import RunningTrial, how_it_ended, output_name, why_not_begun
from .stock import FOLDERS, Stock

Message = dict[str, Any]

MADE = (*FOLDERS, LOG_FILE, MARK_FILE)  # all that an agent makes in its folder
WINDOW = 8 << 20
KILL_GRACE_S = 10.0
LOOK_PERIOD_S = 0.2
STILL_S = 1.0  # an agent that looks later than that was suspended, and has not heard its trials
MEMORY_PERIOD_S = 0.25
AFTER_SAVE_S = 1.0
REST_AFTER = 1.5  # after so many leases without an answer the node keeps no process


class Agent:
    """Runs trials on one node; see the module's text for what it hears and says.

    `folder`: where the node keeps everything of this search. `lease_s`: after that many seconds
    without an answer from the driver to a beat, measured from the *sending* of that beat, it ends
    all its trials (None: the agent lives in the driver and needs no lease).
    """

    def __init__(
        self,
        *,
        folder: Path,
        send: Callable[[list[Message]], None],
        lease_s: float | None = 30.0,
        clock: Callable[[], float] = time.monotonic,
        make_processes: Callable[[Path, Agent], Processes] = Processes,
        network: Network | None = None,
    ) -> None:
        self.folder = folder
        self._stock = Stock(folder)
        self.lease_s = lease_s
        self._send = send
        self._clock = clock
        self._outbox: list[Message] = []
        self._flushing = False
        self._unacknowledged = 0
        self._held_back: list[Process] = []
        self.checkpoints = CheckpointCache(folder / "trials")
        self.processes = make_processes(folder, self)
        self._idle: list[Process] = []
        self._trials: dict[tuple[int, int, int], RunningTrial] = {}
        self._meetings = MeetingPoints(network or Network(), self.checkpoints.begin)
        self._beats: dict[int, float] = {}
        self._beat_number = 0
        self._lease_from = 0.0
        self._resting = False  # the driver has long been silent: there is not even a launcher
        self._tasks: list[asyncio.Task[None]] = []
        self._closing = False

    # Life

    async def start(self) -> None:
        """Make the folders and start the launcher."""
        self._loop = asyncio.get_running_loop()
        self._stock.begin()
        self.processes.start()
        self._tasks.append(self._loop.create_task(self._look_after_trials()))
        self._tasks.append(self._loop.create_task(self._watch_memory()))
        if self.lease_s is not None:
            self._lease_from = self._clock()
            self._tasks.append(self._loop.create_task(self._keep_lease(self.lease_s)))

    async def close(self) -> None:
        """Kill every trial and the launcher, and wait until they are gone (about 9 s at most)."""
        if self._closing:
            return
        self._closing = True
        for task in self._tasks:
            task.cancel()
        for trial in self._trials.values():
            trial.cancel_timers()
        self._meetings.close()
        await self.processes.close()

    # What the driver says

    def handle(self, messages: list[Message]) -> None:
        """Do what the driver says, in order."""
        for message in messages:
            if not self._closing:
                getattr(self, "_on_" + message["op"])(message)

    def _on_ping(self, message: Message) -> None:
        pass  # that the link could deliver it is all that matters

    def _on_beat(self, message: Message) -> None:
        sent = self._beats.pop(message["number"], None)
        if sent is not None:
            self._lease_from = max(self._lease_from, sent)
            self._wake_up()

    def _on_preload(self, message: Message) -> None:
        self.processes.configure(
            preload=message["modules"],
            sys_path=message["sys_path"],
            entry=message["entry"],
            spawn=message["spawn"],
            surroundings=message["surroundings"],
        )

    def _on_function(self, message: Message) -> None:
        self._stock.take_function(message)  # if that fails, a start will ask for it again

    def _on_find(self, message: Message) -> None:
        lacks = [name for name in message["modules"] if not self._stock.finds(name)]
        if lacks:
            self._tell(op="lacks", modules=lacks)

    def _on_upload(self, message: Message) -> None:
        path = message["path"]
        try:
            self._stock.take_upload(message)
        except (OSError, ValueError) as error:
            self._tell(op="uploaded", path=path, error=str(error))
        else:
            if message["done"]:
                self._tell(op="uploaded", path=path, error="")

    def _on_meet(self, message: Message) -> None:
        self._do(self._meet(message))

    def _on_reach(self, message: Message) -> None:
        self._do(self._reach(message))

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.append(task)
        task.add_done_callback(self._tasks.remove)

    async def _meet(self, message: Message) -> None:
        answer = await self._meetings.meet(message)
        self._tell(op="meets", trial=message["trial"], attempt=message["attempt"], **answer)

    async def _reach(self, message: Message) -> None:
        answer = await self._meetings.reach(message)
        self._tell(op="reached", trial=message["trial"], attempt=message["attempt"], **answer)

    def _on_start(self, message: Message) -> None:
        number, attempt, rank = message["trial"], message["attempt"], message["rank"]
        address = {"trial": number, "attempt": attempt, "rank": rank}
        self._meetings.give_way(number, attempt)
        if self.lease_s is not None and self._silent_s > self.lease_s:
            # The message was under way for so long that the trial may run elsewhere by now.
            reason = "the driver was not heard of in time"
            self._tell(op="ended", **address, status="node_lost", reason=reason, traceback="")
            return
        try:
            if lacks := self._stock.lacks(message["job"]["function"]):
                reason = self._stock.why_lacking(lacks)
                self._tell(op="refused", **address, reason=reason, lacks=lacks)
                return
            folder, is_new = self._stock.make_folder_of(number)
            process = self._idle_process(message) or self._new_process(message)
        except OSError as error:
            if error.errno in SHORTAGES:
                self._tell(
                    op="refused", **address, reason=with_remedy(str(error), error.errno), lacks=[]
                )
                return
            reason = f"it could not be started: {error}"
            self._tell(op="ended", **address, status="killed", reason=reason, traceback="")
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

    def _ranks(self, message: Message) -> list[RunningTrial]:
        """The processes here of the attempt that a message is about."""
        trial, attempt = message["trial"], message["attempt"]
        there = (self._trials.get((trial, attempt, rank)) for rank in message["ranks"])
        return [one for one in there if one is not None]

    def _on_decide(self, message: Message) -> None:
        for trial in self._ranks(message):
            if message["decision"] != "continue":
                pause = message["decision"] == "pause"
                self._end_soon(trial, "paused" if pause else "stopped", "by the rule")
            trial.goes_on(self._clock())
            self.processes.write(trial.process, message["decision"].encode() + b"\n")

    def _on_stop(self, message: Message) -> None:
        status, reason = message["status"], message["reason"]
        after_save_s = message.get("after_save_s", 0.0)
        for trial in self._ranks(message):
            if not after_save_s or trial.process.pid is None:
                self._end_now(trial, status, reason)
            elif trial.leaving is None:
                trial.leaving = status, reason
                trial.timers.append(
                    self._loop.call_later(after_save_s, self._end_now, trial, status, reason)
                )

    def _on_follow(self, message: Message) -> None:
        """Another rank is over: those here wait for no decision any more, and are given so long.

        How each has ended is still its own, unless it is these signals that end it: it may be the
        one that has died first.
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
                for after_s, number in (
                    (term_s, signal.SIGTERM),
                    (term_s + kill_s, signal.SIGKILL),
                ):
                    timer = self._loop.call_later(after_s, self._follow, trial, number)
                    trial.timers.append(timer)

    def _follow(self, trial: RunningTrial, number: int) -> None:
        trial.is_ended = True
        self.processes.signal(trial.process, number)

    def _on_ack(self, message: Message) -> None:
        self._unacknowledged -= message["bytes"]
        if self._held_back and self._unacknowledged < WINDOW // 2:
            held_back, self._held_back = self._held_back, []
            for process in held_back:
                if process.work is not None:
                    process.work.goes_on(self._clock())
                self.processes.listen(process)

    # Processes

    def _idle_process(self, message: Message) -> Process | None:
        setting = _setting(message)
        for process in self._idle:
            if process.setting == setting:
                self._idle.remove(process)
                return process
        return None

    def _keep_a_spare(self, message: Message) -> None:
        """Fork the process of the next trial like this one while this one runs."""
        if not any(process.setting == _setting(message) for process in self._idle):
            with contextlib.suppress(OSError):  # the next trial will say why it cannot start
                self._idle.append(self._new_process(message))

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
        """Turn the lines of a trial into messages; one that sends something else is ended."""
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
                trial.timers.append(
                    self._loop.call_later(AFTER_SAVE_S, self._end_now, trial, *trial.leaving)
                )
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
        self._idle.append(process)
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

    def _never_begin(self, trial: RunningTrial) -> None:
        """End a trial whose process is still to come; that process will be free for another."""
        trial.process.work = None
        self._idle.append(trial.process)
        self._finish(trial, {})

    def _end_soon(self, trial: RunningTrial, status: str, reason: str) -> None:
        """Send TERM and KILL later, if a trial does not do what it is about to be told."""
        if trial.status:
            return
        trial.status, trial.reason = status, reason
        trial.timers.append(
            self._loop.call_later(
                KILL_GRACE_S, self.processes.signal, trial.process, signal.SIGTERM
            )
        )
        trial.timers.append(
            self._loop.call_later(
                2 * KILL_GRACE_S, self.processes.signal, trial.process, signal.SIGKILL
            )
        )

    def _kill_later(self, trial: RunningTrial) -> None:
        trial.timers.append(
            self._loop.call_later(
                KILL_GRACE_S, self.processes.signal, trial.process, signal.SIGKILL
            )
        )

    def on_exit(self, process: Process, exit_: Message) -> None:
        """Finish the trial of a process that is reaped, if it had one."""
        if process in self._idle:
            self._idle.remove(process)
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

    # What is looked at from time to time: output, memory, the lease

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

    async def _keep_lease(self, lease_s: float) -> None:
        while True:
            self._beat_number += 1
            self._beats = {n: t for n, t in self._beats.items() if n > self._beat_number - 20}
            self._beats[self._beat_number] = self._clock()
            self._tell(op="beat", number=self._beat_number)
            await asyncio.sleep(lease_s / 6)
            if self._silent_s > lease_s:
                self._end_all(f"the node heard nothing from the driver for {lease_s:g} s")
            if self._silent_s > REST_AFTER * lease_s and not self._resting:
                await self.processes.close()
                self._resting = True
                for trial in list(self._trials.values()):
                    self._finish(trial, {"code": None, "signal": signal.SIGKILL})
                self._idle.clear()
                self._wake_up()

    @property
    def _silent_s(self) -> float:
        """How long ago the beat was sent that the driver answered last."""
        return self._clock() - self._lease_from

    def _end_all(self, reason: str) -> None:
        """Send KILL to all at once: the driver may already start these trials elsewhere."""
        for trial in list(self._trials.values()):
            if not trial.status:
                trial.status, trial.reason = "node_lost", reason
            if trial.process.pid is None:
                self._never_begin(trial)
            else:
                self.processes.signal(trial.process, signal.SIGKILL)
        for process in self._idle:
            self.processes.signal(process, signal.SIGKILL)
        self._idle = [process for process in self._idle if process.pid is None]  # not killed

    def _wake_up(self) -> None:
        """Have a launcher again, once the driver is heard of."""
        if self._resting and self.lease_s is not None and self._silent_s <= self.lease_s:
            self._resting = False
            self.processes.start_again()

    # Speaking

    def _tell(self, **message: Any) -> None:
        """Say something to the driver, together with what else is said in this turn of the loop."""
        self._outbox.append(message)
        if not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flushing = False
        messages, self._outbox = self._outbox, []
        self._send(messages)


def _setting(start: Message) -> tuple[Any, ...]:
    return sorted(start["env"].items()), start["threads"], start["job"]["cwd"]
