"""Configurations as rows of numbers: drawn and changed many at a time, and as points of a model."""

from __future__ import annotations

import math
from collections.abc import Iterator, Mapping
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..space import Choice, Int, Space
from ..space.base import Domain, join
from .base import Config

Array = NDArray[np.float64]

INACTIVE = 0.5  # the coordinate of a number that is not active: the middle
MOST_STEPS = 10_000  # an Int with more values is treated like a real number


class Places:
    """The parameters of a space, each a column of the rows that stand for configurations.

    In a row, a number is its place in [0, 1], a choice is the number of its option, and a parameter
    that is not active is NaN.

        places = Places(space)
        rows = places.near(places.draw(rng, 100), rng, widths=0.1, share=0.5)
        points = places.points(rows)             # (100, places.groups.size)
        config = places.config(rows[0])

    `groups`: for each column of `points`, the column of the rows from which it comes.
    """

    def __init__(self, space: Space) -> None:
        self.space = space
        self._domains = domains = space.parameters
        self._column = {path: column for column, path in enumerate(domains)}
        self._options = np.array(
            [len(one.choices) if isinstance(one, Choice) else 0 for one in domains.values()], int
        )
        self._steps = {
            column: _Steps(domain)
            for column, domain in enumerate(domains.values())
            if isinstance(domain, Int) and 1 < domain.size <= MOST_STEPS
        }
        # A column that is active only with this option of another column.
        self._conditions = [
            (self._column[inner], self._column[path], option)
            for path, domain in domains.items()
            if isinstance(domain, Choice)
            for option, inner in _inside(path, domain)
        ]
        self.groups = np.repeat(np.arange(len(domains)), np.maximum(self._options, 1))

    def __len__(self) -> int:
        """The number of parameters."""
        return len(self._column)

    @property
    def is_choice(self) -> NDArray[np.bool_]:
        """Which columns of the rows are choices."""
        found: NDArray[np.bool_] = self._options > 0
        return found

    def misplaced(
        self, inactive: NDArray[np.bool_], options: NDArray[Any]
    ) -> tuple[int | None, int]:
        """The first row in which a parameter is wrongly active or inactive, and the parameter.

        `inactive` says which parameters are inactive, `options` has the number of each choice's
        option; both have the shape of rows. The row is None if all are right.
        """
        should = np.zeros(inactive.shape, dtype=bool)
        for inner, choice, option in self._conditions:
            should[:, inner] |= options[:, choice] != option
        for inner, choice, _ in self._conditions:
            should[:, inner] |= should[:, choice]
        rows, columns = np.nonzero(should != inactive)
        return (int(rows[0]), int(columns[0])) if len(rows) else (None, 0)

    def row(self, config: Mapping[str, Any]) -> Array:
        """The row of a configuration."""
        row = np.full(len(self._column), math.nan)
        for path, value in config.items():
            domain = self._domains[path]
            unit = np.asarray(domain.to_unit(value), dtype=float).reshape(-1)
            row[self._column[path]] = unit.argmax() if isinstance(domain, Choice) else unit[0]
        return row

    def config(self, row: Array) -> Config:
        """The configuration of a row."""

        def take(path: str, domain: Domain) -> Any:
            place = row[self._column[path]]
            if isinstance(domain, Choice):
                return domain.choices[int(place)]
            return domain.from_unit(np.array([place]))

        return self.space.walk(take)

    def draw(self, rng: np.random.Generator, count: int) -> Array:
        """Rows drawn uniformly."""
        return self._settled(self._draw(rng, count))

    def near(
        self, centres: Array, rng: np.random.Generator, widths: Array | float, share: float
    ) -> Array:
        """One row near each centre, in which about a `share` of the parameters is changed.

        A number moves by a normal step with the standard deviation `widths`, reflected at the ends
        of its range; a choice is drawn again, and so are parameters that become active.
        """
        fresh = self._draw(rng, len(centres))
        moved = centres + widths * rng.normal(size=centres.shape)
        moved = np.where(self._options > 0, fresh, 1 - np.abs(1 - np.abs(moved) % 2))
        changes = rng.random(centres.shape) < share
        changes[np.arange(len(centres)), rng.integers(centres.shape[1], size=len(centres))] = True
        rows = np.where(changes, moved, centres)
        return self._settled(np.where(np.isnan(rows), fresh, rows))

    def in_box(self, centre: Array, cube: Array, size: float) -> Array:
        """Rows in a box around a centre, one for each point of the unit cube: (n, parameters).

        A number is at most `size` away from the centre, within its range; a choice changes in a
        share `size` of the cube, and parameters that become active are drawn.
        """
        low, high = np.maximum(centre - size, 0.0), np.minimum(centre + size, 1.0)
        numbers = np.where(np.isnan(centre), cube, low + cube * (high - low))
        fresh = np.floor(np.minimum(cube / size, 1 - 1e-9) * self._options)
        stays = (cube >= size) & ~np.isnan(centre)
        return self._settled(np.where(self._options > 0, np.where(stays, centre, fresh), numbers))

    def points(self, rows: Array) -> Array:
        """The points of rows; two options of a choice are as far apart as the ends of a range."""
        points = np.empty((len(rows), len(self.groups)))
        start = 0
        for column, options in zip(rows.T, self._options, strict=True):
            if options:
                is_chosen = (column[:, None] == np.arange(options)).astype(float)
                is_chosen[np.isnan(column)] = 1 / options
                points[:, start : start + options] = is_chosen / math.sqrt(2)
            else:
                points[:, start] = np.where(np.isnan(column), INACTIVE, column)
            start += max(1, options)
        return points

    def _draw(self, rng: np.random.Generator, count: int) -> Array:
        """Rows whose parameters are all active."""
        rows = rng.random((count, len(self._options)))
        return np.where(self._options > 0, np.floor(rows * self._options), rows)

    def _settled(self, rows: Array) -> Array:
        """The rows, with integers at their places, and NaN for parameters that are not active."""
        for column, steps in self._steps.items():
            rows[:, column] = steps.nearest(rows[:, column])
        for inner, choice, option in self._conditions:
            rows[rows[:, choice] != option, inner] = math.nan
        return rows


def _inside(path: str, choice: Choice) -> Iterator[tuple[int, str]]:
    """The paths of the parameters of a choice's options, each with the number of its option."""
    for label, space in choice.branches():
        option = choice.choices.index(label)
        for name in space.parameters:
            yield option, join(join(path, label), name) if name else join(path, label)


class _Steps:
    """The places of an Int's values."""

    def __init__(self, domain: Int) -> None:
        values = range(domain.lower, domain.upper + 1)
        self._places = np.array([domain.to_unit(value) for value in values])
        self._between = np.array([domain.to_unit(value + 0.5) for value in values[:-1]])

    def nearest(self, places: Array) -> Array:
        return self._places[np.searchsorted(self._between, places)]
