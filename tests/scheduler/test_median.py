"""Median stopping, against examples worked by hand."""

from __future__ import annotations

import math
from statistics import mean, median

import pytest
from hypothesis import given
from hypothesis import strategies as st

import distsearch as ag
from distsearch.core.words import Status
from distsearch.errors import OptionError
from distsearch.scheduler import MedianStoppingScheduler
from distsearch.scheduler.median import Averages


def averages(curves):
    """What is known once every trial has reported its {time: reward}."""
    table = Averages()
    for trial, curve in curves.items():
        for time, reward in curve.items():
            table.add(trial, time, reward)
    return table


def test_the_median_is_of_the_running_averages():
    table = averages({0: {1: 0.0, 2: 1.0}, 1: {1: 0.4, 2: 0.6}, 2: {1: 1.0, 2: 0.8}})
    assert table.median(1) == (0.4, 3)
    assert table.median(2) == (0.5, 3)  # of 0.5, 0.5 and 0.9


def test_of_an_even_number_it_is_in_the_middle():
    assert averages({0: {1: 0.2}, 1: {1: 0.4}}).median(1) == (pytest.approx(0.3), 2)


def test_one_that_has_not_come_so_far_does_not_count():
    assert averages({0: {1: 0.2}, 1: {1: 0.4, 2: 0.6}}).median(2) == (0.5, 1)


def test_one_that_jumps_over_a_time_has_there_what_it_had_before():
    first = averages({0: {2: 0.2, 4: 0.6, 9: 1.0}, 1: {3: 0.5}})
    assert first.median(3) == (pytest.approx(0.35), 2)  # 0.2 and 0.5
    later = averages({1: {3: 0.5}, 0: {2: 0.2, 4: 0.6, 9: 1.0}})
    assert later.median(3) == (pytest.approx(0.35), 2)


def test_what_is_not_a_number_counts_in_no_average():
    table = averages({0: {1: None, 2: 0.4}, 1: {1: 0.2, 2: None}, 2: {1: None}})
    assert table.median(1) == (0.2, 1)
    assert table.median(2) == (pytest.approx(0.3), 2)


def test_of_no_trials_there_is_no_median():
    value, samples = Averages().median(3)
    assert math.isnan(value) and samples == 0


curve = st.dictionaries(st.integers(1, 9), st.none() | st.floats(-1, 1), min_size=1)


@given(st.lists(curve, max_size=8), st.integers(1, 9), st.randoms())
def test_it_equals_the_definition_in_whatever_order_reports_arrive(curves, time, random):
    arrivals = [(n, t) for n, curve in enumerate(curves) for t in sorted(curve)]
    order = [n for n, _ in arrivals]
    random.shuffle(order)
    ahead = [iter(sorted(curve)) for curve in curves]
    table = Averages()
    for trial in order:
        at = next(ahead[trial])
        table.add(trial, at, curves[trial][at])
    expected = []
    for one in curves:
        until = [r for t, r in one.items() if t <= time and r is not None]
        if until and max(one) >= time:
            expected.append(mean(until))
    value, samples = table.median(time)
    # A trial of which only NaN came at the time or later may not be known to have come so far.
    if all(r is not None for one in curves for r in one.values()):
        assert samples == len(expected)
        assert value == pytest.approx(median(expected)) if expected else math.isnan(value)


@ag.args(level=ag.Real(0.0, 1.0))
def train_fn(args, reporter):
    for epoch in (2, 4, 9):
        reporter(epoch=epoch, accuracy=math.nan if args.level == 0 else args.level)


def test_a_search_stops_the_ones_below_the_median_after_the_grace_period(search):
    levels = [0.5, 0.6, 0.4, 0.9, 0.3, 0.0]
    scheduler = search(
        train_fn,
        MedianStoppingScheduler,
        slots=1,
        grace_period=3,
        min_samples=2,
        points_to_evaluate=[{"level": level} for level in levels],
    )
    scheduler.run(num_trials=len(levels))
    assert scheduler.join_jobs(timeout=30)
    # 0.4 is below the median of (0.5, 0.6), 0.3 and NaN below that of what came before.
    stopped = [trial.id for trial in scheduler.trials if trial.status is Status.STOPPED]
    assert stopped == [2, 4, 5]
    history = scheduler.training_history
    assert [len(history[trial]) for trial in range(6)] == [3, 3, 2, 3, 2, 2]  # at epoch 4


@pytest.mark.parametrize("wrong", [{"grace_period": -1}, {"min_samples": 0}])
def test_settings_that_make_no_sense_are_refused(search, wrong):
    with pytest.raises(OptionError, match=next(iter(wrong))):
        search(train_fn, MedianStoppingScheduler, **wrong)
