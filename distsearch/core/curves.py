"""Training curves: a fold over the reports, and the picture of it."""

from __future__ import annotations

import contextlib
import math
import os
from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from numbers import Real
from pathlib import Path
from statistics import quantiles
from typing import Any

from .objectives import Mode
from .store import Event

Curves = Mapping[int, Sequence[tuple[float, float]]]

ALL_NAMED = 8  # of up to so many trials each has its own colour and entry in the legend
LEADERS = 5  # of more trials only the best have, so many
LABEL_WIDTH = 44
SIZE = (10.0, 5.5)  # of the picture, in inches

BEST = "#d95f02"
COLOURS = ("#4f6d1f", "#1b6ca8", "#2a9d8f", "#7b5ea7", "#8c6d31", "#c2619a", "#3b4a6b", "#111111")
CROWD = {"more": "#5b8db8", "stopped early": "#8f8f8f", "failed": "#b23a48"}


def history(events: Iterable[Event], time_attr: str) -> dict[int, list[dict[str, Any]]]:
    """{task id: its reports in order}, by the reports in the log; the ids rise.

    A trial that ran again (its node was lost, the driver was killed) goes on from a checkpoint:
    what its earlier attempt had reported beyond that checkpoint is left out.
    """
    found: dict[int, list[dict[str, Any]]] = {}
    attempts: dict[int, int | None] = {}
    for event in events:
        assert event.trial is not None
        reports = found.setdefault(event.trial, [])
        if attempts.setdefault(event.trial, event.attempt) != event.attempt:
            attempts[event.trial] = event.attempt
            start = _number(event.body.get(time_attr))
            times = [_number(report.get(time_attr)) for report in reports]
            reports[:] = [
                report
                for report, time in zip(reports, times, strict=True)
                if start is not None and time is not None and time < start
            ]
        reports.append(event.body)
    return dict(sorted(found.items()))


def curves(
    reports: Mapping[int, Sequence[Mapping[str, Any]]], *, reward_attr: str, time_attr: str
) -> dict[int, list[tuple[float, float]]]:
    """The reward of every trial over time, in the order of its reports.

    The time is `time_attr` in its own unit (epochs, say), or the running number of the report
    (from 1) where it is missing. Reports whose reward is missing, no number, NaN or infinite
    are left out, and so are the trials in which nothing remains.

    >>> curves({0: [{"epoch": 1, "accuracy": 0.5}]}, reward_attr="accuracy", time_attr="epoch")
    {0: [(1.0, 0.5)]}
    """
    found = {}
    for task_id, told in reports.items():
        points = []
        for number, report in enumerate(told, start=1):
            time, reward = _number(report.get(time_attr)), _number(report.get(reward_attr))
            if reward is not None:
                points.append((float(number) if time is None else time, reward))
        if points:
            found[task_id] = points
    return found


def draw(
    curves: Curves,
    *,
    best: int | None,
    stopped: Collection[int],
    failed: Collection[int],
    reward_attr: str,
    time_attr: str,
    title: str,
    use_legend: bool,
    filename: str | os.PathLike[str] | None = None,
    plot: bool = False,
    labels: Mapping[int, str] | None = None,
    mode: Mode = "max",
) -> None:
    """Save the curves to `filename` (its ending says the format), show them (`plot`), or both.

    The best trial stands out, stopped ones are faded, failed ones dashed with a cross at their
    end. With many trials the legend names only the best few. `labels` add a text to a trial's
    name. Very bad points may lie outside the picture, where they would squash all the rest;
    a note in the picture then counts them. Saving needs no display. A folder that does not
    exist is made; an ending that matplotlib does not know is a ValueError.

        draw(curves, best=3, stopped={1}, failed=(), reward_attr="accuracy", time_attr="epoch",
             title="first search", use_legend=True, filename="curves.png")
    """

    def paint_figure(figure: Any) -> None:
        paint(
            figure.add_subplot(),
            curves,
            best=best,
            stopped=stopped,
            failed=failed,
            reward_attr=reward_attr,
            time_attr=time_attr,
            title=title,
            use_legend=use_legend,
            labels=labels,
            mode=mode,
        )

    render(paint_figure, size=SIZE, filename=filename, plot=plot)


def paint(
    axes: Any,
    curves: Curves,
    *,
    best: int | None,
    stopped: Collection[int],
    failed: Collection[int],
    reward_attr: str,
    time_attr: str,
    title: str,
    use_legend: bool,
    labels: Mapping[int, str] | None = None,
    mode: Mode = "max",
) -> None:
    """Draw what `draw` draws, into axes of matplotlib that are there."""
    axes.set(title=as_text(title), xlabel=as_text(time_attr), ylabel=as_text(reward_attr))
    axes.grid(alpha=0.25)
    axes.spines[["top", "right"]].set_visible(False)
    drawn = {task_id: curve for task_id, curve in curves.items() if curve}
    if not drawn:
        message = as_text(f"no trial has reported {reward_attr}")
        axes.text(0.5, 0.5, message, ha="center", transform=axes.transAxes)
        return
    _paint_trials(axes, drawn, best, set(stopped), set(failed), labels or {}, mode)
    _set_limits(axes, drawn, best, mode)
    if use_legend:
        place = {"loc": "upper left", "bbox_to_anchor": (1.0, 1.0)}
        legend = axes.legend(**place, fontsize="small", frameon=False)
        for line in legend.get_lines():
            line.set_alpha(1.0)


def render(
    paint: Callable[[Any], None],
    *,
    size: tuple[float, float],
    filename: str | os.PathLike[str] | None,
    plot: bool,
) -> None:
    """Save, show, or both, a figure of `size` inches that `paint` fills."""
    look: dict[str, Any] = {"figsize": size, "layout": "constrained"}
    if filename is not None:
        from matplotlib.figure import Figure  # not pyplot: it needs no display, keeps no state

        figure = Figure(**look)
        paint(figure)
        path = Path(filename).expanduser()
        path.parent.mkdir(parents=True, exist_ok=True)
        figure.savefig(path, dpi=150)
    if plot:
        from matplotlib import pyplot

        figure = pyplot.figure(**look)
        paint(figure)
        pyplot.show()
        if not pyplot.isinteractive():
            pyplot.close(figure)


def shown_range(curves: Curves, best: int | None, mode: Mode) -> tuple[float, float]:
    """The lowest and highest reward that the picture shows.

    This is the whole range, unless a few very bad values would press the usual ones, and the
    second half of the best curve, into less than a quarter of it: then those few are left out.
    Usual is what lies within three interquartile ranges of the quartiles. The good side is
    never cut.
    """
    sign = 1 if mode == "max" else -1
    signed = {task_id: [sign * reward for _, reward in curve] for task_id, curve in curves.items()}
    everything = sorted(reward for rewards in signed.values() for reward in rewards)
    low, top = everything[0], everything[-1]
    # The first epoch is often far off, so that it says nothing about the usual spread.
    usual = [r for rs in signed.values() for r in (rs[1:] if len(rs) > 2 else rs)]
    if len(usual) > 1:
        quarter, _, three_quarters = quantiles(usual, n=4, method="inclusive")
        of_best = signed.get(best, []) if best is not None else []
        fence = min([quarter - 3 * (three_quarters - quarter), *of_best[len(of_best) // 2 :]])
        usual_worst = next(reward for reward in everything if reward >= fence)
        if usual_worst < top:
            floor = top - 4 * (top - usual_worst)
            low = next(reward for reward in everything if reward >= floor)
    return (low, top) if mode == "max" else (-top, -low)


def _paint_trials(
    axes: Any,
    curves: Curves,
    best: int | None,
    stopped: Collection[int],
    failed: Collection[int],
    labels: Mapping[int, str],
    mode: Mode,
) -> None:
    """One line for every trial: the best few in colours of their own, the rest in its group's."""
    pick, sign = (max, -1) if mode == "max" else (min, 1)
    peaks = {task_id: pick(reward for _, reward in curve) for task_id, curve in curves.items()}
    ranking = sorted(curves, key=lambda task_id: (task_id != best, sign * peaks[task_id], task_id))
    named = len(ranking) if len(ranking) <= ALL_NAMED else LEADERS
    crowd_alpha = max(0.2, min(0.6, 12 / len(curves)))  # their density must stay readable
    groups: dict[str, list[Any]] = {"more": [], "stopped early": [], "failed": []}
    for rank, task_id in enumerate(ranking):
        group = "failed" if task_id in failed else "stopped early" if task_id in stopped else "more"
        look: dict[str, Any] = {"linestyle": "--" if group == "failed" else "-"}
        if task_id == best:
            look |= {"color": BEST, "linewidth": 2.6, "zorder": 5}
        elif rank < named:
            alpha = 1.0 if group == "more" else 0.45
            look |= {"color": COLOURS[rank % len(COLOURS)], "alpha": alpha, "zorder": 4}
        else:
            alpha = 0.6 if group == "failed" else crowd_alpha
            look |= {"color": CROWD[group], "alpha": alpha, "linewidth": 1.0}
        curve = curves[task_id]
        look["marker"] = "." if len(curve) == 1 or (rank < named and len(curve) <= 30) else ""
        (line,) = axes.plot(*_with_gaps(curve), **look)
        if group == "failed":
            axes.plot(*curve[-1], "x", color=CROWD[group], zorder=6)
        if rank < named:
            name = f"best: task {task_id}" if task_id == best else f"task {task_id}"
            name += f" ({peaks[task_id]:.4g}" + (f", {group})" if group != "more" else ")")
            about = labels.get(task_id, "")
            if len(about) > LABEL_WIDTH:
                about = about[: LABEL_WIDTH - 1] + "…"
            line.set_label(as_text(f"{name}\n{about}" if about else name))
        else:
            groups[group].append(line)
    for group, lines in groups.items():
        if lines:
            lines[0].set_label(f"{len(lines)} {group}")


def _set_limits(axes: Any, curves: Curves, best: int | None, mode: Mode) -> None:
    from matplotlib.ticker import MaxNLocator

    low, high = shown_range(curves, best, mode)
    margin = 0.05 * ((high - low) or abs(high) or 1.0)
    axes.set_ylim(low - margin, high + margin)
    axes.ticklabel_format(axis="y", useOffset=False)
    times = [time for curve in curves.values() for time, _ in curve]
    first, last = min(times), max(times)
    margin = 0.03 * (last - first) or 0.5
    axes.set_xlim(first - margin, last + margin)
    if all(time.is_integer() for time in times):
        axes.xaxis.set_major_locator(MaxNLocator(integer=True, min_n_ticks=1))

    rewards = [reward for curve in curves.values() for _, reward in curve]
    hidden = [reward for reward in rewards if not low <= reward <= high]
    if hidden:
        word, worst = ("below", min(hidden)) if mode == "max" else ("above", max(hidden))
        verb = "lies" if len(hidden) == 1 else "lie"
        text = f"{len(hidden)} of {len(rewards)} points {verb} {word} the picture, to {worst:.4g}"
        edge, side = (0.02, "bottom") if mode == "max" else (0.98, "top")
        box = {"facecolor": "white", "edgecolor": "none", "alpha": 0.8, "pad": 2}
        look = {"ha": "right", "va": side, "fontsize": "small", "bbox": box, "zorder": 7}
        axes.text(0.99, edge, text, transform=axes.transAxes, **look)


def _with_gaps(curve: Sequence[tuple[float, float]]) -> tuple[list[float], list[float]]:
    """Times and rewards; a gap where the time goes back, as it does when a trial starts again."""
    times: list[float] = []
    rewards: list[float] = []
    for time, reward in curve:
        if times and time < times[-1]:
            times.append(math.nan)
            rewards.append(math.nan)
        times.append(time)
        rewards.append(reward)
    return times, rewards


def _number(value: Any) -> float | None:
    if isinstance(value, bool) or not isinstance(value, Real):
        return None
    with contextlib.suppress(OverflowError):  # an integer of 400 digits
        return float(value) if math.isfinite(value) else None
    return None


def as_text(text: str) -> str:
    """Text that matplotlib shows as it is: a dollar would begin a formula."""
    return text.replace("$", r"\$")
