"""How a search stands at this moment, for its display: in its driver, or from its folder."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from ..resource.remote import Remote
from .experiment import Experiment
from .ledger import Ledger
from .lock import holder
from .progress import NodeUse, Snapshot
from .record import SearchRecord
from .words import Status


@dataclass(frozen=True)
class Run:
    """What the ledger does not know of a run of the driver, or of all its runs.

    `ended_earlier`: how many trials had ended before the run. `time_out_s`: how much time the run
    has left. `note`: why the search ends, or does not go on.
    """

    total: int | None
    elapsed_s: float
    ended_earlier: int
    time_out_s: float | None
    is_ending: bool
    nodes: Sequence[NodeUse]
    note: str


def take_snapshot(experiment: Experiment) -> Snapshot:
    """How the search of this driver stands; may be called in any thread."""
    now = time.monotonic()
    activity = experiment.activity
    until, began = activity.ended_at or now, activity.started_at or now
    deadline = activity.deadline
    run = Run(
        total=experiment.source.total,
        elapsed_s=until - began,
        ended_earlier=experiment.earlier.ended,
        time_out_s=None if deadline is None else max(0.0, deadline - now),
        is_ending=bool(experiment.ending),
        nodes=[_node_use(remote) for remote in list(experiment.manager.remotes.values())],
        note=experiment.store.trouble or experiment.why_it_ends or _paused(experiment.ledger),
    )
    return _snapshot(experiment.ledger, run)


def snapshot_of(record: SearchRecord, now: Mapping[str, Any] | None) -> Snapshot:
    """How the search in a folder stands; `now` is what its driver shows (`live.read`), if any."""
    if now is None:
        runs = holder(record.folder) is not None  # a driver runs, and has shown nothing yet
        note = "" if runs else "no driver runs it"
        run = Run(None, record.worked_s, 0, None, not runs, (), note)
        return _snapshot(record.ledger, run)
    began, ended, deadline = (now["run"][name] for name in ("began", "ended", "deadline"))
    moment = time.time()
    run = Run(
        total=now["total"],
        elapsed_s=0.0 if began is None else max(0.0, (ended or moment) - began),
        ended_earlier=now["run"]["ended_earlier"],
        time_out_s=None if deadline is None else max(0.0, deadline - moment),
        is_ending=bool(now["ending"]),
        nodes=[
            NodeUse(n["host"], n["cpus_used"], n["cpus"], float(n["gpus_used"]), n["gpus"])
            for n in now["nodes"]
        ],
        note=now["trouble"] or now["ending"] or _paused(record.ledger),
    )
    return _snapshot(record.ledger, run)


def _paused(ledger: Ledger) -> str:
    return f"paused by {ledger.paused_by}, until `go-on`" if ledger.paused_by else ""


def _snapshot(ledger: Ledger, run: Run) -> Snapshot:
    counts, best, objectives = ledger.counts, ledger.best, ledger.objectives
    running, ended = counts.by_status[Status.RUNNING], counts.ended + counts.paused
    left, ended_here = run.time_out_s, max(0, ended - run.ended_earlier)
    if run.total is not None and ended_here and not run.is_ending:
        needed = (run.total - ended) * run.elapsed_s / ended_here
        left = needed if left is None else min(left, needed)
    waiting = max(0, (counts.launched if run.total is None else run.total) - ended - running)
    return Snapshot(
        total=run.total,
        running=running,
        done=counts.done,
        stopped=counts.stopped,
        paused=counts.paused,
        failed=counts.failed,
        waiting=0 if run.is_ending and run.total is not None else waiting,
        best_reward=None if best is None else best.best_reward,
        best_task_id=None if best is None else best.id,
        best_config={} if best is None else best.config,
        reward_attr=" and ".join(objectives.names),
        front_size=len(ledger.front) if objectives.several else None,
        limits=objectives.limits if best is None else "",
        nodes=list(run.nodes),
        elapsed_s=run.elapsed_s,
        time_left_s=left,
        trials_per_minute=60 * ended_here / run.elapsed_s if run.elapsed_s > 0 else 0.0,
        note=run.note,
    )


def _node_use(remote: Remote) -> NodeUse:
    cpus, gpus = remote.slots.used
    facts = remote.facts
    return NodeUse(remote.host, cpus, facts.num_cpus, float(gpus), len(facts.gpus))
