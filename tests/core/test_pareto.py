"""The picture of several objectives."""

from __future__ import annotations

import math

import numpy as np
import pytest

from distsearch.core.objectives import Objectives, front
from distsearch.core.pareto import draw

pyplot = pytest.importorskip("matplotlib.pyplot")


@pytest.fixture
def shown(monkeypatch):
    """Draws as for a window, and gives the figure that the user would see."""
    pyplot.switch_backend("agg")
    figures = []
    monkeypatch.setattr(pyplot, "show", lambda: figures.append(pyplot.gcf()))

    def show(reports, modes=("max", "min"), constraints=(), failed=()):
        objectives = Objectives.parse([*"abc"][: len(modes)], modes, constraints)
        points = {
            trial: objectives.point(dict(zip("abc", values, strict=False)))
            for trial, values in enumerate(reports)
        }
        able = {t: p.rewards for t, p in points.items() if p.is_feasible and t not in failed}
        draw(
            points,
            front=front(able),
            failed=failed,
            objectives=objectives,
            title="a search",
            plot=True,
        )
        figures[-1].canvas.draw()
        return figures[-1]

    return show


def panels(figure):
    return [axes for axes in figure.axes if axes.get_visible()]


def labels(axes):
    return [text for text in axes.texts if text.get_text().isdigit()]


def legend(figure):
    return [text.get_text() for text in figure.legends[0].get_texts()]


def test_the_axes_are_named_with_their_direction_and_the_front_is_labelled(shown):
    figure = shown([(1, 1), (2, 2), (1, 3), (3, 4)])
    (axes,) = panels(figure)
    assert (axes.get_xlabel(), axes.get_ylabel()) == ("a (max)", "b (min)")
    assert {label.get_text() for label in labels(axes)} == {"0", "1", "3"}
    assert legend(figure) == ["1 dominated", "3 in the Pareto front"]


@pytest.mark.parametrize("modes", [("max", "min"), ("min", "max"), ("max", "max"), ("min", "min")])
def test_the_steps_of_the_front_pass_no_trial_on_its_good_side(shown, modes):
    rng = np.random.default_rng(1)
    reports = rng.normal(size=(60, 2))
    (axes,) = panels(shown(reports, modes))
    (line,) = axes.get_lines()
    assert line.get_drawstyle() == "steps-post"
    xs, ys = line.get_xdata(), line.get_ydata()
    signs = [1 if mode == "max" else -1 for mode in modes]
    for x, y in zip(xs[1:], ys[:-1], strict=True):  # the corners: first along x, then along y
        for report in reports:
            better = [sign * (r - c) > 0 for sign, r, c in zip(signs, report, (x, y), strict=True)]
            assert not all(better)


def test_two_hundred_trials_have_no_label_on_another_one(shown):
    turn = np.linspace(0, math.pi / 2, 200)
    figure = shown(np.stack([np.sin(turn), -np.cos(turn)], axis=1))
    (axes,) = panels(figure)
    boxes = [label.get_window_extent() for label in labels(axes)]
    assert 10 < len(boxes) < 200
    overlapping = [
        (i, j) for i, one in enumerate(boxes) for j in range(i) if one.overlaps(boxes[j])
    ]
    assert overlapping == []


def test_infeasible_and_failed_trials_are_shown_and_are_not_in_the_front(shown):
    figure = shown([(1, 5), (2, 6), (9, 30), (9, 1)], constraints="b <= 20", failed={3})
    assert legend(figure) == ["1 violate b <= 20", "1 failed", "2 in the Pareto front"]
    (axes,) = panels(figure)
    assert {label.get_text() for label in labels(axes)} == {"0", "1"}


def test_a_picture_without_a_feasible_trial_says_so(shown):
    (axes,) = panels(shown([(1, 50), (2, 60)], constraints="b <= 20"))
    assert "no trial meets b <= 20" in [text.get_text() for text in axes.texts]


def test_a_picture_without_any_report_says_so(shown):
    (axes,) = panels(shown([]))
    assert [text.get_text() for text in axes.texts] == ["no trial has reported a and b"]


def test_three_objectives_are_drawn_in_pairs(shown):
    figure = shown([(1, 1, 1), (2, 2, 2), (1, 2, 3)], modes=("max", "min", "max"))
    names = [(axes.get_xlabel(), axes.get_ylabel()) for axes in panels(figure)]
    assert names == [("a (max)", "b (min)"), ("a (max)", "c (max)"), ("b (min)", "c (max)")]


def test_a_loss_that_explodes_does_not_squash_the_rest_and_is_counted(shown):
    reports = [(n / 30, 1 + n / 10) for n in range(30)]
    (axes,) = panels(shown([*reports, (0.5, 1e9)]))
    assert axes.get_ylim()[1] < 10
    assert axes.get_ylabel() == "b (min)\n1 of 31 are worse than shown"


def test_a_front_over_orders_of_magnitude_gets_a_log_scale(shown):
    (axes,) = panels(shown([(n, 10**n) for n in range(1, 6)]))
    assert (axes.get_xscale(), axes.get_yscale()) == ("linear", "log")


def test_a_front_whose_trials_are_all_alike_can_be_drawn(shown):
    (axes,) = panels(shown([(1, 2), (1, 2), (1, 2)]))
    assert [label.get_text() for label in labels(axes)] == ["0"]
