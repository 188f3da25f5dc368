"""The ledger: what can happen to a trial, and what the events of a log amount to."""

from __future__ import annotations

import itertools

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distsearch.core.ledger import END, MOVES, NEW, Ledger
from distsearch.core.objectives import Objectives
from distsearch.core.store import Event
from distsearch.core.words import Pause, Status, Stop
from distsearch.errors import InvalidMove

PLACE = {"rank": 0, "node": "gpu1", "gpus": [], "outlives_driver": True}
BODIES = {
    "launched": {"config": {"x": 0.5}, "given": False, "is_final": False},
    "inherits": {"from": []},
    "started": {"places": [PLACE]},
    "report": {"epoch": 1, "accuracy": 0.5},
    "decided": {"word": "pause", "reason": "rank 2 of 3", "report": 1},
    "held": {"by": "ada"},
    "let_go": {"by": "ada"},
    "saved": {"step": 1, "name": "1000001-step-1", "bytes": 10},
    "paused": {"reason": "by the rule: rank 2 of 3"},
    "lost": {"status": "killed", "reason": "killed by SIGKILL"},
    "ended": {"status": "finished", "reason": "", "best": 0.5},
    "again": {"reason": "", "weights_lost": True},
    "deleted": {"name": "1000001-step-1"},
}
# How a trial comes into each status, as kinds of events.
WAYS = {
    NEW: [],
    Status.WAITING: ["launched"],
    Status.RUNNING: ["launched", "started"],
    Status.PAUSED: ["launched", "started", "report", "paused"],
    END: ["launched", "started", "report", "saved", "ended"],
}


def ledger_of(*names, mode="max"):
    return Ledger(Objectives.parse(list(names) or ["accuracy"], mode), "epoch")


class Log:
    """A ledger with a hand for its events."""

    def __init__(self, *names, mode="max"):
        self.ledger = ledger_of(*names, mode=mode)
        self.ids = itertools.count(1)

    def add(self, kind, trial=0, *, at=0.0, seq=1, **body):
        whole = {**BODIES.get(kind, {}), **body}
        known = self.ledger.trials.get(trial)
        attempt = (known.attempt if known else 0) + (kind == "started")
        event = Event(next(self.ids), at, kind, trial, attempt, seq, whole)
        moved = self.ledger.apply(event)
        self.ledger.check()
        return moved


def test_a_pause_by_request_ends_when_the_rule_pauses_the_trial_or_stops_it():
    log = Log()
    for kind in ("launched", "started", "held"):
        log.add(kind)
    assert list(log.ledger.held) == [0]
    log.add("report")
    log.add("decided")
    assert not log.ledger.held


@pytest.mark.parametrize("kind", MOVES)
@pytest.mark.parametrize("before", WAYS)
def test_what_the_table_of_moves_allows_happens_and_nothing_else_does(kind, before):
    log = Log()
    for step in WAYS[before]:
        log.add(step)
    after = MOVES[kind].get(before)
    if after is None:
        with pytest.raises(InvalidMove, match=f"'{kind}' now"):
            log.add(kind)
        log.ledger.check()  # nothing has changed
        return
    trial = log.add(kind)
    assert trial.status.is_end if after is END else trial.status is after


def test_every_status_can_be_reached_and_only_the_ends_are_for_good():
    statuses = {before for moves in MOVES.values() for before in moves}
    assert statuses == set(WAYS)


def test_what_cannot_happen_tells_the_story_of_its_trial():
    log = Log()
    for kind in ("launched", "started", "report", "lost", "started", "report", "paused"):
        log.add(kind)
    with pytest.raises(InvalidMove) as error:
        log.add("report")
    assert str(error.value) == (
        "trial 0 cannot be 'report' now: it is paused, not running. "
        "Its story so far: launched, started, lost, started, paused, 1 reports"
    )
    with pytest.raises(InvalidMove, match="no kind of event 'moved'"):
        log.add("moved")


def test_counts_best_and_failures_follow_the_trials():
    log = Log()
    for trial, reward in enumerate([0.2, 0.9, 0.4]):
        log.add("launched", trial)
        log.add("started", trial)
        log.add("report", trial, accuracy=reward)
    log.add("ended", 0)
    log.add("ended", 1, status="failed", reason="ValueError: x")
    log.add("paused", 2)
    counts = log.ledger.counts
    assert (counts.launched, counts.done, counts.failed, counts.paused) == (3, 1, 1, 1)
    assert log.ledger.best.id == 1, "what it reported before it failed counts"
    assert set(log.ledger.open) == {2}
    assert list(log.ledger.failures) == [(1, "failed: ValueError: x")]


def test_what_the_rule_decided_is_known_until_the_attempt_is_over():
    log = Log()
    log.add("launched")
    log.add("started")
    log.add("decided", word="stop", reason="rank 3 of 3")
    assert isinstance(log.ledger.decided[0], Stop)
    assert log.ledger.decided[0].reason == "rank 3 of 3"
    log.add("ended", status="stopped", reason="by the rule")
    assert log.ledger.decided == {}
    log.add("launched", 1)
    log.add("started", 1)
    log.add("decided", 1)
    assert isinstance(log.ledger.decided[1], Pause)


def test_a_trial_takes_as_long_as_its_node_says_or_else_as_the_log_shows():
    log = Log()
    log.add("launched")
    log.add("started", at=100.0)
    assert log.add("lost", at=107.0).seconds == 7.0
    log.add("started", at=120.0)
    assert log.add("ended", at=131.0, seconds=10.5).seconds == 10.5


def test_whose_last_attempt_may_go_on_without_the_driver_is_known():
    log = Log()
    for trial in range(4):
        log.add("launched", trial)
    local = {**PLACE, "outlives_driver": False}
    log.add("started", 0)
    log.add("started", 1, places=[local])
    log.add("started", 2)
    log.add("lost", 2, status="node_lost", is_over=False)
    log.add("started", 3)
    log.add("ended", 3)
    assert log.ledger.unconfirmed == {0, 2}


def test_a_finished_trial_that_runs_again_and_fails_lets_those_it_dominated_back_into_the_front():
    log = Log("accuracy", "cost", mode=["max", "min"])
    for trial, (accuracy, cost) in enumerate([(0.9, 1.0), (0.8, 2.0)]):
        log.add("launched", trial)
        log.add("started", trial)
        log.add("report", trial, accuracy=accuracy, cost=cost)
        log.add("ended", trial)
    assert [trial.id for trial in log.ledger.front] == [0]
    log.add("again", 0)
    log.add("started", 0)
    log.add("ended", 0, status="failed", reason="its parent's weights are gone")
    assert [trial.id for trial in log.ledger.front] == [1]


@settings(max_examples=60, deadline=None)
@given(st.data())
def test_whatever_happens_the_ledger_agrees_with_itself_and_a_replay_with_it(data):
    log, applied, ids = Log(), [], itertools.count(1)
    for _ in range(40):
        trials = log.ledger.trials
        number = data.draw(st.integers(0, len(trials)))
        trial = trials.get(number)
        before = NEW if trial is None else END if trial.status.is_end else trial.status
        kind = data.draw(st.sampled_from([k for k, moves in MOVES.items() if before in moves]))
        attempt = (trial.attempt if trial else 0) + (kind == "started")
        body = {**BODIES[kind]}
        if kind == "report":
            body["accuracy"] = data.draw(st.floats(0, 1))
        if kind == "ended":
            body["status"] = data.draw(st.sampled_from(["finished", "failed", "stopped"]))
        event = Event(next(ids), 1.0 * len(applied), kind, number, attempt, 1, body)
        applied.append(event)
        log.ledger.apply(event)
        log.ledger.check()
    replayed = ledger_of()
    for event in applied:
        replayed.apply(event)
    assert {n: repr(t) for n, t in replayed.trials.items()} == {
        n: repr(t) for n, t in log.ledger.trials.items()
    }
    assert replayed.counts == log.ledger.counts
