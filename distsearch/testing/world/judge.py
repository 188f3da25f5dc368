"""What must hold in every story, looked at while it happens and at its end."""

from __future__ import annotations

import enum
import json
from collections import Counter, defaultdict, deque

from ...core import store
from ...core.words import Status

ORPHANS_S = 60.0
WAKING_S = 0.5  # what a suspended node may go on with when it wakes up


class Judge:
    """Knows everything, the nodes' side and the driver's disk, and says what was broken."""

    def __init__(self, story):
        self.story = story
        self.world = story.world
        self.durable = set()  # (kind, trial, attempt, seq) that are on the driver's disk
        self.over = Counter()  # trial -> the last attempt that the disk knows to be over
        self.training = defaultdict(dict)  # trial -> {life: attempt}
        self.agents = []
        self.used = Counter()  # processes with a job, by agent
        self.alive = set()
        self.said = {}  # (trial, attempt) -> the last report that waits for a decision
        self.checkpoints = defaultdict(set)  # trial -> epochs
        self.replayed = 0

    # On the nodes

    def training_begins(self, life, trial, attempt, job):
        world, processes = self.world, life.processes
        where = processes.worker.address
        world.note(where, f"trial {trial} attempt {attempt} trains")
        if ("started", trial, attempt, None) not in self.durable:
            world.violated(f"trial {trial} attempt {attempt} was started before that was durable")
        for other, other_attempt in self.training[trial].items():
            self.two_attempts(
                other,
                f"trial {trial} trains twice: attempt {other_attempt} on "
                f"{other.processes.worker.address} and attempt {attempt} on {where}",
            )
        self.training[trial][life] = attempt
        self.alive.add(life)
        self.used[processes] += 1
        if self.used[processes] * self.story.cpus > processes.worker.cpus:
            world.violated(
                f"{where} has {processes.worker.cpus} CPUs, but {self.used[processes]} trials of "
                f"{self.story.cpus}"
            )

    def two_attempts(self, life, text):
        """A violation, unless the older one stands still and ends as soon as it wakes up."""
        machine, world = life.processes.worker.machine, self.world
        if machine.paused_until <= world.now:
            world.violated(text)
            return

        def look():
            if life.job is not None and not life.is_over and machine.alive:
                self.two_attempts(life, text)

        world.post(machine.paused_until + WAKING_S - world.now, look)

    def training_ends(self, life):
        for trial, lives in self.training.items():
            if lives.pop(life, None) is not None:
                self.world.note(life.processes.worker.address, f"trial {trial} trains no more")
                if life.process.reuse:
                    self.process_ends(life)

    def process_ends(self, life):
        if life in self.alive:
            self.alive.discard(life)
            self.used[life.processes] -= 1

    def saved(self, trial, attempt, epoch, path):
        self.checkpoints[trial].add(epoch)

    def resumed(self, trial, job, state):
        if state is None:
            return
        known = self.checkpoints[state["trial"]]
        if state["epoch"] not in known or state["trial"] not in (trial, *self.parents(trial)):
            self.world.violated(f"trial {trial} goes on from {state}, which it never saved")

    def parents(self, trial):
        """A trial's lineage, itself left out."""
        trials = self.story.scheduler.experiment.ledger.trials
        found, left = set(), [trial]
        while left:
            for parent in trials[left.pop()].parents:
                if parent not in found:
                    found.add(parent)
                    left.append(parent)
        return found

    def reports(self, trial, attempt, sequence, due):
        if due:
            self.said[trial, attempt] = sequence

    # Between driver and nodes

    def agent_hears(self, agent, message):
        """A message reaches an agent: what it rests on has to be on the disk."""
        if message["op"] == "start":
            key = ("started", message["trial"], message["attempt"], None)
            if key not in self.durable:
                self.world.violated(f"{key} left the driver before it was durable")
        elif message["op"] == "decide":
            name = message["trial"], message["attempt"]
            if ("report", *name, self.said.get(name)) not in self.durable:
                self.world.violated(f"a decision for {name} came before its report was durable")
        elif message["op"] == "ack" and not self.story.echo:
            size = message["bytes"]
            while size > 0 and agent.sent:
                trial, attempt, sequence, length = agent.sent.popleft()
                size -= length
                is_stale = self.over[trial] >= attempt
                if not is_stale and ("report", trial, attempt, sequence) not in self.durable:
                    self.world.violated(
                        f"report {sequence} of trial {trial} attempt {attempt} was acknowledged "
                        "before it was durable"
                    )

    def committed(self, rows):
        for _, _, kind, trial, attempt, seq, _ in rows:
            self.durable.add((kind, trial, attempt, seq))
            if kind in ("lost", "ended", "paused"):
                self.over[trial] = max(self.over[trial], attempt or 0)
            elif kind == "started":
                self.over[trial] = max(self.over[trial], attempt - 1)
            self.world.note("on disk:", kind, trial, attempt, seq)

    # When a driver vanishes, and at the end

    def driver_vanished(self, number):
        self.world.post(ORPHANS_S, lambda: self.no_orphans(number, self.world.now))

    def no_orphans(self, number, since):
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

    def at_the_end(self, experiment):
        """The search says that it is over."""
        world = self.world
        used = {remote.worker for remote in experiment.manager.remotes.values()}
        for trial, lives in self.training.items():
            for life, attempt in lives.items():
                # (A lost node goes on until its lease ends, with what the search has given up.)
                address, is_last = life.processes.worker.address, experiment.ledger.trials[trial].attempt
                if attempt == is_last and address in used:
                    world.violated(f"the search is over, but trial {trial} trains on {address}")
        if self.story.rule != "pbt" and len(experiment.ledger.trials) < self.story.num_trials:
            world.violated(f"the search is over after {len(experiment.ledger.trials)} trials")
        for remote in experiment.manager.remotes.values():
            if remote.slots.used != (0, 0.0) or experiment.manager.leases[remote.remote_id]:
                world.violated(f"the search is over, but {remote.host} has slots in use")
        for trial in experiment.ledger.trials.values():
            ended = trial.status.is_end or trial.status is Status.PAUSED
            if not ended:
                world.violated(f"the search is over, but trial {trial.id} is {trial.status.value}")

    def read_the_log(self, folder, max_failures):
        """The log tells one story, in order, and nothing twice."""
        world = self.world
        ended, launched, losses, configs = Counter(), Counter(), Counter(), Counter()
        sequences, attempts, found = Counter(), Counter(), set()
        for event in store.read(folder):
            found.add((event.kind, event.trial, event.attempt, event.seq))
            trial = event.trial
            if trial is None:
                continue
            if ended[trial]:
                world.violated(f"the log has {event.kind} of trial {trial} after its end")
            if event.kind == "ended":
                ended[trial] += 1
            elif event.kind == "launched":
                launched[trial] += 1
                configs[json.dumps(event.body["config"], sort_keys=True)] += 1
            elif event.kind == "started":
                if event.attempt != attempts[trial] + 1:
                    world.violated(f"trial {trial}: attempt {event.attempt} after {attempts}")
                attempts[trial] = event.attempt
            elif event.kind == "lost":
                status = event.body["status"]
                losses[f"{trial} ({status})"] += Status(status).is_failure
            elif event.kind == "report":
                name = trial, event.attempt
                if event.seq != sequences[name] + 1 or event.attempt != attempts[trial]:
                    world.violated(f"report {event.seq} of {name} came after {sequences[name]}")
                sequences[name] = event.seq
        if missing := self.durable - found:
            world.violated(f"the disk forgot {sorted(missing, key=str)[:3]}")
        for name, counts, most in (
            ("launched", launched, 1),
            ("issued as a configuration", configs, 1),
            ("tried again", losses, max_failures),
        ):
            for what, count in counts.items():
                # (A member of a population may be changed into what another one was.)
                if count > most and not (self.story.rule == "pbt" and counts is configs):
                    world.violated(f"{what} was {name} {count} times")
        if world.violations:
            raise_first(world)

    def compare(self, live, restored):
        """A driver that reads the log knows what the live one knew."""
        world = self.world
        mine, theirs = state_of(live), state_of(restored)
        if mine != theirs:
            different = [
                f"{name}: {mine[name]!r} live, {theirs[name]!r} replayed"
                for name in mine
                if mine[name] != theirs[name]
            ]
            world.violated("the replay differs: " + "; ".join(different)[:1500])

    def nothing_was_left(self, live):
        """No paused trial has earned more, when the search is over."""
        if live.experiment.ending:
            return
        while (trial := live.next_resume()) is not None:
            if not live.experiment.ledger.trials[trial].status.is_end:
                self.world.violated(f"the search is over, but trial {trial} was to go on")


def raise_first(world):
    from .machines import Violation

    raise Violation(world.violations[0])


def state_of(scheduler):
    """What a driver knows that a search goes on from: trials, the next suggestion, the rule."""
    ledger, queue = scheduler.ledger, scheduler.experiment.queue
    state = {f"trial {trial.id}": plain(trial) for trial in ledger.trials.values()}
    state["best"] = ledger.best.id if ledger.best else None
    state["counts"] = ledger.counts
    state["open"] = sorted(ledger.open)
    state["decided"] = ledger.decided
    state["next suggestion"] = scheduler.searcher.ask(len(ledger.trials))
    for rungs in getattr(scheduler, "brackets", ()):
        state[f"rungs from {rungs.levels}"] = plain(rungs)
    # (One that has ended in the meantime is passed over. Those that the rule has named, but that
    # did not start before the end, are in the queue, and a replay lets the rule name them again.)
    named = [trial.id for trial in queue if trial.status is Status.PAUSED]
    promoted = [*named, *getattr(scheduler, "_promoted", ())]
    state["promoted"] = [one for one in promoted if not ledger.trials[one].status.is_end]
    for name in ("_living", "_scores", "_turns", "_interval", "_done", "_founded"):
        state[name] = plain(getattr(scheduler, name, None))
    return state


def plain(value):
    """A value as one that can be compared: objects become what they hold."""
    if isinstance(value, (str, enum.Enum)):
        return value
    if isinstance(value, dict):
        return {key: plain(item) for key, item in sorted(value.items(), key=str)}
    if isinstance(value, (set, frozenset)):
        return sorted(map(plain, value), key=str)
    if isinstance(value, (list, tuple, deque)):
        return [plain(item) for item in value]
    names = [*getattr(type(value), "__slots__", ()), *getattr(value, "__dict__", ())]
    return {name: plain(getattr(value, name)) for name in names} if names else value
