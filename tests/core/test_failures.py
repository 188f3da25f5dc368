"""Failures in kinds, and when a search is given up because of them."""

from __future__ import annotations

import math

import pytest

from distsearch.core.failures import ALIKE, Failures
from distsearch.core.words import Report, Status, Trial


def failed(number, *epochs, reason="ValueError: x"):
    """A trial that failed after it had reported these epochs."""
    trial = Trial(number, {}, status=Status.FAILED, reason=reason, error="Traceback")
    for sequence, epoch in enumerate(epochs, start=1):
        trial.count(Report(number, sequence, {}, 0.5, epoch), 0.5)
    return trial


def noted(*trials):
    failures = Failures()
    for trial in trials:
        failures.reported(trial)
        failures.note(trial)
    return failures


def test_failures_alike_are_counted_and_the_first_is_shown_whole():
    failures = Failures()
    said = []
    for number in range(5):
        failures.note(failed(number))
        said.append(failures.news)
    assert said[0] == "trial 0 failed: ValueError: x\nTraceback"
    assert said[1:] == [
        "2 trials failed as trial 0 did: ValueError",
        "",
        "4 trials failed as trial 0 did: ValueError",
        "",
    ]
    assert list(failures) == [(5, "failed: ValueError: x")]


@pytest.mark.parametrize("epochs", [(), (1,), (1, 2, 3)])
def test_it_is_over_when_all_have_failed_at_the_same_point(epochs):
    trials = [failed(number, *epochs) for number in range(ALIKE)]
    assert noted(*trials[:-1]).all_alike(unended=0) is None
    reason, error = noted(*trials).all_alike(unended=0)
    assert reason.startswith("the first 5 trials all failed alike (failed: ValueError: x)")
    assert str(error).endswith("Trial 0:\nTraceback")


def test_it_is_over_when_all_have_failed_wherever_that_was():
    trials = [failed(number, *range(1, 2 + number % 3)) for number in range(ALIKE)]
    assert noted(*trials).all_alike(unended=0)


def test_it_is_not_over_while_more_may_do_well_or_one_has_come_further():
    failures = noted(*(failed(number, 1) for number in range(ALIKE)))
    assert failures.all_alike(unended=ALIKE + 1) is None
    assert failures.all_alike(unended=ALIKE)
    failures.reported(failed(9, 2))  # which has not failed yet
    assert failures.all_alike(unended=0) is None


def test_how_far_a_trial_came_counts_in_whichever_attempt():
    again = failed(0, 5)
    again.count(Report(0, 1, {}, 0.5, 1), None)
    assert noted(again, *(failed(number, 1) for number in range(1, ALIKE))).all_alike(0)


@pytest.mark.parametrize("time", [math.inf, math.nan])
def test_a_time_that_is_no_number_is_not_far(time):
    assert noted(failed(0, time), *(failed(number, 1) for number in range(1, 9))).all_alike(0)


def test_one_that_ended_well_or_otherwise_keeps_the_search_going():
    failures = noted(*(failed(number) for number in range(ALIKE)))
    failures.one_did_well()
    assert failures.all_alike(0) is None
    assert noted(failed(9, reason="KeyError: y"), *map(failed, range(9))).all_alike(0) is None
    assert Failures(one_did=True).all_alike(0) is None


def test_a_trial_that_runs_again_counts_once_and_what_it_said_stays():
    first, *others = (failed(number) for number in range(ALIKE))
    failures = noted(first, *others[:-1], first, others[0], others[0])
    assert failures.all_alike(0) is None
    first.status, first.reason, first.error = Status.WAITING, "", ""  # it runs a third time
    failures.note(others[-1])
    reason, error = failures.all_alike(0)
    assert "(failed: ValueError: x)" in reason and "Traceback" in str(error)
