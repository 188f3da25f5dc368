"""Pictures of a search over time, with matplotlib; see `distsearch.plots`."""

from __future__ import annotations

from collections.abc import Iterable
from typing import Any

from ..core import curves as learning_curves
from ..core import pareto as front
from ..core import pedigree
from ..core.curves import as_text
from ..core.phrases import counted
from ..core.results import Results
from ..errors import NothingReported, OptionError
from . import over_time
from .canvas import Path_, all_results, as_results, figure_for, plain
from .colours import BLUE, CYCLE, STATUS

NO_PARENTS = "no trial of this search goes on from the weights of another"


def best_so_far(
    searches: Results | Path_ | Iterable[Results | Path_],
    *,
    by: over_time.By = "trials",
    groups: Iterable[str] | None = None,
    path: Path_ | None = None,
    axes: Any = None,
) -> Any:
    """The best reward so far; of several searches the median, between its quartiles.

        ag.plots.best_so_far(record)
        ag.plots.best_so_far([*asha, *random], groups=["ASHA"] * 5 + ["random"] * 5, by="seconds")

    `by`: after so many ended 'trials', or 'seconds' since the search began. `groups`: a name for
    each search; those of one name share a line. Returns matplotlib's axes. Raises OptionError for
    another number of names than of searches, and for several objectives (see `pareto`);
    NothingReported when no trial has reported the reward.
    """
    found = all_results(searches)
    names = [str(one.searched["function"]) for one in found] if groups is None else list(groups)
    if len(names) != len(found):
        raise OptionError(f"groups has {len(names)} names for {len(found)} searches")
    for one in found:
        if one.ledger.objectives.several:
            raise OptionError(
                f"{one.folder} has several objectives, of which none is the best: see plots.pareto"
            )
    lines = [over_time.best_so_far(one.story, by) for one in found]
    objectives = found[0].ledger.objectives
    if not any(len(line.x) for line in lines):
        raise NothingReported(over_time.nothing_finite(found[0].story))
    with figure_for(path, axes=axes) as figure:
        axes = figure.add_subplot() if axes is None else axes
        for number, name in enumerate(dict.fromkeys(names)):
            mine = [line for line, of in zip(lines, names, strict=True) if of == name]
            colour = CYCLE[number % len(CYCLE)]
            middle = over_time.quartiles(mine)
            label = name if len(mine) == 1 else f"{name} ({len(mine)} searches: median, quartiles)"
            axes.step(
                middle.x, middle.median, where="post", color=colour, lw=2, label=as_text(label)
            )
            if len(mine) > 1:
                band = {"step": "post", "color": colour, "alpha": 0.2, "lw": 0}
                axes.fill_between(middle.x, middle.lower, middle.upper, **band)
        what = "trials that have ended" if by == "trials" else "seconds"
        plain(
            axes, xlabel=what, ylabel=f"best {objectives.names[0]} so far ({objectives.modes[0]})"
        )
        axes.legend(frameon=False)
    return axes


def curves(
    search: Results | Path_,
    *,
    objective: str | None = None,
    path: Path_ | None = None,
    axes: Any = None,
) -> Any:
    """The training curves of all trials, the best one highlighted; returns matplotlib's axes.

    ag.plots.curves(record, path="curves.png")

    `objective`: which of several, by default the first. Raises OptionError for another name.
    """
    results = as_results(search)
    over_time.objective_of(results.story, objective)
    with figure_for(path, learning_curves.SIZE, axes) as figure:
        axes = figure.add_subplot() if axes is None else axes
        results.paint_curves(axes, objective)
    return axes


def rungs(search: Results | Path_, *, path: Path_ | None = None, axes: Any = None) -> Any:
    """The rung funnel: how many trials came to each rung, and what became of the others.

    ag.plots.rungs(record, path="rungs.pdf")

    Returns matplotlib's axes. Raises NothingReported when no trial has come to a rung.
    """
    results = as_results(search)
    found = over_time.rungs(results.story)
    if not any(rung.reached for rung in found):
        raise NothingReported("no trial has come to a rung yet")
    with figure_for(path, axes=axes) as figure:
        axes = figure.add_subplot() if axes is None else axes
        left = [0] * len(found)
        for name, of in over_time.FATES.items():
            counts = [of(rung) for rung in found]
            if any(counts):
                places = range(len(found))
                axes.barh(places, counts, left=left, color=STATUS[name], label=name, height=0.8)
                left = [a + b for a, b in zip(left, counts, strict=True)]
        for number, rung in enumerate(found):
            axes.text(rung.reached, number, f" {rung.reached}", va="center")
        axes.set_yticks(range(len(found)), [f"{rung.level:g}" for rung in found])
        axes.invert_yaxis()
        time = results.ledger.time_attr
        plain(axes, xlabel="trials that came so far", ylabel=f"rung ({time})")
        axes.xaxis.get_major_locator().set_params(integer=True)
        axes.grid(visible=False, axis="y")
        beside = {
            "loc": "lower center",
            "bbox_to_anchor": (0.5, 1.0),
            "ncols": len(over_time.FATES),
        }
        axes.legend(frameon=False, **beside)  # a legend within the axes would hide a bar
    return axes


def slots(search: Results | Path_, *, path: Path_ | None = None, axes: Any = None) -> Any:
    """How many processes of trials ran on each node over time; returns matplotlib's axes.

    ag.plots.slots(record, path="slots.pdf")

    Raises NothingReported when no trial has started.
    """
    found = over_time.slots(as_results(search).story)
    if not any(steps.y.any() for steps in found.values()):
        raise NothingReported("no trial has started yet")
    top = max(float(steps.y.max()) for steps in found.values())
    with figure_for(path, (8.0, 1.4 + 0.6 * len(found)), axes) as figure:
        axes = figure.add_subplot() if axes is None else axes
        for number, steps in enumerate(found.values()):
            line = over_time.thinned(steps)
            height = number + 0.8 * line.y / top
            axes.fill_between(line.x, number, height, step="post", color=BLUE, lw=0)
            axes.axhline(number, color="0.6", lw=0.6)
        axes.set_yticks([n + 0.4 for n in range(len(found))], [as_text(node) for node in found])
        axes.set_ylim(len(found), 0)
        axes.invert_yaxis()
        whole = counted(int(top), "slot")
        what = f"seconds since the search began (a whole row: {whole} in use)"
        plain(axes, xlabel=what)
        axes.grid(visible=False, axis="y")
    return axes


def lineage(search: Results | Path_, *, path: Path_ | None = None, axes: Any = None) -> Any:
    """Who descends from whom, by generation; returns matplotlib's axes.

    ag.plots.lineage(record, path="lineage.pdf")

    Raises NothingReported when no trial goes on from the weights of another.
    """
    results = as_results(search)
    ledger = results.ledger
    of = results.lineage()
    if not any(one.parents for one in of.values()):
        raise NothingReported(NO_PARENTS if of else "no trial has been launched yet")
    best = None if ledger.objectives.several else ledger.best
    with figure_for(path, pedigree.size_for(of), axes) as figure:
        axes = figure.add_subplot() if axes is None else axes
        pedigree.paint(
            axes,
            of,
            best=None if best is None else best.id,
            reward_attr=ledger.objectives.names[0],
            mode=ledger.objectives.modes[0],
            title=f"{results.searched['function']}: the lineage of {counted(len(of))}",
        )
    return axes


def pareto(search: Results | Path_, *, path: Path_ | None = None) -> Any:
    """All trials by their objectives, and the front; returns an array of matplotlib's axes.

    ag.plots.pareto(record, path="front.pdf")

    Raises OptionError when there is one objective only, NothingReported when no trial has
    reported all of them.
    """
    results = as_results(search)
    ledger = results.ledger
    if not ledger.objectives.several:
        raise OptionError(
            f"there is one objective, {ledger.objectives.names[0]!r}: see plots.best_so_far"
        )
    trials = over_time.own_trials(results.story)
    points = {trial.id: trial.point for trial in trials if trial.point is not None}
    if not points:
        raise NothingReported(f"no trial has reported {' and '.join(ledger.objectives.names)} yet")
    with figure_for(path, front.size_for(len(ledger.objectives.names))) as figure:
        return front.paint(
            figure,
            points,
            front=[trial.id for trial in ledger.front],
            failed={trial.id for trial in trials if trial.status.is_failure},
            objectives=ledger.objectives,
            title=f"{results.searched['function']}: {counted(len(points))}",
        )
