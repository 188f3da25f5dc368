"""The spaces of one parameter: Real, Int, Bool and Choice."""

from __future__ import annotations

import math
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import TYPE_CHECKING, Any, ClassVar

from distsearch.errors import SpaceError
from distsearch.space.base import Config, Domain, Space, join, plain
from distsearch.space.containers import (
    Constant,
    as_space,
    is_scalar,
    refuse_several,
    shorten,
)
from distsearch.space.privacy import without_secrets

if TYPE_CHECKING:  # where trials run, spaces are only built: NumPy would make each fork dearer
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

NOISE = 1e-6  # a number may be off a value by this share of a step
LARGEST_INT = 2**40  # the coordinates (floats) of larger numbers side by side could be the same


class Number(Domain):
    """What Real and Int share: bounds, both included, a scale, and the step between two values."""

    lower: Any
    upper: Any
    log: bool
    step: Any  # None: any number between the bounds
    noun: ClassVar[str]
    types: ClassVar[tuple[type, ...]]
    whole_step: ClassVar[Any]  # the step that holds where none is given

    def __init__(
        self, lower: Any, upper: Any, default: Any = None, log: bool = False, step: Any = None
    ) -> None:
        lower, upper = self._bound(lower), self._bound(upper)
        name = type(self).__name__
        if lower > upper:
            raise SpaceError(f"{name} needs lower <= upper, but got {lower} and {upper}")
        if not isinstance(log, bool):
            raise SpaceError(f"log of {name} must be True or False, but got {log!r}")
        if log and lower <= 0:
            raise SpaceError(f"{name} with log=True needs lower > 0, but got {lower}")
        vars(self).update(lower=lower, upper=upper, log=log, step=self.whole_step)
        if step is not None:
            vars(self).update(step=self._valid_step(step))
        value = self._midpoint() if default is None else self.check(default, "the default")
        vars(self).update(preset=value)

    def _bound(self, bound: Any) -> Any:
        bound = plain(bound)
        if not self._is_number(bound):
            raise SpaceError(f"a bound of {type(self).__name__} must be {self.noun}, got {bound!r}")
        return bound

    def _valid_step(self, step: Any) -> Any:
        """The step, once it is sure that it leads from `lower` to `upper`."""
        step, name = plain(step), type(self).__name__
        if not self._is_number(step) or not 0 < step <= sys.float_info.max:
            raise SpaceError(f"step of {name} must be {self.noun} above 0, but got {step!r}")
        from fractions import Fraction  # (few need it)

        steps = (Fraction(str(self.upper)) - Fraction(str(self.lower))) / Fraction(str(step))
        if steps > LARGEST_INT:
            raise SpaceError(f"step={step!r} of {name} is too small for its range; leave it out")
        if steps.denominator != 1:
            last = self._at(math.floor(steps), step)
            raise SpaceError(
                f"{name} from {self.lower} does not come to {self.upper} in steps of {step}; give "
                f"upper={last!r} or upper={self._at(math.ceil(steps), step)!r}"
            )
        return self.types[0](step)

    def _at(self, steps: int, step: Any) -> Any:
        """The value that is `steps` steps above `lower`."""
        return self.lower + steps * step

    def _is_number(self, value: Any) -> bool:
        return isinstance(value, self.types) and not isinstance(value, bool)

    def _midpoint(self) -> Any:
        if self.log:
            return self.nearest(math.sqrt(self.lower) * math.sqrt(self.upper))
        return self.nearest(self.lower + (self.upper - self.lower) / 2)

    @property
    def size(self) -> float:
        if self.lower == self.upper:
            return 1.0
        return math.inf if self.step is None else float(self.steps_to(self.upper) + 1)

    def nearest(self, value: float) -> Any:
        """The value of this range that is nearest to a number; of two the lower one."""
        return self.after(math.ceil(self._place(value) - 0.5)) if self.step else self._cut(value)

    def after(self, steps: int) -> Any:
        """The value that is `steps` steps above `lower`, or `upper` if there are fewer."""
        return self._at(min(max(steps, 0), self.steps_to(self.upper)), self.step)

    def beyond(self, value: float, start: Any) -> Any:
        """The value of this range at a number, or the next one further away from `start`."""
        if self.step is None:
            return self._cut(value)
        place = self._place(value)
        return self.after(math.ceil(place) if value > start else math.floor(place))

    def _cut(self, value: float) -> Any:
        return min(max(self.types[0](value), self.lower), self.upper)

    def _place(self, value: float) -> float:
        """How many steps a number is above `lower`."""
        place = (value - self.lower) / self.step
        whole = float(round(place))
        return whole if abs(place - whole) < NOISE else place

    def steps_to(self, value: Any) -> int:
        """How many steps a value of this range is above `lower`."""
        steps: int = round((value - self.lower) / self.step)
        return steps

    def _ends(self) -> tuple[float, float]:
        """The outer ends of the first and last value's bins, on the scale of the coordinates."""
        margin = 0.0 if self.step is None else self.step / 2
        low, high = self.lower - margin, self.upper + margin
        if not self.log:
            return low, high
        return math.log(low if low > 0 else self.lower / 2), math.log(high)

    def check(self, value: Any, name: str) -> Any:
        value = plain(value)
        valid = self._is_number(value) and self.lower <= value <= self.upper
        found = self.nearest(value) if valid else value
        if not valid or (self.step is not None and abs(value - found) > NOISE * self.step):
            steps = f" in steps of {self.step}" if self.step != self.whole_step else ""
            raise SpaceError(
                f"{name} must be {self.noun} from {self.lower} to {self.upper}{steps}, "
                f"but got {value!r}"
            )
        return found

    def to_unit(self, value: Any) -> float:
        low, high = self._ends()
        place = math.log(value) if self.log else value
        return min(max((place - low) / (high - low), 0.0), 1.0) if low < high else 0.5

    def from_unit(self, unit: NDArray[np.float64]) -> Any:
        low, high = self._ends()
        place = low + (high - low) * float(unit[0])
        return self.nearest(math.exp(place) if self.log else place)

    def ticks(self, points: int) -> Iterable[Any]:
        if self.size <= points:
            return map(self.after, range(int(self.size))) if self.step else [self.lower]
        if points == 1:
            return [self.preset]
        import numpy as np

        spread = np.geomspace if self.log else np.linspace
        places = spread(self.lower, self.upper, points).tolist()
        return dict.fromkeys(self.nearest(place) for place in places)

    def describe(self) -> dict[str, Any]:
        bounds = {"lower": self.lower, "upper": self.upper}
        steps = {} if self.step == self.whole_step else {"step": self.step}
        return {"type": self.kind, **bounds, "default": self.preset, "log": self.log, **steps}

    def __repr__(self) -> str:
        default = f", default={self.preset!r}" if self.preset != self._midpoint() else ""
        log = ", log=True" if self.log else ""
        step = f", step={self.step!r}" if self.step != self.whole_step else ""
        return f"{type(self).__name__}({self.lower!r}, {self.upper!r}{default}{log}{step})"


class Real(Number):
    """A float from lower to upper, both included; with log=True uniform in its logarithm.

    With a `step` it is one of lower, lower + step, ... upper. Without a default it is the midpoint,
    on the log scale the geometric one.

    >>> Dict(lr=Real(1e-4, 1e-2, log=True)).default
    {'lr': 0.001}
    >>> [config['x'] for config in Dict(x=Real(0, 0.4, step=0.1)).grid()]
    [0.0, 0.1, 0.2, 0.3, 0.4]

    Raises:
        SpaceError: for bounds that are not finite, or the wrong way round, for log with
            bounds that are not positive, for a step that does not lead from lower to upper, and for
            a default that is out of bounds or between two steps.
    """

    kind = "real"
    noun = "a finite number"
    types = (float, int)
    whole_step = None

    def __init__(
        self,
        lower: float,
        upper: float,
        default: float | None = None,
        log: bool = False,
        step: float | None = None,
    ) -> None:
        super().__init__(lower, upper, default, log, step)
        if math.isinf(self.upper - self.lower):
            raise SpaceError(f"Real from {lower} to {upper} is too wide for a float; narrow it")

    def _bound(self, bound: Any) -> float:
        bound = super()._bound(bound)
        if not abs(bound) <= sys.float_info.max:
            raise SpaceError(f"a bound of Real must be {self.noun}, got {bound!r}")
        return float(bound)

    def _at(self, steps: int, step: Any) -> float:
        """The value as people write it: 0.3, not 0.30000000000000004."""
        from fractions import Fraction

        return float(Fraction(str(self.lower)) + steps * Fraction(str(step)))


class Int(Number):
    """An integer from lower to upper, both included; with log=True uniform in its logarithm.

    With a `step` it is one of lower, lower + step, ... upper. Without a default it is the midpoint,
    on the log scale the geometric one, rounded.

    >>> Dict(width=Int(1, 100, log=True)).default
    {'width': 10}
    >>> [config['width'] for config in Dict(width=Int(16, 64, step=16)).grid()]
    [16, 32, 48, 64]

    Raises:
        SpaceError: for bounds that are not integers (bools and floats are not) or beyond 2**40,
            for the wrong way round, for log with lower < 1, for a step that does not lead from
            lower to upper, and for a default that is out of bounds or between two steps.
    """

    kind = "int"
    noun = "an integer"
    types = (int,)
    whole_step = 1

    def __init__(
        self,
        lower: int,
        upper: int,
        default: int | None = None,
        log: bool = False,
        step: int | None = None,
    ) -> None:
        super().__init__(lower, upper, default, log, step)

    def _bound(self, bound: Any) -> int:
        bound = super()._bound(bound)
        if abs(bound) > LARGEST_INT:
            raise SpaceError(f"a bound of Int must be from -2**40 to 2**40, got {bound}")
        return int(bound)


class Choice(Domain):
    """One of the options, which may be values, spaces, lazy objects, classes, anything.

    In a configuration a string, number, bool or None stands for itself, with its type: 1, 1.0 and
    True are three options. Any other option has a label: the name of a lazy object, class or
    function, the kind of a space ('real', 'int', 'bool', 'choice', 'list', 'dict'), else its repr;
    '#2', '#3' keep equal labels apart. `choices` lists values and labels. Where an option is a text
    with a password or a token in it, all options that are text are called 'secret 1', 'secret 2',
    ... there. Where an option is a space, its parameters exist only when it is chosen; their paths
    begin with the path of the Choice and the label. The default is the first option.

    Options are given one by one, as `Choice(*sizes)` from a list. A list may be one of several
    options, `Choice([1, 1], [3, 3])`; a single option that is a list is `List(3, 3)`.

    >>> Choice(Real(0, 1), 'none').choices
    ('real', 'none')
    >>> Dict(x=Choice(Real(0, 1), 'none')).default
    {'x': 'real', 'x.real': 0.5}

    Raises:
        SpaceError: for no option at all, NaN, the same value twice, and for a list (or anything
            else that holds several values) in place of the options.
    """

    kind = "choice"
    choices: tuple[Any, ...]
    options: tuple[Space, ...]
    _position: dict[tuple[type, Any], int]
    hides = False  # whether options are called 'secret 1' and so on

    def __init__(self, *choices: Any) -> None:
        if not choices:
            raise SpaceError("a Choice needs at least one option, but got none")
        if len(choices) == 1:
            refuse_several("Choice", choices[0])
        options = tuple(map(as_space, choices))
        values = _name_options(options)
        position = {_key(value): i for i, value in enumerate(values)}
        vars(self).update(options=options, choices=values, _position=position)
        vars(self).update(preset=values[0], width=len(values))
        if any(without_secrets(value) != value for value in values):
            self._call_texts_secrets()

    def concealed(self) -> Choice:
        """A Choice of the same options, which calls texts 'secret 1', 'secret 2', ..."""
        other = type(self)(*self.options)
        other._call_texts_secrets()
        return other

    def _call_texts_secrets(self) -> None:
        names = tuple(
            f"secret {number}" if isinstance(value, str) and _is_itself(option) else value
            for number, (value, option) in enumerate(
                zip(self.choices, self.options, strict=True), 1
            )
        )
        if names != self.choices:
            position = {_key(name): index for index, name in enumerate(names)}
            vars(self).update(choices=names, _position=position, preset=names[0], hides=True)

    @property
    def size(self) -> float:
        return sum(option.size for option in self.options)

    def check(self, value: Any, name: str) -> Any:
        found = self._find(plain(value))
        if found is None:
            options = shorten(", ".join(map(repr, self.choices)), 1000)
            kind = type(value).__name__
            got = kind if self.hides else f"{value!r} ({kind})"
            raise SpaceError(f"{name} must be one of {options}, but got {got}")
        return self.choices[found]

    def _find(self, value: Any) -> int | None:
        """The position of an option: `value` is its name in a configuration, or itself."""
        if is_scalar(value) and _key(value) in self._position:
            return self._position[_key(value)]
        matches = (i for i, option in enumerate(self.options) if _is_option(option, value))
        return next(matches, None)

    def option(self, value: Any) -> Space:
        """The option that stands behind one of `choices`."""
        return self.options[self._position[_key(value)]]

    def is_option(self, value: Any) -> bool:
        return self._find(value) is not None

    def to_unit(self, value: Any) -> ArrayLike:
        return [float(_key(value) == _key(choice)) for choice in self.choices]

    def from_unit(self, unit: NDArray[np.float64]) -> Any:
        return self.choices[int(unit.argmax())]

    def ticks(self, points: int) -> Iterable[Any]:
        return self.choices

    def branches(self) -> Sequence[tuple[str, Space]]:
        return [branch for choice in self.choices if (branch := self.branch(choice))]

    def branch(self, value: Any) -> tuple[str, Space] | None:
        option = self.option(value)
        return None if isinstance(option, Constant) else (value, option)

    def _build(self, path: str, config: Config) -> Any:
        value = config[path]
        return self.option(value)._build(join(path, str(value)), config)

    def describe(self) -> dict[str, Any]:
        described = {"type": self.kind, "choices": list(self._describe_options())}
        is_first = _key(self.preset) == _key(self.choices[0])
        return described if is_first else {**described, "default": self.preset}

    def _describe_options(self) -> Iterator[Any]:
        for value in self.choices:
            option = self.option(value)
            yield value if _is_itself(option) else {"label": value, **option.describe()}

    def __repr__(self) -> str:
        shown = self.choices if self.hides else self.options
        return f"Choice({', '.join(map(repr, shown))})"


class Bool(Choice):
    """False or True, as real bools: a Choice of the two, so False is the default.

    >>> Bool().choices
    (False, True)
    """

    kind = "bool"

    def __init__(self) -> None:
        super().__init__(False, True)

    def __repr__(self) -> str:
        return "Bool()"


Categorical = Choice


def _key(value: Any) -> tuple[type, Any]:
    return type(value), value  # (with the type, as 1 == True == 1.0 in Python)


def _is_itself(option: Space) -> bool:
    return isinstance(option, Constant) and is_scalar(option.value)


def _is_option(option: Space, value: Any) -> bool:
    if not isinstance(option, Constant) or option.value is value:
        return option is value or isinstance(option, Constant)
    by_text = isinstance(value, list | tuple | dict | float | str) and type(value) is type(
        option.value
    )
    return by_text and repr(value) == repr(option.value)


def _name_options(options: Sequence[Space]) -> tuple[Any, ...]:
    """The name of each option in a configuration: the option itself, or a label of its own."""
    taken: set[tuple[type, Any]] = set()
    for option in filter(_is_itself, options):
        key = _key(option.value)  # type: ignore[attr-defined]
        if key in taken:
            raise SpaceError(f"each option must be given once, but got {option!r} again")
        taken.add(key)
    return tuple(_name_option(option, taken) for option in options)


def _name_option(option: Space, taken: set[tuple[type, Any]]) -> Any:
    if isinstance(option, Constant):
        if is_scalar(option.value):
            return option.value
        if isinstance(option.value, float) and math.isnan(option.value):
            raise SpaceError("NaN cannot be an option, as it equals nothing; use None or a string")
    label, number = option.label, 1
    while _key(label) in taken:
        number += 1
        label = f"{option.label}#{number}"
    taken.add(_key(label))
    return label
