"""Pictures of searches, for scripts and papers; each one call on what `distsearch.open` gives.

    import distsearch as ag

    record = ag.open("runs/digits")              # or a scheduler, or several of them
    ag.plots.best_so_far([ag.open(f"runs/{n}") for n in range(5)], path="best.pdf")
    ag.plots.importance(record)                  # in a notebook it appears below the cell

All draw with matplotlib, return its axes, and take `path=` (the ending says which kind of file) and
`axes=` (to draw into a figure of your own). Colours are Okabe and Ito's, which the colour-blind can
tell apart.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from .draw import best_so_far, curves, lineage, pareto, rungs, slots
    from .draw_parameters import contour, importance, parallel, slices

_HOMES = {
    **dict.fromkeys(("best_so_far", "curves", "lineage", "pareto", "rungs", "slots"), ".draw"),
    **dict.fromkeys(("contour", "importance", "parallel", "slices"), ".draw_parameters"),
}

__all__ = [
    "best_so_far",
    "contour",
    "curves",
    "importance",
    "lineage",
    "parallel",
    "pareto",
    "rungs",
    "slices",
    "slots",
]


def __getattr__(name: str) -> Any:
    if name in _HOMES:
        return getattr(importlib.import_module(_HOMES[name], __name__), name)
    raise AttributeError(f"module 'distsearch.plots' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
