"""How a search stands at this moment, for the progress display."""

from __future__ import annotations

import time

from ..resource.remote import Remote
from .experiment import Experiment
from .objectives import Objectives
from .progress import NodeUse, Snapshot


def take_snapshot(experiment: Experiment, objectives: Objectives) -> Snapshot:
    """What the display shows of an experiment; may be called in any thread."""
    counts, best = experiment.ledger.counts, experiment.ledger.best
    running = sum(not trial.is_final for trial in experiment.running)
    ended = counts.done + counts.stopped + counts.failed + counts.paused
    total = experiment.source.total
    started = experiment.started_at or time.monotonic()
    elapsed = (experiment.ended_at or time.monotonic()) - started
    waiting = max(
        0, counts.launched - ended - running if total is None else total - ended - running
    )
    left = None
    ended_here = max(0, ended - experiment.ended_earlier)
    if total is not None and ended_here and not experiment.ending:
        left = (total - ended) * elapsed / ended_here
    if experiment.deadline is not None:
        until = max(0.0, experiment.deadline - time.monotonic())
        left = until if left is None else min(left, until)
    return Snapshot(
        total=total,
        running=running,
        done=counts.done,
        stopped=counts.stopped,
        paused=counts.paused,
        failed=counts.failed,
        waiting=0 if experiment.ending else waiting,
        best_reward=None if best is None else best.best_reward,
        best_task_id=None if best is None else best.id,
        best_config={} if best is None else best.config,
        reward_attr=" and ".join(objectives.names),
        front_size=len(experiment.ledger.front) if objectives.several else None,
        limits=objectives.limits if best is None else "",
        nodes=[_node_use(remote) for remote in list(experiment.manager.remotes.values())],
        elapsed_s=elapsed,
        time_left_s=left,
        trials_per_minute=60 * ended_here / elapsed if elapsed > 0 else 0.0,
        note=experiment.store.trouble or experiment.why_it_ends,
    )


def _node_use(remote: Remote) -> NodeUse:
    cpus, gpus = remote.slots.used
    facts = remote.facts
    return NodeUse(remote.host, cpus, facts.num_cpus, float(gpus), len(facts.gpus))
