"""What an earlier run has left: attempts that are over with it, and trials that have not ended."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Mapping
from typing import Any

from .attempt import Verdict
from .children import Children
from .ends import Ends
from .keeper import Keeper
from .ledger import Ledger
from .phrases import counted
from .queue import Queue
from .rule import Rule, replay
from .store import Event
from .words import Status, Trial

DRIVER_GONE = "its driver was gone"


def restore(events: Iterable[Event], ledger: Ledger, rule: Rule, keeper: Keeper) -> None:
    """Let all hear, in the order in which it happened, what is in the log of an earlier run."""
    for event in events:
        replay(event, ledger, rule)
        keeper.hears(event)
    keeper.heard_all()


def close_attempts(
    ledger: Ledger, queue: Queue, ends: Ends, lease_s: float, say: Callable[[str], None]
) -> None:
    """Log what became of the attempts that the last driver left, and carry out its decisions.

    What a node may still run goes on only when it cannot any more: after `lease_s` seconds.
    """
    unconfirmed = [ledger.trials[trial_id] for trial_id in ledger.unconfirmed]
    for trial in unconfirmed:
        queue.ends(trial, lease_s)
    for trial in list(ledger.open.values()):
        if trial.status is not Status.RUNNING:
            continue
        facts: dict[str, Any] = {"seconds": 0.0}  # how long is not known
        if trial.id in ledger.unconfirmed:
            facts["is_over"] = False
        if trial.id in ledger.decided:
            ends.carry_out(trial, Verdict(Status.STOPPED, DRIVER_GONE), facts)
        else:
            ends.interrupted(trial, DRIVER_GONE, facts)
    waiting = [trial for trial in unconfirmed if trial.status is Status.WAITING]
    if waiting and lease_s:
        say(
            f"{counted(len(waiting))} may still run on nodes that the last driver did not close: "
            "they go on when that is over for sure"
        )


def queue_unfinished(ledger: Ledger, queue: Queue, children: Children) -> None:
    """Queue the trials that an interrupted run left; `run_with_config` takes up its own."""
    for trial in _in_no_queue(ledger, queue):
        if trial.is_final or trial in children:
            continue
        if trial.parents and trial.inherits is None:
            children.add(trial)
        else:
            queue.put(trial)


def unfinished_final(ledger: Ledger, queue: Queue, config: Mapping[str, Any]) -> Trial | None:
    """The trial of an interrupted `run_with_config` with this configuration."""
    for trial in _in_no_queue(ledger, queue):
        if trial.is_final and dict(trial.config) == dict(config):
            return trial
    return None


def _in_no_queue(ledger: Ledger, queue: Queue) -> list[Trial]:
    waiting = (trial for trial in ledger.open.values() if trial.status is Status.WAITING)
    return [trial for trial in waiting if trial not in queue]
