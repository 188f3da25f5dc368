"""Panels of a search over time: the best so far, curves, slots, rungs, the Pareto front."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from itertools import combinations
from typing import Any

import numpy as np
from bokeh.layouts import row
from bokeh.models import Span

from ..core.phrases import counted
from ..core.words import Status
from ..plots import over_time
from ..plots.colours import BEST, BLUE, CYCLE, GREY, RED, SKY, STATUS
from .panel import Data, Panel, hover, joined, legend, new_figure, sources, ticks
from .view import View

Options = Mapping[str, str]
FEW = 8  # up to so many searches each have a colour of their own


# The best so far


def prepare_best(views: Sequence[View], options: Options) -> Data:
    """Steps of the best reward of each search; of three and more also their quartiles."""
    by: Any = options.get("by", "trials")
    plain = [view for view in views if not view.story.ledger.objectives.several]
    if not plain:
        return Data(empty="with several objectives no trial is the best: see the Pareto front")
    lines = [over_time.best_so_far(view.story, by) for view in plain]
    if not any(len(line.x) for line in lines):
        return Data(empty=over_time.nothing_finite(plain[0].story))
    columns: dict[str, Any] = {
        f"best{n}": {"x": line.x, "y": line.y} for n, line in enumerate(lines)
    }
    if len(lines) > 2:
        middle = over_time.quartiles(lines)
        # An area of Bokeh's has no steps: each corner is given twice.
        x = np.repeat(middle.x, 2)[1:]
        low, high = (np.repeat(one, 2)[:-1] for one in (middle.lower, middle.upper))
        columns["band"] = {"x": x, "low": low, "high": high}
        columns["median"] = {"x": middle.x, "y": middle.median}
    objectives = plain[0].story.ledger.objectives
    shape = {
        "names": [view.name for view in plain],
        "mode": objectives.modes[0],
        "x": "trials that have ended" if by == "trials" else "seconds since the search began",
        "y": f"best {objectives.names[0]} so far ({objectives.modes[0]})",
    }
    return Data(shape, columns)


def draw_best(data: Data) -> Any:
    """A line of steps for each search."""
    fig = new_figure(x=data.shape["x"], y=data.shape["y"])
    of = sources(data)
    names = data.shape["names"]
    if "band" in of:
        band = {"fill_color": GREY, "fill_alpha": 0.25, "legend_label": "quartiles"}
        fig.varea("x", "low", "high", source=of["band"], **band)
        look = {"line_color": GREY, "line_dash": "dashed", "legend_label": "median"}
        fig.step("x", "y", source=of["median"], mode="after", line_width=1.5, **look)
    for n, name in enumerate(names):
        colour = CYCLE[n % len(CYCLE)] if len(names) > 1 else BEST
        line = fig.step(
            "x",
            "y",
            source=of[f"best{n}"],
            mode="after",
            line_width=2.2,
            line_color=colour,
            line_dash="solid" if n < len(CYCLE) else "dotted",
            **({"legend_label": name} if len(names) > 1 else {}),
        )
        points = fig.scatter("x", "y", source=of[f"best{n}"], size=4, color=colour)
        lines = [("search", _as_hover(name)), ("at", "@x{0,0.[0]}"), ("best", "@y{0.[00000]}")]
        hover(fig, [points], lines)
        line.level = "underlay" if n >= FEW else "glyph"
    legend(fig, "bottom_right" if data.shape["mode"] == "max" else "top_right")
    return fig


def _as_hover(words: str) -> str:
    """Words where Bokeh takes a column: an @ or a $ would begin the name of a column."""
    return words.replace("@", "(at)").replace("$", "＄")


# Training curves


def prepare_curves(views: Sequence[View], options: Options) -> Data:
    """The best trials' curves, those of many others, and the quartiles of all."""
    (view,) = views
    story, ledger = view.story, view.story.ledger
    number = over_time.objective_of(story, options.get("objective"))
    shown = over_time.shown_curves(story, number)
    if not shown.of:
        return Data(empty=over_time.nothing_finite(story, number))
    groups: dict[str, list[int]] = {"went on": [], "stopped": [], "failed": [], "running": []}
    for trial in shown.others:
        groups[_group(ledger.trials[trial].status)].append(trial)
    columns: dict[str, Any] = {}
    for name, trials in groups.items():
        columns[name] = _together(view, trials, number)
    for place, trial in enumerate(shown.leaders):
        columns[f"leader{place}"] = _together(view, [trial], number)
    if not any(np.isfinite(some["y"]).any() for some in columns.values()):
        return Data(empty=over_time.nothing_finite(story, number))
    middle = view.once(("all", number), lambda: over_time.all_curves(story, number), seldom=True)
    columns["band"] = {"x": middle.x, "low": middle.lower, "high": middle.upper}
    columns["median"] = {"x": middle.x, "y": middle.median}
    shape = {
        "leaders": shown.leaders,
        "groups": [name for name, trials in groups.items() if trials],
        "x": ledger.time_attr,
        "y": ledger.objectives.names[number],
        "rungs": over_time.rung_levels(story.searched),
        "alpha": 0.55 if len(shown.others) <= 60 else 0.4 if len(shown.others) <= 120 else 0.3,
        "single": all(len(story.curves[n].times) == 1 for n in (*shown.leaders, *shown.others)),
    }
    return Data(shape, columns, shown.note)


def _group(status: Status) -> str:
    if status is Status.RUNNING:
        return "running"
    if status in (Status.STOPPED, Status.PAUSED):
        return "stopped"
    return "failed" if status.is_failure else "went on"


def _together(view: View, trials: Sequence[int], objective: int) -> dict[str, Any]:
    points = 200 if len(trials) == 1 else 30
    lines = [over_time.curve(view.story, trial, objective, points) for trial in trials]
    x, y = joined(lines)
    lengths = [len(line.x) + 1 for line in lines]
    return {"x": x, "y": y, "trial": np.repeat(np.array(trials, dtype=float), lengths)}


def draw_curves(data: Data) -> Any:
    """Quartiles behind, the crowd by what became of it, the best on top; rungs as thin lines."""
    fig = new_figure(x=data.shape["x"], y=data.shape["y"], height=410)
    of = sources(data)
    for level in data.shape["rungs"]:
        look = {"line_color": GREY, "line_dash": "dotted", "line_alpha": 0.7}
        fig.add_layout(Span(location=level, dimension="height", **look))
    band = {"fill_color": GREY, "fill_alpha": 0.18, "legend_label": "quartiles of all"}
    fig.varea("x", "low", "high", source=of["band"], **band)
    single = data.shape["single"]  # a single report is a point: no line can join it to another

    def draw(source: Any, colour: str, label: str, **look: Any) -> Any:
        look |= {"source": source, "legend_label": label, "line_color": colour}
        if single:
            return fig.scatter("x", "y", size=6, fill_color=colour, **look)
        return fig.line("x", "y", **look)

    drawn = []
    names = {"went on": "to their end", "stopped": "stopped, paused", "failed": "failed"}
    for name in ("stopped", "failed", "went on", "running"):
        if name in data.shape["groups"]:
            look = {"line_alpha": data.shape["alpha"], "line_width": 1}
            if name == "failed":
                look["line_dash"] = "dashed"
            label = names.get(name, name)
            drawn.append(draw(of[name], STATUS[name], label, **look))
    look = {"line_color": GREY, "line_dash": "dashed", "legend_label": "median of all"}
    fig.line("x", "y", source=of["median"], line_width=2, **look)
    for place, trial in reversed([*enumerate(data.shape["leaders"])]):
        colour = BEST if place == 0 else CYCLE[(place - 1) % 4]
        label = f"trial {trial}, the best" if place == 0 else f"trial {trial}"
        width = 3 if place == 0 else 1.6
        drawn.append(draw(of[f"leader{place}"], colour, label, line_width=width))
    x = _as_hover(data.shape["x"])
    lines = [("trial", "@trial{0}"), (x, "@x{0.[00]}"), (data.shape["y"], "@y{0.[00000]}")]
    hover(fig, drawn, lines, point_policy="snap_to_data", line_policy="nearest")
    legend(fig)
    below = fig.legend[0]
    below.orientation, below.ncols, below.spacing = "horizontal", 3, 5
    fig.add_layout(below, "below")  # a legend within the figure would hide curves
    return fig


# Slots


def prepare_slots(views: Sequence[View], options: Options) -> Data:
    """A row for each node, filled as high as its slots are in use."""
    (view,) = views
    found = view.once("slots", lambda: over_time.slots(view.story), seldom=True)
    if not found:
        return Data(empty="no trial has started yet")
    top = max(float(steps.y.max()) for steps in found.values()) or 1.0
    columns = {}
    for number, steps in enumerate(found.values()):
        line = over_time.thinned(steps)
        columns[f"node{number}"] = {
            "x": line.x,
            "used": line.y,
            "low": np.full(len(line.x), float(number)),
            "high": number + 0.85 * line.y / top,
        }
    return Data({"nodes": list(found), "top": top}, columns)


def draw_slots(data: Data) -> Any:
    """The rows, with the names of the nodes beside them."""
    nodes = data.shape["nodes"]
    slots = counted(int(data.shape["top"]), "slot")
    what = f"seconds since the search began (a whole row: {slots} in use)"
    height = 110 + 34 * len(nodes)
    fig = new_figure(x=what, y="", height=height, y_range=(-0.05, len(nodes)))
    for number, source in enumerate(sources(data).values()):
        look = {"fill_color": BLUE, "fill_alpha": 0.75}
        fig.varea_step("x", "low", "high", source=source, step_mode="after", **look)
        points = fig.scatter("x", "high", source=source, size=7, alpha=0)
        node = _as_hover(nodes[number])
        hover(fig, [points], [("node", node), ("at", "@x{0,0} s"), ("in use", "@used{0.[0]}")])
    ticks(fig.yaxis[0], [(n + 0.4, node) for n, node in enumerate(nodes)])
    fig.ygrid.visible = False
    return fig


# Rungs


def prepare_rungs(views: Sequence[View], options: Options) -> Data:
    """The funnel: for each rung a bar, in parts by what became of the trials that came there."""
    (view,) = views
    found = over_time.rungs(view.story)
    if not any(rung.reached for rung in found):
        return Data(empty="no trial has come to a rung yet")
    columns: dict[str, dict[str, list[Any]]] = {}
    for number, rung in enumerate(found):
        left = 0
        for fate, count_of in over_time.FATES.items():
            count = count_of(rung)
            if count:
                row: dict[str, Any] = {"rung": number, "left": left, "right": left + count}
                row |= {"count": count, "level": rung.level, "fate": fate}
                of_fate = columns.setdefault(fate, {name: [] for name in row})
                for name, value in row.items():
                    of_fate[name].append(value)
                left += count
    shape = {"levels": [rung.level for rung in found], "time": view.story.ledger.time_attr}
    return Data(shape, columns)


def draw_rungs(data: Data) -> Any:
    """The bars, the first rung on top."""
    levels = data.shape["levels"]
    fig = new_figure(
        x="trials that came so far",
        y=f"rung ({data.shape['time']})",
        height=120 + 40 * len(levels),
        y_range=(len(levels) - 0.4, -0.6),
    )
    of = sources(data)
    bars = [
        fig.hbar(
            "rung", 0.8, "right", "left", source=of[fate], color=STATUS[fate], legend_label=fate
        )
        for fate in over_time.FATES
        if fate in of
    ]
    hover(fig, bars, [("rung", "@level{0.[0]}"), ("trials", "@count"), ("fate", "@fate")])
    ticks(fig.yaxis[0], [(n, f"{level:g}") for n, level in enumerate(levels)])
    fig.x_range.start, fig.xaxis[0].ticker.min_interval = 0, 1
    fig.ygrid.visible = False
    legend(fig)
    fig.add_layout(fig.legend[0], "right")  # a legend within the figure would hide a bar
    return fig


# The Pareto front


def prepare_front(views: Sequence[View], options: Options) -> Data:
    """Every trial by its objectives, and which of them no other dominates."""
    (view,) = views
    ledger = view.story.ledger
    if not ledger.objectives.several:
        return Data(empty="this search has one objective, so that there is a best trial, no front")
    trials = [trial for trial in over_time.own_trials(view.story) if trial.point is not None]
    if not trials:
        return Data(empty=f"no trial has reported {' and '.join(ledger.objectives.names)} yet")
    front = [trial.id for trial in ledger.front]
    members = set(front)
    groups: dict[str, list[Any]] = {"dominated": [], "infeasible": [], "failed": []}
    for trial in trials:
        assert trial.point is not None
        if trial.id not in members:
            feasible = "dominated" if trial.point.is_feasible else "infeasible"
            groups["failed" if trial.status.is_failure else feasible].append(trial)
    groups["front"] = [ledger.trials[number] for number in front]
    columns = {
        name: {
            "trial": np.array([trial.id for trial in some], dtype=float),
            **{
                f"v{n}": np.array([trial.point.values[n] for trial in some])
                for n in range(len(ledger.objectives.names))
            },
        }
        for name, some in groups.items()
    }
    objectives = ledger.objectives
    return Data({"names": list(objectives.names), "modes": list(objectives.modes)}, columns)


def draw_front(data: Data) -> Any:
    """A panel for each pair of objectives."""
    names, modes = data.shape["names"], data.shape["modes"]
    of = sources(data)
    figures = []
    for across, up in combinations(range(len(names)), 2):
        fig = new_figure(
            x=f"{names[across]} ({modes[across]})",
            y=f"{names[up]} ({modes[up]})",
            height=360,
            min_width=280,
        )
        x, y = f"v{across}", f"v{up}"
        looks: dict[str, dict[str, Any]] = {
            "dominated": {"color": SKY, "size": 5, "alpha": 0.6},
            "infeasible": {"line_color": GREY, "fill_color": None, "size": 6},
            "failed": {"marker": "x", "color": GREY, "size": 6},
            "front": {"color": RED, "size": 8},
        }
        if len(names) == 2:
            fig.step(x, y, source=of["front"], mode="after", color=RED, line_width=1.5)
        drawn = [
            fig.scatter(x, y, source=of[name], legend_label=name, **look)
            for name, look in looks.items()
            if len(data.columns[name]["trial"])
        ]
        lines = [("trial", "@trial{0}"), (names[across], f"@{x}"), (names[up], f"@{y}")]
        hover(fig, drawn, lines)
        legend(fig)
        fig.legend[0].orientation, fig.legend[0].spacing = "horizontal", 12
        fig.add_layout(fig.legend[0], "below")  # within the figure it would hide trials
        figures.append(fig)
    if len(figures) == 1:
        return figures[0]
    return row(figures, sizing_mode="stretch_width", styles={"flex-wrap": "wrap"})


PANELS = (
    Panel("best", "Best so far", "", prepare_best, draw_best),
    Panel("curves", "Training curves", "", prepare_curves, draw_curves),
    Panel("slots", "Slots in use", "", prepare_slots, draw_slots),
    Panel(
        "rungs",
        "Rungs",
        "Who came how far, and what became of the others.",
        prepare_rungs,
        draw_rungs,
    ),
    Panel("front", "Pareto front", "", prepare_front, draw_front),
)
