"""The picture of several objectives: every trial as a point, those of the Pareto front as steps."""

from __future__ import annotations

import os
from collections.abc import Collection, Mapping, Sequence
from itertools import combinations
from statistics import quantiles
from typing import Any, NamedTuple

from .curves import BEST, CROWD, as_text, render
from .objectives import Objectives, Point

LABEL = (0.3, 0.16)  # width and height of a task id, in inches: nearer labels would overlap
MARGIN = 0.1  # of an axis beside the best, where the labels are
WIDE = 20  # a front whose values differ by more than this factor is shown on a log scale


class FrontPoint(NamedTuple):
    """A trial that no other dominates; `values` are its objectives by name, as reported."""

    task_id: int
    config: dict[str, Any]
    values: dict[str, float]


def draw(
    points: Mapping[int, Point],
    *,
    front: Sequence[int],
    failed: Collection[int],
    objectives: Objectives,
    title: str,
    filename: str | os.PathLike[str] | None = None,
    plot: bool = False,
) -> None:
    """Save the picture to `filename` (its ending says the format), show it (`plot`), or both.

    Two objectives make one panel, in which the front is a line of steps: the trials behind it are
    dominated. More objectives make a panel for each pair, in which the trials of the common front
    stand out. The trials of the front are labelled where there is room; infeasible trials are
    hollow, failed trials crosses. Points so bad that they would squash all the rest may lie
    outside; a note counts them.

        draw({0: Point((0.9, 12.0), (0.9, -12.0))}, front=[0], failed=(), title="first search",
             objectives=Objectives.parse(['accuracy', 'latency'], ['max', 'min']),
             filename="front.png")
    """

    def paint_figure(figure: Any) -> None:
        paint(figure, points, front=front, failed=failed, objectives=objectives, title=title)

    render(paint_figure, size=size_for(len(objectives.names)), filename=filename, plot=plot)


def size_for(count: int) -> tuple[float, float]:
    """Width and height of the picture of so many objectives, in inches."""
    side = 3.0 + 2.5 * (count - 1)
    return (9.0, 5.5) if count == 2 else (side + 1.0, side)


def paint(
    figure: Any,
    points: Mapping[int, Point],
    *,
    front: Sequence[int],
    failed: Collection[int],
    objectives: Objectives,
    title: str,
) -> Any:
    """Draw what `draw` draws, into a figure of matplotlib that is there; returns its axes."""
    count = len(objectives.names)
    figure.suptitle(as_text(title))
    grid = figure.subplots(count - 1, count - 1, squeeze=False)
    for axes in grid.flat:
        axes.set_visible(False)
    for across, up in combinations(range(count), 2):
        axes = grid[up - 1, across]
        axes.set_visible(True)
        _paint_pair(axes, (across, up), points, front, failed, objectives)
    if points:
        place = {"loc": "outside right upper", "fontsize": "small", "frameon": False}
        figure.legend(*grid[0, 0].get_legend_handles_labels(), **place)
    return grid


def _paint_pair(
    axes: Any,
    pair: tuple[int, int],
    points: Mapping[int, Point],
    front: Sequence[int],
    failed: Collection[int],
    objectives: Objectives,
) -> None:
    for n, axis in zip(pair, "xy", strict=True):
        hidden = _set_limits(axes, axis, points, front, n, objectives) if points else 0
        name = f"{objectives.names[n]} ({objectives.modes[n]})"
        name += f"\n{hidden} of {len(points)} are worse than shown" if hidden else ""
        axes.set(**{f"{axis}label": as_text(name)})
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    if not points:
        what = f"no trial has reported {' and '.join(objectives.names)}"
        axes.text(0.5, 0.5, as_text(what), ha="center", transform=axes.transAxes)
        return
    at = {trial: (point.values[pair[0]], point.values[pair[1]]) for trial, point in points.items()}
    members = set(front)
    rest = [trial for trial in points if trial not in members]
    broken = [trial for trial in rest if trial in failed]
    beyond = [trial for trial in rest if trial not in failed and not points[trial].is_feasible]
    behind = [trial for trial in rest if trial not in failed and points[trial].is_feasible]
    crowd = {"alpha": max(0.35, min(0.8, 40 / len(points))), "zorder": 3}
    for trials, label, look in (
        (behind, "dominated", {"color": CROWD["more"], "s": 18, **crowd}),
        (beyond, f"violate {objectives.limits}", {"facecolors": "none", "edgecolors": "#8f8f8f"}),
        (broken, "failed", {"marker": "x", "color": CROWD["failed"], "s": 22}),
    ):
        if trials:
            label = f"{len(trials)} {label}"
            axes.scatter(*zip(*map(at.get, trials), strict=True), label=as_text(label), **look)
    if not front:
        what = f"no trial meets {objectives.limits}" if beyond else "no trial counts yet"
        axes.text(0.5, 0.97, as_text(what), ha="center", va="top", transform=axes.transAxes)
        return
    xs, ys = zip(*map(at.__getitem__, front), strict=True)
    label = f"{len(front)} in the Pareto front"
    axes.scatter(xs, ys, color=BEST, s=36, zorder=5, label=label)
    if len(objectives.names) == 2:
        # (Between two members of the front the second objective is that of the first of them.)
        axes.step(xs, ys, where="post", color=BEST, alpha=0.7, linewidth=1.6, zorder=4)
    toward = [1 if objectives.modes[n] == "max" else -1 for n in pair]
    _label(axes, {trial: at[trial] for trial in front}, toward)


def _set_limits(
    axes: Any,
    axis: str,
    points: Mapping[int, Point],
    front: Sequence[int],
    n: int,
    objectives: Objectives,
) -> int:
    """Show all points but those far worse than the front and most others; returns their number."""
    values = [point.values[n] for point in points.values()]
    kept = [points[trial].values[n] for trial in front] or values
    if min(values) > 0 and max(kept) > WIDE * min(kept):
        getattr(axes, f"set_{axis}scale")("log")
        axes.margins(**{axis: MARGIN})
        return 0
    sign = 1 if objectives.modes[n] == "min" else -1
    costs = sorted(sign * value for value in values)
    low, high = costs[0], costs[-1]
    if len(costs) > 1:
        quarter, _, three_quarters = quantiles(costs, n=4, method="inclusive")
        fence = max(three_quarters + 3 * (three_quarters - quarter), *(sign * v for v in kept))
        usual = max(cost for cost in costs if cost <= fence)
        if high - low > 4 * (usual - low) > 0:
            high = usual
    margin = MARGIN * ((high - low) or abs(high) or 1.0)
    limits = sorted((sign * (low - margin), sign * (high + margin / 3)))
    getattr(axes, f"set_{axis}lim")(*limits)
    axes.ticklabel_format(axis=axis, useOffset=False)
    return sum(cost > high for cost in costs)


def _label(axes: Any, at: Mapping[int, tuple[float, float]], toward: Sequence[int]) -> None:
    """Write task ids on the good side of their points, where no label would cover another."""
    width, height = (inches * axes.figure.dpi for inches in LABEL)
    written: list[tuple[float, float]] = []
    across, up = toward
    look: dict[str, Any] = {
        "xytext": (5 * across, 4 * up),
        "textcoords": "offset points",
        "ha": "left" if across > 0 else "right",
        "va": "bottom" if up > 0 else "top",
        "fontsize": "small",
        "zorder": 6,
    }
    for trial, place in at.items():
        x, y = axes.transData.transform(place)
        if any(abs(x - a) < width and abs(y - b) < height for a, b in written):
            continue
        written.append((x, y))
        axes.annotate(str(trial), place, **look)
