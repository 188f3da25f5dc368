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
    """How often a trial runs again after each kind of end: what a new attempt may mend does.

    >>> retries_of({Status.FAILED: 1})[Status.KILLED]
    3
    """
    return {Status.KILLED: max_failures, Status.NODE_LOST: max_failures, **given}


@dataclass(frozen=True)
class Settings:
    """What stays the same during a search."""

    packed: Packed  # the train function,
    packed_here: Packed  # and the same for trials of the driver's own machine
    resource: Resource
    complete: Callable[[Mapping[str, Any]], Mapping[str, Any]] = dict  # and check, a configuration
    objectives: Objectives = ONE_REWARD
    time_attr: str = "epoch"
    max_reward: float | None = None
    reuse: bool = False  # a slot's process serves one trial after the other
    spawn: bool = False  # processes are not forked
    trial_timeout_s: float | None = None
    report_timeout_s: float | None = None
    storage: Storage | None = None  # where checkpoints are; None: in the experiment's folder
    keep: int = KEPT  # so many checkpoints of a trial
    max_bytes: int | None = None  # for the checkpoints of all trials
    shows_output: bool = True  # what trials print,
    labels_output: bool = False  # and before each line which trial that is
    # how many attempts more, after which ends
    retries: Mapping[Status, int] = field(default_factory=lambda: retries_of({}))
    on_parent_failure: str = "nearest_ancestor"  # one of lineage.POLICIES
    parent_retries: int = MAX_FAILURES  # with 'retry': so many attempts of a parent may fail
