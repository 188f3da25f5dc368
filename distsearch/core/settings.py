"""What stays the same during a search."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from typing import Any

from ..resource.resource import Resource
from .checkpoint import KEPT
from .objectives import Objectives
from .storage import Storage
from .travel import Packed
from .words import Status

MAX_FAILURES = 3
ONE_REWARD = Objectives(("accuracy",), ("max",))


def retries_of(given: Mapping[Status, int], max_failures: int = MAX_FAILURES) -> dict[Status, int]:
    """How often a trial runs again after each kind of end: ends that a new attempt may mend count.

    >>> retries_of({Status.FAILED: 1})[Status.KILLED]
    3
    """
    return {Status.KILLED: max_failures, Status.NODE_LOST: max_failures, **given}


@dataclass(frozen=True)
class Settings:
    """What stays the same during a search."""

    packed: Packed  # the train function
    packed_here: Packed  # the train function for trials of the driver's own machine
    resource: Resource
    complete: Callable[[Mapping[str, Any]], Mapping[str, Any]] = dict  # and checks
    objectives: Objectives = ONE_REWARD
    time_attr: str = "epoch"
    max_reward: float | None = None
    reuse: bool = False  # a process trains one trial after the other
    spawn: bool = False  # processes are not forked
    trial_timeout_s: float | None = None
    report_timeout_s: float | None = None
    storage: Storage | None = None  # where checkpoints are; None: in the experiment's folder
    keep: int = KEPT  # so many checkpoints of each trial stay
    max_bytes: int | None = None  # so much the checkpoints of all trials may take
    shows_output: bool = True  # what trials print is shown
    labels_output: bool = False  # before each line stands which trial has printed it
    # How many more attempts a trial has after each kind of end.
    retries: Mapping[Status, int] = field(default_factory=lambda: retries_of({}))
    on_parent_failure: str = "nearest_ancestor"  # one of lineage.POLICIES
    parent_retries: int = MAX_FAILURES  # under 'retry' so many attempts of a parent may fail
