"""A Gaussian process: what values at some points say about other points, and how surely.

Source: Rasmussen and Williams, "Gaussian Processes for Machine Learning" (2006), algorithm 2.1 and
section 5.4.1.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

Array = NDArray[np.float64]

JITTER = 1e-6  # added to the variance (as a share of it), so that equal points do no harm
EVALUATIONS = 40  # one fit evaluates the likelihood so often at most
LEAST_GAIN = 1e-3  # a fit ends with a step that raises the log likelihood by less


@dataclass(frozen=True)
class Belief:
    """A normal distribution of the logarithm of a setting, before there are values."""

    mean: float
    deviation: float


class Kernel:
    """How alike the values at two points are: Matern 5/2, with a width for each group of columns.

    Its settings are one vector of logarithms: of the widths, of the variance of the values, of
    their noise, and, with a `trend`, of the variance of the trend's weights. The trend is a sum of
    a straight line and a parabola for each column (points from 0 to 1); the Matern kernel describes
    what the trend leaves.

        kernel = Kernel(groups=[0, 0, 1], widths=[Belief(0, 1), Belief(1, 1)],
                        variance=Belief(0, 1), noise=Belief(-4, 1.5))
        settings = kernel.fit(points, values)           # points: (n, 3), values: (n,)
        mean, deviation = Posterior(kernel, settings, points, values).at(others)
    """

    def __init__(
        self,
        groups: NDArray[np.intp],
        widths: list[Belief],
        variance: Belief,
        noise: Belief,
        trend: Belief | None = None,
    ) -> None:
        self.groups = groups
        self._count = len(widths)
        beliefs = [*widths, variance, noise, *([] if trend is None else [trend])]
        self._means = np.array([belief.mean for belief in beliefs])
        self._deviations = np.array([belief.deviation for belief in beliefs])

    def fit(self, points: Array, values: Array) -> Array:
        """The likeliest settings, given the values and the beliefs."""
        return minimise(lambda settings: self.loss(settings, points, values), self._means)

    def scaled(self, settings: Array, points: Array) -> Array:
        """Points in units of the widths."""
        return points / np.exp(settings[: self._count])[self.groups]

    def between(self, settings: Array, points: Array, others: Array) -> Array:
        """The covariance of the values at points, without noise: (n, m)."""
        one, other = self.scaled(settings, points), self.scaled(settings, others)
        covariance, _ = matern(_squared_distances(one, other))
        covariance *= math.exp(settings[self._count])
        if self._has_trend:
            covariance += math.exp(settings[-1]) * (terms(points) @ terms(others).T)
        return covariance

    def at(self, settings: Array, points: Array) -> Array:
        """The variance of the value at each point, without noise: (n,)."""
        variance = np.full(len(points), math.exp(settings[self._count]))
        if self._has_trend:
            variance += math.exp(settings[-1]) * np.square(terms(points)).sum(axis=1)
        return variance

    def among(self, settings: Array, points: Array) -> Array:
        """The covariance of what is measured at points, with noise: (n, n)."""
        covariance = self.between(settings, points, points)
        noise = math.exp(settings[self._count + 1])
        covariance[np.diag_indices_from(covariance)] += noise + JITTER
        return covariance

    @property
    def _has_trend(self) -> bool:
        return len(self._means) > self._count + 2

    def loss(self, settings: Array, points: Array, values: Array) -> tuple[float, Array]:
        """The negative logarithm of the settings' probability, up to a constant, and its slope."""
        variance, noise = np.exp(settings[self._count : self._count + 2])
        scaled = self.scaled(settings, points)
        alike, falls = matern(_squared_distances(scaled, scaled))
        covariance = variance * alike
        if self._has_trend:
            of_terms = math.exp(settings[-1]) * (terms(points) @ terms(points).T)
            covariance += of_terms
        covariance[np.diag_indices_from(covariance)] += noise + JITTER
        try:
            lower = np.linalg.cholesky(covariance)
        except np.linalg.LinAlgError:
            return math.inf, np.zeros_like(settings)
        inverse = np.linalg.inv(covariance)
        weights = inverse @ values
        away = (settings - self._means) / self._deviations
        loss = values @ weights / 2 + np.log(np.diag(lower)).sum() + away @ away / 2
        # The slope by each entry of the covariance, then by what that entry depends on.
        by_entry = (inverse - np.outer(weights, weights)) / 2
        by_distance = by_entry * falls * variance
        by_column = 2 * (
            by_distance.sum(axis=1) @ np.square(scaled) - (scaled * (by_distance @ scaled)).sum(0)
        )
        slope = away / self._deviations
        slope[: self._count] += np.bincount(self.groups, by_column, minlength=self._count)
        slope[self._count] += variance * (by_entry * alike).sum()
        slope[self._count + 1] += noise * np.trace(by_entry)
        if self._has_trend:
            slope[-1] += (by_entry * of_terms).sum()
        return float(loss), slope


class Posterior:
    """What values at points say about other points.

    `expected`: points whose values are under way. They change no mean, but make values near them
    surer.
    """

    def __init__(
        self,
        kernel: Kernel,
        settings: Array,
        points: Array,
        values: Array,
        expected: Array | None = None,
    ) -> None:
        self._kernel, self._settings = kernel, settings
        known = len(points)
        if expected is not None:
            points = np.concatenate([points, expected])
        self._points = points
        covariance = kernel.among(settings, points)
        self._whiten = np.linalg.inv(np.linalg.cholesky(covariance))
        self._white_values = self._whiten[:known, :known] @ values

    def at(self, points: Array) -> tuple[Array, Array]:
        """The mean and the standard deviation of the value at each point."""
        white = self._whiten @ self._kernel.between(self._settings, self._points, points)
        mean = self._white_values @ white[: len(self._white_values)]
        variance = self._kernel.at(self._settings, points) - np.square(white).sum(axis=0)
        return mean, np.sqrt(np.maximum(variance, JITTER))


def matern(squared: Array) -> tuple[Array, Array]:
    """Matern 5/2 at squared distances, and how fast it falls with them.

    The second array, times the squared distances, is by how much the first falls while the
    logarithm of the squared distances grows by two.
    """
    distance = np.sqrt(5 * squared)
    decay = np.exp(-distance)
    falls = (1 + distance) * decay * (5 / 3)
    return (1 + distance) * decay + 5 / 3 * squared * decay, falls


def terms(points: Array) -> Array:
    """The terms of the trend at points from 0 to 1: a line and a parabola for each column."""
    centred = 2 * points - 1
    return np.column_stack([centred, np.square(centred) - 1 / 3])


def _squared_distances(one: Array, other: Array) -> Array:
    squared: Array = -2 * (one @ other.T)
    squared += np.square(one).sum(axis=1)[:, None] + np.square(other).sum(axis=1)[None, :]
    return np.maximum(squared, 0.0, out=squared)


def minimise(
    function: Callable[[Array], tuple[float, Array]], start: Array, evaluations: int = EVALUATIONS
) -> Array:
    """The place near the start where a function, which gives value and slope, is lowest: BFGS.

    Source: Nocedal and Wright, "Numerical Optimization" (2006), algorithm 6.1, with steps that are
    cut back until the function falls (algorithm 3.1).
    """
    place = start
    value, slope = function(place)
    curvature: Array | None = None  # the inverse of the second derivative
    left = evaluations - 1
    while left > 0:
        direction = -slope if curvature is None else -curvature @ slope
        gain = -float(direction @ slope)
        size = min(1.0, 1 / max(float(np.abs(direction).max()), 1e-12))
        while left > 0:
            left -= 1
            new = place + size * direction
            new_value, new_slope = function(new)
            if new_value <= value - 1e-4 * size * gain:
                break
            size *= 0.4
        else:
            break  # no step makes the function fall
        step, change = new - place, new_slope - slope
        is_done = value - new_value < LEAST_GAIN
        place, value, slope = new, new_value, new_slope
        along = float(step @ change)
        if is_done:
            break
        if along > 1e-10:
            if curvature is None:
                curvature = np.eye(len(start)) * along / float(change @ change)
            turned = curvature @ change
            curvature = (
                curvature
                + (1 + change @ turned / along) * np.outer(step, step) / along
                - (np.outer(turned, step) + np.outer(step, turned)) / along
            )
    return place
