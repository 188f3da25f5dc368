"""All panels, in the order and under the headings in which page and report show them."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

import numpy as np

from . import graphs, of_parameters, over_time
from .panel import Data, Panel, encoded
from .view import View

PANELS: Mapping[str, Panel] = {
    panel.name: panel for panel in (*over_time.PANELS, *of_parameters.PANELS, *graphs.PANELS)
}


class Section(NamedTuple):
    """Panels under one heading."""

    title: str
    panels: tuple[str, ...]


SECTIONS = (
    Section("Overview", ("best", "slots", "curves")),
    Section("Parameters", ("parallel", "importance", "contour", "slices")),
    Section("Structure", ("rungs", "front", "lineage", "tree", "grid")),
)

OBJECTIVE = ("curves", "parallel", "importance", "contour", "slices")  # each shows one objective
# Each of these has a row of its own.
WIDE = ("curves", "parallel", "slices", "lineage", "tree", "grid", "front")


def item(data: Data, panel: Panel) -> Any:
    """A figure as JSON that BokehJS embeds."""
    from bokeh.embed import json_item

    return json_item(panel.draw(data))


def shape_of(data: Data) -> str:
    """A short text that changes whenever the figure has to be drawn anew."""
    lengths = {name: sorted(some) for name, some in data.columns.items()}
    text = json.dumps([data.shape, lengths, data.empty], sort_keys=True, default=str)
    return hashlib.sha256(text.encode()).hexdigest()[:16]


def digests_of(data: Data) -> dict[str, str]:
    """By the name of each source a short text that changes whenever a number of it does."""
    found = {}
    for name, some in data.columns.items():
        whole = hashlib.sha256(name.encode())
        for values in some.values():
            is_array = isinstance(values, np.ndarray)
            whole.update(values.tobytes() if is_array else repr(values).encode())
        found[name] = whole.hexdigest()[:16]
    return found


def answer(
    name: str, views: Sequence[View], options: Mapping[str, str], known: str = "", drawn: str = ""
) -> dict[str, Any]:
    """What the page gets of a panel: nothing new, columns alone, or the whole figure.

    `known` and `drawn`: the `shape` and the `drawn` of an earlier answer, whose figure the page
    shows. To a figure of the same shape only the columns of sources that have changed are sent.
    """
    panel = PANELS[name]
    data = prepared(panel, views, options)
    shape, digests = shape_of(data), digests_of(data)
    now = " ".join([*digests.values(), hashlib.sha256(data.note.encode()).hexdigest()[:16]])
    if (shape, now) == (known, drawn):
        return {"same": True}
    told: dict[str, Any] = {"shape": shape, "drawn": now, "note": data.note, "empty": data.empty}
    told["choices"] = list(data.shape.get("choices", ()))
    if not data.empty:
        if shape == known:
            new = {key: some for key, some in data.columns.items() if digests[key] not in drawn}
            told["columns"] = encoded(new)
        else:
            told["item"] = item(data, panel)
    return told


def prepared(panel: Panel, views: Sequence[View], options: Mapping[str, str]) -> Data:
    """The data of a panel, made once for all who look on, while nothing happens."""
    if len(views) > 1 or panel.is_slow:  # (slow panels take the lock themselves, but not for long)
        return panel.prepare(views, options)
    key = (panel.name, *sorted(options.items()))
    return views[0].once(key, lambda: panel.prepare(views, options))
