"""An attempt: what its node is told, and in which order it can come and go."""

from __future__ import annotations

import itertools
from types import SimpleNamespace

import pytest

from distsearch.core.attempt import NEXT, Attempt, Stage, Verdict
from distsearch.core.words import Pause, Status, Trial
from distsearch.resource.leases import Held, Lease
from distsearch.resource.slots import Allocation


def attempt_with(sent):
    remote = SimpleNamespace(remote_id=3, host="gpu1", is_local=False, send=sent.append)
    held = Held(remote, Allocation(1, ("0",), 1.0, None))
    return Attempt(Trial(7, {}, attempt=1), Lease(5, (held,)))


def test_its_place_is_described_for_the_log():
    (place,) = attempt_with([]).places
    assert place.described == {"rank": 0, "node": "gpu1", "gpus": ["0"], "outlives_driver": True}


def test_a_node_hears_of_its_start_of_decisions_and_of_the_first_stop():
    sent = []
    attempt = attempt_with(sent)
    attempt.begin([{"op": "start", "job": {}}])
    attempt.answer(Pause("rank 3 of 3"))
    assert attempt.stop(Verdict(Status.STOPPED, "time_out=1 s is over"), after_save_s=30.0)
    assert not attempt.stop(Verdict(Status.PAUSED, "by the rule"))
    attempt.send_stop()
    address = {"trial": 7, "attempt": 2}
    stop = {"status": "stopped", "reason": "time_out=1 s is over", "after_save_s": 30.0}
    assert sent == [
        {"op": "start", "job": {}, **address, "rank": 0},
        {"op": "decide", "decision": "pause", **address, "ranks": [0]},
        {"op": "stop", **stop, **address, "ranks": [0]},
    ]


def test_a_stop_overtakes_a_pause_that_waits_for_a_checkpoint():
    sent = []
    attempt = attempt_with(sent)
    attempt.begin([{"op": "start", "job": {}}])
    assert attempt.stop(Verdict(Status.PAUSED, "paused by ada"), after_save_s=30.0)
    attempt.send_stop()
    assert not attempt.stop(Verdict(Status.PAUSED, "paused by bob"), after_save_s=30.0)
    assert attempt.stop(Verdict(Status.STOPPED, "by ada"))
    attempt.send_stop()
    assert [one["after_save_s"] for one in sent[1:]] == [30.0, 0.0]
    assert attempt.verdict == (Status.STOPPED, "by ada")
    assert not attempt.stop(Verdict(Status.STOPPED, "by bob"))


def test_one_that_is_stopped_before_it_was_sent_is_not_spoken_of():
    sent = []
    attempt = attempt_with(sent)
    assert attempt.stop(Verdict(Status.STOPPED, "interrupted"))
    attempt.send_stop()
    attempt.close()
    assert not sent and attempt.is_over


def test_a_report_that_came_before_is_not_taken():
    attempt = attempt_with([])
    assert [attempt.takes(number) for number in (1, 2, 2, 1, 3)] == [True, True, False, False, True]


@pytest.mark.parametrize(("stage", "step"), list(itertools.product(Stage, Stage)))
def test_it_goes_only_where_the_table_says(stage, step):
    attempt = attempt_with([])
    attempt.stage = stage
    if step in NEXT[stage]:
        attempt._move(step)
        assert attempt.stage is step
    else:
        with pytest.raises(AssertionError, match=f"cannot be {step.value}"):
            attempt._move(step)
