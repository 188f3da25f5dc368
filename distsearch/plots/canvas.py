"""Where pictures are drawn: a figure of matplotlib's for a file, or for whoever looks on."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any, Union

from ..core.results import Results
from ..errors import OptionError

Path_ = Union[str, os.PathLike[str]]


def as_results(given: Results | Path_) -> Results:
    """What was given, or what its folder holds; raises OptionError for what is neither."""
    if isinstance(given, Results):
        return given
    if isinstance(given, (str, os.PathLike)):
        from ..core import record

        return record.open(given)
    raise OptionError(f"{given!r} is no search; give what distsearch.open(folder) returns")


def all_results(given: Results | Path_ | Iterable[Results | Path_]) -> list[Results]:
    """The results of one search or several; raises OptionError for none."""
    if isinstance(given, (Results, str, os.PathLike)):
        return [as_results(given)]
    found = [as_results(one) for one in given]
    if not found:
        raise OptionError("no search was given; give what distsearch.open(folder) returns")
    return found


@contextmanager
def figure_for(
    path: Path_ | None, size: tuple[float, float] = (8.0, 4.8), axes: Any = None
) -> Iterator[Any]:
    """A figure to draw into: that of `axes`, or a new one, which is saved to `path` afterwards.

    To save one needs no display. One that is not saved belongs to pyplot, so that a notebook shows
    it below its cell, and `matplotlib.pyplot.show()` shows it elsewhere.
    """
    if axes is not None:
        figure = axes.figure
    elif path is not None:
        from matplotlib.figure import Figure

        figure = Figure(figsize=size, layout="constrained")
    else:
        from matplotlib import pyplot

        figure = pyplot.figure(figsize=size, layout="constrained")
    yield figure
    if path is not None:
        place = Path(path).expanduser()
        place.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(place, dpi=150)


def plain(axes: Any, **texts: str) -> None:
    """The look that all pictures share: no frame, a light grid, texts as they are."""
    from ..core.curves import as_text

    axes.set(**{name: as_text(text) for name, text in texts.items()})
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
