"""What must hold in every story, looked at while it happens and at its end."""

from __future__ import annotations

import json
from collections import Counter, defaultdict, deque
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from ...core import store
from ...core.words import Status
from ...scheduler import Scheduler
from . import insides
from .dask import FakeWorker
from .gangs import Gang
from .machines import Row, World
from .plan import Plan, train_fn
from .trials import FakeProcesses, Life

Mark = tuple[str, int, int, Any]  # of an event: kind, trial, attempt, number
Sent = tuple[int, int, int, int]  # of a report: trial, attempt, number, size in bytes

ORPHANS_S = 60.0
WAKING_S = 0.5  # what a suspended node may go on with when it wakes up


class Case(Protocol):
    """What is judged: of a story, what the judge looks at."""

    world: World
    plan: Plan
    drivers: int  # so many were started
    scheduler: Scheduler | None  # the newest one


class Judge:
    """Knows everything, the nodes' side and the driver's disk, and says what was broken."""

    def __init__(self, case: Case) -> None:
        self.case = case
        self.world, self.plan = case.world, case.plan
        self.durable: set[Mark] = set()  # what is on the driver's disk
        self.over: Counter[int] = Counter()  # by trial: the last attempt known there to be over
        self.training: defaultdict[int, dict[Life, int]] = defaultdict(dict)  # attempts, by trial
        self.agents: list[FakeProcesses] = []
        self.used: Counter[tuple[FakeWorker, int]] = Counter()  # jobs on a worker, by driver
        self.alive: set[Life] = set()
        self.said: dict[tuple[int, int], int] = {}  # the last report that waits for a decision
        self.verdicts: dict[int, str] = {}  # by trial: what the rule has decided, as the disk knows
        self.decided: set[tuple[int, int]] = set()  # the attempts of which it has
        self.asked: set[tuple[int, int]] = set()  # those of them that a request was to stop
        self.gangs: dict[tuple[int, int], Gang] = {}
        self.began_with: dict[tuple[int, int], tuple[int, int]] = {}  # by attempt: trial and epoch
        self.told: list[str] = []  # what drivers have said to the user
        # By trial and epoch: whose agent on which worker has seen it saved last.
        self.checkpoints: defaultdict[int, dict[int, FakeProcesses]] = defaultdict(dict)

    def gang_of(self, trial: int, attempt: int) -> Gang:
        """The ranks of an attempt."""
        return self.gangs.setdefault((trial, attempt), Gang(self.plan.ranks))

    # On the nodes

    def agent_begins(self, processes: FakeProcesses) -> None:
        """An agent has its processes."""
        self.agents.append(processes)

    def training_begins(self, life: Life, trial: int, attempt: int) -> None:
        """A process has its job: nobody else may train this trial now, and there is room."""
        world, processes = self.world, life.processes
        where = processes.worker.address
        world.note(where, f"trial {trial} attempt {attempt} trains")
        if ("started", trial, attempt, None) not in self.durable:
            world.violated(f"trial {trial} attempt {attempt} was started before that was durable")
        # (Of an attempt that was decided upon, other ranks may be on their way; of one that a
        # request was to stop before it had begun, all.)
        on_its_way = (life.rank and (trial, attempt) in self.decided) or (
            (trial, attempt) in self.asked
        )
        if (word := self.verdicts.get(trial)) and not on_its_way:
            world.violated(f"trial {trial} trains on, though the rule has said {word!r}")
        config = life.job["config"] if life.job else {}
        if train_fn.space.validate(config) != config:
            world.violated(f"trial {trial} was given {config}, which lacks something")
        for other, other_attempt in self.training[trial].items():
            if other_attempt == attempt and other.rank != life.rank:
                continue
            self.two_attempts(
                other,
                f"trial {trial} trains twice: attempt {other_attempt} on "
                f"{other.processes.worker.address} and attempt {attempt} on {where}",
            )
        self.training[trial][life] = attempt
        self.alive.add(life)
        used = self.used[_place(life)] = self.used[_place(life)] + 1
        if used * self.plan.cpus > processes.worker.cpus:
            world.violated(
                f"{where} has {processes.worker.cpus} CPUs, but {used} trials of {self.plan.cpus}"
            )

    def two_attempts(self, life: Life, text: str) -> None:
        """A violation, unless the older one stands still and ends as soon as it wakes up."""
        machine, world = life.processes.worker.machine, self.world
        if machine.paused_until <= world.now:
            world.violated(text)
            return

        def look() -> None:
            if life.job is not None and not life.is_over and machine.alive:
                self.two_attempts(life, text)

        world.post(machine.paused_until + WAKING_S - world.now, look)

    def training_ends(self, life: Life) -> None:
        """A process has done its job, or is no more."""
        for trial, lives in self.training.items():
            if lives.pop(life, None) is not None:
                self.world.note(life.processes.worker.address, f"trial {trial} trains no more")
                if life.process.reuse:
                    self.process_ends(life)

    def process_ends(self, life: Life) -> None:
        """A slot is free."""
        if life in self.alive:
            self.alive.discard(life)
            self.used[_place(life)] -= 1

    def saved(self, life: Life, trial: int, epoch: int) -> None:
        """A trial has written a checkpoint."""
        self.checkpoints[trial][epoch] = life.processes

    def resumed(self, life: Life, trial: int, job: Mapping[str, Any], state: Any) -> None:
        """A trial goes on from a checkpoint: its own newest that is known, or of its lineage."""
        from_trial, epoch = (trial, 0) if state is None else (state["trial"], state["epoch"])
        first = self.began_with.setdefault((trial, job["attempt"]), (from_trial, epoch))
        if first != (from_trial, epoch):
            self.world.violated(
                f"rank {life.rank} of trial {trial} goes on from epoch {epoch} of trial "
                f"{from_trial}, another from epoch {first[1]} of trial {first[0]}"
            )
        if state is not None:
            known = self.checkpoints[from_trial]
            if epoch not in known or from_trial not in (trial, *self.parents(trial)):
                self.world.violated(f"trial {trial} goes on from {state}, which it never saved")
        newest = job["saved_step"]
        if newest is None or (from_trial == trial and epoch >= newest):
            return
        saver = self.checkpoints[trial].get(newest)
        could_not_be_brought = any(f"trial {trial} goes on from what" in one for one in self.told)
        if saver is not None and self.can_be_reached(saver) and not could_not_be_brought:
            self.world.violated(
                f"trial {trial} goes on from epoch {epoch} of trial {from_trial}, though "
                f"{saver.worker.address} has its epoch {newest}"
            )

    def can_be_reached(self, processes: FakeProcesses) -> bool:
        """Whether an agent lives, and the driver can fetch from it."""
        scheduler, worker = self.case.scheduler, processes.worker
        if scheduler is None or processes.driver != self.case.drivers:
            return False  # an agent of an earlier driver, which has a folder of its own
        is_up = worker.machine.alive and worker.machine.paused_until <= self.world.now
        are_whole = not any(wire.is_broken or wire.is_blocked for wire in (worker.down, worker.up))
        return is_up and are_whole and worker.address in insides.workers_of(scheduler)

    def parents(self, trial: int) -> set[int]:
        """A trial's lineage, itself left out."""
        scheduler = self.case.scheduler
        assert scheduler is not None, "a trial runs, so there was a driver"
        trials = insides.trials_of(scheduler)
        found: set[int] = set()
        left = [trial]
        while left:
            for parent in trials[left.pop()].parents:
                if parent not in found:
                    found.add(parent)
                    left.append(parent)
        return found

    def reports(self, trial: int, attempt: int, sequence: int, due: bool) -> None:
        """A trial reports, and waits for the decision if that is due."""
        if due:
            self.said[trial, attempt] = sequence

    # Between driver and nodes

    def agent_hears(self, message: Mapping[str, Any], unacknowledged: deque[Sent]) -> None:
        """A message reaches an agent: what it rests on has to be on the disk.

        Reports that the message acknowledges leave `unacknowledged`.
        """
        if message["op"] == "start":
            key = ("started", message["trial"], message["attempt"], None)
            if key not in self.durable:
                self.world.violated(f"{key} left the driver before it was durable")
        elif message["op"] == "decide":
            name = message["trial"], message["attempt"]
            if ("report", *name, self.said.get(name)) not in self.durable:
                self.world.violated(f"a decision for {name} came before its report was durable")
        elif message["op"] == "stop" and message["reason"].startswith("by "):
            if (message["trial"], message["attempt"]) not in self.decided:
                self.world.violated(f"{message} left the driver before its report was durable")
        elif message["op"] == "ack" and not self.plan.echo:
            size = message["bytes"]
            while size > 0 and unacknowledged:
                trial, attempt, sequence, length = unacknowledged.popleft()
                size -= length
                is_stale = self.over[trial] >= attempt
                if not is_stale and ("report", trial, attempt, sequence) not in self.durable:
                    self.world.violated(
                        f"report {sequence} of trial {trial} attempt {attempt} was acknowledged "
                        "before it was durable"
                    )

    def committed(self, rows: Sequence[Row]) -> None:
        """Events are on the driver's disk."""
        for _, _, kind, trial, attempt, seq, body in rows:
            self.durable.add((kind, trial, attempt, seq))
            if kind == "decided":
                decision = json.loads(body)
                self.verdicts[trial] = decision["word"]
                self.decided.add((trial, attempt))
                if "by" in decision:
                    self.asked.add((trial, attempt))
            elif kind in ("paused", "again"):
                self.verdicts.pop(trial, None)
            if kind in ("lost", "ended", "paused"):
                self.over[trial] = max(self.over[trial], attempt or 0)
            elif kind == "started":
                self.over[trial] = max(self.over[trial], attempt - 1)
            self.world.note("on disk:", kind, trial, attempt, seq)

    def given_up(self, worker: FakeWorker, reason: str) -> None:
        """The driver has given up a node: not one with which nothing was wrong."""
        is_prompt = self.plan.delay_s < 0.05  # else an answer may take a minute by bad luck
        was_well = is_prompt and not worker.was_troubled
        if was_well and reason.startswith("nothing was heard"):
            self.world.violated(f"{worker.address} was well, and is given up: {reason}")

    # When a driver vanishes, and at the end

    def driver_vanished(self, number: int) -> None:
        """A driver is gone: in a minute nothing of it may be left."""
        self.world.post(ORPHANS_S, lambda: self.no_orphans(number, self.world.now))

    def no_orphans(self, number: int, since: float) -> None:
        """No node has a process of that driver any more, unless it stood still meanwhile."""
        for processes in self.agents:
            machine = processes.worker.machine
            if processes.driver != number or not machine.alive:
                continue
            if machine.paused_until > since - ORPHANS_S:
                # It stood still meanwhile: it is given the time anew.
                again_s = max(0.0, machine.paused_until - self.world.now) + ORPHANS_S
                if machine.paused_until + ORPHANS_S > self.world.now:
                    self.world.post(again_s, lambda: self.no_orphans(number, self.world.now))
                    continue
            # The message that started its agent may have been under way when the driver vanished.
            if (again_s := processes.begun_at + ORPHANS_S - self.world.now) > 0:
                self.world.post(again_s, lambda: self.no_orphans(number, self.world.now))
                continue
            if processes.lives or processes.is_up:
                self.world.violated(
                    f"driver {number} vanished {ORPHANS_S:g} s ago, and {processes.worker.address} "
                    f"has {len(processes.lives)} of its processes"
                    + (" and its launcher" if processes.is_up else "")
                )

    def at_the_end(self, scheduler: Scheduler) -> None:
        """The search says that it is over."""
        world, trials = self.world, insides.trials_of(scheduler)
        used = insides.workers_of(scheduler)
        for number, lives in self.training.items():
            for life, attempt in lives.items():
                # (A lost node goes on until its lease ends, with what the search has given up; so
                # does the agent of an earlier driver, with what that one had decided to stop.)
                address, is_last = life.processes.worker.address, trials[number].attempt
                is_ours = life.processes.driver == self.case.drivers
                if attempt == is_last and address in used and is_ours:
                    world.violated(f"the search is over, but trial {number} trains on {address}")
        if self.plan.rule != "pbt" and len(trials) < self.plan.num_trials:
            world.violated(f"the search is over after {len(trials)} trials")
        for host in insides.hosts_with_slots_in_use(scheduler):
            world.violated(f"the search is over, but {host} has slots in use")
        for trial in trials.values():
            ended = trial.status.is_end or trial.status is Status.PAUSED
            if not ended:
                world.violated(f"the search is over, but trial {trial.id} is {trial.status.value}")

    def read_the_log(self, folder: Path, max_failures: int) -> None:
        """The log tells one story, in order, and nothing twice."""
        world = self.world
        ended: Counter[int] = Counter()
        launched: Counter[int] = Counter()
        losses: Counter[str] = Counter()
        configs: Counter[str] = Counter()
        sequences: Counter[tuple[int, Any]] = Counter()
        attempts: Counter[int] = Counter()
        found: set[Any] = set()
        for event in store.read(folder):
            found.add((event.kind, event.trial, event.attempt, event.seq))
            trial = event.trial
            if trial is None:
                continue
            if ended[trial] and event.kind == "again":
                ended[trial] = 0
            elif ended[trial]:
                world.violated(f"the log has {event.kind} of trial {trial} after its end")
            if event.kind == "ended":
                ended[trial] += 1
            elif event.kind == "launched":
                launched[trial] += 1
                configs[json.dumps(event.body["config"], sort_keys=True)] += 1
            elif event.kind == "started":
                if event.attempt != attempts[trial] + 1:
                    world.violated(f"trial {trial}: attempt {event.attempt} after {attempts}")
                attempts[trial] += 1
            elif event.kind == "lost":
                status = event.body["status"]
                losses[f"{trial} ({status})"] += Status(status).is_failure
            elif event.kind == "report":
                of = trial, event.attempt
                if event.seq != sequences[of] + 1 or event.attempt != attempts[trial]:
                    world.violated(f"report {event.seq} of {of} came after {sequences[of]}")
                sequences[of] += 1
        if missing := self.durable - found:
            world.violated(f"the disk forgot {sorted(missing, key=str)[:3]}")
        limits: list[tuple[str, Counter[Any], int]] = [
            ("launched", launched, 1),
            ("issued as a configuration", configs, 1),
            ("tried again", losses, max_failures),
        ]
        for name, counts, most in limits:
            for what, count in counts.items():
                # (A member of a population may be changed into what another one was.)
                if count > most and not (self.plan.rule == "pbt" and counts is configs):
                    world.violated(f"{what} was {name} {count} times")
        world.raise_first_violation()

    def compare(self, live: Scheduler, restored: Scheduler) -> None:
        """A driver that reads the log knows what the live one knew."""
        mine, theirs = insides.state_of(live), insides.state_of(restored)
        if mine != theirs:
            different = [
                f"{name}: {mine[name]!r} live, {theirs[name]!r} replayed"
                for name in mine
                if mine[name] != theirs[name]
            ]
            self.world.violated("the replay differs: " + "; ".join(different)[:1500])

    def nothing_was_left(self, live: Scheduler) -> None:
        """No paused trial has earned more, when the search is over."""
        if insides.was_ended(live):
            return
        while (trial := live.next_resume()) is not None:
            if not insides.trials_of(live)[trial].status.is_end:
                self.world.violated(f"the search is over, but trial {trial} was to go on")


def _place(life: Life) -> tuple[FakeWorker, int]:
    """Whose slot a process has: of which worker, of the nodes of which driver."""
    return life.processes.worker, life.processes.driver
