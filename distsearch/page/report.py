"""The report of a search: one HTML file with all that belongs to it, which asks no network."""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from ..core import failures
from ..core import summary as core_summary
from ..core.progress import format_value
from ..errors import MissingPackage, NothingReported, StoreError
from ..resource.private import replace
from . import table
from .searches import open_view
from .view import View

REPORT, COMPARISON = "report.html", "comparison.html"
ROWS = 1000  # the table of a report has at most so many trials
KINDS = 20  # the report shows at most so many kinds of failures
POLICY = (  # so that the report asks no network, whatever is in it
    "default-src 'none'; script-src 'unsafe-inline'; style-src 'unsafe-inline'; "
    "img-src data: blob:; base-uri 'none'; form-action 'none'"
)
STATIC = Path(__file__).parent / "static"
SCRIPTS = ("look", "elements", "values", "report")  # of STATIC, in the order in which they run
NEEDS_BOKEH = "the page and the report need bokeh, which is not installed: pip install bokeh"


def write(
    folders: Sequence[str | os.PathLike[str]], path: str | os.PathLike[str] | None = None
) -> Path:
    """Write the report of a search, or of several side by side, into one file; returns its path.

        write(["runs/digits"])                       # runs/digits/report.html
        write(["runs/asha", "runs/random"], "both.html")

    Bokeh, styles and data are in it, and texts of the search are shown as text. By default it lies
    in the folder of the first search, readable by you alone. Raises StoreError for a folder that
    holds no search and for a file that cannot be written, MissingPackage without Bokeh.
    """
    views = [open_view(folder) for folder in folders]
    target = (
        views[0].folder / (REPORT if len(views) == 1 else COMPARISON)
        if path is None
        else Path(path).expanduser()
    )
    text = page_of(views)
    try:
        if path is None:
            return replace(target, text.encode())
        target.parent.mkdir(parents=True, exist_ok=True)
        target.write_text(text, encoding="utf-8")
    except OSError as error:
        reason = error.strerror or error
        raise StoreError(f"the report {target} cannot be written: {reason}") from error
    return target


def page_of(views: Sequence[View]) -> str:
    """The whole file as text."""
    try:
        from bokeh.resources import Resources
    except ImportError as error:
        raise MissingPackage(NEEDS_BOKEH) from error
    items: dict[str, Any] = {}
    parts = [_head_of(views)]
    if len(views) > 1:
        parts.append(f"<h2>Side by side</h2>{_panel('best', views, items)}{compared(views)}")
    parts += [_search(view, items, with_name=len(views) > 1) for view in views]
    scripts = [
        *Resources(mode="inline", components=["bokeh"]).js_raw,
        *((STATIC / f"{name}.js").read_text(encoding="utf-8") for name in SCRIPTS),
    ]
    styles = (STATIC / "page.css").read_text(encoding="utf-8")
    title = escape(", ".join(view.name for view in views))
    return (
        '<!doctype html>\n<html lang="en"><head><meta charset="utf-8">'
        '<meta name="viewport" content="width=device-width, initial-scale=1">'
        f'<meta http-equiv="Content-Security-Policy" content="{POLICY}">'
        '<meta name="color-scheme" content="light dark">'
        f"<title>{title}</title><style>{styles}</style></head><body class='report'><main>"
        f"{''.join(parts)}</main>"
        f'<script type="application/json" id="figures">{_json(items)}</script>'
        + "".join(f"<script>{script}</script>" for script in scripts)
        + "</body></html>\n"
    )


def _json(value: Any) -> str:
    """JSON that may stand between the tags of a script."""
    return json.dumps(value).replace("<", "\\u003c")


def _head_of(views: Sequence[View]) -> str:
    made = time.strftime("%Y-%m-%d %H:%M")
    names = escape(" · ".join(view.name for view in views))
    return f"<header><h1>{names}</h1><p class='quiet'>report of {made}</p></header>"


def _search(view: View, items: dict[str, Any], with_name: bool) -> str:
    from .panels import OBJECTIVE, SECTIONS

    parts = [f"<h2>{escape(view.name)}</h2>" if with_name else "", _summary(view)]
    objectives = view.story.ledger.objectives
    for name in objectives.names:  # figures of parameters show these
        with contextlib.suppress(NothingReported, MissingPackage):
            view.importance(name if objectives.several else None)
    for section in SECTIONS:
        figures = []
        for name in section.panels:
            of = objectives.names if objectives.several and name in OBJECTIVE else [""]
            figures += [_panel(name, [view], items, objective) for objective in of]
        if shown := "".join(figures):
            parts.append(f"<h2>{escape(section.title)}</h2><div class='panels'>{shown}</div>")
    parts.append(f"<h2>Trials</h2>{_table(view)}{_failures(view)}")
    return f"<section>{''.join(parts)}</section>"


def _panel(name: str, views: Sequence[View], items: dict[str, Any], objective: str = "") -> str:
    """The place of a figure, and its heading; "" where there is nothing to see."""
    from .panels import PANELS, WIDE, item

    panel = PANELS[name]
    data = panel.prepare(views, {"objective": objective} if objective else {})
    if data.empty:
        return ""
    key = f"figure-{len(items)}"
    items[key] = item(data, panel)
    title = f"{panel.title}: {objective}" if objective else panel.title
    note = f"<p class='quiet'>{escape(data.note or panel.about)}</p>"
    look = " class='wide'" if name in WIDE else ""
    place = f"<div class='figure' id='{key}'></div>"
    return f"<article{look}><h3>{escape(title)}</h3>{note}{place}</article>"


def summary(view: View) -> list[tuple[str, str]]:
    """What is searched and how it stands, as pairs of a word and a text."""
    story = view.story
    told = core_summary.pairs(story.ledger, story.searched, view.shown)
    return [*told, *core_summary.times(story.began, story.last)]


def _summary(view: View) -> str:
    rows = "".join(f"<dt>{escape(a)}</dt><dd>{escape(b)}</dd>" for a, b in summary(view))
    return f"<dl class='summary'>{rows}</dl>"


def compared(views: Sequence[View]) -> str:
    """A table with a row for each search."""
    head = "".join(f"<th>{name}</th>" for name in COMPARED)
    rows = [
        "<tr>" + "".join(f"<td>{escape(text)}</td>" for text in row.values()) + "</tr>"
        for row in map(compared_row, views)
    ]
    return f"<div class='scrolls'><table><tr>{head}</tr>{''.join(rows)}</table></div>"


COMPARED = ("search", "trials", "failed", "best", "of trial", "searcher", "scheduler", "took")


def compared_row(view: View) -> Mapping[str, str]:
    """One search beside others, by the names of COMPARED."""
    ledger, searched = view.story.ledger, view.story.searched
    best = None if ledger.objectives.several else ledger.best
    value = "" if best is None or best.best_reward is None else format_value(best.best_reward)
    texts = (
        view.name,
        str(ledger.counts.launched),
        str(ledger.counts.failed),
        value,
        "" if best is None else str(best.id),
        str(searched["searcher"]),
        str(searched["scheduler"]),
        f"{view.story.last - view.story.began:.0f} s",
    )
    return dict(zip(COMPARED, texts, strict=True))


def _table(view: View) -> str:
    ledger = view.story.ledger
    descending = ledger.objectives.modes[0] == "max"
    rows = table.rows(view)
    found: list[list[Any]] = []
    name = ledger.objectives.names[0]
    while len(found) < min(ROWS, len(rows)):
        more = table.page(
            view, sort=name, descending=descending, start=len(found), count=table.AT_ONCE
        )
        found += more.rows
    names = table.columns(view)
    head = "".join(f"<th><button>{escape(name)}</button></th>" for name in names)
    body = "".join(
        "<tr>" + "".join(f"<td>{escape(_cell(value))}</td>" for value in row) + "</tr>"
        for row in found[:ROWS]
    )
    left = len(rows) - len(found)
    note = f"<p class='quiet'>the best {ROWS} of {len(rows)} trials</p>" if left > 0 else ""
    search = "<input class='filter' type='search' aria-label='Filter' placeholder='Filter'>"
    return (
        f"{note}{search}<div class='scrolls tall'><table class='sorts'>"
        f"<thead><tr>{head}</tr></thead><tbody>{body}</tbody></table></div>"
    )


def _cell(value: Any) -> str:
    return "" if value is None else format_value(value)


def _failures(view: View) -> str:
    """Each kind of failure once: how many trials failed so, and the traceback of the first."""
    kinds = failures.kinds(view.story.ledger.trials.values())
    parts = [
        f"<details><summary>{escape(core_summary.how_failed(alike))}</summary>"
        f"<p class='quiet'>trial {alike[0].id} was the first</p>"
        + (f"<pre>{escape(alike[0].error)}</pre>" if alike[0].error else "")
        + "</details>"
        for alike in kinds[:KINDS]
    ]
    more = len(kinds) - KINDS
    left = f"<p class='quiet'>and {more} kinds of failures more, of fewer trials</p>"
    return "".join([*parts, left] if more > 0 else parts)
