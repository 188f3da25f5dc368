"""The picture of a lineage: generations from left to right, each trial beside its children."""

from __future__ import annotations

import os
from collections import defaultdict
from collections.abc import Collection, Mapping
from itertools import pairwise
from typing import Any, Literal

from .curves import BEST, CROWD, as_text, render
from .lineage import Descent, line_of
from .words import Status

Segments = list[tuple[float, float]]

TALLEST, WIDEST = 14.0, 18.0  # of the picture, in inches
ROW, COLUMN = 0.16, 0.55  # what a trial takes at most, in inches
FAILURES = {status.value for status in Status if status.is_failure}
LABELLED = 60  # of more trials only those on the best line have their ids beside them


def draw(
    descents: Mapping[int, Descent],
    *,
    best: int | None,
    reward_attr: str,
    mode: Literal["max", "min"],
    title: str,
    filename: str | os.PathLike[str] | None = None,
    plot: bool = False,
) -> None:
    """Save the picture to `filename` (its ending says the format), show it (`plot`), or both.

    A line goes from the first parent to each child, a dotted line from each further parent. Colours
    show the reward (the brighter the better; a few very bad rewards share one colour), crosses are
    failed trials, hollow marks trials without a reward. The line of the trials whose weights the
    best trial has stands out, with their ids.

        draw({0: Descent((), (), 0, "finished", 0.5, {})}, best=0, reward_attr="accuracy",
             mode="max", title="first search", filename="lineage.png")
    """

    def paint_figure(figure: Any) -> None:
        axes = figure.add_subplot()
        paint(axes, descents, best=best, reward_attr=reward_attr, mode=mode, title=title)

    render(paint_figure, size=size_for(descents), filename=filename, plot=plot)


def size_for(descents: Mapping[int, Descent]) -> tuple[float, float]:
    """Width and height of the picture, in inches."""
    height = max(places(descents).values(), default=0) + 1
    generations = max((of.generation for of in descents.values()), default=0) + 1
    return (
        min(max(7.0, 2.5 + COLUMN * generations), WIDEST),
        min(max(3.5, 1.5 + ROW * height), TALLEST),
    )


def paint(
    axes: Any,
    descents: Mapping[int, Descent],
    *,
    best: int | None,
    reward_attr: str,
    mode: Literal["max", "min"],
    title: str,
) -> None:
    """Draw what `draw` draws, into axes of matplotlib that are there."""
    line = [] if best is None else line_of(descents, best)
    rows = places(descents, line)
    height = max(rows.values(), default=0) + 1
    generations = max((of.generation for of in descents.values()), default=0) + 1
    axes.set(title=as_text(title), xlabel="generation")
    axes.set_yticks([])
    axes.spines[["top", "right", "left"]].set_visible(False)
    axes.xaxis.get_major_locator().set_params(integer=True)
    axes.set_xlim(-0.6, generations - 0.4)
    axes.set_ylim(height - 0.4, -0.6)
    if not descents:
        axes.text(0.5, 0.5, "no trial was launched", ha="center", transform=axes.transAxes)
        return
    at = {trial: (of.generation, rows[trial]) for trial, of in descents.items()}
    _paint_edges(axes, descents, at, line)
    colours = _paint_trials(axes, descents, at, mode)
    if colours is not None:
        label = as_text(f"{reward_attr} ({mode})")
        axes.figure.colorbar(colours, ax=axes, label=label, shrink=0.7)
    _paint_best(axes, at, line, reward_attr, descents)
    if len(descents) <= LABELLED:
        _label(axes, {trial: at[trial] for trial in descents if trial not in line})
    if axes.get_legend_handles_labels()[0]:
        place = {"loc": "outside lower right", "ncols": 4, "frameon": False}
        axes.figure.legend(**place, fontsize="small")


def places(descents: Mapping[int, Descent], line: Collection[int] = ()) -> dict[int, float]:
    """The row of each trial: the middle of the rows of those children whose first parent it is.

    So no two lines between first parents and children cross, and the trials of `line` are in one
    row. Families come before the trials that have neither parents nor children.
    """
    children: dict[int, list[int]] = defaultdict(list)
    for trial, of in sorted(descents.items()):
        if of.parents:
            children[of.parents[0]].append(trial)
    roots = [trial for trial, of in sorted(descents.items()) if not of.parents]
    rows: dict[int, float] = {}
    free = 0
    for root in sorted(roots, key=lambda root: root not in children):
        todo = [root]
        while todo:  # children before parents; no recursion, as lines may be long
            trial = todo[-1]
            waiting = [child for child in children[trial] if child not in rows]
            if waiting:
                todo.extend(reversed(waiting))
                continue
            todo.pop()
            own = [rows[child] for child in children[trial] if child in line]
            own = own or [rows[child] for child in children[trial]]
            rows[trial] = (min(own) + max(own)) / 2 if own else free
            free += not own
    return rows


def _paint_edges(
    axes: Any,
    descents: Mapping[int, Descent],
    at: Mapping[int, tuple[int, float]],
    line: list[int],
) -> None:
    from matplotlib.collections import LineCollection

    first: list[Segments] = []
    others: list[Segments] = []
    marked: list[Segments] = []
    on_line = set(pairwise(line))
    for trial, of in descents.items():
        for place, parent in enumerate(of.parents):
            kind = marked if (trial, parent) in on_line else others if place else first
            kind.append(_steps(at[parent], at[trial]))
    width = 1.0 if len(descents) <= 120 else 0.6
    axes.add_collection(LineCollection(first, colors="#9a9a9a", linewidths=width, zorder=1))
    axes.add_collection(
        LineCollection(others, colors="#9a9a9a", linewidths=0.6, linestyles="dotted", zorder=1)
    )
    axes.add_collection(LineCollection(marked, colors=BEST, linewidths=2.4, zorder=2))


def _steps(parent: tuple[int, float], child: tuple[int, float]) -> Segments:
    """From a parent to its child: up or down first, beside the parent, then across."""
    turn = parent[0] + 0.4
    return [parent, (turn, parent[1]), (turn, child[1]), child]


def _paint_trials(
    axes: Any,
    descents: Mapping[int, Descent],
    at: Mapping[int, tuple[int, float]],
    mode: Literal["max", "min"],
) -> Any:
    """Mark each trial; returns the marks whose colours are rewards, if there are any."""
    failed = [t for t, of in descents.items() if of.status in FAILURES]
    plain = [t for t, of in descents.items() if of.reward is None and t not in set(failed)]
    size = 34 if len(descents) <= 120 else 16
    colours = None
    rewards = {
        trial: of.reward
        for trial, of in descents.items()
        if of.reward is not None and of.status not in FAILURES
    }
    if rewards:
        low, high = _shown(list(rewards.values()), mode)
        colours = axes.scatter(
            *zip(*map(at.__getitem__, rewards), strict=True),
            c=list(rewards.values()),
            cmap="viridis" if mode == "max" else "viridis_r",
            vmin=low,
            vmax=high,
            s=size,
            zorder=3,
        )
    for trials, label, look in (
        (plain, "without a reward", {"facecolors": "white", "edgecolors": "#8f8f8f"}),
        (failed, "failed", {"marker": "x", "color": CROWD["failed"]}),
    ):
        if trials:
            where = zip(*map(at.__getitem__, trials), strict=True)
            axes.scatter(*where, s=size, zorder=3, label=f"{len(trials)} {label}", **look)
    return colours


def _shown(rewards: list[float], mode: Literal["max", "min"]) -> tuple[float, float]:
    """The range of the colours; the worst tenth is left out where it lies far from the others."""
    ordered = sorted(rewards, reverse=mode == "max")
    usual = ordered[: max(1, round(0.9 * len(ordered)))]
    worst = ordered[-1] if abs(ordered[-1] - usual[-1]) < abs(usual[-1] - usual[0]) else usual[-1]
    return min(ordered[0], worst), max(ordered[0], worst)


def _paint_best(
    axes: Any,
    at: Mapping[int, tuple[int, float]],
    line: list[int],
    reward_attr: str,
    descents: Mapping[int, Descent],
) -> None:
    if not line:
        return
    label = f"best: task {line[0]}, {reward_attr} {descents[line[0]].reward:.4g}"
    axes.scatter(
        *zip(*map(at.__getitem__, line), strict=True),
        s=90,
        facecolors="none",
        edgecolors=BEST,
        linewidths=1.8,
        zorder=4,
        label=as_text(label),
    )
    _label(axes, {trial: at[trial] for trial in line}, color=BEST, fontweight="bold")


def _label(axes: Any, at: Mapping[int, tuple[int, float]], **look: Any) -> None:
    for trial, place in at.items():
        beside = {"xytext": (5, 4), "textcoords": "offset points", "fontsize": "x-small"}
        axes.annotate(str(trial), place, zorder=5, **beside, **look)
