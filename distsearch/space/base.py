"""What every space can do: sample, default, build, validate, encode, decode, count and list.

    Space
    ├── Domain              one parameter: one value under one path
    │   ├── Real, Int
    │   └── Choice, Bool    options may be spaces, of which only the chosen one is active
    ├── Container           named parts, no value of its own
    │   ├── List, Dict
    │   └── Lazy            what @obj and @func make
    └── Constant            any other value: no parameter at all

A configuration is a flat dict {path: plain value} of the active parameters, ready for JSON:
``{'lr': 0.01, 'net': 'BigNet', 'net.BigNet.width': 32, 'layers.0': 64}``. A path joins names,
positions and the labels of chosen options with dots; a space that stands alone has the path ''.

Sampling, filling in defaults, validating and decoding are one walk over the active parameters;
they differ only in whom they ask for each value.
"""

from __future__ import annotations

import copy
import json
import sys
from abc import ABC, abstractmethod
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import cached_property
from typing import TYPE_CHECKING, Any, ClassVar

from distsearch.errors import SpaceError, suggest
from distsearch.space.autogluon import missing

if TYPE_CHECKING:  # where trials run, spaces are only built: NumPy would make each fork dearer
    import numpy as np
    from numpy.typing import ArrayLike, NDArray

Config = dict[str, Any]
Ask = Callable[[str, "Domain"], Any]

CACHED = "_layout", "_groups"  # what a space finds out once, and does not take along
INACTIVE = 0.5  # the coordinate of a parameter whose branch was not chosen


class Space(ABC):
    """A set of configurations, and how each becomes the value that a train function sees.

    Spaces are frozen: they can be shared, compared with ``==`` (by description) and pickled.

    >>> space = Dict(lr=Real(1e-4, 1e-1, log=True), epochs=3)
    >>> space.sample(np.random.default_rng(0))
    {'lr': 0.008144886973076106}
    >>> space.build({'lr': 0.01})
    Namespace(lr=0.01, epochs=3)
    """

    kind: ClassVar[str]

    # ---- what each kind of space tells about itself

    @property
    @abstractmethod
    def size(self) -> float:
        """The number of different configurations; inf with a Real that is wider than a point."""

    @abstractmethod
    def describe(self) -> dict[str, Any]:
        """This space as plain JSON, to be stored and compared later (see `differences`)."""

    @abstractmethod
    def _parameters(self, path: str) -> Iterator[tuple[str, Domain]]:
        """Every parameter with its path, active or not, in the order of the coordinates."""

    @abstractmethod
    def _walk(self, path: str, ask: Ask) -> Iterator[tuple[str, Any]]:
        """The active parameters with the values that `ask` gives for them."""

    @abstractmethod
    def _grid(self, path: str, points: int) -> Iterator[Config]:
        """All combinations of the values of `ticks`."""

    @abstractmethod
    def _build(self, path: str, config: Config) -> Any:
        """The value that the (valid) configuration stands for."""

    @property
    def label(self) -> str:
        """What this space is called where it is one of the options of a Choice."""
        return self.kind

    def concealed(self) -> Space:
        """This space, as it is where its name is that of a secret.

        A configuration, which everybody may read, then shows none of its texts.
        """
        return self

    # ---- what every space offers

    def sample(self, rng: np.random.Generator) -> Config:
        """A configuration drawn uniformly (on the log scale where there is one)."""
        return self.walk(lambda path, domain: domain.draw(rng))

    def walk(self, ask: Ask) -> Config:
        """The configuration whose values are what `ask(path, domain)` answers.

        `ask` is called for each active parameter, in order: for the parameters of an option of a
        Choice only after that option was chosen.

        >>> Dict(lr=Real(0, 1), wd=Real(0, 1)).walk(lambda path, domain: domain.lower)
        {'lr': 0.0, 'wd': 0.0}
        """
        return dict(self._walk("", ask))

    @property
    def default(self) -> Config:
        """The default configuration: given defaults, else midpoints and first choices."""
        return dict(self._walk("", lambda path, domain: domain.preset))

    def build(self, config: Mapping[str, Any]) -> Any:
        """What the train function sees: nested plain values, with lazy objects made.

        The configuration is validated first, so what it leaves out has its default.
        """
        return self._build("", self.validate(config))

    def validate(self, config: Mapping[str, Any]) -> Config:
        """The whole, plain configuration that the given one stands for.

        Missing parameters of the active branch get their defaults; numpy scalars become Python's;
        nested mappings and lists are flattened, so ``{'g': {'rank': 3}}`` is ``{'g.rank': 3}``.

        Raises:
            SpaceError: for unknown or inactive names (they must be exact), wrong types, and
                values out of bounds; the text lists what is valid.
        """
        given = dict(self._flatten(config))

        def take(path: str, domain: Domain) -> Any:
            if path not in given:
                return domain.preset
            return domain.check(given.pop(path), path or "the value")

        valid = dict(self._walk("", take))
        if given:
            raise SpaceError(self._why_unknown(next(iter(given)), valid))
        return valid

    @property
    def parameters(self) -> Mapping[str, Domain]:
        """Every parameter by its path, active or not.

        >>> Dict(lr=Real(0, 1), net=Choice('small', Dict(width=Int(1, 9)))).parameters.keys()
        dict_keys(['lr', 'net', 'net.dict.width'])
        """
        return {path: domain for path, (domain, _) in self._layout.items()}

    @property
    def dimension(self) -> int:
        """The number of coordinates of `encode`: one per number, one per option of a Choice."""
        return sum(domain.width for domain, _ in self._layout.values())

    def encode(self, config: Mapping[str, Any]) -> NDArray[np.float64]:
        """The configuration as a vector of shape (dimension,) in [0, 1].

        Choices are one-hot; coordinates of inactive parameters are 0.5.
        """
        import numpy as np

        vector = np.full(self.dimension, INACTIVE)
        for path, value in self.validate(config).items():
            domain, where = self._layout[path]
            vector[where] = domain.to_unit(value)
        return vector

    def decode(self, vector: ArrayLike) -> Config:
        """The configuration at a vector of shape (dimension,); the inverse of `encode`.

        Coordinates are clipped to [0, 1]; of a Choice the largest wins; inactive ones are ignored.

        Raises:
            SpaceError: for another shape, or NaN.
        """
        import numpy as np

        unit = np.asarray(vector, dtype=np.float64)
        if unit.shape != (self.dimension,) or np.isnan(unit).any():
            raise SpaceError(
                f"decode needs {self.dimension} numbers without NaN, "
                f"but got shape {unit.shape}: {unit}"
            )
        unit = unit.clip(0.0, 1.0)
        layout = self._layout
        return dict(self._walk("", lambda path, domain: domain.from_unit(unit[layout[path][1]])))

    def grid(self, points: int = 5) -> Iterator[Config]:
        """Every combination, lazily and without duplicates.

        A Real, or an Int with more values, is cut to `points` values spread evenly on its scale,
        both ends included (with points=1: its default).
        """
        if isinstance(points, bool) or not isinstance(points, int) or points < 1:
            raise SpaceError(f"points must be an integer from 1 on, but got {points!r}")
        return self._grid("", points)

    @property
    def rand(self) -> Any:
        """A value drawn at random and built; AutoGluon's name for `build(sample(rng))`."""
        import numpy as np

        return self.build(self.sample(np.random.default_rng()))

    if not TYPE_CHECKING:  # to a type checker there is no other attribute

        def __getattr__(self, name: str) -> Any:
            return missing(self, name)

    # ---- helpers

    @cached_property
    def _layout(self) -> dict[str, tuple[Domain, slice]]:
        layout, start = {}, 0
        for path, domain in self._parameters(""):
            layout[path] = domain, slice(start, start + domain.width)
            start += domain.width
        return layout

    @cached_property
    def _groups(self) -> set[str]:
        """The paths under which there are parameters: of `net.dict.width`, `net` and `net.dict`."""
        groups = set()
        for path in self._layout:
            while "." in path:
                path = path.rpartition(".")[0]
                groups.add(path)
        return groups

    def _flatten(self, given: Mapping[str, Any], prefix: str = "") -> Iterator[tuple[str, Any]]:
        if not isinstance(given, Mapping):
            raise SpaceError(f"a configuration must be a mapping {{name: value}}, got {given!r}")
        seen: set[str] = set()
        for name, value in given.items():
            for path, plain in self._flatten_item(join(prefix, str(name)), value):
                if path in seen:
                    raise SpaceError(f"{path!r} is given twice; leave one of them out")
                seen.add(path)
                yield path, plain

    def _flatten_item(self, path: str, value: Any) -> Iterator[tuple[str, Any]]:
        entry = self._layout.get(path)
        if path not in self._groups or (entry is not None and entry[0].is_option(value)):
            yield path, value
        elif isinstance(value, Mapping):
            yield from self._flatten(value, path)
        elif isinstance(value, list | tuple):
            yield from self._flatten(dict(enumerate(value)), path)  # type: ignore[arg-type]
        else:
            yield path, value

    def _why_unknown(self, path: str, valid: Config) -> str:
        if path in self._layout:
            choice = max((p for p in valid if path.startswith(join(p, ""))), key=len)
            return (
                f"{path!r} is not active, because {choice or 'the value'} is {valid[choice]!r}; "
                "leave it out, or choose the option it belongs to"
            )
        return f"there is no parameter {path!r}; {suggest(path, valid)}"

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name not in CACHED}

    def __setattr__(self, name: str, value: Any) -> None:
        raise AttributeError(f"{self!r} is frozen; make a new one instead of setting {name!r}")

    def __delattr__(self, name: str) -> None:
        raise AttributeError(f"{self!r} is frozen; make a new one instead of deleting {name!r}")

    def __eq__(self, other: object) -> bool:
        if not isinstance(other, Space):
            return NotImplemented
        # As text, because in Python 1 == True == 1.0.
        return json.dumps(self.describe()) == json.dumps(other.describe())

    def __hash__(self) -> int:
        return hash(json.dumps(self.describe()))


class Domain(Space):
    """A space with a value of its own: one parameter, `width` coordinates."""

    preset: Any  # the default value
    width: int = 1

    @abstractmethod
    def check(self, value: Any, name: str) -> Any:
        """The value as it stands in a configuration; SpaceError, with `name`, if invalid."""

    @abstractmethod
    def to_unit(self, value: Any) -> ArrayLike:
        """The coordinates, each in [0, 1], of a valid value."""

    @abstractmethod
    def from_unit(self, unit: NDArray[np.float64]) -> Any:
        """The value at the coordinates, of shape (width,)."""

    @abstractmethod
    def ticks(self, points: int) -> Iterable[Any]:
        """Different values, in order, for a grid."""

    def draw(self, rng: np.random.Generator) -> Any:
        """A value drawn uniformly."""
        return self.from_unit(rng.random(self.width))

    def is_option(self, value: Any) -> bool:
        """Whether a mapping or a list is, as a whole, a value of this parameter."""
        return False

    def branches(self) -> Sequence[tuple[str, Space]]:
        """The options that have parameters of their own, each with its label."""
        return ()

    def branch(self, value: Any) -> tuple[str, Space] | None:
        """The one of `branches` that is active at this value."""
        return None

    def _parameters(self, path: str) -> Iterator[tuple[str, Domain]]:
        yield path, self
        for label, option in self.branches():
            yield from option._parameters(join(path, label))

    def _walk(self, path: str, ask: Ask) -> Iterator[tuple[str, Any]]:
        value = ask(path, self)
        yield path, value
        if branch := self.branch(value):
            label, option = branch
            yield from option._walk(join(path, label), ask)

    def _grid(self, path: str, points: int) -> Iterator[Config]:
        for value in self.ticks(points):
            if branch := self.branch(value):
                label, option = branch
                for inner in option._grid(join(path, label), points):
                    yield {path: value, **inner}
            else:
                yield {path: value}

    def _build(self, path: str, config: Config) -> Any:
        return config[path]


def join(path: str, name: str) -> str:
    """The path of a part: 'g' and 'rank' make 'g.rank'; at the top just 'rank'."""
    return f"{path}.{name}" if path else name


def plain(value: Any) -> Any:
    """A numpy scalar as Python's; anything else as it is."""
    numpy = sys.modules.get("numpy")  # who has such a value has loaded it
    return value.item() if numpy is not None and isinstance(value, numpy.generic) else value


def with_default(space: Any, value: Any) -> Any:
    """A parameter with another default; what is no parameter, or cannot have it, stays as it is.

    >>> with_default(Real(0, 1), 0.1), with_default(Real(0, 1), 'auto')
    (Real(0.0, 1.0, default=0.1), Real(0.0, 1.0))
    """
    if not isinstance(space, Domain):
        return space
    try:
        preset = space.check(value, "the default")
    except SpaceError:
        return space
    other = copy.copy(space)
    vars(other).update(preset=preset)
    return other


def differences(before: Any, after: Any, path: str = "") -> list[str]:
    """What changed from one description to another, a line each; [] when they are the same.

    >>> differences(Dict(lr=Real(0, 1)).describe(), Dict(lr=Real(0, 2)).describe())
    ['lr.upper: 1.0 -> 2.0', 'lr.default: 0.5 -> 1.0']
    """
    if isinstance(before, list) and isinstance(after, list):
        before, after = dict(enumerate(before)), dict(enumerate(after))
    if not (isinstance(before, dict) and isinstance(after, dict)):
        same = json.dumps(before) == json.dumps(after)
        return [] if same else [f"{path}: {json.dumps(before)} -> {json.dumps(after)}"]
    lines = []
    for name in {**before, **after}:
        where = path if name == "items" else join(path, str(name))
        if name not in after:
            lines.append(f"{where}: removed, was {json.dumps(before[name])}")
        elif name not in before:
            lines.append(f"{where}: added, is {json.dumps(after[name])}")
        else:
            lines += differences(before[name], after[name], where)
    if not lines and list(before) != list(after):
        lines.append(f"{join(path, 'order')}: {', '.join(before)} -> {', '.join(after)}")
    return lines
