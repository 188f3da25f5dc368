"""What is searched and how it stands, in a few words: for a notebook, the report and the page."""

from __future__ import annotations

import time
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from .ledger import Ledger
from .phrases import counted
from .progress import format_config, format_value


def pairs(ledger: Ledger, searched: Mapping[str, Any], folder: Path | str) -> list[tuple[str, str]]:
    """A search as pairs of a word and a text.

    >>> dict(pairs(record.ledger, record.searched, record.folder))["best accuracy"]
    '0.9731, trial 12'
    """
    counts = ledger.counts
    each = ", ".join(f"{n} {status.value}" for status, n in counts.by_status.items() if n)
    found = [
        ("function", str(searched["function"])),
        ("folder", str(folder)),
        ("searcher", str(searched["searcher"])),
        ("scheduler", str(searched["scheduler"])),
        ("trials", f"{counts.launched} ({each})" if each else "none yet"),
    ]
    names = " and ".join(ledger.objectives.names)
    if ledger.objectives.several:
        found.append(("Pareto front", f"{counted(len(ledger.front))} by {names}"))
    elif ledger.best is not None and ledger.best.best_reward is not None:
        best = format_value(float(ledger.best.best_reward))
        found.append((f"best {names}", f"{best}, trial {ledger.best.id}"))
        found.append(("best configuration", format_config(ledger.best.config)))
    kinds = [f"{counted(count)} {reason}" for count, reason in ledger.failures]
    return [*found, ("failures", "; ".join(kinds))] if kinds else found


def times(began: float, last: float) -> list[tuple[str, str]]:
    """When a search began (`began` in Unix seconds), and how long it took, as pairs like these."""
    took = last - began
    return [
        ("began", time.strftime("%Y-%m-%d %H:%M:%S", time.localtime(began))),
        ("took so far", f"{took / 3600:.1f} h" if took > 5400 else f"{took:.0f} s"),
    ]


def as_html(told: Sequence[tuple[str, str]]) -> str:
    """Pairs of words and texts as an HTML table; nothing in them is taken for HTML."""
    rows = "".join(
        f"<tr><th style='text-align:left'>{escape(word)}</th>"
        f"<td style='text-align:left'>{escape(text)}</td></tr>"
        for word, text in told
    )
    return f"<table>{rows}</table>"
