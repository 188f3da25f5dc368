"""Mixtures of generators: how often each is asked, and how these weights evolve.

The weights of a mixture over a neighbourhood evolve by a (1+1)-ES (Schmiedlechner et al. 2018).
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
from numpy.typing import NDArray

Weights = NDArray[np.float64]


def uniform(count: int) -> Weights:
    """The same weight for each of so many generators."""
    return np.full(count, 1 / count)


def shares(weights: Sequence[float] | Weights, count: int) -> NDArray[np.int64]:
    """How many of `count` examples each generator makes, in exact proportion.

    >>> shares([0.5, 0.3, 0.2], 9).tolist()
    [4, 3, 2]
    """
    wanted = np.asarray(weights, dtype=float) * count
    found = np.floor(wanted + 1e-9).astype(np.int64)
    order = np.argsort(found - wanted, kind="stable")  # the largest remainders come first
    found[order[: count - found.sum()]] += 1
    return found


def drawn(
    weights: Sequence[float] | Weights, count: int, rng: np.random.Generator
) -> NDArray[np.int64]:
    """How many each generator makes if each example is drawn by these probabilities."""
    return rng.multinomial(count, np.asarray(weights, dtype=float))


def mutated(weights: Weights, sigma: float, rng: np.random.Generator) -> Weights:
    """Weights near these: each plus N(0, sigma), none below 0, their sum 1."""
    found = np.clip(weights + rng.normal(0.0, sigma, len(weights)), 0.0, None)
    total = found.sum()
    return np.asarray(found / total) if total > 0 else weights.copy()


def evolve(
    weights: Weights,
    score: Callable[[Weights], float],
    *,
    sigma: float,
    steps: int,
    rng: np.random.Generator,
) -> tuple[Weights, float]:
    """The best weights of a (1+1)-ES, and their score (lower is better).

        weights, fid = evolve(uniform(3), fid_of, sigma=0.01, steps=100, rng=rng)

    A mutation is taken if its score is lower. So with a `score` that always says the same of the
    same weights, what comes out is never worse than what went in.
    """
    best, best_score = weights, score(weights)
    for _ in range(steps):
        other = mutated(best, sigma, rng)
        if (other_score := score(other)) < best_score:
            best, best_score = other, other_score
    return best, best_score


def mixed(
    features: Sequence[NDArray[np.float64]], counts: Sequence[int] | NDArray[np.int64]
) -> NDArray[np.float64]:
    """Features of a mixture: from each generator the first `count`; it has to have enough."""
    parts = [own[:count] for own, count in zip(features, counts, strict=True)]
    return np.concatenate(parts)
