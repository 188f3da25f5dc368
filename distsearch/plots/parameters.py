"""What figures of parameters are drawn from: their scales, importance, slices, contours.

Plain functions; matplotlib and Bokeh draw what they give. Importance is by permutation, after
Breiman, "Random Forests", Machine Learning 45 (2001).
"""

from __future__ import annotations

import contextlib
import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..core.progress import format_value
from ..core.story import Story
from ..errors import MissingPackage, NothingReported, OptionError, suggest
from .over_time import nothing_finite, objective_of, own_trials, value_of

Array = NDArray[np.float64]
TREES, LEARNED_FROM, LEAST = 64, 1500, 10
GRID = 40  # a contour has so many points along each side
NEAR = 0.12  # how wide near is in a contour, as a part of the whole scale
OPTIONS_SHOWN = 12
WORD, NAME = 18, 30  # letters of what is written along an axis, and of the name of a whole axis
SHOWN, BARS = 12, 15  # parameters of a figure, and of one that has a line of text for each
SCATTER = np.uint64(2_654_435_761)  # Knuth's multiplier: consecutive ids become far apart


@dataclass(frozen=True)
class Scale:
    """How the values of a parameter lie along an axis from 0 to 1.

    Numbers lie between `low` and `high`, `is_log` by their logarithm, `is_whole` where all are;
    `options` are the values of all others, as text, at equal distances.
    """

    name: str
    low: float = 0.0
    high: float = 1.0
    is_log: bool = False
    options: tuple[str, ...] = ()
    is_whole: bool = False

    def places(self, values: Sequence[Any]) -> Array:
        """Where each value lies; NaN for None, and for what is not on this axis."""
        if self.options:
            many = max(1, len(self.options) - 1)
            at = {text: n / many for n, text in enumerate(self.options)}
            found = [math.nan if one is None else at.get(_text(one), math.nan) for one in values]
            return np.array(found, dtype=float)
        numbers = np.array([one if _is_number(one) else math.nan for one in values], dtype=float)
        if self.is_log:
            numbers = np.log(np.where(numbers > 0, numbers, math.nan))
        low, high = self._ends
        placed: Array = (numbers - low) / (high - low)
        return placed

    @property
    def ticks(self) -> list[tuple[float, str]]:
        """Where to write what along the axis."""
        if self.options:
            step = math.ceil(len(self.options) / OPTIONS_SHOWN)
            some = [*enumerate(self.options)][::step]
            return [(n / max(1, len(self.options) - 1), short(text)) for n, text in some]
        numbers = _decades(self.low, self.high) if self.is_log else []
        if len(numbers) < 2:
            numbers = _round_numbers(self.low, self.high, 1.0 if self.is_whole else 0.0)
        return [*zip(self.places(numbers).tolist(), map(format_value, numbers), strict=True)]

    @property
    def varies(self) -> bool:
        """Whether trials have more than one value of this parameter."""
        return len(self.options) > 1 if self.options else self.high > self.low

    @property
    def _ends(self) -> tuple[float, float]:
        low, high = self.low, self.high
        if self.is_log:
            low, high = math.log(low), math.log(high)
        return (low, high) if high > low else (low - 0.5, low + 0.5)


def _decades(low: float, high: float) -> list[float]:
    powers = range(math.ceil(math.log10(low) - 1e-9), math.floor(math.log10(high) + 1e-9) + 1)
    step = math.ceil(len(powers) / 6) or 1
    return [10.0**power for power in powers[::step]]


def _round_numbers(low: float, high: float, least: float) -> list[float]:
    """Two to six numbers with few digits from `low` to `high`; one where these are the same.

    `least`: between two of them.
    """
    if high <= low:
        return [low]
    rough = (high - low) / 5
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(times * power for times in (1, 2, 5, 10) if times * power >= rough * 0.999)
    step = max(step, least)
    return [
        n * step for n in range(math.ceil(low / step - 1e-9), math.floor(high / step + 1e-9) + 1)
    ]


class Table(NamedTuple):
    """Trials with a result: `places` (trials, parameters), NaN where one is not active; `values`
    (trials,) of the objective, of which larger ones are better if `sign` is 1."""

    ids: list[int]
    scales: list[Scale]
    places: Array
    values: Array
    sign: float
    objective: str

    def number(self, name: str) -> int:
        """The number of a parameter. Raises OptionError, with the nearest name, for none."""
        names = [scale.name for scale in self.scales]
        if name not in names:
            raise OptionError(f"no parameter {name!r} is searched; {suggest(name, names)}")
        return names.index(name)

    def need(self, least: int, what: str) -> None:
        """Raise NothingReported where fewer parameters are searched than a figure needs."""
        if len(self.scales) < least:
            many = "a parameter that is" if least == 1 else "two parameters that are"
            only = repr(self.scales[0].name) if self.scales else "none"
            raise NothingReported(f"{what} needs {many} searched; here {only} is")


def table(story: Story, objective: str | None = None) -> Table:
    """The trials that have a result, on the scales of what is searched.

    Raises NothingReported when there is none.
    """
    number = objective_of(story, objective)
    trials = [(trial, value_of(trial, number)) for trial in own_trials(story)]
    told = [(trial, value) for trial, value in trials if value is not None and math.isfinite(value)]
    names = story.ledger.objectives.names
    if not told:
        raise NothingReported(nothing_finite(story, number))
    known = scales(story.searched, [trial.config for trial, _ in told])
    places = [scale.places([trial.config.get(scale.name) for trial, _ in told]) for scale in known]
    sign = 1.0 if story.ledger.objectives.modes[number] == "max" else -1.0
    return Table(
        [trial.id for trial, _ in told],
        known,
        np.array(places, dtype=float).reshape(len(known), len(told)).T,
        np.array([value for _, value in told], dtype=float),
        sign,
        names[number],
    )


def scales(searched: Mapping[str, Any], configs: Sequence[Mapping[str, Any]]) -> list[Scale]:
    """The scale of each parameter that is searched and of which there are values."""
    logs = _logs(searched.get("space", {}))
    found = []
    for name in dict.fromkeys(name for config in configs for name in config):
        values = [config[name] for config in configs if config.get(name) is not None]
        if not values:
            continue
        if all(map(_is_number, values)):
            low, high = min(values), max(values)
            is_log = low > 0 and logs.get(name, False)
            is_whole = all(float(value).is_integer() for value in values)
            found.append(Scale(name, float(low), float(high), is_log, is_whole=is_whole))
            continue
        texts = tuple(sorted({_text(value) for value in values}))
        found.append(Scale(name, options=texts))
    return found


def _logs(space: Any, prefix: str = "") -> dict[str, bool]:
    """Which parameters of a described space are drawn by their logarithm."""
    found: dict[str, bool] = {}
    for name, part in (space.get("items") or {}).items():
        here = f"{prefix}{name}"
        if not isinstance(part, dict):
            continue
        found[here] = bool(part.get("log"))
        found |= _logs(part, f"{here}.")
        for option in part.get("choices", ()):
            if isinstance(option, dict):
                found |= _logs(option, f"{here}.{option.get('label', '')}.")
    return found


def _is_number(value: Any) -> bool:
    is_one = isinstance(value, (int, float)) and not isinstance(value, bool)
    return is_one and math.isfinite(value)


def short(text: str, letters: int = WORD) -> str:
    """A text with its middle left out where it is long: names often differ in their ends.

    >>> short("model.encoder.dropout.0")
    'model.…er.dropout.0'
    """
    first = letters // 3
    return text if len(text) <= letters else f"{text[:first]}…{text[first - letters :]}"


def _text(value: Any) -> str:
    if isinstance(value, bool):
        return "true" if value else "false"
    return value if isinstance(value, str) else json.dumps(value, default=str)


# Which trials


def chosen(table: Table, limit: int) -> NDArray[np.intp]:
    """Rows to draw, worst first: all, or of more than `limit` the best half and some of the rest.

    These are drawn by their ids, so that hardly any of them changes when trials come.
    """
    order = np.argsort(table.sign * table.values, kind="stable")
    if len(order) <= limit:
        return order
    best, rest = order[-(limit // 2) :], order[: -(limit // 2)]
    lots = np.array(table.ids, dtype=np.uint64)[rest] * SCATTER % np.uint64(2**32)
    drawn = np.sort(np.argsort(lots, kind="stable")[: limit - len(best)])
    return np.concatenate([rest[drawn], best])


def shown_values(table: Table) -> tuple[float, float]:
    """The range of values that colours show: very bad ones have the colour of the next.

    It is a bit wider than needed, so that it need not change with each result.
    """
    rewards = table.sign * table.values
    quarter, three_quarters = np.percentile(rewards, [25, 75])
    low = max(float(rewards.min()), float(quarter - 1.5 * (three_quarters - quarter)))
    high = float(rewards.max())
    low, high = (low, high) if high > low else (low - 0.5, high + 0.5)
    step = 10.0 ** math.floor(math.log10(high - low)) / 20
    low, high = math.floor(low / step) * step, math.ceil(high / step) * step
    return (low, high) if table.sign > 0 else (-high, -low)


# Importance


class Importance(NamedTuple):
    """How much worse predictions become when a parameter is shuffled: in parts of their sum."""

    name: str
    share: float
    deviation: float


def importance(table: Table, seed: int = 0) -> list[Importance]:
    """How much each parameter matters, the most important first: by permutation.

    A random forest of scikit-learn learns the ranks of the results (so that a few very bad ones do
    not decide); `share` is by how much its error on trials that it has not learned from rises when
    the values of the parameter are shuffled among them, as a part of the sum over all parameters.

    Raises MissingPackage without scikit-learn, NothingReported with fewer than ten results and
    where these are all the same.
    """
    try:
        from sklearn.ensemble import RandomForestRegressor
        from sklearn.inspection import permutation_importance
    except ImportError as error:
        raise MissingPackage(
            "importance needs scikit-learn, which is not installed: pip install scikit-learn"
        ) from error
    table.need(1, "importance")
    if len(table.ids) < LEAST:
        raise NothingReported(
            f"importance needs {LEAST} trials with a result; so far {len(table.ids)}"
        )
    if np.ptp(table.values) == 0:
        raise NothingReported(
            f"all {len(table.ids)} trials have the same {table.objective!r}, "
            f"{format_value(table.values[0])}: no parameter matters"
        )
    rng = np.random.default_rng(seed)
    rows = rng.permutation(len(table.ids))[:LEARNED_FROM]
    # A parameter that is not active lies apart from all values.
    features = np.nan_to_num(table.places[rows], nan=-0.5)
    ranks = np.argsort(np.argsort(table.values[rows])) / len(rows)
    halves = np.array_split(np.arange(len(rows)), 2)
    found = []
    for learned, asked in (halves, halves[::-1]):
        forest = RandomForestRegressor(TREES, min_samples_leaf=2, random_state=seed)
        forest.fit(features[learned], ranks[learned])
        shuffled = permutation_importance(
            forest, features[asked], ranks[asked], n_repeats=5, random_state=seed
        )
        found.append(shuffled.importances)
    each = np.concatenate(found, axis=1)
    means, deviations = each.mean(axis=1), each.std(axis=1)
    whole = max(1e-12, float(np.maximum(means, 0).sum()))
    shares = [
        Importance(scale.name, max(0.0, float(mean)) / whole, float(deviation) / whole)
        for scale, mean, deviation in zip(table.scales, means, deviations, strict=True)
    ]
    return sorted(shares, key=lambda one: -one.share)


def ranked(table: Table, known: Sequence[Importance] = ()) -> list[str]:
    """The parameters, the most important first; where nothing is known, those first that vary."""
    names = [scale.name for scale in table.scales]
    told = [one.name for one in known if one.name in names]
    fixed = {scale.name for scale in table.scales if not scale.varies}
    rest = [name for name in names if name not in told]
    return [*told, *sorted(rest, key=fixed.__contains__)]


def known_importance(table: Table) -> list[Importance]:
    """The importance; nothing where it cannot be told."""
    with contextlib.suppress(MissingPackage, NothingReported):
        return importance(table)
    return []


def left_out(table: Table, known: Sequence[Importance]) -> str:
    """Which parameters a figure of `SHOWN` shows, in words; "" for all."""
    count = len(table.scales)
    if count <= SHOWN:
        return ""
    return (
        f"the {SHOWN} most important of {count} parameters"
        if known
        else f"{SHOWN} of {count} parameters"
    )


def bars_left_out(every: Sequence[Importance]) -> str:
    """How much the parameters matter that have no bar of the `BARS`, in words; "" for none."""
    rest = every[BARS:]
    if not rest:
        return ""
    share = sum(one.share for one in rest)
    return (
        f"the {BARS} most important of {len(every)} parameters; "
        f"the share of the other {len(rest)} together is {share:.2g}"
    )


# Contours


class Contour(NamedTuple):
    """What is to be expected of two parameters: `heights[row, column]` at the places 0 to 1.

    Columns are the first parameter. NaN where no trial is near.
    """

    across: Scale
    up: Scale
    heights: Array


def contour(table: Table, across: str, up: str) -> Contour:
    """The mean result near each pair of values, the nearer the heavier (a Gaussian kernel)."""
    x, y = (table.places[:, table.number(name)] for name in (across, up))
    there = np.isfinite(x) & np.isfinite(y)
    x, y, values = x[there], y[there], table.values[there]
    low, high = shown_values(table)
    values = np.clip(values, low, high) if len(values) else values
    places = np.linspace(0, 1, GRID)
    near_x = np.exp(-0.5 * ((places[:, None] - x) / NEAR) ** 2)
    near_y = np.exp(-0.5 * ((places[:, None] - y) / NEAR) ** 2)
    weights, sums = near_y @ near_x.T, (near_y * values) @ near_x.T
    heights = np.where(weights > 0.05, sums / np.maximum(weights, 1e-12), np.nan)
    found = table.scales
    return Contour(found[table.number(across)], found[table.number(up)], heights)


def pair(table: Table, across: str | None = None, up: str | None = None) -> tuple[str, str]:
    """Two parameters to compare: those that were named, else the most important ones.

    Raises NothingReported where fewer than two are searched.
    """
    table.need(2, "a contour")
    names = [scale.name for scale in table.scales]
    if across is None or up is None:
        names = ranked(table, known_importance(table))
    others = [name for name in names if name not in (across, up)]
    across = across or others.pop(0)
    return across, up or others.pop(0)
