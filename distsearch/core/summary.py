"""What is searched and how it stands, in a few words: for a notebook, the report and the page."""

from __future__ import annotations

import time
from collections import Counter
from collections.abc import Mapping, Sequence
from html import escape
from pathlib import Path
from typing import Any

from . import failures
from .ledger import Ledger
from .phrases import counted
from .progress import format_config, format_value
from .words import Status, Trial

PAUSING = "pausing"  # a status for people alone: asked to pause, and not yet at a checkpoint


def pairs(ledger: Ledger, searched: Mapping[str, Any], folder: Path | str) -> list[tuple[str, str]]:
    """A search as pairs of a word and a text.

    >>> dict(pairs(record.ledger, record.searched, record.folder))["best accuracy"]
    '0.9731, trial 12'
    """
    each, launched = counts_of(ledger), ledger.counts.launched
    found = [
        ("function", str(searched["function"])),
        ("folder", str(folder)),
        ("searcher", str(searched["searcher"])),
        ("scheduler", str(searched["scheduler"])),
        ("trials", f"{launched} ({each})" if each else "none yet"),
    ]
    names = " and ".join(ledger.objectives.names)
    if ledger.objectives.several:
        found.append(("Pareto front", f"{counted(len(ledger.front))} by {names}"))
    elif ledger.best is not None and ledger.best.best_reward is not None:
        best = format_value(float(ledger.best.best_reward))
        found.append((f"best {names}", f"{best}, trial {ledger.best.id}"))
        found.append(("best configuration", format_config(ledger.best.config)))
    failed = [how_failed(alike) for alike in failures.kinds(ledger.trials.values())]
    return [*found, ("failures", "; ".join(failed))] if failed else found


def how_failed(alike: Sequence[Trial]) -> str:
    """How many trials failed in one way, and how the first of them did, in words."""
    first = alike[0]
    return f"{counted(len(alike))} {first.status.value}: {first.reason}"


def status_of(ledger: Ledger, trial: Trial) -> str:
    """The status of a trial for people, who are told of pauses by request, too.

    `pausing`: it was asked to pause, and runs until its next checkpoint, for 30 s at most.
    `paused`: by a rule; or, it or the whole search, by a request.
    """
    is_asked = trial.id in ledger.held or ledger.paused_by
    if is_asked and trial.status is Status.WAITING:
        return str(Status.PAUSED.value)
    if is_asked and trial.status is Status.RUNNING and trial.saves_first is not None:
        return PAUSING  # (else it ends at once)
    return str(trial.status.value)


def counts_of(ledger: Ledger) -> str:
    """How many trials have which of these statuses: `2 running, 30 finished`; '' for none."""
    found = Counter({status.value: ledger.counts.by_status[status] for status in Status})
    for trial in (ledger.open if ledger.paused_by else ledger.held).values():
        if not trial.is_final:
            found[trial.status.value] -= 1
            found[status_of(ledger, trial)] += 1
    return ", ".join(f"{n} {word}" for word, n in found.items() if n)


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
