"""Which images are for what: permutations that depend on seeds alone, and parts of them."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import accumulate, pairwise
from typing import TYPE_CHECKING, Any

import numpy as np

from ..errors import DataError, OptionError

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor


def permutation(count: int, *seeds: int) -> Tensor:
    """The numbers from 0 to count - 1 in an order that depends on the seeds alone (int64).

    permutation(len(images.train), seed, epoch)     # the same on every rank and machine
    """
    import torch

    return torch.from_numpy(np.random.default_rng(seeds).permutation(count))


def split(count: int, fractions: Sequence[float], seed: int) -> list[Tensor]:
    """Disjoint parts of one permutation, of these fractions of all.

        learn, validate = split(len(images.train), (0.8, 0.2), seed=0)

    Raises OptionError for fractions that are not above 0, or are more than 1 in all.
    """
    if not fractions or min(fractions) <= 0 or sum(fractions) > 1 + 1e-9:
        raise OptionError(f"fractions={fractions!r}; give some above 0, at most 1 in all")
    order = permutation(count, seed)
    ends = [0, *(round(count * end) for end in accumulate(fractions))]
    return [order[start:end] for start, end in pairwise(ends)]


def halves(count: int, seed: int) -> tuple[Tensor, Tensor]:
    """Two disjoint halves of equal length; of an odd count one number is in neither."""
    order = permutation(count, seed)
    return order[: count // 2], order[count // 2 : count // 2 * 2]


def shard(indices: Tensor, rank: int, world_size: int) -> Tensor:
    """A rank's own part of indices: disjoint from those of the others, and of equal length.

    shard(torch.arange(7), rank=1, world_size=2)    # tensor([1, 3, 5])
    """
    return indices[rank::world_size][: len(indices) // world_size]


def hold_out(labels: NDArray[Any], fraction: float, seed: int) -> tuple[NDArray[Any], NDArray[Any]]:
    """Positions of two parts, each with its share of every label: those that stay, those held out.

    Raises DataError for a label with fewer than 2 images.
    """
    held: list[NDArray[Any]] = []
    for label in np.unique(labels):
        positions = np.flatnonzero(labels == label)
        if len(positions) < 2:
            raise DataError(f"class {label} has {len(positions)} image; 2 are needed to test too")
        order = np.random.default_rng((seed, int(label))).permutation(positions)
        held.append(order[: held_out_of(len(positions), fraction)])
    out = np.sort(np.concatenate(held))
    return np.setdiff1d(np.arange(len(labels)), out), out


def held_out_of(count: int, fraction: float) -> int:
    """How many of `count` images of a class `hold_out` holds out: one at least, but not all."""
    return min(max(1, round(count * fraction)), count - 1)
