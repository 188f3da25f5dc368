"""Fake processes of a node, and the fake training in them.

They stand for `resource.processes.Processes`, the launcher, and `core.trial_process`; checkpoints
are written, inherited and rolled back by the real code.
"""

from __future__ import annotations

import asyncio
import itertools
import json
import math
import random
import signal
from collections import deque
from collections.abc import Mapping
from pathlib import Path
from typing import Any, Protocol

from ...core import checkpoint
from ...core.reporter import Reporter
from ...resource.cache import delete_newer, inherit
from ...resource.process import Process, ProcessListener
from .dask import running_worker
from .gangs import LOOK_S, Gang
from .machines import bury
from .plan import Plan

pids = itertools.count(1000)


def accuracy(x: float, epoch: int) -> float:
    """What every trial with this configuration reports at this epoch."""
    return round(1 - (x - 0.6) ** 2 - 1 / (epoch + 2), 6)


class Witness(Protocol):
    """Hears of all that trials do: the judge."""

    def agent_begins(self, processes: FakeProcesses) -> None:
        """An agent has its processes."""

    def training_begins(self, life: Life, trial: int, attempt: int) -> None:
        """A process has its job."""

    def gang_of(self, trial: int, attempt: int) -> Gang:
        """The ranks of an attempt."""

    def training_ends(self, life: Life) -> None:
        """A process has done its job, or is no more."""

    def process_ends(self, life: Life) -> None:
        """A process is no more."""

    def saved(self, life: Life, trial: int, epoch: int) -> None:
        """A trial has written a checkpoint."""

    def resumed(self, life: Life, trial: int, job: Mapping[str, Any], state: Any) -> None:
        """A trial goes on from what it found saved; None: it found nothing."""

    def reports(self, trial: int, attempt: int, sequence: int, due: bool) -> None:
        """A trial reports, and waits for the decision if that is due."""


class FakeProcesses:
    """The processes of one agent; `driver` is the number of the driver whose trials they are."""

    def __init__(
        self, plan: Plan, driver: int, witness: Witness, listener: ProcessListener
    ) -> None:
        self.plan = plan
        self.driver = driver
        self.witness = witness
        self.listener = listener
        self.lives: dict[str, Life] = {}
        self.is_up = False
        self.worker = running_worker()
        self.world = self.worker.world
        self.begun_at = self.world.now
        self.worker.at_death.append(self.power_off)
        witness.agent_begins(self)
        self._count = itertools.count(1)

    # What the agent asks of it

    def __len__(self) -> int:
        return len(self.lives)

    def start(self) -> None:
        """Start the launcher."""
        self.loop = asyncio.get_running_loop()
        self.is_up = True

    def start_again(self) -> None:
        """Start the launcher, after a rest."""
        self.start()

    def configure(self, **configuration: Any) -> None:
        """Nothing: there is nothing to import."""

    async def close(self) -> None:
        """End all processes, and the launcher."""
        await asyncio.sleep(self.world.random.uniform(0.001, 0.05))
        self.power_off()

    def fork(
        self,
        setting: tuple[Any, ...],
        *,
        folder: str,
        threads: int,
        env: Mapping[str, str],
        reuse: bool,
    ) -> Process:
        """A new process, which lives in a moment, unless the node has no room for it."""
        if self.worker.lacks:
            raise OSError(self.worker.lacks, "the node can start nothing")
        no_channel: Any = None  # lines are handed over as they are
        process = Process(str(next(self._count)), no_channel, setting, reuse, reading=True)
        self.lives[process.key] = Life(self, process)
        return process

    def signal(self, process: Process, number: int) -> None:
        """Send a signal to a process and all that it has started."""
        life = self.lives.get(process.key)
        if process.pid is not None and not process.exited and life is not None:
            # Through the launcher, which takes a moment.
            delay_s = self.world.random.uniform(0.001, 0.02)
            self.loop.call_later(delay_s, life.signalled, number)

    def write(self, process: Process, data: bytes) -> None:
        """Hand lines to a process."""
        life = self.lives.get(process.key)
        if life is not None:
            life.hear(data)

    def listen(self, process: Process) -> None:
        """Hear what a process says (again)."""
        process.reading = True
        life = self.lives.get(process.key)
        if life is not None and not process.exited:
            life.hand_over()

    def hold_back(self, process: Process) -> None:
        """Hear nothing of it for now."""
        process.reading = False

    # What befalls it

    def power_off(self) -> None:
        """All of it is gone at once."""
        self.is_up = False
        for life in list(self.lives.values()):
            life.cut()
        self.lives.clear()

    def launcher_dies(self) -> None:
        """The launcher is killed: its processes die with it; the agent starts another."""
        self.listener.on_launcher_died("the node's launcher died (killed)")
        for life in list(self.lives.values()):
            life.gone({"code": None, "signal": signal.SIGKILL})


class Life:
    """What one process does, from its fork to its end."""

    def __init__(self, processes: FakeProcesses, process: Process) -> None:
        self.processes = processes
        self.process = process
        self.world = processes.world
        self.witness = processes.witness
        self.inbox: deque[bytes] = deque()
        self.unsaid: list[bytes] = []
        self.news = asyncio.Event()
        self.job: dict[str, Any] | None = None
        self.ignores_term = False
        self.is_over = False
        self.rank = 0
        self.gang: Gang | None = None  # the gang of the trial's attempt, if that has several ranks
        self.task = processes.loop.create_task(self.live())

    # Lines

    def hear(self, data: bytes) -> None:
        """A line comes in."""
        self.inbox.append(data)
        self.news.set()

    async def next_line(self) -> str:
        """The next line that has come in, or comes."""
        while not self.inbox:
            self.news.clear()
            await self.news.wait()
        return self.inbox.popleft().decode().strip()

    def say(self, line: str) -> None:
        """Say a line to the agent."""
        self.unsaid.append(line.encode())
        self.processes.loop.call_soon(self.hand_over)

    def hand_over(self) -> None:
        """Let the agent have what was said, if it listens."""
        if self.unsaid and self.process.reading and not self.is_over:
            lines, self.unsaid = self.unsaid, []
            self.processes.listener.on_lines(self.process, lines)

    # Life and death

    async def live(self) -> None:
        """All of it: jobs come in, one after another where processes are used again."""
        random_ = self.world.random
        await asyncio.sleep(random_.uniform(0.002, 0.03))
        self.process.pid = next(pids)
        self.processes.listener.on_started(self.process)
        try:
            while True:
                job = json.loads(await self.next_line())
                end = await self.train(job)
                self.say("E 0 0 " + json.dumps(end))
                if not job["reuse"] or end["how"] == "stopped":
                    break
            # Threads that are waited for, atexit: the process goes on for a while.
            slow = random_.random() < 0.1
            await asyncio.sleep(random_.uniform(1, 8) if slow else random_.uniform(0.001, 0.01))
        except asyncio.CancelledError:
            return
        self.gone({"code": int(end["code"]), "signal": None})

    def signalled(self, number: int) -> None:
        """A signal arrives."""
        if self.is_over:
            return
        if number == signal.SIGKILL:
            self.task.cancel()
            self.gone({"code": None, "signal": signal.SIGKILL})
        elif self.job is None:
            self.task.cancel()
            self.gone({"code": 0, "signal": None})
        elif not self.ignores_term:
            self.hear(b"terminate\n")

    def cut(self) -> None:
        """The machine is gone, or its launcher: no word is heard any more."""
        if not self.is_over:
            self.is_over = True
            self.witness.training_ends(self)
            self.witness.process_ends(self)
            bury(self.task)
            if self.processes.worker.machine.alive:
                self.task.cancel()

    def gone(self, exit_: dict[str, Any]) -> None:
        """The process is reaped."""
        if self.is_over:
            return
        self.witness.training_ends(self)
        self.process.reading = True
        self.hand_over()
        self.is_over = self.process.exited = True
        self.witness.process_ends(self)
        self.processes.lives.pop(self.process.key, None)
        self.task.cancel()
        self.processes.listener.on_exit(self.process, exit_)

    # The training

    async def train(self, job: dict[str, Any]) -> dict[str, Any]:
        """Do a job; how it ended, as a trial's process says it."""
        trial = self.process.work
        self.job, self.rank = job, job["rank"]
        self.gang = None
        if job["ranks"] is not None:
            self.gang = self.witness.gang_of(trial.trial, trial.attempt)
            self.gang.joins(self)
        self.witness.training_begins(self, trial.trial, trial.attempt)
        try:
            return await self.epochs(job, trial.trial, trial.attempt)
        finally:
            self.witness.training_ends(self)
            self.job = None

    async def epochs(self, job: dict[str, Any], number: int, attempt: int) -> dict[str, Any]:
        """Go on from the checkpoint, save and report, until the last epoch or a stop."""
        plan = self.processes.plan
        fate = random.Random(f"{plan.seed} {number} {attempt}")
        folder = Path(job["folder"]) / "checkpoints"
        begins_with = folder
        if job["ranks"] is not None:  # the agent has seen to it
            begins_with = folder.parent / "begins_with"
        elif job["resume"]:
            delete_newer(folder, job["saved_step"])
        siblings = folder.parents[1]
        if job["ranks"] is None:
            sources = [source for _, source in job["parents"] if source is not None]
            inherit(folder, [siblings / str(source) for source in sources])
        state = checkpoint.load(begins_with)
        first = 0 if state is None else state["epoch"]
        self.witness.resumed(self, number, job, state)
        # It says which reports are due, and sends none.
        to_nobody: Any = None
        reporter = Reporter(to_nobody, folder=job["folder"], due=job["due"])
        speed_s = fate.uniform(0.1, 1.0) * plan.epoch_s
        ends_badly_at = fate.randint(1, 3 * plan.max_t) if plan.zoo and number else None
        self.ignores_term = fate.random() < 0.15
        for sequence, epoch in enumerate(range(first + 1, plan.max_t + 1), start=1):
            if await self.is_told_to_stop(speed_s):
                return _end("stopped")
            if epoch == ends_badly_at and self.rank == (plan.seed + epoch) % plan.ranks:
                return await self.misbehave(fate)
            if self.gang is not None and (end := await self.step_together(self.gang, epoch)):
                return end
            if self.rank:
                if reporter._is_due(json.dumps({"epoch": epoch})) and await self.has_to_stop():
                    return _end("stopped")
                continue
            if plan.saves and epoch % plan.saves == 0:
                state = {"epoch": epoch, "trial": number}
                keep = {"attempt": attempt, "keep": job["keep"]}
                path = checkpoint.save(state, folder, epoch, **keep)
                self.witness.saved(self, number, epoch)
                size = checkpoint.size_of(checkpoint.manifest_of(path))
                self.say(f"S {epoch} 0 {json.dumps({'name': path.name, 'bytes': size})}")
            x = job["config"]["x"]
            metrics = {"epoch": epoch, "accuracy": accuracy(x, epoch), "cost": round(x, 6)}
            body = json.dumps(metrics)
            due = reporter._is_due(body)
            self.witness.reports(number, attempt, sequence, due)
            self.say(f"R {sequence} {int(due)} {body}")
            if due and await self.next_line() != "continue":
                return _end("stopped")
        if self.gang is not None:
            self.gang.comes_to(self, float("inf"))
        return _end("returned")

    async def step_together(self, gang: Gang, epoch: int) -> dict[str, Any] | None:
        """As a collective: wait for the other ranks; how it ends if they do not come."""
        gang.comes_to(self, epoch)
        while not gang.is_met(epoch):
            if await self.is_told_to_stop(LOOK_S):
                return _end("stopped")
            if gang.is_broken and self.world.random.random() < 0.5:  # else it hangs a while
                error = "RuntimeError: Connection closed by peer"
                return _end("raised", code=1, error=error, traceback="")
        return None

    async def has_to_stop(self) -> bool:
        """What is decided on the report for which a silent rank waits."""
        return await self.next_line() not in ("continue", "alone")

    async def is_told_to_stop(self, seconds: float) -> bool:
        """Whether a word to stop arrives within the time."""
        if self.rank:  # decisions on its next reports may have come already: they wait
            for _ in range(math.ceil(seconds / LOOK_S)):
                if b"terminate\n" in self.inbox:
                    return True
                await asyncio.sleep(LOOK_S)
            return b"terminate\n" in self.inbox
        try:
            return await asyncio.wait_for(self.next_line(), seconds) != "continue"
        except asyncio.TimeoutError:
            return False

    async def misbehave(self, fate: random.Random) -> dict[str, Any]:
        """Come to a bad end: raise, exit, crash, or say nothing more."""
        kind = fate.choice(["raise", "exit", "segfault", "hang", "hang"])
        if kind == "raise":
            where = fate.choice("abcdef")
            return _end("raised", code=1, error=f"ValueError: {where}", traceback=f'File "{where}"')
        if kind == "exit":
            return _end("exit", code=3)
        if kind == "hang" and self.processes.plan.report_timeout:
            self.ignores_term = fate.random() < 0.5
            while await self.next_line() == "continue":
                pass
            return _end("stopped")
        self.gone({"code": None, "signal": signal.SIGSEGV})
        raise asyncio.CancelledError


def _end(how: str, **facts: Any) -> dict[str, Any]:
    return {"how": how, "code": 0, "error": "", "traceback": "", "returned": None, **facts}
