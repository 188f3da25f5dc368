"""Pools: the configurations from which a search chooses, as an array of codes, in memory or not."""

from __future__ import annotations

import hashlib
import itertools
from collections.abc import Iterable, Sequence
from functools import cached_property
from os import PathLike
from pathlib import Path
from typing import Any, Union

import numpy as np
from numpy.typing import NDArray

from ..errors import SpaceError
from ..space import Choice, Int, Space
from ..space.base import Domain
from ..space.domains import Number
from .linear import Linear
from .places import Array, Places

Codes = NDArray[np.integer[Any]]
Indices = NDArray[np.intp]
Given = Union[str, "PathLike[str]", NDArray[Any], Iterable[Sequence[int]]]

MOST_VALUES = 65_536  # a parameter may have so many values
AT_ONCE = 65_536  # so many rows are looked at in one go
SHOWN = 3  # an error names so many rows


class Pool:
    """Configurations as codes, one a row; so pools are given, and kept.

        pool = Pool.of(space, "pool.npy")               # or an array, or rows from a generator
        rows = pool.rows(np.array([7, 12]))             # rows of `Places`
        scores = pool.predict(linear, np.arange(len(pool)))

    The code of a choice is the number of its option; the code of a number says how many steps it is
    above the lowest value; -1 is the code of a parameter that is not active. So a file of 1,000,000
    rows with 28 parameters (`numpy.save`, dtype uint8) takes 28 MB; it is mapped into memory, and
    not copied.

    Raises SpaceError for rows outside the space, of another width, or given twice, and for no rows.
    """

    def __init__(self, places: Places, codes: Codes) -> None:
        self._places = places
        self._codes = codes
        self._values = [_values(path, one) for path, one in places.space.parameters.items()]

    @classmethod
    def of(cls, space: Space, given: Given) -> Pool:
        """The pool in a .npy file (its path), in an array, or of an iterable of rows."""
        pool = cls(Places(space), _codes(space, given))
        pool._check()
        return pool

    @classmethod
    def whole(cls, space: Space, most: int) -> Pool | None:
        """All configurations of a space, if there are at most `most`, and no conditions."""
        domains = space.parameters.values()
        has_conditions = any(domain.branches() for domain in domains)
        if not 1 < space.size <= most or has_conditions or not domains:
            return None
        sizes = [int(domain.size) for domain in domains]
        codes = np.indices(sizes, dtype=_least_type(max(sizes))).reshape(len(sizes), -1).T
        return cls(Places(space), codes)

    def __len__(self) -> int:
        return len(self._codes)

    @property
    def fingerprint(self) -> str:
        """A text that is the same for the same codes in the same order, however they are given."""
        hashes, order = self._by_hash
        in_order = np.empty_like(hashes)
        in_order[order] = hashes
        return f"{len(self):,} rows, {hashlib.sha256(in_order.tobytes()).hexdigest()[:12]}"

    def rows(self, indices: Indices) -> Array:
        """The rows of `Places` for the configurations at these indices."""
        codes = self._codes[indices]
        return np.column_stack(
            [values[codes[:, column]] for column, values in enumerate(self._values)]
        )

    def find(self, rows: Array) -> Indices:
        """The indices in the pool of rows of `Places`; rows that are not in it are left out."""
        codes = np.full(rows.shape, -1, dtype=np.int64)
        for column, values in enumerate(self._values):
            active = ~np.isnan(rows[:, column])
            codes[active, column] = np.searchsorted(values[:-1], rows[active, column])
        hashes, order = self._by_hash
        found = []
        first = np.searchsorted(hashes, _hashes(codes), side="left")
        last = np.searchsorted(hashes, _hashes(codes), side="right")
        for wanted, begin, end in zip(rows, first, last, strict=True):
            for index in order[begin:end]:  # (one, but hashes may be equal by chance)
                if np.array_equal(self.rows(np.array([index]))[0], wanted, equal_nan=True):
                    found.append(index)
        return np.array(found, dtype=np.intp)

    def predict(self, linear: Linear, indices: Indices) -> Array:
        """What a linear model predicts for the configurations at these indices."""
        terms = [linear.of_column(column, values) for column, values in enumerate(self._values)]
        predicted = np.empty(len(indices))
        for begin in range(0, len(indices), AT_ONCE):
            codes = self._codes[indices[begin : begin + AT_ONCE]]
            total = np.full(len(codes), linear.start)
            for column, term in enumerate(terms):
                total += term[codes[:, column]]
            predicted[begin : begin + AT_ONCE] = total
        return predicted

    def _check(self) -> None:
        names = list(self._places.space.parameters)
        if len(self._codes) == 0:
            raise SpaceError("the pool has no rows; give at least one configuration")
        for begin in range(0, len(self), AT_ONCE):
            codes = np.asarray(self._codes[begin : begin + AT_ONCE])
            self._check_inside(codes, begin, names)
        self._check_unique()

    def _check_inside(self, codes: Codes, begin: int, names: list[str]) -> None:
        for column, (name, values) in enumerate(zip(names, self._values, strict=True)):
            most = len(values) - 2
            outside = np.flatnonzero((codes[:, column] > most) | (codes[:, column] < -1))
            if len(outside):
                row = int(outside[0])
                raise SpaceError(
                    f"row {begin + row} of the pool has the code {int(codes[row, column])} for "
                    f"{name!r}, but its codes are 0 to {most}, and -1 where it is not active"
                )
        wrong, column = self._places.misplaced(codes < 0, codes)
        if wrong is not None:
            code = int(codes[wrong, column])
            why = "which says that it is not active, but it is" if code < 0 else "but is not active"
            raise SpaceError(
                f"{names[column]!r} has the code {code} in row {begin + wrong} of the pool, {why}; "
                "-1 stands for a parameter that is not active, and for no other"
            )

    @cached_property
    def _by_hash(self) -> tuple[NDArray[np.uint64], Indices]:
        """The hashes of all rows in ascending order, and the indices of their rows."""
        hashes = np.empty(len(self), dtype=np.uint64)
        for begin in range(0, len(self), AT_ONCE):
            hashes[begin : begin + AT_ONCE] = _hashes(self._codes[begin : begin + AT_ONCE])
        order = np.argsort(hashes, kind="stable")
        return hashes[order], order

    def _check_unique(self) -> None:
        hashes, order = self._by_hash
        equal = np.flatnonzero(hashes[1:] == hashes[:-1])
        twice = [
            (int(order[one]), int(order[one + 1]))
            for one in equal
            if (self._codes[order[one]] == self._codes[order[one + 1]]).all()
        ]
        if twice:
            named = ", ".join(f"{a} and {b}" for a, b in twice[:SHOWN])
            more = "" if len(twice) <= SHOWN else f" and {len(twice) - SHOWN} pairs more"
            raise SpaceError(
                f"the pool has rows that are the same: {named}{more}; "
                "numpy.unique(pool, axis=0) leaves each once"
            )


def _values(path: str, domain: Domain) -> Array:
    """The value in a row for each code; the last one, at -1, is for what is not active."""
    if isinstance(domain, Choice):
        return np.append(np.arange(len(domain.choices), dtype=float), np.nan)
    if domain.size > MOST_VALUES or not isinstance(domain, Number):
        kind = "an Int" if isinstance(domain, Int) else "a Real"
        raise SpaceError(
            f"a pool has codes for at most {MOST_VALUES} values of a parameter, but {path!r} is "
            f"{kind} with more; give it a step, or search without a pool"
        )
    steps = [domain.lower] if domain.step is None else map(domain.after, range(int(domain.size)))
    return np.array([*(float(domain.to_unit(value)) for value in steps), np.nan])


def _hashes(codes: Codes) -> NDArray[np.uint64]:
    """One number for each row: the same for equal rows, and hardly ever for others."""
    factors = np.random.default_rng(0).integers(2**63, size=codes.shape[1], dtype=np.uint64)
    found: NDArray[np.uint64] = (codes.astype(np.uint64) * factors).sum(axis=1)
    return found


def _codes(space: Space, given: Given) -> Codes:
    width = len(space.parameters)
    if isinstance(given, (str, PathLike)):
        given = _from_file(Path(given))
    elif not isinstance(given, np.ndarray):
        if not isinstance(given, Iterable):
            raise SpaceError(f"pool={given!r}; give a .npy file, an array, or rows of codes")
        given = _packed(given, space, width)
    if given.ndim != 2 or given.shape[1] != width or not np.issubdtype(given.dtype, np.integer):
        raise SpaceError(
            f"the pool has the shape {given.shape} and type {given.dtype}, but it has to be an "
            f"array of integers with {width} columns, one for each parameter of the space"
        )
    return given


def _from_file(path: Path) -> NDArray[Any]:
    try:
        found = np.load(path, mmap_mode="r", allow_pickle=False)
    except FileNotFoundError as error:
        raise SpaceError(f"the pool {str(path)!r} is not there; give a .npy file") from error
    except OSError as error:
        raise SpaceError(f"the pool {str(path)!r} cannot be read: {error}") from error
    except (ValueError, EOFError) as error:  # (numpy would advise to trust the file)
        raise SpaceError(
            f"the pool {str(path)!r} is no file that numpy.save has written of an array of integers"
        ) from error
    if not isinstance(found, np.ndarray):
        raise SpaceError(f"the pool {str(path)!r} holds several arrays; give a .npy file of one")
    return found


def _packed(given: Iterable[Sequence[int]], space: Space, width: int) -> NDArray[Any]:
    """The rows of an iterable in the smallest type that holds their codes, chunk by chunk."""
    largest = max((domain.size for domain in space.parameters.values()), default=1)
    has_conditions = any(domain.branches() for domain in space.parameters.values())
    kind = np.dtype(np.int32) if has_conditions else _least_type(min(int(largest), 2**31))
    parts = []
    rows = iter(given)
    while chunk := list(itertools.islice(rows, AT_ONCE)):
        for row in chunk:
            if len(row) != width:
                raise SpaceError(
                    f"a row of the pool has {len(row)} codes, but the space has {width} parameters"
                )
        codes = np.asarray(chunk)
        if not np.issubdtype(codes.dtype, np.integer):
            raise SpaceError(f"the pool's codes are integers, but a row is {chunk[0]!r}")
        fits = (codes >= np.iinfo(kind).min) & (codes <= np.iinfo(kind).max)
        parts.append(codes.astype(kind if fits.all() else np.int64))
    return np.concatenate(parts) if parts else np.empty((0, width), dtype=kind)


def _least_type(values: int) -> np.dtype[Any]:
    """The smallest unsigned type for codes of this number of values."""
    return np.min_scalar_type(max(0, values - 1))
