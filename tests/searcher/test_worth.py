"""What trials are worth that trained for different times."""

from __future__ import annotations

import math

import numpy as np
import pytest

from distsearch.searcher.worth import Scale

WHOLE = math.inf


def test_trials_are_scored_by_rank_so_that_the_scale_of_rewards_does_not_matter():
    small = Scale.of({n: {WHOLE: n / 10} for n in range(9)}, {})
    large = Scale.of({n: {WHOLE: 10.0**n} for n in range(9)}, {})
    for n in range(9):
        assert small.score({WHOLE: n / 10}) == pytest.approx(large.score({WHOLE: 10.0**n}))
    assert small.score({WHOLE: 0.4}) == pytest.approx(0.0)


def test_a_result_that_is_new_lies_between_those_that_were_known():
    scale = Scale.of({n: {WHOLE: float(n)} for n in range(9)}, {})
    assert scale.score({WHOLE: 3.0}) < scale.score({WHOLE: 3.5}) < scale.score({WHOLE: 4.0})
    assert scale.score({WHOLE: 99.0}) == scale.score({WHOLE: 8.0})


def test_what_a_whole_training_would_have_reached_is_told_by_the_trials_that_came_further():
    known = {n: {1: float(n), 9: 10 + 2.0 * n} for n in range(5)}
    scale = Scale.of({**known, 7: {1: 3.5}}, {})
    assert scale.expected({1: 3.5}) == pytest.approx(17.0)
    assert scale.expected({1: 3.0, 9: 20.0}) == 20.0
    assert scale.score({1: 3.5}) == pytest.approx(scale.score({9: 17.0}))


def test_two_trials_tell_only_how_much_is_gained():
    scale = Scale.of({0: {1: 1.0, 9: 5.0}, 1: {1: 2.0, 9: 5.0}}, {})
    assert scale.expected({1: 4.0}) == pytest.approx(7.5)


def test_a_failed_trial_has_no_score_of_its_own():
    scale = Scale.of({0: {WHOLE: 1.0}, 1: {WHOLE: -math.inf}, 2: {1: 0.5, WHOLE: -math.inf}}, {})
    assert scale.score({WHOLE: -math.inf}) == -math.inf
    assert scale.score({WHOLE: 1.0}) == 0.0
    assert Scale.of({}, {}).score({WHOLE: 3.0}) == 0.0


def test_what_violates_constraints_is_below_all_that_does_not_the_more_the_lower():
    results = {n: {WHOLE: float(n)} for n in range(6)}
    scale = Scale.of(results, {4: 0.5, 5: 2.0})
    scores = [scale.score(results[n], {4: 0.5, 5: 2.0}.get(n, 0.0)) for n in range(6)]
    assert scores[5] < scores[4] < min(scores[:4])
    standard = [scale.standard(results[n], {4: 0.5, 5: 2.0}.get(n, 0.0)) for n in range(6)]
    assert standard[5] < standard[4] < min(standard[:4])


def test_distances_are_kept_except_those_of_what_lies_far_below():
    results = {n: {WHOLE: float(n)} for n in range(10)} | {10: {WHOLE: -1e9}}
    scale = Scale.of(results, {})
    step = scale.standard({WHOLE: 9.0}) - scale.standard({WHOLE: 8.0})
    assert scale.standard({WHOLE: 2.0}) - scale.standard({WHOLE: 1.0}) == pytest.approx(step)
    assert scale.standard({WHOLE: -1e9}) > -4


@pytest.mark.parametrize("values", [[1e300, -1e300, 1e300, 0.0], [1e300, 1e300]])
def test_huge_rewards_have_scores_that_are_finite(values):
    scale = Scale.of({n: {1: one, 3: one} for n, one in enumerate(values)}, {})
    for value in values:
        assert np.isfinite(scale.standard({3: value}))
        assert np.isfinite(scale.score({3: value}))
