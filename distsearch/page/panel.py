"""What a panel is: plain data that are prepared, and a figure of Bokeh's drawn from them."""

from __future__ import annotations

import base64
import math
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, NamedTuple

import numpy as np
from bokeh.models import ColumnDataSource, FixedTicker, HoverTool, PlainText
from bokeh.plotting import figure

from ..plots.colours import GREY
from .view import View

Columns = Mapping[str, Mapping[str, Any]]
HEIGHT = 300
BEST_LAST = "best last"
TOOLS = "pan,box_zoom,wheel_zoom,reset,save"


@dataclass(frozen=True)
class Data:
    """What a figure shows: `shape` is JSON and fixed when it is drawn, `columns` may be replaced.

    `columns`: by the name of each source, arrays and lists by the name of the column. `note`: what
    the figure leaves out, in words; `empty`: why there is nothing to see, in words.
    """

    shape: Mapping[str, Any] = field(default_factory=dict)
    columns: Columns = field(default_factory=dict)
    note: str = ""
    empty: str = ""


class Panel(NamedTuple):
    """One kind of figure: `prepare(views, options)` gives its data, `draw(data)` the figure.

    `views`: the search that is looked at, for panels that compare searches all of them. `options`:
    what the user has chosen, text by name. `title` stands above it, `about` below that.
    """

    name: str
    title: str
    about: str
    prepare: Callable[[Sequence[View], Mapping[str, str]], Data]
    draw: Callable[[Data], Any]
    is_slow: bool = False  # whether to prepare the panel may take seconds


def new_figure(*, x: str, y: str, height: int = HEIGHT, **more: Any) -> Any:
    """An empty figure as wide as there is room, whose axes bear these names as they are."""
    fig = figure(
        height=height,
        sizing_mode="stretch_width",
        tools=TOOLS,
        active_drag="box_zoom",
        active_scroll=None,
        toolbar_location="above",
        background_fill_color=None,
        border_fill_color=None,
        outline_line_color=None,
        min_border=6,
        **more,
    )
    fig.toolbar.autohide = True
    fig.toolbar.logo = None
    fig.xaxis.axis_label, fig.yaxis.axis_label = text(x), text(y)
    fig.grid.grid_line_color, fig.grid.grid_line_alpha = GREY, 0.25
    for axis in (fig.xaxis[0], fig.yaxis[0]):
        axis.axis_label_text_font_style = "normal"
        axis.minor_tick_line_color = None
    return fig


def text(words: str) -> Any:
    """Words that are shown as they are: dollars begin no formula."""
    return PlainText(text=words)


def sources(data: Data) -> dict[str, ColumnDataSource]:
    """A source of Bokeh's for each of the data; the page finds it again by its name."""
    return {
        name: ColumnDataSource(dict(columns), name=name) for name, columns in data.columns.items()
    }


def ticks(axis: Any, at: Iterable[Sequence[Any]]) -> None:
    """Write these texts at these places of an axis, each a pair, and nothing else."""
    pairs = [(float(place), words) for place, words in at]
    axis.ticker = FixedTicker(ticks=[place for place, _ in pairs])
    axis.major_label_overrides = {place: text(words) for place, words in pairs}


def hover(
    fig: Any, renderers: Sequence[Any], lines: Sequence[tuple[str, str]], **more: Any
) -> None:
    """Say what lies below the pointer: pairs of a name and a column, as in ('trial', '@trial').

    The table of these values below the figure begins with its foremost lines and points, which are
    those of the last renderer; with `tags=[BEST_LAST]` also the rows of each begin with the last.
    """
    fig.add_tools(HoverTool(renderers=list(renderers), tooltips=list(lines), **more))


def legend(fig: Any, place: str = "top_left") -> None:
    """A legend whose entries hide what they name when they are clicked."""
    if not fig.legend:
        return
    fig.legend.location = place
    fig.legend.click_policy = "hide"
    fig.legend.background_fill_alpha = 0.7
    fig.legend.border_line_color = None
    fig.legend.label_text_font_size = "11px"
    fig.legend.padding, fig.legend.spacing = 4, 0


def encoded(columns: Columns) -> dict[str, dict[str, Any]]:
    """Columns as JSON for the page: numbers as base64 of 32-bit floats, since JSON has no NaN."""
    return {
        name: {key: _encoded(values) for key, values in some.items()}
        for name, some in columns.items()
    }


def _encoded(values: Any) -> Any:
    if isinstance(values, np.ndarray) and values.dtype.kind in "fiu":
        as_bytes = np.ascontiguousarray(values, dtype="<f4").tobytes()
        return {"f4": base64.b64encode(as_bytes).decode("ascii")}
    return [None if isinstance(one, float) and math.isnan(one) else one for one in values]


def joined(lines: Iterable[tuple[Any, Any]]) -> tuple[Any, Any]:
    """Several lines as one, with a gap (NaN) after each."""
    xs: list[Any] = []
    ys: list[Any] = []
    for x, y in lines:
        xs += [x, [math.nan]]
        ys += [y, [math.nan]]
    return (np.concatenate(xs), np.concatenate(ys)) if xs else (np.empty(0), np.empty(0))
