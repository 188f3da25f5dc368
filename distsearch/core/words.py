"""The words of a search: what rules and searchers hear, and what they answer."""

from __future__ import annotations

import enum
import math
from collections import Counter
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, ClassVar, NamedTuple, Union

from ..errors import LineageError
from .objectives import Point


class Status(str, enum.Enum):
    """Where a trial stands, or how it ended. The value is what the log holds."""

    WAITING = "waiting"  # has a configuration, but no slot yet
    RUNNING = "running"
    FINISHED = "finished"  # the train function returned
    PAUSED = "paused"  # by a rule; may be resumed from its checkpoint
    STOPPED = "stopped"  # by the search: a rule, time_out, max_reward
    FAILED = "failed"  # the train function raised, or a parent has (on_parent_failure='fail')
    EXITED = "exited"  # sys.exit(n), os._exit(n)
    KILLED = "killed"  # by a signal: a segmentation fault, a kill
    OUT_OF_MEMORY = "out_of_memory"  # above memory_gb, or MemoryError, also of a GPU
    TIMED_OUT = "timed_out"  # above trial_timeout
    HUNG = "hung"  # silent for report_timeout
    NO_METRIC = "no_metric"  # returned without ever reporting the reward
    NODE_LOST = "node_lost"  # the nodes of its attempts were lost, too often

    is_end: bool  # whether the trial will not run again
    is_failure: bool  # whether it has no usable result

    def __init__(self, word: str) -> None:
        self.is_end = word not in ("waiting", "running", "paused")
        self.is_failure = self.is_end and word not in ("finished", "stopped")


THE_RULE = "the rule"
NO_FAILURES: Counter[Status] = Counter()  # shared by all trials that have not failed
STATUS_OF = {status.value: status for status in Status}  # faster than Status(value)


@dataclass(frozen=True)
class Launch:
    """What a scheduler or a searcher asks for: a new trial with this configuration.

        Launch({"width": 32}, parents=(3,))

    `config`: plain values by parameter; see Space.
    `parents`: ids of earlier trials, in whatever state they are, from whose weights the trial goes
    on. It waits, without a slot, until these weights are committed. At its first start
    `reporter.load()` gives the newest checkpoint of the first parent that has one,
    `reporter.load(parent=3)` that of parent 3. The log keeps the parents as the trial's lineage.
    `wait_for`: when the weights of a parent are committed: at its 'end' (it has ended well, or is
    paused, so that nothing trains them any more), or at its first 'checkpoint' (the trial then gets
    the newest that there is when it starts).
    `told`: how many results a searcher that works ahead had heard of when it suggested this.
    `bracket`: the number of the trial's group, for rules that have groups.

    Raises LineageError for another `wait_for`, and for parents that are no tuple.
    """

    config: Mapping[str, Any]
    parents: tuple[int, ...] = ()
    wait_for: str = "end"
    told: int | None = None
    bracket: int | None = None

    def __post_init__(self) -> None:
        if not isinstance(self.parents, (tuple, list)):
            raise LineageError(f"parents={self.parents!r}; give a tuple of trial ids, as in (3,)")
        if self.wait_for not in ("end", "checkpoint"):
            raise LineageError(f"wait_for={self.wait_for!r}; give 'end' or 'checkpoint'")


class Report(NamedTuple):
    """One report of a trial.

    `reward` is the value of `reward_attr` as the searcher maximises it (negated for mode='min'),
    None when it is missing, NaN or not a number, when the report violates a constraint, and when
    there are several objectives (they are in `metrics`). `time` is the value of `time_attr`
    (epochs), else the running number of the report.
    """

    trial: int
    sequence: int
    metrics: Mapping[str, Any]
    reward: float | None
    time: float


@dataclass(frozen=True)
class Continue:
    """The trial goes on."""

    word: ClassVar[str] = "continue"


@dataclass(frozen=True)
class Stop:
    """The trial ends here, with status STOPPED; its rewards count.

        return Stop("rank 7 of 9 at epoch 4, and the best 3 go on")

    `reason`: why, for the user; it is kept in the log. `by`: who has decided.
    """

    reason: str = field(default="", compare=False)
    by: str = field(default=THE_RULE, compare=False)
    word: ClassVar[str] = "stop"


@dataclass(frozen=True)
class Pause:
    """The trial gives its slots back and may be resumed later, from its last checkpoint.

    `reason`: why, for the user; it is kept in the log. `by`: who has decided.
    """

    reason: str = field(default="", compare=False)
    by: str = field(default=THE_RULE, compare=False)
    word: ClassVar[str] = "pause"


Decision = Union[Continue, Stop, Pause]


@dataclass(frozen=True)
class Wait:
    """Nothing to launch now: the rule is asked again when a trial has ended or paused.

    `thinking`: a launch will come, though nothing may run until then; the rule will call
    `experiment.wake()` when it has one.
    """

    thinking: bool = False


@dataclass(eq=False, slots=True)
class Trial:
    """One configuration and what became of it; only the ledger changes it.

    `best_reward` is the best value of `reward_attr` so far, in the user's own sign; with several
    objectives it is None, and `point` has the trial's objectives and constraints. `error` is the
    traceback of a train function that raised, `reason` says in words how the trial ended. `seconds`
    is how long the last attempt took (without earlier ones), once that is over.
    """

    id: int
    config: Mapping[str, Any]
    parents: tuple[int, ...] = ()  # the trials from whose weights it goes on
    wait_for: str = "end"  # when these weights are committed: see Launch
    # For each parent, whose weights the trial got (None: nobody's); None until that is decided.
    inherits: tuple[int | None, ...] | None = None
    bracket: int | None = None  # the bracket of its Launch
    is_given: bool = False  # the user has given it, no searcher has suggested it
    is_final: bool = False  # whether this is a trial of run_with_config, which is never the best
    status: Status = Status.WAITING
    attempt: int = 0
    hosts: tuple[str, ...] = ()  # of the places on which its newest attempt runs, or ran
    reports: int = 0  # the running number of the newest report of its newest attempt
    last_report: Report | None = None  # None once the trial has ended
    furthest: float = -math.inf  # the latest `time` that any of its attempts has reported
    best_reward: float | None = None
    best_time: float | None = None
    point: Point | None = None  # what the report is worth that counts; None with one plain reward
    reason: str = ""
    error: str = ""
    seconds: float = 0.0
    started_at: float = 0.0  # when its newest attempt began, in Unix seconds
    failures: Counter[Status] = field(default_factory=lambda: NO_FAILURES)  # of its attempts
    saved_step: int | None = None  # the step of the newest checkpoint that counts: see `save`
    saved_name: str | None = None  # the name of that checkpoint
    saves_first: bool | None = None  # whether it saves before it reports; None: not known yet
    story: str = ""  # the kinds of events that have moved it so far
    _unreported: tuple[int, str] | None = None

    @property
    def has_result(self) -> bool:
        """Whether a report has counted."""
        return self.best_reward is not None or self.point is not None

    @property
    def host(self) -> str:
        """The host where its newest attempt runs, or ran; of several the host of rank 0."""
        return self.hosts[0] if self.hosts else ""

    @property
    def last_metrics(self) -> Mapping[str, Any]:
        """The metrics of its newest report; {} once the trial has ended."""
        return {} if self.last_report is None else self.last_report.metrics

    def count(self, report: Report, best: float | None) -> None:
        """Take note of a report; `best`: its reward in the user's sign, if that is the best yet."""
        if self._unreported is not None:
            self._commit_save()
        self.reports, self.last_report = report.sequence, report
        if self.furthest < report.time < math.inf:
            self.furthest = report.time
        if best is not None:
            self.best_reward, self.best_time = best, report.time

    def save(self, step: int, name: str) -> None:
        """Take note of a checkpoint.

        Where a trial saves before it reports, a checkpoint counts once the report after it (or
        another checkpoint) has come: if the trial went on from it, and that report were lost, an
        epoch would be missing.
        """
        if self.saves_first is None:
            self.saves_first = self.reports == 0
        self._commit_save()
        self._unreported = step, name
        if not self.saves_first:
            self._commit_save()

    def start(self, attempt: int, hosts: tuple[str, ...], at: float) -> None:
        """Take note of an attempt, which goes on from the checkpoint of `saved_step`."""
        self.attempt, self.hosts, self.started_at = attempt, hosts, at
        self._unreported = None

    def end(self, reason: str, error: str) -> None:
        """Take note that the trial has ended, as its status says."""
        self.reason, self.error = reason, error
        self.last_report = None
        # (The last checkpoint of a finished trial counts without a report.)
        if self.status is Status.FINISHED:
            self._commit_save()

    def reopen(self) -> None:
        """Take note that the trial runs again, though it had ended."""
        self.reason = self.error = ""

    def lose_weights(self) -> None:
        """Take note that its checkpoints are gone."""
        self.saved_step = self.saved_name = None

    def _commit_save(self) -> None:
        if self._unreported is not None:
            (self.saved_step, self.saved_name), self._unreported = self._unreported, None
