"""Toy examples, points in a plane: one sees at once what a generator leaves out."""

from __future__ import annotations

import math
from collections.abc import Callable

import numpy as np
from numpy.typing import NDArray

POINTS, HELD_OUT = 4000, 1000
SPREAD = 0.05


def gaussian() -> NDArray[np.float64]:
    """One mode in the middle."""
    return np.zeros((1, 2))


def circular() -> NDArray[np.float64]:
    """Eight modes on a circle."""
    angles = np.arange(8) * math.tau / 8
    return np.stack([np.cos(angles), np.sin(angles)], axis=1)


def grid() -> NDArray[np.float64]:
    """25 modes, 5 by 5."""
    side = np.linspace(-1, 1, 5)
    return np.array([(x, y) for x in side for y in side])


# The means of the modes of each toy, by its name.
TOYS: dict[str, Callable[[], NDArray[np.float64]]] = {
    "gaussian": gaussian,
    "circular": circular,
    "grid": grid,
}


def points(name: str, count: int, seed: int) -> tuple[NDArray[np.float32], NDArray[np.int64]]:
    """Points of a toy (count x 2), and for each point the number of its mode.

    >>> points("circular", 100, seed=0)[0].shape
    (100, 2)
    """
    rng, modes = np.random.default_rng((seed, len(name))), TOYS[name]()
    labels = rng.integers(len(modes), size=count)
    spread = 0.5 if len(modes) == 1 else SPREAD
    found = modes[labels] + spread * rng.standard_normal((count, 2))
    return found.astype(np.float32), labels
