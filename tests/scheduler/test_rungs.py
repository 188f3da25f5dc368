"""The table of successive halving, against examples worked by hand from the papers."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distsearch.errors import OptionError
from distsearch.scheduler.rungs import Rungs, geometric_levels


def rungs(levels=(1, 3, 9), factor=3, max_t=27):
    return Rungs(levels, reduction_factor=factor, max_t=max_t)


def test_levels_are_the_grace_period_times_powers_of_the_factor_below_max_t():
    assert geometric_levels(1, 3, 81) == (1, 3, 9, 27)
    assert geometric_levels(2, 4, 33) == (2, 8, 32)
    assert geometric_levels(9, 3, 9) == ()


def test_the_first_trial_at_a_rung_goes_on():
    assert rungs().reach(0, 1, 0.1)


def test_a_trial_goes_on_while_it_is_among_the_best_third():
    table = rungs()
    decisions = [table.reach(n, 1, reward) for n, reward in enumerate([0.5, 0.4, 0.6, 0.3, 0.55])]
    # Ranks on arrival: 1 of 1, 2 of 2, 1 of 3, 4 of 4, 2 of 5; places: 1, 1, 1, 1, 1.
    assert decisions == [True, False, True, False, False]
    # The sixth has two places: rank 2 of 6 goes on, and so does the seventh with rank 1.
    assert table.reach(5, 1, 0.58)
    assert table.reach(6, 1, 0.9)
    assert not table.reach(7, 1, 0.57)  # rank 4 of 8


def test_epochs_2_4_and_9_are_compared_at_rungs_1_3_and_9():
    table = rungs()
    for time in (2, 4, 9):
        assert table.is_due(0, time)
        table.reach(0, time, 0.5)
        assert not table.is_due(0, time)
    assert [len(rung) for rung in table.rungs] == [1, 1, 1]


def test_a_trial_that_jumps_over_a_rung_is_not_compared_there():
    table = rungs()
    table.reach(0, 9, 0.5)
    assert [len(rung) for rung in table.rungs] == [0, 0, 1]


def test_a_rung_counts_a_trial_once_however_often_it_reports():
    table = rungs()
    for time in (1, 1, 2, 2.5):
        table.reach(0, time, 0.5)
    assert len(table.rungs[0]) == 1


def test_a_report_below_the_first_rung_decides_nothing():
    table = rungs(levels=(3, 9))
    assert table.reach(0, 1, -5.0)
    assert not table.is_due(0, 2)


@pytest.mark.parametrize("reward", [None, -math.inf])
def test_nan_never_goes_on_and_is_never_promoted(reward):
    table = rungs()
    if reward is None:
        assert not table.reach(0, 1, None)
    else:
        table.reach(0, 1, reward)
    table.reach(1, 1, reward)
    table.reach(2, 1, reward)
    assert table.promotable() is None


def test_one_that_is_as_good_as_the_last_that_goes_on_goes_on_too():
    table = rungs()
    assert [table.reach(n, 1, 0.1) for n in range(6)] == [True] * 6
    assert table.reach(6, 1, 0.5)
    assert table.reach(7, 1, 0.1)  # of two places the second is theirs
    assert [table.reach(n, 1, reward) for n, reward in [(8, 0.5), (9, 0.5)]] == [True, True]
    assert not table.reach(10, 1, 0.1)  # and now it is not


def test_equals_of_the_worst_do_not_go_on():
    table = rungs()
    assert [table.reach(n, 1, -math.inf) for n in range(3)] == [True, False, False]


def test_of_equals_only_the_earliest_third_is_promoted():
    table = rungs()
    for trial in range(6):
        table.reach(trial, 1, 0.1)
    assert [table.promotable() for _ in range(3)] == [(0, 3), (1, 3), None]


def test_promotion_takes_the_best_third_from_the_highest_rung_first():
    """Algorithm 2 of Li et al. (2020), factor 3, worked by hand."""
    table = rungs()
    for trial, reward in enumerate([0.1, 0.2]):
        table.reach(trial, 1, reward)
    assert table.promotable() is None  # 2 // 3 = 0 places
    table.reach(2, 1, 0.3)
    assert table.promotable() == (2, 3)
    assert table.promotable() is None  # the only place is taken
    for trial, reward in [(3, 0.9), (4, 0.05), (5, 0.15)]:
        table.reach(trial, 1, reward)
    assert table.promotable() == (3, 3)  # two places of six: trials 3 and 2, and 2 has been taken
    assert table.promotable() is None
    for trial, reward in [(2, 0.35), (3, 0.95)]:
        table.reach(trial, 3, reward)
    assert table.promotable() is None
    for trial, reward in [(6, 0.91), (7, 0.8), (8, 0.7)]:
        table.reach(trial, 1, reward)
    assert table.promotable() == (6, 3)
    table.reach(6, 3, 0.97)
    assert table.promotable() == (6, 9)  # rung 3 comes before rung 1


def test_a_failed_trial_leaves_its_place_to_the_next_best():
    table = rungs()
    for trial in range(9):
        table.reach(trial, 1, trial / 10)
    assert [table.promotable() for _ in range(4)] == [(8, 3), (7, 3), (6, 3), None]
    table.fail(8)
    assert [table.promotable(), table.promotable()] == [(5, 3), None]
    table.reach(7, 3, 0.7)
    table.fail(7)
    assert [table.promotable(), table.promotable()] == [(4, 3), None]
    # Three places are for the six that have not failed and the three that have.
    assert table.reach(9, 1, 0.55) and not table.reach(10, 1, 0.35)


def test_a_trial_that_fails_while_it_waits_for_its_promotion_is_not_promoted():
    table = rungs()
    for trial in range(3):
        table.reach(trial, 1, trial / 10)
    table.fail(2)
    assert [table.promotable(), table.promotable()] == [(1, 3), None]


def test_the_top_rung_promotes_to_max_t():
    table = rungs(levels=(1,), factor=2, max_t=4)
    table.reach(0, 1, 0.1)
    table.reach(1, 1, 0.2)
    assert table.promotable() == (1, 4)


@given(st.lists(st.floats(-1, 1), min_size=1, max_size=60), st.sampled_from([2, 3, 4]))
def test_never_more_than_a_share_of_a_rung_is_in_the_best(rewards, factor):
    table = rungs(levels=(1,), factor=factor, max_t=9)
    for trial, reward in enumerate(rewards):
        table.reach(trial, 1, reward)
    promoted = []
    while (found := table.promotable()) is not None:
        promoted.append(found[0])
    best = sorted(range(len(rewards)), key=lambda n: (-rewards[n], n))
    assert promoted == best[: len(rewards) // factor]


@pytest.mark.parametrize(
    "arguments",
    [
        {"levels": (3, 1)},
        {"levels": (1, 1)},
        {"levels": (0, 1)},
        {"levels": (1, 27)},
        {"factor": 1},
    ],
)
def test_rungs_that_make_no_sense_are_refused(arguments):
    with pytest.raises(OptionError):
        rungs(**arguments)
