"""A tree of regions: learned boundaries split inner regions, and UCB chooses a leaf.

Source: Wang et al., "Sample-Efficient Neural Architecture Search by Learning Actions for Monte
Carlo Tree Search", arXiv:1906.06832 (2019), section 3.
"""

from __future__ import annotations

import math
from collections.abc import Callable, Collection, Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any, Protocol

import numpy as np
from numpy.typing import NDArray

from .places import Array

Mask = NDArray[np.bool_]


class Split(Protocol):
    """A learned boundary through a region."""

    def is_good(self, rows: Array) -> Mask:
        """Which rows, of shape (n, parameters), lie on the good side of the boundary."""


Splitter = Callable[[Array, Array], "Split | None"]


@dataclass(eq=False)
class Region:
    """A part of the space. An inner region has a split and two parts, a leaf has a number.

    `visits`: how many trials are in it, with and without results. `results`: how many of these have
    a score; `total`: the sum of these scores.
    """

    parent: Region | None = None
    split: Split | None = None
    good: Region | None = None
    bad: Region | None = None
    number: int = -1
    visits: int = 0
    results: int = 0
    total: float = 0.0

    @property
    def parts(self) -> tuple[Region, ...]:
        """The good and the bad part of an inner region; () for a leaf."""
        return () if self.good is None or self.bad is None else (self.good, self.bad)

    @property
    def mean(self) -> float:
        """The mean score in the region, or in the smallest region around it that has scores."""
        if self.results:
            return self.total / self.results
        return self.parent.mean if self.parent is not None else 0.0

    @property
    def path(self) -> list[tuple[Split, bool]]:
        """The splits from the root down to the region, each with whether it is on the good side."""
        if self.parent is None:
            return []
        assert self.parent.split is not None
        return [*self.parent.path, (self.parent.split, self is self.parent.good)]

    def contains(self, rows: Array) -> Mask:
        """Which rows lie in the region: those that meet every inequality on its path."""
        inside: Mask = np.ones(len(rows), dtype=bool)
        for split, side in self.path:
            left = np.flatnonzero(inside)
            inside[left] = split.is_good(rows[left]) == side
        return inside


@dataclass(eq=False)
class Tree:
    """The regions that were grown from results, each before its parts; the root is the first.

        tree = grow(rows, scores, splitter, height=7, least=4)
        tree.count(tree.leaves_of(rows), scores)
        leaf = tree.choose(0.1, rng)

    `count` counts trials in the leaves, and `choose` goes by these counts.
    """

    regions: list[Region] = field(default_factory=list)

    @property
    def root(self) -> Region:
        """The whole space."""
        return self.regions[0]

    @property
    def leaves(self) -> list[Region]:
        """The regions that are not split, in the order of their numbers."""
        return [region for region in self.regions if not region.parts]

    def leaves_of(self, rows: Array) -> NDArray[np.intp]:
        """The number of the leaf in which each row lies."""
        found = np.empty(len(rows), dtype=np.intp)
        for region, inside in self._routed(rows):
            if not region.parts:
                found[inside] = region.number
        return found

    def _routed(self, rows: Array) -> Iterator[tuple[Region, NDArray[np.intp]]]:
        inside_of = {self.root: np.arange(len(rows))}
        for region in self.regions:
            inside = inside_of.pop(region)
            if region.split is not None and region.good is not None and region.bad is not None:
                is_good = region.split.is_good(rows[inside])
                inside_of[region.good] = inside[is_good]
                inside_of[region.bad] = inside[~is_good]
            yield region, inside

    def count(self, leaves: NDArray[np.intp], scores: Array) -> None:
        """Count trials anew, by their leaves and scores.

        A trial without a result has the score NaN, and counts as a visit only (a virtual loss). A
        failed trial has the score -inf, and counts as the worst in its leaf.
        """
        number = len(self.leaves)
        visits = np.bincount(leaves, minlength=number)
        is_known = ~np.isnan(scores)
        known, values = leaves[is_known], scores[is_known]
        lowest = np.full(number, math.inf)
        works = np.isfinite(values)
        np.minimum.at(lowest, known[works], values[works])
        of_all = values[works].min() if works.any() else 0.0
        lowest[np.isinf(lowest)] = of_all
        values = np.where(works, values, lowest[known])
        results = np.bincount(known, minlength=number)
        totals = np.bincount(known, weights=values, minlength=number)
        for region in reversed(self.regions):
            if region.parts:
                region.visits = sum(part.visits for part in region.parts)
                region.results = sum(part.results for part in region.parts)
                region.total = sum(part.total for part in region.parts)
            else:
                region.visits = int(visits[region.number])
                region.results = int(results[region.number])
                region.total = float(totals[region.number])

    def choose(
        self, exploration: float, rng: np.random.Generator, without: Collection[Region] = ()
    ) -> Region | None:
        """The leaf to which the highest bounds lead from the root.

        `without`: leaves to leave out, as nothing is left in them. None if all leaves are left out.
        """
        closed = set(without)
        for region in reversed(self.regions):
            if region.parts and closed.issuperset(region.parts):
                closed.add(region)
        if self.root in closed:
            return None
        region = self.root
        while region.parts:
            parts = [part for part in region.parts if part not in closed]
            bounds = [upper_bound(part, exploration) for part in parts]
            best = [part for part, bound in zip(parts, bounds, strict=True) if bound == max(bounds)]
            region = best[0] if len(best) == 1 else best[rng.integers(len(best))]
        return region


def upper_bound(part: Region, exploration: float) -> float:
    """How good a part of a region may be (UCB1); infinite where no trial has been.

    >>> upper_bound(Region(parent=Region(visits=20), visits=0), 0.1)
    inf
    """
    if not part.visits:
        return math.inf
    assert part.parent is not None
    open_question = math.sqrt(2 * math.log(part.parent.visits) / part.visits)
    return part.mean + 2 * exploration * open_question


def grow(rows: Array, scores: Array, splitter: Splitter, *, height: int, least: int) -> Tree:
    """A tree whose leaves are `height` splits deep at most, each with `least` results or more.

    `rows` (n, parameters) have `scores` (n,); a failed trial has -inf, and counts as the worst in
    each region. `splitter(rows, scores)` gives the split of a region, or None if it stays whole. A
    region with fewer than twice `least` results, or whose scores are all the same, stays whole.
    """
    tree = Tree()
    leaves = 0
    open_: list[tuple[Region, Any, int]] = [(Region(), np.arange(len(rows)), 0)]
    while open_:
        region, inside, depth = open_.pop()
        tree.regions.append(region)
        parts = None
        if depth < height and len(inside) >= 2 * least:
            parts = _split(region, rows[inside], with_worst(scores[inside]), splitter, least)
        if parts is None:
            region.number = leaves
            leaves += 1
            continue
        region.good, region.bad = Region(parent=region), Region(parent=region)
        open_.append((region.bad, inside[~parts], depth + 1))
        open_.append((region.good, inside[parts], depth + 1))
    return tree


def _split(
    region: Region, rows: Array, scores: Array, splitter: Splitter, least: int
) -> Mask | None:
    if np.ptp(scores) == 0:
        return None
    split = splitter(rows, scores)
    if split is None:
        return None
    is_good = split.is_good(rows)
    if not least <= int(is_good.sum()) <= len(rows) - least:
        return None
    region.split = split
    return is_good


def with_worst(scores: Array) -> Array:
    """The scores; failed trials have the lowest score of the others (0 if all have failed).

    >>> with_worst(np.array([0.5, -math.inf, 0.2]))
    array([0.5, 0.2, 0.2])
    """
    works = np.isfinite(scores)
    lowest = scores[works].min() if works.any() else 0.0
    return np.where(works, scores, lowest)


def levels(tree: Tree) -> Sequence[int]:
    """How many splits lie between the root and each region."""
    depths: dict[Region, int] = {}
    for region in tree.regions:
        depths[region] = 0 if region.parent is None else depths[region.parent] + 1
    return [depths[region] for region in tree.regions]
