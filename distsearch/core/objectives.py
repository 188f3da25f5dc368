"""What a search is after: one metric or several, the larger or the smaller, within which limits.

objectives = Objectives.parse(['accuracy', 'latency'], ['max', 'min'], ['memory <= 8'])
point = objectives.point({'accuracy': 0.9, 'latency': 12, 'memory': 6})

Sources: Deb et al., "A Fast and Elitist Multiobjective Genetic Algorithm: NSGA-II", IEEE Trans.
Evol. Comput. 6 (2002): constrained domination; Kung, Luccio and Preparata, "On Finding the Maxima
of a Set of Vectors", J. ACM 22 (1975): the front by sorting.
"""

from __future__ import annotations

import math
import re
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, NamedTuple

from ..errors import OptionError
from .metrics import number

Mode = Literal["max", "min"]
Rewards = tuple[float, ...]  # one for each objective, larger is better
Standing = tuple[float, Rewards]  # minus the violation of the constraints, and the rewards

_CONSTRAINT = re.compile(r"\s*(?P<metric>.+?)\s*(?P<way><=|>=)\s*(?P<bound>\S+)\s*")


class Point(NamedTuple):
    """What one report is worth.

    `values` are the objectives as reported; `rewards` are the same numbers with a sign by which
    larger ones are better. `violations`: by how much each constraint is violated; 0 or less where
    it is met.
    """

    values: tuple[float, ...]
    rewards: Rewards
    violations: tuple[float, ...] = ()

    @property
    def violation(self) -> float:
        """By how much the constraints are violated in all."""
        return sum(amount for amount in self.violations if amount > 0)

    @property
    def standing(self) -> Standing:
        """What `beats` compares."""
        return -self.violation, self.rewards

    @property
    def is_feasible(self) -> bool:
        """Whether all constraints are met."""
        return all(amount <= 0 for amount in self.violations)


@dataclass(frozen=True)
class Constraint:
    """A limit on a metric, as in 'latency <= 20'."""

    metric: str
    way: str
    bound: float

    @classmethod
    def parse(cls, text: Any) -> Constraint:
        """Read a constraint; raises OptionError for what does not look like 'latency <= 20'."""
        found = _CONSTRAINT.fullmatch(text) if isinstance(text, str) else None
        try:
            bound = float(found["bound"]) if found else math.nan
        except ValueError:
            bound = math.nan
        if found is None or not math.isfinite(bound):
            raise OptionError(
                f"constraints: cannot read {text!r}; write a metric, <= or >=, and a number, as in "
                "'latency <= 20'"
            )
        return cls(found["metric"], found["way"], bound)

    def violation(self, value: float) -> float:
        """By how much a value is beyond the limit; 0 or less where the limit is kept."""
        return value - self.bound if self.way == "<=" else self.bound - value

    def __str__(self) -> str:
        return f"{self.metric} {self.way} {self.bound:.15g}"


@dataclass(frozen=True)
class Objectives:
    """The metrics that a search optimises, and the limits that it has to keep."""

    names: tuple[str, ...]
    modes: tuple[Mode, ...]
    constraints: tuple[Constraint, ...] = ()

    @classmethod
    def parse(cls, reward_attr: Any, mode: Any, constraints: Any = ()) -> Objectives:
        """Read the arguments of a scheduler; raises OptionError for what makes no sense."""
        names = _listed(reward_attr)
        if not names or not all(name and isinstance(name, str) for name in names):
            raise OptionError(f"reward_attr={reward_attr!r}; give a name, or a list of names")
        if len(set(names)) < len(names):
            raise OptionError(f"reward_attr={reward_attr!r} names a metric twice")
        modes = _listed(mode)
        if not all(one in ("max", "min") for one in modes):
            meant = str(modes[0])[:3].lower()  # of 'minimize', 'Maximum', ...
            near = f"did you mean {meant!r}? " if meant in ("max", "min") else ""
            raise OptionError(f"mode={mode!r}; {near}It is one of 'max', 'min', or a list of these")
        if len(modes) == 1:
            modes *= len(names)
        if len(modes) != len(names):
            raise OptionError(
                f"mode={mode!r} for the {len(names)} objectives {', '.join(names)}; give one for "
                "all, or one for each"
            )
        limits = () if constraints is None else _listed(constraints)
        return cls(names, modes, tuple(map(Constraint.parse, limits)))

    @property
    def several(self) -> bool:
        """Whether there is more than one objective."""
        return len(self.names) > 1

    @property
    def is_plain(self) -> bool:
        """Whether there is one objective, and no constraint."""
        return not self.several and not self.constraints

    @property
    def metrics(self) -> list[str]:
        """The names that a report must have to count, each once."""
        return list(dict.fromkeys([*self.names, *(one.metric for one in self.constraints)]))

    @property
    def limits(self) -> str:
        """The constraints in words."""
        return " and ".join(map(str, self.constraints))

    @property
    def described(self) -> dict[str, Any]:
        """The three arguments as plain data: one name and mode, or lists of them."""
        names, modes = list(self.names), list(self.modes)
        return {
            "reward_attr": names if self.several else names[0],
            "mode": modes if self.several else modes[0],
            "constraints": list(map(str, self.constraints)),
        }

    def point(self, metrics: Mapping[str, Any]) -> Point | None:
        """What a report is worth; None if a metric is missing, or no finite number."""
        known = {name: number(metrics.get(name)) for name in self.metrics}
        finite = {name: x for name, x in known.items() if x is not None and math.isfinite(x)}
        if len(finite) < len(known):
            return None
        values = tuple(finite[name] for name in self.names)
        return Point(
            values,
            tuple(-x if mode == "min" else x for x, mode in zip(values, self.modes, strict=True)),
            tuple(one.violation(finite[one.metric]) for one in self.constraints),
        )

    def counts_instead(self, new: Point, old: Point | None) -> bool:
        """Whether a trial's new report counts for it in place of an earlier one.

        With several objectives the last report counts. With one objective the best report does:
        first the report that violates the constraints less (not at all is least), then the one with
        the better reward.
        """
        return old is None or self.several or beats(new.standing, old.standing)

    def can_rank(self, metrics: Mapping[str, Any]) -> bool:
        """Whether a report can be compared by its reward: it violates no constraint."""
        if self.several:
            return False
        for one in self.constraints:
            value = number(metrics.get(one.metric))
            if value is not None and one.violation(value) > 0:
                return False
        return True

    def are_in(self, metrics: Mapping[str, Any]) -> bool:
        """Whether a report has a number, which may be NaN, for each name of `metrics`."""
        values = [metrics.get(name) for name in self.metrics]
        return all(isinstance(one, (int, float)) and not isinstance(one, bool) for one in values)

    def missing_in(self, reports: int, last: Mapping[str, Any]) -> str:
        """Why none of a trial's reports counts, in words; `last`: the metrics of the last one."""
        wanted = self.names[0]
        if not reports:
            returned = "" if self.several else ", and returned no number"
            return f"the train function did not call reporter(..., {wanted}=...){returned}"
        if not self.is_plain:
            had = ", ".join(f"{name}={last.get(name)!r}" for name in self.metrics)
            return f"no report had finite numbers for all that is wanted; the last one had {had}"
        if wanted in last:
            return f"{wanted} was never a number (the last report had {last[wanted]!r})"
        return f"no report had reward_attr={wanted!r}; the last one had {own_names(last)}"


def own_names(metrics: Mapping[str, Any]) -> str:
    """The names that a train function has reported, without those added here: 'accuracy, epoch'."""
    names = sorted(set(metrics) - {"time_this_iter", "time_since_start"})
    return ", ".join(names) or "nothing"


def _listed(given: Any) -> tuple[Any, ...]:
    if given is None or isinstance(given, str) or not isinstance(given, Iterable):
        return (given,)
    return tuple(given)


def dominates(one: Rewards, other: Rewards) -> bool:
    """Whether the one is nowhere worse and somewhere better.

    >>> dominates((0.9, -12), (0.8, -12)), dominates((0.9, -12), (0.8, -10))
    (True, False)
    """
    return one != other and all(a >= b for a, b in zip(one, other, strict=True))


def beats(one: Standing, other: Standing) -> bool:
    """Constrained domination: `one` violates the constraints less, or as much and dominates."""
    # (Whoever dominates is also greater in the order of tuples, which is compared quickly.)
    return one > other and (one[0] > other[0] or dominates(one[1], other[1]))


def front(rewards: Mapping[int, Rewards]) -> list[int]:
    """The trials that no other dominates, by the first reward, the best first.

    Of trials with equal rewards only the one with the lowest id is in the front. Takes O(n log n)
    for two rewards, for more up to n times the size of the front.

    >>> front({0: (1, 5), 1: (2, 3), 2: (1, 4), 3: (2, 3)})
    [1, 0]
    """
    found: list[int] = []
    members: list[Rewards] = []
    # Nothing that comes later in this order can dominate what came before.
    for trial in sorted(rewards, key=lambda trial: ([-x for x in rewards[trial]], trial)):
        mine = rewards[trial]
        # Of two rewards the second rises along the front, whose last member has the highest.
        others = members[-1:] if len(mine) == 2 else members
        if not any(all(a >= b for a, b in zip(other, mine, strict=True)) for other in others):
            found.append(trial)
            members.append(mine)
    return found
