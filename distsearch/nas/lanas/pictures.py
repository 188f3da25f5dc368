"""Pictures: the tree of regions, and how fast searchers come near the best."""

from __future__ import annotations

import os
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...searcher.region_searcher import Seen

COLOURS = {
    "lanas": "tab:red",
    "lamcts": "tab:orange",
    "evolution": "tab:blue",
    "tpe": "tab:green",
    "bohb": "tab:purple",
    "random": "0.5",
}


def draw_tree(regions: Sequence[Seen], file: str | os.PathLike[str]) -> None:
    """Draw the tree of a search: each region with its trials and their mean reward.

        draw_tree(searcher.overview(), "tree.png")

    The good part of a region is on its left, and the darker a region, the better it is among all.
    Thick lines lead to the leaf with the highest bounds, from which the next suggestion comes. The
    format follows from the name.
    """
    figure, axes = _axes(max(7.0, 1.05 * sum(one.is_leaf for one in regions)), _height(regions))
    at = places(regions)
    means = sorted({one.mean for one in regions if one.mean is not None})
    for number, (one, (x, y, parent)) in enumerate(zip(regions, at, strict=True)):
        if parent is not None:
            style: dict[str, Any] = {"color": "0.7", "lw": 1.0, "zorder": 1}
            if one.is_chosen:
                style = {"color": "tab:red", "lw": 3.0, "zorder": 2}
            axes.plot([at[parent][0], x], [at[parent][1], y], **style)
        share = 0.5
        if one.mean is not None and len(means) > 1:
            share = means.index(one.mean) / (len(means) - 1)
        colour = _colour(share)
        running = f" + {one.running}" if one.running else ""
        mean = "none" if one.mean is None else f"{one.mean:.4g}"
        axes.text(
            x,
            y,
            f"{one.trials}{running}\n{mean}",
            ha="center",
            va="center",
            fontsize=8,
            zorder=3,
            color="white" if share > 0.6 else "black",
            bbox={
                "boxstyle": "round,pad=0.35",
                "fc": colour,
                "ec": "tab:red" if one.is_chosen else "0.4",
                "lw": 2 if one.is_chosen else 0.8,
            },
            gid=f"region {number}",
        )
    axes.set_axis_off()
    axes.margins(0.08, 0.12)
    axes.set_title("trials (+ running), mean reward; left: the good part; red: the highest bounds")
    figure.savefig(file, dpi=120)


def _height(regions: Sequence[Seen]) -> float:
    return 1.6 + 0.95 * max((one.depth for one in regions), default=0)


def places(regions: Sequence[Seen]) -> list[tuple[float, float, int | None]]:
    """For each region its place in the picture, and the number of its parent.

    Leaves stand side by side, the good ones on the left; each other region is above the middle of
    its parts.
    """
    parents: list[int | None] = []
    open_: list[int] = []
    for number, one in enumerate(regions):
        del open_[one.depth :]
        parents.append(open_[-1] if open_ else None)
        open_.append(number)
    x = np.zeros(len(regions))
    parts: list[list[int]] = [[] for _ in regions]
    for number, parent in enumerate(parents):
        if parent is not None:
            parts[parent].append(number)
    leaves = [number for number, one in enumerate(regions) if one.is_leaf]
    x[leaves] = np.arange(len(leaves))
    for number in reversed(range(len(regions))):
        if parts[number]:
            x[number] = np.mean(x[parts[number]])
    return [
        (float(x[number]), -float(one.depth), parent)
        for number, (one, parent) in enumerate(zip(regions, parents, strict=True))
    ]


def draw_race(
    curves: Mapping[str, NDArray[np.float64]],
    file: str | os.PathLike[str],
    *,
    best: float,
    title: str,
) -> None:
    """Draw the best so far against evaluations: medians, with the quartiles around them.

    `curves`: of each searcher what `race.quartiles` gives; `best`: the highest there is.
    """
    figure, axes = _axes(8.0, 5.0)
    lowest = best
    for name, (lower, median, upper) in curves.items():
        evaluations = np.arange(1, 1 + len(median))
        colour = COLOURS.get(name)
        (line,) = axes.plot(evaluations, 100 * median, label=name, color=colour, lw=2)
        colour = line.get_color()
        axes.fill_between(evaluations, 100 * lower, 100 * upper, color=colour, alpha=0.2, lw=0)
        lowest = min(lowest, float(lower[min(len(lower) - 1, 9)]))
    axes.axhline(100 * best, color="black", ls=":", lw=1, label="the best there is")
    axes.set_xlabel("evaluations")
    axes.set_ylabel("best accuracy so far (%)")
    axes.set_ylim(100 * lowest, 100 * best + 0.05 * 100 * (best - lowest) + 1e-6)
    axes.set_title(title)
    axes.legend(loc="lower right")
    axes.grid(alpha=0.3)
    figure.savefig(file, dpi=120)


def _axes(width: float, height: float) -> tuple[Any, Any]:
    from matplotlib.figure import Figure

    figure = Figure(figsize=(width, height), layout="constrained")
    return figure, figure.subplots()


def _colour(share: float) -> Any:
    import matplotlib

    return matplotlib.colormaps["Greens"](0.1 + 0.8 * share)
