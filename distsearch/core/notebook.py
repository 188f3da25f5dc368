"""A search in a notebook: its progress and its curves, in one place that is replaced as it goes."""

from __future__ import annotations

import base64
import io
import time
from collections.abc import Callable
from html import escape
from typing import Any

from .progress import Snapshot, rows_of

CURVES_EVERY_S = 2.0  # so long, at least, before the curves are drawn anew
RESTS = 10.0  # and so many times as long as drawing them takes


class Corner:
    """A place below a cell, which shows how the search stands and is replaced in place.

        corner = Corner(curves=lambda: png)
        corner.show(snapshot)
        corner.show(snapshot, is_last=True)

    `curves()` gives the picture as the bytes of a PNG, or None while there is none. The place is
    below the cell that runs when it is made.
    """

    def __init__(self, curves: Callable[[], bytes | None]) -> None:
        from IPython.display import HTML, display

        self._html = HTML
        self._curves = curves
        self._picture = ""
        self._due = 0.0
        self._handle: Any = display(HTML(""), display_id=True)

    def show(self, now: Snapshot, *, is_last: bool = False) -> None:
        """Replace what is shown; the curves only when they are due, and at the end."""
        if is_last or time.monotonic() >= self._due:
            self._draw()
        words = rows_of(now, is_last=is_last)
        rows = "".join(
            f"<tr><th style='text-align:left;vertical-align:top'>{escape(name)}</th>"
            f"<td style='text-align:left'><pre style='margin:0'>{escape(text)}</pre></td></tr>"
            for name, text in words
        )
        part = "" if now.total in (None, 0) else _bar(now.ended / (now.total or 1))
        self._handle.update(self._html(f"{part}<table>{rows}</table>{self._picture}"))

    def _draw(self) -> None:
        began = time.monotonic()
        png = self._curves()
        if png is not None:
            self._picture = as_html(png)
        took = time.monotonic() - began
        self._due = time.monotonic() + max(CURVES_EVERY_S, RESTS * took)


def _bar(part: float) -> str:
    done = f"{100 * min(1.0, part):.1f}%"
    inner = f"width:{done};height:100%;background:#0072B2"
    return (
        "<div role='progressbar' style='max-width:760px;height:8px;background:#8884;"
        f"border-radius:4px;overflow:hidden'><div style='{inner}'></div></div>"
    )


def png_of(paint: Callable[[Any], None], size: tuple[float, float]) -> bytes:
    """What `paint` draws into a figure of matplotlib's, as a PNG."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=size, layout="constrained")
    paint(figure)
    file = io.BytesIO()
    figure.savefig(file, format="png", dpi=100)
    return file.getvalue()


def as_html(png: bytes) -> str:
    """A picture within a page."""
    data = base64.b64encode(png).decode("ascii")
    style = "max-width:100%;width:760px"
    return f"<img alt='training curves' style='{style}' src='data:image/png;base64,{data}'>"
