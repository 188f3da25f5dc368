"""Panels of parameters: parallel coordinates, importance, slices, a contour of two of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from functools import wraps
from typing import Any

import numpy as np
from bokeh.layouts import row
from bokeh.models import ColorBar, LinearAxis, LinearColorMapper, Span, Whisker
from bokeh.palettes import Cividis256

from ..errors import MissingPackage, NothingReported
from ..plots import parameters
from ..plots.colours import BLUE, GREY
from .panel import BEST_LAST, Data, Panel, hover, new_figure, sources, text, ticks
from .view import View

Options = Mapping[str, str]
LINES = 400  # parallel coordinates show at most so many trials
LETTERS = 90  # names with so many letters in all stand beside each other
LETTER_PX = 7  # the width of a letter of such a name
AXIS_PX = 48  # from one axis to the next at least: there is room for the numbers of the first
SIDES_PX = 190  # what is to the left of the first axis, and to the right of the last one
LEANS = 0.7  # the angle (radians) of texts that are too long to stand beside each other
POINTS = 1500  # a slice shows at most so many trials
Prepare = Callable[[Sequence[View], Options], Data]


def _or_empty(prepare: Callable[[View, Options], Data]) -> Prepare:
    """Where there is nothing to show yet, the reason is shown."""

    @wraps(prepare)
    def prepared(views: Sequence[View], options: Options) -> Data:
        (view,) = views
        try:
            return prepare(view, options)
        except (NothingReported, MissingPackage) as error:
            return Data(empty=str(error))

    return prepared


def _mapper(table: parameters.Table) -> dict[str, Any]:
    low, high = parameters.shown_values(table)
    return {"low": low, "high": high, "best_is_high": table.sign > 0, "objective": table.objective}


def _colours(shape: Mapping[str, Any]) -> LinearColorMapper:
    palette = Cividis256 if shape["best_is_high"] else Cividis256[::-1]
    return LinearColorMapper(palette=palette, low=shape["low"], high=shape["high"])


def _hover(fig: Any, drawn: Any, shape: Mapping[str, Any]) -> None:
    """Say whose a line or point is; its source has the best trial last."""
    lines = [("trial", "@trial{0}"), (shape["objective"], "@value{0.[00000]}")]
    hover(fig, [drawn], lines, tags=[BEST_LAST])


def colour_bar(fig: Any, shape: Mapping[str, Any], mapper: LinearColorMapper) -> None:
    """Say beside a figure which colour is which value of the objective."""
    bar = ColorBar(color_mapper=mapper, width=10, background_fill_color=None, title=None)
    bar.title = text(shape["objective"])
    bar.title_text_font_style, bar.title_standoff = "normal", 8
    fig.add_layout(bar, "right")


@_or_empty
def prepare_parallel(view: View, options: Options) -> Data:
    """Each trial as segments between its parameters, the best last and so on top."""
    objective = options.get("objective")
    table = view.table(objective)
    table.need(2, "a figure of parallel coordinates")
    rows = parameters.chosen(table, LINES)
    names = _shown(view, objective)
    numbers = [table.number(name) for name in names]
    places, count = table.places[rows][:, numbers], len(names)
    across = np.tile(np.arange(count - 1, dtype=float), len(rows))
    columns = {
        "x0": across,
        "x1": across + 1,
        "y0": places[:, :-1].ravel(),
        "y1": places[:, 1:].ravel(),
        "value": np.repeat(table.values[rows], count - 1),
        "trial": np.repeat(np.array(table.ids, dtype=float)[rows], count - 1),
    }
    shape = {
        **_mapper(table),
        "names": names,
        "ticks": [table.scales[number].ticks for number in numbers],
    }
    left = len(table.ids) - len(rows)
    drawn = (
        f"{len(rows)} of {len(table.ids)} trials: the best, and some of the rest" if left else ""
    )
    which = parameters.left_out(table, view.known_importance(objective))
    return Data(shape, {"lines": columns}, "; ".join(filter(None, (which, drawn))))


def _shown(view: View, objective: str | None) -> list[str]:
    """The parameters in their own order; of more than there is room for the most important."""
    scales = view.table(objective).scales
    if len(scales) <= parameters.SHOWN:
        return [scale.name for scale in scales]
    return view.ranked(objective)[: parameters.SHOWN]


def draw_parallel(data: Data) -> Any:
    """The segments, coloured by result, and each parameter's axis.

    In a window that is too narrow for that, the page scrolls the figure sideways.
    """
    shape = data.shape
    names = [parameters.short(name) for name in shape["names"]]
    leans = sum(map(len, names)) > LETTERS
    apart = AXIS_PX if leans else max(AXIS_PX, LETTER_PX * max(map(len, names)))
    fig = new_figure(
        x="",
        y="",
        height=380,
        min_width=SIDES_PX + apart * (len(names) - 1),
        x_range=(-0.15, len(names) - 1),
        y_range=(-0.06, 1.06),
    )
    mapper = _colours(shape)
    look = {"line_color": {"field": "value", "transform": mapper}, "line_alpha": 0.6}
    lines = fig.segment(
        "x0", "y0", "x1", "y1", source=sources(data)["lines"], line_width=1.2, **look
    )
    _hover(fig, lines, shape)
    at: dict[str, list[Any]] = {"x": [], "y": [], "text": []}
    for number, some in enumerate(shape["ticks"][:-1]):
        fig.add_layout(Span(location=number, dimension="height", line_color=GREY))
        for place, words in some:
            at["x"].append(number)
            at["y"].append(place)
            at["text"].append(words)
    fig.text("x", "y", "text", source=at, **INK, x_offset=4, text_baseline="middle")
    last = LinearAxis(axis_line_color=GREY)  # beside the figure, where there is room for its texts
    ticks(last, shape["ticks"][-1])
    fig.add_layout(last, "right")
    ticks(fig.xaxis[0], enumerate(names))
    if leans:
        fig.xaxis.major_label_orientation, fig.min_border_left = LEANS, 80
    fig.yaxis[0].visible = fig.grid.visible = False
    colour_bar(fig, shape, mapper)
    return fig


INK = {"text_font_size": "10px", "text_color": "#555555", "name": "ink"}


@_or_empty
def prepare_importance(view: View, options: Options) -> Data:
    """The share of each parameter, the most important on top."""
    objective = options.get("objective")
    every = view.importance(objective)
    found = every[: parameters.BARS]
    shares = np.array([one.share for one in found])
    deviations = np.array([one.deviation for one in found])
    names = [one.name for one in found]
    columns = {
        "y": np.arange(len(found), dtype=float),
        "share": shares,
        "low": np.maximum(0, shares - deviations),
        "high": np.minimum(1, shares + deviations),
        "name": names,
    }
    return Data({"names": names}, {"bars": columns}, parameters.bars_left_out(every))


def draw_importance(data: Data) -> Any:
    """A bar for each parameter, and how sure its length is."""
    names = data.shape["names"]
    fig = new_figure(
        x="share of the importance (lines: deviation)",
        y="",
        height=100 + 30 * len(names),
        y_range=(len(names) - 0.4, -0.6),
    )
    source = sources(data)["bars"]
    bars = fig.hbar("y", 0.75, "share", source=source, color=BLUE)
    whiskers = Whisker(
        base="y", lower="low", upper="high", dimension="width", source=source, line_color=GREY
    )
    for head in (whiskers.upper_head, whiskers.lower_head):
        head.size, head.line_color = 6, GREY
    fig.add_layout(whiskers)
    fig.scatter(
        "high", "y", source=source, size=0, alpha=0, color=BLUE
    )  # so that the axis is long enough
    hover(fig, [bars], [("parameter", "@name"), ("share", "@share{0.00}")])
    ticks(
        fig.yaxis[0], [(n, parameters.short(name, parameters.NAME)) for n, name in enumerate(names)]
    )
    fig.x_range.start, fig.x_range.max_interval = 0, 1.02
    fig.ygrid.visible = False
    return fig


@_or_empty
def prepare_slices(view: View, options: Options) -> Data:
    """Results over each parameter, the most important ones first."""
    objective = options.get("objective")
    table = view.table(objective)
    table.need(1, "a figure of slices")
    rows = parameters.chosen(table, POINTS)
    names = view.ranked(objective)[: parameters.SHOWN]
    columns: dict[str, Any] = {
        "value": table.values[rows],
        "trial": np.array(table.ids, dtype=float)[rows],
    }
    for n, name in enumerate(names):
        columns[f"p{n}"] = table.places[rows, table.number(name)]
    shape = {
        **_mapper(table),
        "names": names,
        "ticks": [table.scales[table.number(name)].ticks for name in names],
    }
    note = parameters.left_out(table, view.known_importance(objective))
    return Data(shape, {"slices": columns}, note)


def draw_slices(data: Data) -> Any:
    """A small figure for each parameter, side by side as far as there is room."""
    shape = data.shape
    source = sources(data)["slices"]
    low, high = shape["low"], shape["high"]
    margin = 0.06 * (high - low)
    alpha = max(0.15, min(0.8, 150 / max(1, len(data.columns["slices"]["value"]))))
    leans = any(len(words) > 6 for marks in shape["ticks"] for _, words in marks)
    figures: list[Any] = []
    for n, name in enumerate(shape["names"]):
        y_range = figures[0].y_range if figures else (low - margin, high + margin)
        fig = new_figure(
            x=parameters.short(name, parameters.NAME),
            y=shape["objective"],
            height=280 if leans else 220,
            y_range=y_range,
            x_range=(-0.06, 1.06),
        )
        fig.sizing_mode, fig.width = "fixed", 300
        points = fig.scatter(f"p{n}", "value", source=source, size=5, color=BLUE, alpha=alpha)
        _hover(fig, points, shape)
        ticks(fig.xaxis[0], shape["ticks"][n])
        _lean(fig, shape["ticks"][n])
        figures.append(fig)
    return row(figures, sizing_mode="stretch_width", styles={"flex-wrap": "wrap"})


def _lean(fig: Any, marks: Sequence[tuple[float, str]]) -> None:
    """Long words below an axis lean, so that they do not overlap."""
    if any(len(words) > 6 for _, words in marks):
        fig.xaxis.major_label_orientation = LEANS


@_or_empty
def prepare_contour(view: View, options: Options) -> Data:
    """What is to be expected of two parameters: chosen ones, or the most important."""
    objective = options.get("objective")
    table = view.table(objective)
    table.need(2, "a contour")
    ranked = view.ranked(objective)
    names = {scale.name for scale in table.scales}
    across, up = (name if (name := options.get(axis)) in names else None for axis in ("x", "y"))
    others = [name for name in ranked if name not in (across, up)]
    across = across or others.pop(0)
    up = up or others.pop(0)
    found = parameters.contour(table, across, up)
    rows = parameters.chosen(table, POINTS)
    columns = {
        "x": table.places[rows, table.number(across)],
        "y": table.places[rows, table.number(up)],
        "value": table.values[rows],
        "trial": np.array(table.ids, dtype=float)[rows],
    }
    shape = {
        **_mapper(table),
        "across": [across, found.across.ticks],
        "up": [up, found.up.ticks],
        "cells": len(found.heights),
        "choices": ranked,
    }
    cells = (np.arange(shape["cells"]) + 0.5) / shape["cells"]
    heights = {
        "x": np.tile(cells, len(cells)),
        "y": np.repeat(cells, len(cells)),
        "value": found.heights.ravel(),
    }
    return Data(shape, {"map": heights, "points": columns})


def draw_contour(data: Data) -> Any:
    """The expected results as a map, and the trials."""
    shape = data.shape
    fig = new_figure(
        x=parameters.short(shape["across"][0], parameters.NAME),
        y=parameters.short(shape["up"][0], parameters.NAME),
        height=380,
        x_range=(-0.03, 1.03),
        y_range=(-0.03, 1.03),
    )
    mapper = _colours(shape)
    mapper.nan_color = "rgba(0, 0, 0, 0)"
    colour = {"field": "value", "transform": mapper}
    size = 1 / shape["cells"]
    fig.rect("x", "y", size, size, source=sources(data)["map"], color=colour, line_width=1)
    points = fig.scatter(
        "x",
        "y",
        source=sources(data)["points"],
        size=6,
        fill_color=colour,
        line_color="white",
        line_width=0.6,
    )
    _hover(fig, points, shape)
    ticks(fig.xaxis[0], shape["across"][1])
    _lean(fig, shape["across"][1])
    ticks(fig.yaxis[0], shape["up"][1])
    fig.grid.visible = False
    colour_bar(fig, shape, mapper)
    return fig


PANELS = (
    Panel("parallel", "Parallel coordinates", "", prepare_parallel, draw_parallel),
    Panel(
        "importance",
        "Importance",
        "By permutation.",
        prepare_importance,
        draw_importance,
        is_slow=True,
    ),
    Panel("contour", "Two parameters", "The mean result nearby.", prepare_contour, draw_contour),
    Panel("slices", "Slices", "", prepare_slices, draw_slices),
)
