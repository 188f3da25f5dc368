"""The one owner of a search's state: a fold over the events of its log.

A search changes in no other way. The driver appends an event and applies it, then acts; a search
that is resumed applies the events of its log; whoever looks at a search, while it runs or later,
applies them too. So all of them know the same.

    event = store.append("started", 3, 1, body=...)         # the driver
    ledger.apply(event)

    ledger = Ledger.of(folder)                              # a reader,
    for event in store.read(folder, after=ledger.last_id):  # who follows a search that runs
        ledger.apply(event)

Nothing here waits, reads a clock or touches a disk (but for `Ledger.of`, which reads the log).
"""

from __future__ import annotations

from collections import Counter
from collections.abc import Callable, Iterable, Mapping
from pathlib import Path
from sys import intern
from typing import Any, Union

from ..errors import InvalidMove, StoreError
from .failures import Failures
from .objectives import Objectives
from .standings import Standings, front_among
from .store import Event, read
from .words import STATUS_OF, THE_RULE, Decision, Pause, Status, Stop, Trial

WAITING, RUNNING, PAUSED = Status.WAITING, Status.RUNNING, Status.PAUSED
NEW, END = "not launched", "ended"  # END stands for every status in which a trial has ended
ENDS = [status for status in Status if status.is_end]

Moves = Mapping[Union[Status, str], Union[Status, str]]

# How a trial moves: kind of event, then status before: status after. Nothing else can happen.
MOVES: Mapping[str, Moves] = {
    "launched": {NEW: WAITING},
    "inherits": {WAITING: WAITING},
    "started": {WAITING: RUNNING, PAUSED: RUNNING},
    "report": {RUNNING: RUNNING},
    "decided": {RUNNING: RUNNING},
    "held": {WAITING: WAITING, RUNNING: RUNNING},
    "let_go": {WAITING: WAITING, RUNNING: RUNNING, PAUSED: WAITING},
    "saved": {RUNNING: RUNNING},
    "paused": {RUNNING: PAUSED},
    "lost": {RUNNING: WAITING},
    "ended": {WAITING: END, RUNNING: END, PAUSED: END},
    "again": {END: WAITING},
    "deleted": {WAITING: WAITING, RUNNING: RUNNING, PAUSED: PAUSED, END: END},
}
# MOVES for each single status before (None: no trial yet); None after stands for any end.
_AFTER: Mapping[str, Mapping[Status | None, Status | None]] = {
    kind: {
        status: None if moves[before] is END else Status(moves[before])
        for before in moves
        for status in ([None] if before is NEW else ENDS if before is END else [Status(before)])
    }
    for kind, moves in MOVES.items()
}
NO_MOVES: Mapping[Status | None, Status | None] = {}
UNTOLD = ("report", "saved", "deleted")  # a trial's story leaves these kinds out: too many come
VERDICTS: Mapping[str, Callable[[str, str], Decision]] = {"stop": Stop, "pause": Pause}


class Counts:
    """How many trials of the search are in which state; final trials are counted apart."""

    def __init__(self) -> None:
        self.launched = 0
        self.final = 0  # trials of `run_with_config`, which count nowhere else
        self.suggested = 0  # of those launched: by the searcher or the rule, not by the user
        self.by_status: Counter[Status] = Counter()

    @property
    def done(self) -> int:
        """Trials whose train function returned, with a result."""
        return self.by_status[Status.FINISHED]

    @property
    def paused(self) -> int:
        """Trials that a rule has paused."""
        return self.by_status[Status.PAUSED]

    @property
    def stopped(self) -> int:
        """Trials that the search has stopped."""
        return self.by_status[Status.STOPPED]

    @property
    def failed(self) -> int:
        """Trials that ended without a usable result."""
        return sum(n for status, n in self.by_status.items() if status.is_failure)

    @property
    def ended(self) -> int:
        """Trials that have ended, in whatever way."""
        return sum(n for status, n in self.by_status.items() if status.is_end)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Counts) and vars(self) == vars(other)

    __hash__ = None  # type: ignore[assignment]

    def __repr__(self) -> str:
        statuses = {status.value: n for status, n in self.by_status.items() if n}
        return f"Counts(launched={self.launched}, suggested={self.suggested}, {statuses})"


class Ledger:
    """What the log of a search amounts to.

        ledger = Ledger(Objectives.parse("accuracy", "max"), "epoch")
        trial = ledger.apply(event)          # the trial of the event, as it is now

    `trials`: all of them, by id. `open`: those that have not ended. `counts`: how many are in which
    state. `standings`: the best, and the front. `failures`: how trials fail. `decided`: of trials
    that run, the rule's decision that they are to stop or to pause. `held`: the trials that are
    paused by request, and `paused_by` who has paused the whole search so, '' while it is not.
    `unconfirmed`: the trials whose last attempt may go on without the driver: it runs on another
    node, or that node was lost.
    """

    def __init__(self, objectives: Objectives, time_attr: str) -> None:
        self.objectives = objectives
        self.time_attr = time_attr
        self.trials: dict[int, Trial] = {}
        self.open: dict[int, Trial] = {}
        self.counts = Counts()
        self.standings = Standings(objectives, time_attr)
        self.failures = Failures()
        self.decided: dict[int, Decision] = {}
        self.held: dict[int, Trial] = {}
        self.paused_by = ""
        self.unconfirmed: set[int] = set()
        self.last_id = 0  # of the newest event
        self._hosts: dict[
            tuple[str, ...], tuple[str, ...]
        ] = {}  # each tuple once, for all trials that have it
        self._apply: Mapping[str, Callable[[Trial, Event], None]] = {
            kind: getattr(self, f"_{kind}") for kind in MOVES if kind != "launched"
        }

    @classmethod
    def of(cls, folder: Path) -> Ledger:
        """The ledger of the search in a folder, which may be running.

        Raises StoreError when there is none, StoreVersion when this version cannot read it.
        """
        ledger: Ledger | None = None
        for event in read(folder):
            if ledger is None and event.kind == "experiment":  # only `warm` may come before it
                ledger = cls.described(event.body)
            if ledger is not None:
                ledger.apply(event)
        if ledger is None:
            raise StoreError(f"the log in {folder} does not say what was searched")
        return ledger

    @classmethod
    def described(cls, searched: Mapping[str, Any]) -> Ledger:
        """An empty ledger of what the body of an `experiment` event describes."""
        objectives = Objectives.parse(
            searched["reward_attr"], searched["mode"], searched["constraints"]
        )
        return cls(objectives, searched["time_attr"])

    @property
    def best(self) -> Trial | None:
        """The best trial so far, where one reward is all that counts in the end."""
        return self.standings.best

    @property
    def front(self) -> list[Trial]:
        """The trials that no other dominates so far, where there are several objectives."""
        return self.standings.front(list(self.open.values()))

    # Events

    def apply(self, event: Event) -> Trial | None:
        """Take in the next event; returns the trial that the event is about, None if there is none.

        Raises InvalidMove, with the trial's story so far, for what cannot happen to it now.
        """
        if event.trial is None:
            self.last_id = event.id
            if event.kind == "experiment":  # causes of earlier failures may have been mended
                self.failures = Failures(any(map(_did_well, self.trials.values())))
            elif event.kind in ("search_held", "search_let_go"):
                self.paused_by = event.body["by"] if event.kind == "search_held" else ""
            return None
        kind, trial = event.kind, self.trials.get(event.trial)
        was = None if trial is None else trial.status
        moves = _AFTER.get(kind, NO_MOVES)
        if was not in moves:
            raise InvalidMove(_impossible(kind, event.trial, trial))
        after = moves[was]
        self.last_id = event.id
        if trial is None:
            return self._launch(event, event.trial)
        if kind == "ended":
            self._set_status(trial, STATUS_OF[event.body["status"]])
        elif after is not None and after is not was:
            self._set_status(trial, after)
        if was is RUNNING and trial.status is not RUNNING:
            self._attempt_over(trial, event)
        if kind not in UNTOLD:
            trial.story = intern(f"{trial.story}, {kind}")
        self._apply[kind](trial, event)
        return trial

    def _set_status(self, trial: Trial, status: Status) -> None:
        if not trial.is_final:
            self.counts.by_status[trial.status] -= 1
            self.counts.by_status[status] += 1
        trial.status = status

    def _launch(self, event: Event, trial_id: int) -> Trial:
        body = event.body
        config = {intern(name): value for name, value in body["config"].items()}
        trial = self.trials[trial_id] = self.open[trial_id] = Trial(
            trial_id,
            config,
            parents=tuple(body.get("parents", ())),
            wait_for=body.get("wait_for", "end"),
            bracket=body.get("bracket"),
            is_given=body["given"],
            is_final=body["is_final"],
            story="launched",
        )
        if trial.is_final:
            self.counts.final += 1
            return trial
        self.counts.launched += 1
        self.counts.suggested += not trial.is_given
        self.counts.by_status[trial.status] += 1
        return trial

    def _inherits(self, trial: Trial, event: Event) -> None:
        trial.inherits = tuple(event.body["from"])

    def _started(self, trial: Trial, event: Event) -> None:
        places = event.body["places"]
        hosts = tuple(place["node"] for place in places)
        hosts = self._hosts.setdefault(hosts, hosts)
        trial.start(event.attempt or 0, hosts, event.time)
        trial.reason = ""
        # Should the driver end now, its own machine's trials end too; other nodes go on a while.
        if any(place["outlives_driver"] for place in places):
            self.unconfirmed.add(trial.id)
        else:
            self.unconfirmed.discard(trial.id)

    def _report(self, trial: Trial, event: Event) -> None:
        self.standings.count(trial, self.standings.report(trial, event.seq or 0, event.body))
        if not trial.is_final:
            self.failures.reported(trial)

    def _decided(self, trial: Trial, event: Event) -> None:
        body = event.body
        self.decided[trial.id] = VERDICTS[body["word"]](body["reason"], body.get("by", THE_RULE))
        self.held.pop(trial.id, None)  # from now on it is for the rule to resume it

    def _held(self, trial: Trial, event: Event) -> None:
        self.held[trial.id] = trial

    def _let_go(self, trial: Trial, event: Event) -> None:
        self.held.pop(trial.id, None)
        trial.reason = ""

    def _saved(self, trial: Trial, event: Event) -> None:
        trial.save(event.body["step"], event.body["name"])

    def _deleted(self, trial: Trial, event: Event) -> None:
        if trial.saved_name == event.body["name"]:
            trial.lose_weights()

    def _paused(self, trial: Trial, event: Event) -> None:
        trial.reason = event.body["reason"]

    def _lost(self, trial: Trial, event: Event) -> None:
        trial.reason = event.body["reason"]
        self._count_failure(trial, STATUS_OF[event.body["status"]])
        for parent in event.body.get("without", ()):  # whose weights could not be had
            self.trials[parent].lose_weights()
            trial.inherits = None

    def _ended(self, trial: Trial, event: Event) -> None:
        trial.end(event.body["reason"], event.body.get("traceback") or "")
        del self.open[trial.id]
        self.held.pop(trial.id, None)
        self.standings.ended(trial)
        self._count_failure(trial, trial.status)
        if not trial.status.is_failure:
            self.failures.one_did_well()
        elif not trial.is_final:
            self.failures.note(trial)

    def _again(self, trial: Trial, event: Event) -> None:
        if event.body["weights_lost"]:  # (the loss of weights counts as a failure)
            self._count_failure(trial, Status.NODE_LOST)
            trial.lose_weights()
        trial.reopen()
        self.open[trial.id] = trial
        self.standings.reopened(trial)

    def _attempt_over(self, trial: Trial, event: Event) -> None:
        self.decided.pop(trial.id, None)
        measured = event.body.get("seconds")  # by the trial's node
        trial.seconds = max(0.0, event.time - trial.started_at) if measured is None else measured
        if event.body.get("is_over", True):
            self.unconfirmed.discard(trial.id)
        else:
            self.unconfirmed.add(trial.id)

    def _count_failure(self, trial: Trial, status: Status) -> None:
        if status.is_failure:
            trial.failures = trial.failures + Counter([status])  # (new, as others share the old)

    def check(self) -> None:
        """Raise AssertionError where something does not hold that always must; for tests."""
        trials, counts = self.trials, self.counts
        assert list(trials) == list(range(len(trials))), "trials are numbered from 0"
        own = [trial for trial in trials.values() if not trial.is_final]
        statuses = Counter(trial.status for trial in own)
        assert +counts.by_status == statuses, f"{counts} disagree with the statuses {statuses}"
        assert counts.launched == len(own), f"{counts}, but there are {len(own)} trials"
        assert counts.final == len(trials) - len(own), f"{counts}, but others are final"
        suggested = sum(not trial.is_given for trial in own)
        assert counts.suggested == suggested, f"{counts}, but {suggested} were suggested"
        unended = {n for n, trial in trials.items() if not trial.status.is_end}
        assert self.open.keys() == unended, f"{set(self.open)} are called open, {unended} are"
        assert self.held.keys() <= self.open.keys(), f"{set(self.held)} are held, one has ended"
        for trial_id in self.decided:
            status = trials[trial_id].status
            assert status is RUNNING, f"trial {trial_id} is {status.value}, but has a verdict"
        for trial in trials.values():
            assert all(parent < trial.id for parent in trial.parents), "parents come first"
            starts = trial.story.split(", ").count("started")
            assert trial.attempt == starts, f"{trial} was started otherwise than the log tells"
        if (best := self.best) is not None:
            better = [t.id for t in trials.values() if self.standings.is_better(t, best)]
            assert not better, f"trials {better} are better than the best, {best.id}"
        if self.objectives.several:
            front = self.standings.front(self.open.values())
            afresh = front_among(trials.values())
            assert front == afresh, f"{_ids(front)} are called the front, {_ids(afresh)} are"


def _ids(trials: Iterable[Trial]) -> list[int]:
    return [trial.id for trial in trials]


def _did_well(trial: Trial) -> bool:
    return trial.has_result and not trial.status.is_failure


def _impossible(kind: str, trial_id: int, trial: Trial | None) -> str:
    """What is wrong with an event, and the story of its trial so far."""
    if kind not in MOVES:
        return f"there is no kind of event {kind!r}; the kinds are {', '.join(MOVES)}"
    possible = " or ".join(
        before.value if isinstance(before, Status) else before for before in MOVES[kind]
    )
    now = NEW if trial is None else trial.status.value
    story = "nothing" if trial is None else f"{trial.story}, {trial.reports} reports"
    return (
        f"trial {trial_id} cannot be {kind!r} now: it is {now}, not {possible}. "
        f"Its story so far: {story}"
    )
