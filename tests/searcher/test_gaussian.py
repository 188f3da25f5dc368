"""The Gaussian process, against its definition."""

from __future__ import annotations

import math

import numpy as np
import pytest

from distsearch.searcher.gaussian import Belief, Kernel, Posterior, matern, minimise

WIDTH = Belief(0.0, 1.0)


def kernel(groups, noise=-6.0, trend=None):
    widths = [WIDTH] * (max(groups) + 1)
    variance = Belief(0.0, 1.0)
    return Kernel(np.array(groups), widths, variance, noise=Belief(noise, 1.5), trend=trend)


def some_points(count, columns, seed=0):
    return np.random.default_rng(seed).random((count, columns))


def test_matern_worked_by_hand():
    alike, falls = matern(np.array([0.0, 1.0]))
    root = math.sqrt(5)
    assert alike == pytest.approx([1.0, (1 + root + 5 / 3) * math.exp(-root)])
    assert falls == pytest.approx([5 / 3, 5 / 3 * (1 + root) * math.exp(-root)])


def test_mean_and_deviation_are_those_of_the_normal_distribution_given_the_values():
    points, others = some_points(12, 3), some_points(5, 3, seed=1)
    values = np.sin(5 * points[:, 0]) + points[:, 1]
    made, settings = kernel([0, 0, 1]), np.array([-0.3, 0.2, 0.4, -3.0])
    among, cross = made.among(settings, points), made.between(settings, points, others)
    mean, deviation = Posterior(made, settings, points, values).at(others)
    assert mean == pytest.approx(cross.T @ np.linalg.solve(among, values))
    left = made.between(settings, others, others) - cross.T @ np.linalg.solve(among, cross)
    assert deviation == pytest.approx(np.sqrt(np.diag(left)))


def test_what_is_expected_changes_no_mean_and_makes_surer_only_near_it():
    points = some_points(12, 1)
    settings = np.array([-1.5, 0.0, -6.0])
    known = Posterior(kernel([0]), settings, points, np.cos(points[:, 0]))
    there, far = np.array([[1.5]]), np.array([[9.0]])
    more = Posterior(kernel([0]), settings, points, np.cos(points[:, 0]), there)
    for place in (there, far):
        assert more.at(place)[0] == pytest.approx(known.at(place)[0])
    assert more.at(there)[1] < 0.2 * known.at(there)[1]
    assert more.at(far)[1] == pytest.approx(known.at(far)[1])


@pytest.mark.parametrize("trend", [None, Belief(0.0, 2.0)])
def test_the_slope_of_the_likelihood_is_its_own(trend):
    points = some_points(30, 4)
    values = np.sin(5 * points[:, 0]) + points[:, 1]
    made = kernel([0, 1, 1, 2], trend=trend)
    settings = np.array([-0.5, 0.3, 1.0, 0.2, -3.0, *([] if trend is None else [-0.7])])
    _, slope = made.loss(settings, points, values)

    def loss(step):
        return made.loss(settings + step, points, values)[0]

    numeric = [(loss(step) - loss(-step)) / 2e-5 for step in 1e-5 * np.eye(len(settings))]
    assert slope == pytest.approx(numeric, abs=1e-5)


def test_a_trend_goes_on_where_nothing_is_known():
    points = 0.5 * some_points(40, 2)
    values = 3 * points[:, 0] - points[:, 1] ** 2
    far = np.array([[1.0, 1.0]])
    found = {}
    for trend in (None, Belief(0.0, 2.0)):
        made = kernel([0, 1], trend=trend)
        settings = made.fit(points, values)
        found[trend is None] = Posterior(made, settings, points, values).at(far)[0].item()
    assert found[False] == pytest.approx(2.0, abs=0.1)
    assert abs(found[True] - 2.0) > abs(found[False] - 2.0)


def test_a_fit_finds_which_columns_matter_and_how_noisy_the_values_are():
    points = some_points(120, 3)
    values = np.sin(6 * points[:, 0])
    noisy = values + np.random.default_rng(1).normal(0, 0.3, 120)
    clear = kernel([0, 1, 2]).fit(points, values)
    assert clear[0] < min(clear[1], clear[2]) - 1
    assert math.exp(clear[-1]) < 0.01
    assert math.exp(kernel([0, 1, 2]).fit(points, noisy)[-1]) == pytest.approx(0.09, rel=0.5)


def test_the_lowest_place_of_a_valley_is_found():
    def valley(place):
        x, y = place
        slope = np.array([-2 * (1 - x) - 40 * x * (y - x**2), 20 * (y - x**2)])
        return (1 - x) ** 2 + 10 * (y - x**2) ** 2, slope

    assert minimise(valley, np.array([-1.0, 1.0]), 100) == pytest.approx([1, 1], abs=0.05)


def test_a_function_without_a_slope_is_left_where_it_is():
    start = np.array([1.0, 2.0])
    assert minimise(lambda place: (0.0, np.zeros(2)), start) == pytest.approx(start)
