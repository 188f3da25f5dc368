"""PASHA, against examples worked by hand from the paper."""

from __future__ import annotations

import pytest

import distsearch as ag
from distsearch.core.words import Report, Status, Trial
from distsearch.errors import OptionError
from distsearch.scheduler import PASHAScheduler
from distsearch.scheduler.pasha import noise_between, percentile, same_ranking


def test_a_ranking_is_the_same_when_no_trial_changes_places():
    assert same_ranking({1: 0.9, 2: 0.8, 3: 0.7}, {1: 0.5, 2: 0.4, 3: 0.3}, epsilon=0)
    assert not same_ranking({1: 0.9, 2: 0.8, 3: 0.85}, {1: 0.5, 2: 0.4, 3: 0.3}, epsilon=0)


def test_trials_whose_rewards_below_were_within_the_noise_may_change_places():
    upper, lower = {1: 0.9, 2: 0.8}, {1: 0.50, 2: 0.51}
    assert not same_ranking(upper, lower, epsilon=0.005)
    assert same_ranking(upper, lower, epsilon=0.02)


def test_trials_of_the_rung_below_that_did_not_come_up_do_not_matter():
    assert same_ranking({1: 0.9, 2: 0.8}, {1: 0.5, 7: 0.45, 2: 0.4}, epsilon=0)


def test_equal_rewards_may_stand_in_any_order():
    worst = float("-inf")
    assert same_ranking({1: 0.8, 2: 0.9}, {1: worst, 2: worst}, epsilon=0)
    assert same_ranking({}, {}, epsilon=0)


def test_the_noise_is_the_last_difference_of_curves_that_cross_and_cross_back():
    one = {1: 0.1, 2: 0.3, 3: 0.35, 9: 0.9}
    assert noise_between(one, {1: 0.2, 2: 0.25, 3: 0.40}) == pytest.approx(0.05)
    assert noise_between(one, {1: 0.2, 2: 0.25, 3: 0.30}) is None  # they cross once
    assert noise_between(one, {1: 0.0, 2: 0.0, 3: 0.0}) is None
    assert noise_between(one, {1: 0.2, 2: 0.3, 3: 0.40}) is None  # they touch
    assert noise_between(one, {}) is None


def test_the_percentile_lies_linearly_between_two_values():
    assert percentile([], 90) == 0
    assert percentile([0.3], 90) == 0.3
    assert percentile([0.0, 1.0], 90) == pytest.approx(0.9)
    assert percentile([0.0, 0.1, 0.2, 0.3], 50) == pytest.approx(0.15)


@ag.args(x=ag.Real(0.0, 1.0), falls=ag.Bool())
def train_fn(args, reporter):
    state = reporter.load() or {"epoch": 0}
    for epoch in range(state["epoch"] + 1, 28):
        reporter.save({"epoch": epoch})
        slope = -0.1 if args.falls else 0.01
        reporter(epoch=epoch, accuracy=args.x + slope * epoch)


@pytest.fixture
def rule(search):
    """A scheduler that does not run, told of reports by hand."""
    scheduler = search(train_fn, PASHAScheduler, max_t=27)

    def report(trial, epoch, reward):
        at = Report(trial, 1, {}, reward, epoch)
        return scheduler.on_report(Trial(trial, {}), at).word

    scheduler.report = report
    return scheduler


def test_the_next_rung_opens_when_the_ranking_of_the_top_two_changes(rule):
    """Rungs 1, 3, 9 and factor 3; at first trials go to 3 at most."""
    table = rule.brackets[0]
    for trial in range(9):
        assert rule.report(trial, 1, (9 - trial) / 10) == "pause"
    assert [rule.next_resume() for _ in range(4)] == [0, 1, 2, None]
    for trial, reward in enumerate((0.99, 0.95, 0.91)):
        assert rule.report(trial, 3, reward) == "pause"
    assert table.open == 1 and rule.next_resume() is None  # as ASHA would not: 0 is the best of 3
    assert rule.report(9, 1, 0.75) == "continue"  # the third of ten
    assert rule.report(9, 3, 1.0) == "continue"  # from the third place to the first
    assert table.open == 2
    assert rule.report(9, 9, 1.0) == "pause"


def test_curves_that_cross_back_and_forth_keep_the_rung_closed(rule):
    for epoch, rewards in [(1, (0.50, 0.51)), (2, (0.61, 0.60)), (3, (0.70, 0.72))]:
        for trial, reward in enumerate(rewards):
            rule.report(trial, epoch, reward)
    assert rule.epsilon == pytest.approx(0.02)
    rule.report(2, 1, 0.505)  # between the two at rung 1, above both at rung 3
    rule.report(2, 3, 0.80)
    assert rule.brackets[0].open == 1


def test_a_trial_that_jumps_over_the_rung_below_or_has_nan_opens_nothing(rule):
    rule.report(0, 1, 0.5)
    rule.report(0, 3, 0.6)
    rule.report(1, 4, 0.9)
    rule.report(2, 1, None)
    rule.report(2, 3, None)
    assert rule.brackets[0].open == 1


def best_epoch(scheduler):
    return max(r["epoch"] for reports in scheduler.training_history.values() for r in reports)


@pytest.mark.parametrize(("falls", "last"), [([False], 3), ([True, False], 27)])
def test_a_search_trains_long_only_if_the_ranking_changes(search, falls, last):
    points = [{"x": n / 40, "falls": falls[n % len(falls)]} for n in range(36)]
    scheduler = search(train_fn, PASHAScheduler, max_t=27, points_to_evaluate=points, slots=2)
    scheduler.run(num_trials=36)
    assert scheduler.join_jobs(timeout=60)
    assert 3 <= best_epoch(scheduler) <= last
    assert (best_epoch(scheduler) > 3) == (last > 3)
    assert {t.status for t in scheduler.trials} <= {Status.PAUSED, Status.FINISHED}


@pytest.mark.parametrize(
    "wrong", [{"noise_percentile": 101}, {"brackets": 2}, {"type": "stopping"}]
)
def test_settings_that_make_no_sense_are_refused(search, wrong):
    with pytest.raises(OptionError, match=next(iter(wrong))):
        search(train_fn, PASHAScheduler, max_t=27, **wrong)
