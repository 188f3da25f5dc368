"""What the world knows of a driver's insides, all of it in one place."""

from __future__ import annotations

import enum
from collections import deque
from collections.abc import Mapping
from typing import Any

from ...core.ends import INTERRUPTED, UNFINISHED
from ...core.experiment import Experiment
from ...core.ledger import Counts
from ...core.requests import Request
from ...core.store import Store
from ...core.words import Status, Trial
from ...scheduler import Scheduler, registry

# What rules remember between reports.
MEMORIES = ("_living", "_scores", "_turns", "_interval", "_done", "_founded")


def trials_of(scheduler: Scheduler) -> Mapping[int, Trial]:
    """All trials of a search, by id."""
    return scheduler.ledger.trials


def interrupt(scheduler: Scheduler, after_save_s: float) -> None:
    """What Ctrl-C does, in the driver's loop."""
    scheduler.experiment.end(INTERRUPTED, after_save_s=after_save_s)


def ask(scheduler: Scheduler, kind: str, trial: int | None) -> None:
    """What somebody asks of the driver, in its loop, as if a file had said so."""
    what = {} if trial is None else {"trial": trial}
    scheduler.steering.hear(Request(f"{kind} {trial}", kind, what, "somebody"))


def let_all_go(scheduler: Scheduler) -> None:
    """Ask for all to go on that is paused by request."""
    if scheduler.ledger.paused_by:
        ask(scheduler, "search_goes_on", None)
    for trial in list(scheduler.ledger.held):
        ask(scheduler, "go_on", trial)


def counts_of(scheduler: Scheduler) -> Counts:
    """How many trials are in which state."""
    return scheduler.ledger.counts


def workers_of(scheduler: Scheduler) -> set[str]:
    """The addresses of the Dask workers on which trials may start."""
    remotes: Any = scheduler.experiment.manager.remotes.values()
    return {remote.worker for remote in remotes}


def is_linked_to(scheduler: Scheduler, worker: str) -> bool:
    """Whether the driver has an agent in a Dask worker, or does not use Dask yet."""
    cluster = scheduler.fleet._client_cluster
    return cluster is None or any(one.worker == worker for one in cluster.remotes.values())


def hosts_with_slots_in_use(scheduler: Scheduler) -> list[str]:
    """The nodes on which not all slots are free."""
    manager = scheduler.experiment.manager
    return [
        remote.host
        for remote in manager.remotes.values()
        if remote.slots.used != (0, 0.0) or manager.leases[remote.remote_id]
    ]


def was_ended(scheduler: Scheduler) -> bool:
    """Whether the search was ended before it had run out of what to do."""
    return bool(scheduler.experiment.ending)


def is_closed(scheduler: Scheduler) -> bool:
    """Whether the driver has ended its search."""
    return scheduler._closed


def check(experiment: Experiment) -> None:
    """Raise AssertionError for whatever does not hold in a driver, though it always must."""
    experiment.ledger.check()
    queue, children, live = experiment.queue, experiment.children, experiment.attempts
    # Trials that an interrupted or an earlier run has left wait for the next one in no queue.
    is_left = experiment.ending in UNFINISHED or experiment.earlier.has_open_attempts
    for trial in experiment.ledger.open.values():
        is_live, waits = trial in live, (trial in queue) + (trial in children)
        where = f"trial {trial.id} is {trial.status.value}, live: {is_live}, waits: {waits}"
        if trial.status is Status.RUNNING:
            assert is_live or is_left, where
        elif trial.status is Status.WAITING:
            comes = waits == 1 or trial.id in experiment.ledger.held
            assert not is_live and (comes or is_left or trial.is_final), where
        else:
            assert not is_live and trial not in children, where
    assert all(not trial.status.is_end for trial in [*queue, *children]), "one that waits has ended"
    held = {number for leases in experiment.manager.leases.values() for number in leases}
    known = {attempt.lease.number for attempt in live}
    assert held <= known, f"leases {held - known} belong to no attempt"


def kill_files(store: Store) -> None:
    """What the kernel does for a dead process: its files are closed, its lock is free."""
    store._connection.close()
    store._hold.close()
    store._mark.close()
    store._lock.release()
    store._closed = True


def forget_schedulers() -> None:
    """Let nothing be ended at exit: the drivers are dead."""
    scheduler: Any
    for scheduler in registry.all_open():
        scheduler._closed = True
        registry.remove(scheduler)


def state_of(scheduler: Scheduler) -> dict[str, Any]:
    """What a driver knows that a search goes on from: trials, the next suggestion, the rule."""
    ledger, queue = scheduler.ledger, scheduler.experiment.queue
    state = {f"trial {trial.id}": plain(trial) for trial in ledger.trials.values()}
    state["best"] = ledger.best.id if ledger.best else None
    state["front"] = [trial.id for trial in ledger.front]
    state["counts"] = ledger.counts
    state["open"] = sorted(ledger.open)
    state["decided"] = ledger.decided
    state["held"] = sorted(ledger.held), ledger.paused_by
    state["next suggestion"] = scheduler.searcher.ask(len(ledger.trials))
    for rungs in getattr(scheduler, "brackets", ()):
        state[f"rungs from {rungs.levels}"] = plain(rungs)
    # (One that has ended in the meantime is passed over. Those that the rule has named, but that
    # did not start before the end, are in the queue, and a replay lets the rule name them again.)
    named = [trial.id for trial in queue if trial.status is Status.PAUSED]
    named += scheduler.experiment._to_resume
    promoted = [*named, *getattr(scheduler, "_promoted", ())]
    state["promoted"] = [one for one in promoted if not ledger.trials[one].status.is_end]
    for name in MEMORIES:
        state[name] = plain(getattr(scheduler, name, None))
    return state


def plain(value: Any) -> Any:
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
