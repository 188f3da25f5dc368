"""Objectives, constraints, and which points no other dominates."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distsearch.core.objectives import Objectives, Point, beats, dominates, front
from distsearch.errors import OptionError

TWO = Objectives.parse(["accuracy", "latency"], ["max", "min"])

few = st.integers(-3, 3).map(float)  # so few values that many are equal
points = st.integers(2, 4).flatmap(
    lambda n: st.lists(st.tuples(*[few] * n), max_size=40).map(lambda found: dict(enumerate(found)))
)


@given(points)
def test_no_member_of_the_front_is_dominated_and_every_other_is_dominated_or_equal(rewards):
    members = front(rewards)
    assert bool(members) == bool(rewards)
    for member in members:
        assert not any(dominates(other, rewards[member]) for other in rewards.values())
    for trial in rewards.keys() - set(members):
        behind = [m for m in members if dominates(rewards[m], rewards[trial])]
        equal = [m for m in members if rewards[m] == rewards[trial] and m < trial]
        assert behind or equal


@given(points)
def test_the_front_is_ordered_by_the_first_objective_and_names_each_place_once(rewards):
    found = [rewards[member] for member in front(rewards)]
    assert [one[0] for one in found] == sorted((one[0] for one in found), reverse=True)
    assert len(set(found)) == len(found)


@given(points, st.data())
def test_the_front_kept_trial_by_trial_in_any_order_is_the_front_of_all(rewards, data):
    kept: list[int] = []
    for trial in data.draw(st.permutations(sorted(rewards))):
        kept = front({one: rewards[one] for one in [*kept, trial]})
    assert kept == front(rewards)


@given(st.tuples(few, few), st.tuples(few, few), few, few)
def test_what_violates_less_wins_and_only_among_equals_does_dominance_decide(a, b, va, vb):
    one, other = Point(a, a, (va,)), Point(b, b, (vb,))
    if one.violation == other.violation:
        assert beats(one.standing, other.standing) == dominates(a, b)
    else:
        assert beats(one.standing, other.standing) == (max(va, 0) < max(vb, 0))


def test_a_point_has_the_values_as_reported_and_rewards_of_which_more_is_better():
    point = TWO.point({"accuracy": 0.9, "latency": 12, "epoch": 3})
    assert point == Point((0.9, 12.0), (0.9, -12.0))


@pytest.mark.parametrize("bad", [math.nan, math.inf, -math.inf, "fast", None, True])
def test_a_report_without_a_finite_number_for_each_objective_is_no_point(bad):
    assert TWO.point({"accuracy": 0.9, "latency": bad}) is None
    assert TWO.point({"accuracy": 0.9}) is None


def test_a_report_without_the_metric_of_a_constraint_is_no_point_but_violates_nothing():
    limited = Objectives.parse("accuracy", "max", ["latency <= 20"])
    assert limited.point({"accuracy": 0.9}) is None
    assert limited.can_rank({"accuracy": 0.9})
    assert not limited.can_rank({"accuracy": 0.9, "latency": 21})


def test_violations_say_by_how_much_and_the_limit_itself_is_feasible():
    limited = Objectives.parse("a", "max", ["b<=20", "my metric >= -1e-1"])
    at_limit = limited.point({"a": 1, "b": 20, "my metric": -0.1})
    assert at_limit.violations == (0.0, 0.0)
    assert at_limit.is_feasible
    beyond = limited.point({"a": 1, "b": 15, "my metric": -0.6})
    assert beyond.violations == (-5.0, 0.5)
    assert not beyond.is_feasible
    assert beyond.violation == 0.5
    assert limited.limits == "b <= 20 and my metric >= -0.1"


def test_of_one_objective_the_best_report_counts_a_feasible_one_before_all_others():
    limited = Objectives.parse("a", "min", "b <= 1")
    reports = [(3, 9), (5, 4), (6, 4), (9, 1), (7, 0), (8, 1), (1, 2)]
    points = [limited.point({"a": a, "b": b}) for a, b in reports]
    counted = None
    history = []
    for point in points:
        if limited.counts_instead(point, counted):
            counted = point
        history.append(counted.values[0])
    assert history == [3, 5, 5, 9, 7, 7, 7]


def test_of_several_objectives_the_last_report_counts_even_if_it_is_worse():
    first, last = (TWO.point({"accuracy": a, "latency": 5}) for a in (0.9, 0.1))
    assert TWO.counts_instead(last, first)


def test_one_mode_is_for_all_and_a_list_of_one_is_one():
    assert Objectives.parse(["a", "b"], "min").modes == ("min", "min")
    assert Objectives.parse(["a"], ["max"]).is_plain
    assert Objectives.parse("a", "max", None).is_plain


@pytest.mark.parametrize(
    ("arguments", "says"),
    [
        ((["a", "a"], "max"), "twice"),
        (([], "max"), "give a name, or a list"),
        ((["a", 3], "max"), "give a name, or a list"),
        ((["a", "b", "c"], ["max", "min"]), "for the 3 objectives a, b, c"),
        ((["a", "b"], ["max", "up"]), "'max', 'min'"),
        (("a", "max", "b < 3"), "cannot read 'b < 3'"),
        (("a", "max", ["b <= x"]), "as in 'latency <= 20'"),
        (("a", "max", ["b <= inf"]), "as in 'latency <= 20'"),
        (("a", "max", [("b", 3)]), "cannot read"),
        (("a", "max", {"b": ("<=", 3)}), "cannot read 'b'"),
    ],
)
def test_what_makes_no_sense_is_refused_with_what_would(arguments, says):
    with pytest.raises(OptionError, match=says):
        Objectives.parse(*arguments)
