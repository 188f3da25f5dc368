"""What figures of a search over time are drawn from: curves, the best so far, slots, rungs.

Plain functions on a story (see `core/story.py`); matplotlib and Bokeh draw what they give.
"""

from __future__ import annotations

import math
from collections import Counter, defaultdict
from collections.abc import Callable, Mapping, Sequence
from itertools import pairwise
from typing import Any, Literal, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..core.phrases import counted
from ..core.story import Span, Story
from ..core.words import Status, Trial
from ..errors import OptionError

Array = NDArray[np.float64]
By = Literal["trials", "seconds"]
LEADERS = 5  # so many curves have a colour of their own
SHOWN = 300  # of more trials only some curves are drawn, besides the quartiles of all
OTHERS = "others"


class Steps(NamedTuple):
    """A line of steps: from `x[n]` on it has the height `y[n]`."""

    x: Array
    y: Array


class Quartiles(NamedTuple):
    """The lower quartile, the median and the upper one, at each x."""

    x: Array
    lower: Array
    median: Array
    upper: Array


def objective_of(story: Story, objective: str | None = None) -> int:
    """The number of an objective by its name, by default the first one.

    Raises OptionError for a name that is none.
    """
    names = story.ledger.objectives.names
    if objective is not None and objective not in names:
        raise OptionError(f"objective={objective!r}, but it is one of {', '.join(names)}")
    return 0 if objective is None else names.index(objective)


def value_of(trial: Trial, objective: int) -> float | None:
    """What a trial has reached, in the user's own sign; None where no report counts."""
    if trial.best_reward is not None:
        return trial.best_reward
    return None if trial.point is None else trial.point.values[objective]


def own_trials(story: Story) -> list[Trial]:
    """The trials of the search: without those of `run_with_config`."""
    return [trial for trial in story.ledger.trials.values() if not trial.is_final]


def nothing_finite(story: Story, objective: int = 0) -> str:
    """Why no trial has a result that can be drawn, in words: what they have reported instead."""
    name = story.ledger.objectives.names[objective]
    told = Counter(
        str(value)
        for trial in own_trials(story)
        if (value := _told(trial, name, objective)) is not None
    )
    if told:
        each = (f"{counted(count)} reported {value}" for value, count in told.most_common(3))
        return f"no trial has reported a finite {name!r}: {', '.join(each)}"
    failed = "".join(f"; {counted(count)} {reason}" for count, reason in story.ledger.failures)
    return f"no trial has reported {name!r} yet{failed}"


def _told(trial: Trial, name: str, objective: int) -> Any:
    value = value_of(trial, objective)
    return trial.last_metrics.get(name) if value is None else value


# The best so far


def best_so_far(story: Story, by: By = "trials") -> Steps:
    """The best reward after so many ended trials, or so many seconds; up to now.

    Of several objectives there is no best: the steps are empty.
    """
    if by not in ("trials", "seconds"):
        raise OptionError(f"by={by!r}; give 'trials' or 'seconds'")
    found = [best for best in story.best_so_far if math.isfinite(best.value)]
    if not found:
        return Steps(np.empty(0), np.empty(0))
    if by == "seconds":
        x = [best.at - story.began for best in found] + [story.last - story.began]
    else:
        x = [float(best.ended) for best in found] + [float(story.ledger.counts.ended)]
    return Steps(np.array(x), np.array([*(best.value for best in found), found[-1].value]))


def quartiles(lines: Sequence[Steps]) -> Quartiles:
    """The quartiles of several lines of steps, from where all have begun to where the last ends.

    >>> one, other = Steps(np.array([0.0, 2]), np.array([1.0, 3])), Steps(np.zeros(1), np.ones(1))
    >>> quartiles([one, other]).median
    array([1., 2.])
    """
    lines = [line for line in lines if len(line.x)]
    if not lines:
        return Quartiles(*(np.empty(0) for _ in range(4)))
    x = np.unique(np.concatenate([line.x for line in lines]))
    x = x[x >= max(line.x[0] for line in lines)]
    heights = [line.y[np.searchsorted(line.x, x, side="right") - 1] for line in lines]
    return Quartiles(x, *np.percentile(np.array(heights), [25, 50, 75], axis=0))


# Training curves


class Shown(NamedTuple):
    """Which trials' curves are drawn: the best ones first, and how many of how many these are."""

    leaders: list[int]
    others: list[int]
    of: int

    @property
    def note(self) -> str:
        """What is left out, in words; "" where nothing is."""
        count = len(self.leaders) + len(self.others)
        if count == self.of:
            return ""
        return f"{count} of {self.of} curves are drawn: the best, those that run, some of the rest"


def shown_curves(story: Story, objective: int = 0, limit: int = SHOWN) -> Shown:
    """The trials whose curves are drawn: all, or of more than `limit` the best, running and some.

    The rest are an even sample over the search, so that its beginning shows too.
    """
    sign = 1.0 if story.ledger.objectives.modes[objective] == "max" else -1.0
    trials = [trial for trial in own_trials(story) if trial.id in story.curves]
    values = {trial.id: value_of(trial, objective) for trial in trials}
    ranked = sorted(
        values, key=lambda n: -math.inf if (v := values[n]) is None else sign * v, reverse=True
    )
    leaders = ranked[:LEADERS]
    if len(ranked) <= limit:
        return Shown(leaders, sorted(ranked[LEADERS:]), len(ranked))
    running = [trial.id for trial in trials if trial.status is Status.RUNNING][: limit // 3]
    chosen = {*ranked[LEADERS : limit // 3], *running} - set(leaders)
    rest = sorted(values.keys() - chosen - set(leaders))
    room = max(1, limit - len(leaders) - len(chosen))
    places = np.linspace(0, len(rest) - 1, min(room, len(rest))).astype(int)
    return Shown(leaders, sorted({*chosen, *(rest[n] for n in places)}), len(ranked))


def curve(story: Story, trial: int, objective: int = 0, points: int = 200) -> Steps:
    """The times and values of one trial; of more than `points` reports an even choice.

    The first, the last and the extremes of each stretch are kept.
    """
    known = story.curves[trial]
    x, y = np.frombuffer(known.times), np.frombuffer(known.values[objective])
    if len(x) <= points:
        return Steps(x.copy(), y.copy())
    length = -(-len(x) // (points // 2))  # of a stretch; the last one is filled up with NaN
    starts = np.arange(0, len(x), length)
    stretches = np.full((len(starts), length), np.nan)
    stretches.flat[: len(y)] = y
    is_missing = np.isnan(stretches)
    lowest = starts + np.where(is_missing, np.inf, stretches).argmin(axis=1)
    highest = starts + np.where(is_missing, -np.inf, stretches).argmax(axis=1)
    is_empty = is_missing.all(axis=1)
    ends = [0, len(x) - 1]
    kept = np.unique(np.concatenate([ends, lowest[~is_empty], highest[~is_empty]]))
    return Steps(x[kept], y[kept])


def all_curves(story: Story, objective: int = 0, bins: int = 200) -> Quartiles:
    """The quartiles of all trials at each time, where at least three have reported.

    Of more than `bins` different times, neighbours are taken together.
    """
    finals = {trial.id for trial in story.ledger.trials.values() if trial.is_final}
    known = [curve for n, curve in story.curves.items() if n not in finals and len(curve.times)]
    if not known:
        return Quartiles(*(np.empty(0) for _ in range(4)))
    x = np.frombuffer(b"".join(one.times for one in known))
    y = np.frombuffer(b"".join(one.values[objective] for one in known))
    x, y = x[np.isfinite(y)], y[np.isfinite(y)]
    times = np.unique(x)
    if len(times) > bins:
        edges = np.linspace(times[0], times[-1], bins)
        x = edges[np.clip(np.searchsorted(edges, x), 0, bins - 1)]
        times = np.unique(x)
    order = np.argsort(x)
    parts = np.split(y[order], np.searchsorted(x[order], times[1:]))
    enough = [n for n, part in enumerate(parts) if len(part) >= 3]
    rows = [np.percentile(parts[n], [25, 50, 75]) for n in enough]
    lower, median, upper = np.array(rows).T if rows else (np.empty(0),) * 3
    return Quartiles(times[enough], lower, median, upper)


# Slots


def slots(story: Story, most: int = 8) -> dict[str, Steps]:
    """How many processes of trials ran on each node, over the seconds since the search began.

    Of more than `most` nodes the busiest ones, and all others together.
    """
    of: dict[str, list[Span]] = defaultdict(list)
    for span in story.spans:
        of[span.node].append(span)
    seen = dict.fromkeys(node.node for node in story.nodes if node.cpus)
    nodes = sorted({*of, *seen}, key=lambda name: -len(of[name]))
    alone = nodes if len(nodes) <= most else nodes[: most - 1]
    found = {name: _used(of[name], story) for name in sorted(alone)}
    if len(nodes) > len(alone):
        rest = nodes[len(alone) :]
        spans = [span for name in rest for span in of[name]]
        found[f"{len(rest)} {OTHERS}"] = _used(spans, story)
    return found


def _used(spans: Sequence[Span], story: Story) -> Steps:
    began = np.array([span.began for span in spans]) - story.began
    ended = np.array([span.ended for span in spans if span.ended is not None]) - story.began
    x = np.concatenate([[0.0], began, ended, [story.last - story.began]])
    change = np.concatenate([[0.0], np.ones(len(began)), -np.ones(len(ended)), [0.0]])
    order = np.argsort(x, kind="stable")
    x, y = x[order], np.cumsum(change[order])
    last = np.append(x[1:] != x[:-1], True)  # of several changes at one moment only the last counts
    return Steps(x[last], y[last])


def thinned(line: Steps, points: int = 600) -> Steps:
    """A line of steps of at most so many: the mean height of each stretch of equal length."""
    if len(line.x) <= points:
        return line
    edges = np.linspace(line.x[0], line.x[-1], points)
    area = np.concatenate([[0.0], np.cumsum(line.y[:-1] * np.diff(line.x))])
    at = np.interp(edges, line.x, area)
    heights = np.diff(at) / np.diff(edges)
    return Steps(edges, np.append(heights, line.y[-1]))


# Rungs


class Rung(NamedTuple):
    """How many trials came to a time, and what became of those that went no further.

    `went_on`: reached the next rung, or will (they run); `ended`: ran to their end before it.
    """

    level: float
    reached: int
    went_on: int
    stopped: int
    paused: int
    failed: int
    ended: int


FATES: Mapping[str, Callable[[Rung], int]] = {  # the fates are drawn in this order
    "went on": lambda rung: rung.went_on,
    "ended": lambda rung: rung.ended,
    "paused": lambda rung: rung.paused,
    "stopped": lambda rung: rung.stopped,
    "failed": lambda rung: rung.failed,
}


def rungs(story: Story) -> list[Rung]:
    """The funnel of a search: at each rung of its rule who is left; the last is where all end.

    A rule without rungs gets the powers of two up to the longest trial.
    """
    levels = rung_levels(story.searched)
    trials = own_trials(story)
    furthest = [trial.furthest for trial in trials if trial.furthest > -math.inf]
    if not levels and furthest:
        top = max(furthest)
        levels = [2.0**n for n in range(max(1, math.ceil(math.log2(max(top, 1.0))) + 1))]
        levels = [level for level in levels if level < top] + [top]
    found = []
    for level, following in pairwise([*levels, math.inf]):
        there = [trial for trial in trials if trial.furthest >= level]
        left = Counter(_left_as(trial) for trial in there if trial.furthest < following)
        went_on = len(there) - sum(left.values()) + left["running"]
        each = (left[word] for word in ("stopped", "paused", "failed", "ended"))
        found.append(Rung(level, len(there), went_on, *each))
    return found


def rung_levels(searched: Mapping[str, Any]) -> list[float]:
    """The rungs of a rule, of all brackets together."""
    rule = searched.get("rule", {})
    brackets = rule.get("rungs", [])
    levels = {float(level) for bracket in brackets for level in bracket}
    if levels and isinstance(rule.get("max_t"), (int, float)):
        levels.add(float(rule["max_t"]))
    return sorted(levels)


def _left_as(trial: Trial) -> str:
    if trial.status is Status.STOPPED:
        return "stopped"
    if trial.status is Status.PAUSED:
        return "paused"
    if trial.status.is_failure:
        return "failed"
    return "ended" if trial.status.is_end else "running"
