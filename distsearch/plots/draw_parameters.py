"""Pictures of parameters, with matplotlib; see `distsearch.plots`."""

from __future__ import annotations

import math
from typing import Any

import numpy as np

from ..core.curves import as_text
from ..core.results import Results
from . import parameters
from .canvas import Path_, as_results, figure_for, plain
from .colours import BLUE

SHOWN = 500  # parallel coordinates show at most so many trials
MAP = "cividis"  # the colour-blind see these colours as all others do
LEVELS = 13  # a contour has so many levels
LETTERS = 12  # names with more letters do not stand beside each other
CAPTION: dict[str, Any] = {"fontsize": "small", "loc": "left"}


def parallel(
    search: Results | Path_,
    *,
    objective: str | None = None,
    path: Path_ | None = None,
    axes: Any = None,
) -> Any:
    """Each trial as a line through its parameters, coloured by its result: the best on top.

    ag.plots.parallel(record, path="parallel.pdf")

    Of more than 500 trials the best half and an even sample, of more than twelve parameters the
    most important ones. Returns matplotlib's axes. Raises NothingReported when no trial has a
    result, and where fewer than two parameters are searched.
    """
    table = parameters.table(as_results(search).story, objective)
    table.need(2, "a figure of parallel coordinates")
    rows = parameters.chosen(table, SHOWN)
    scales, note = _shown(table)
    places = np.column_stack([table.places[rows, table.number(one.name)] for one in scales])
    with figure_for(path, (3.0 + 1.1 * len(scales), 4.8), axes) as figure:
        from matplotlib.collections import LineCollection

        axes = figure.add_subplot() if axes is None else axes
        across = np.arange(len(scales), dtype=float)
        lines = [np.column_stack([across, row]) for row in places]
        low, high = parameters.shown_values(table)
        drawn = LineCollection(
            lines, array=table.values[rows], cmap=_map(table), alpha=0.6, linewidths=1.0
        )
        drawn.set_clim(low, high)
        axes.add_collection(drawn)
        axes.set_xlim(-0.2, max(0.2, len(across) - 0.8))
        axes.set_ylim(-0.05, 1.05)
        for number, scale in enumerate(scales):
            axes.axvline(number, color="0.4", lw=0.8)
            for place, text in scale.ticks:
                beside = {"fontsize": "x-small", "va": "center", "zorder": 4}
                axes.text(number + 0.03, place, as_text(text), **beside)
        axes.set_xticks(across, [as_text(parameters.short(scale.name)) for scale in scales])
        if any(len(scale.name) > LETTERS for scale in scales):
            _lean(axes)
        axes.set_yticks([])
        axes.spines[:].set_visible(False)
        axes.set_title(note, **CAPTION)
        figure.colorbar(drawn, ax=axes, label=as_text(table.objective))
    return axes


def importance(
    search: Results | Path_,
    *,
    objective: str | None = None,
    path: Path_ | None = None,
    axes: Any = None,
) -> Any:
    """How much each parameter matters: the share of what a random forest foretells by it.

    ag.plots.importance(record, path="importance.pdf")

    By permutation (see `parameters.importance`). Returns matplotlib's axes. Raises MissingPackage
    without scikit-learn, NothingReported with fewer than ten results.
    """
    table = parameters.table(as_results(search).story, objective)
    every = parameters.importance(table)
    found = every[: parameters.BARS]
    with figure_for(path, (7.0, 1.2 + 0.45 * len(found)), axes) as figure:
        axes = figure.add_subplot() if axes is None else axes
        places = range(len(found))
        deviations = [one.deviation for one in found]
        axes.barh(places, [one.share for one in found], xerr=deviations, color=BLUE, ecolor="0.5")
        axes.set_yticks(places, [_name(one.name) for one in found])
        axes.invert_yaxis()
        plain(axes, xlabel="share of the importance (lines: deviation)")
        axes.grid(visible=False, axis="y")
        axes.set_xlim(0, min(1.0, 1.05 * max(one.share + one.deviation for one in found)))
        axes.set_title(parameters.bars_left_out(every), **CAPTION)
    return axes


def slices(
    search: Results | Path_, *, objective: str | None = None, path: Path_ | None = None
) -> Any:
    """The result over each parameter, a panel for each; returns an array of matplotlib's axes.

    ag.plots.slices(record, path="slices.pdf")

    Of more than twelve parameters the most important ones. Raises NothingReported when no trial has
    a result, and where no parameter is searched.
    """
    table = parameters.table(as_results(search).story, objective)
    table.need(1, "a figure of slices")
    scales, note = _shown(table)
    columns = max(1, min(4, len(scales)))
    height = max(1, math.ceil(len(scales) / columns))
    with figure_for(path, (3.0 * columns, 2.8 * height)) as figure:
        grid = figure.subplots(height, columns, sharey=True, squeeze=False)
        for axes in grid.flat[len(scales) :]:
            axes.set_visible(False)
        for axes, scale in zip(grid.flat, scales, strict=False):
            x = table.places[:, table.number(scale.name)]
            look = {"s": 12, "color": BLUE, "alpha": max(0.15, min(0.8, 100 / len(x)))}
            axes.scatter(x, table.values, **look)
            _ticks(axes, "x", scale)
            plain(axes)
            axes.set_xlabel(_name(scale.name))
            axes.set_ylim(*_with_margin(*parameters.shown_values(table)))
        for axes in grid[:, 0]:
            axes.set_ylabel(as_text(table.objective))
        if note:
            figure.suptitle(note, x=0.01, ha="left", fontsize=CAPTION["fontsize"])
    return grid


def contour(
    search: Results | Path_,
    across: str | None = None,
    up: str | None = None,
    *,
    objective: str | None = None,
    path: Path_ | None = None,
    axes: Any = None,
) -> Any:
    """What is to be expected of two parameters, and the trials that say so.

        ag.plots.contour(record, "lr", "width", path="contour.pdf")

    By default of the two most important parameters. Returns matplotlib's axes. Raises OptionError
    for a parameter that is not searched, NothingReported where there are fewer than two.
    """
    table = parameters.table(as_results(search).story, objective)
    found = parameters.contour(table, *parameters.pair(table, across, up))
    with figure_for(path, (6.5, 5.0), axes) as figure:
        axes = figure.add_subplot() if axes is None else axes
        places = np.linspace(0, 1, len(found.heights))
        known = np.ma.masked_invalid(found.heights)
        if known.count():
            heights = np.linspace(*parameters.shown_values(table), LEVELS)
            filled = axes.contourf(places, places, known, levels=heights, cmap=_map(table))
            figure.colorbar(filled, ax=axes, label=as_text(table.objective))
        x, y = (table.places[:, table.number(one.name)] for one in (found.across, found.up))
        axes.scatter(x, y, s=8, facecolors="none", edgecolors="0.2", linewidths=0.6, alpha=0.6)
        _ticks(axes, "x", found.across)
        _ticks(axes, "y", found.up)
        plain(axes)
        axes.set(xlabel=_name(found.across.name), ylabel=_name(found.up.name))
    return axes


def _shown(table: parameters.Table) -> tuple[list[parameters.Scale], str]:
    """The scales for which there is room, and in words how many these are of how many."""
    if len(table.scales) <= parameters.SHOWN:
        return table.scales, ""
    known = parameters.known_importance(table)
    names = parameters.ranked(table, known)[: parameters.SHOWN]
    scales = [table.scales[table.number(name)] for name in names]
    return scales, parameters.left_out(table, known)


def _name(name: str) -> Any:
    return as_text(parameters.short(name, parameters.NAME))


def _map(table: parameters.Table) -> str:
    return MAP if table.sign > 0 else f"{MAP}_r"


def _ticks(axes: Any, axis: str, scale: parameters.Scale) -> None:
    places, texts = zip(*scale.ticks, strict=True)
    getattr(axes, f"set_{axis}ticks")(places, [as_text(text) for text in texts])
    if axis == "x" and scale.options and any(len(text) > LETTERS // 2 for text in texts):
        _lean(axes)
    getattr(axes, f"set_{axis}lim")(-0.05, 1.05)


def _lean(axes: Any) -> None:
    """Texts below an axis that are too long to stand beside each other lean."""
    for label in axes.get_xticklabels():
        label.set(rotation=30, ha="right", rotation_mode="anchor")


def _with_margin(low: float, high: float) -> tuple[float, float]:
    return low - 0.05 * (high - low), high + 0.05 * (high - low)
