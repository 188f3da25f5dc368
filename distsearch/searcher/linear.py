"""A linear model of rewards, which splits a region where it predicts the mean."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np

from .places import Array, Places
from .regions import Mask

UNKNOWN = 0.5  # the place that stands for a number that is not active


@dataclass(frozen=True)
class Linear:
    """Weights of the options of each choice, or of the place of each number; zero is the mean.

        split = Linear.fit(places, rows, scores, ridge=0.15)
        split.is_good(rows)

    A prediction is the sum of one term for each parameter, `of_column`, in the order of the
    parameters. So it is the same to the last bit, however many rows are scored at once.
    """

    start: float
    weights: tuple[Array, ...]  # by column: one for each option; one for a number
    is_choice: tuple[bool, ...]

    @classmethod
    def fit(cls, places: Places, rows: Array, scores: Array, ridge: float) -> Linear:
        """The ridge regression of standardised scores on one-hot encoded rows, in closed form."""
        points = places.points(rows)
        middle = points.mean(axis=0)
        centred = points - middle
        targets = (scores - scores.mean()) / max(float(scores.std()), 1e-12)
        moments = centred.T @ centred
        moments[np.diag_indices_from(moments)] += ridge
        weights = np.linalg.solve(moments, centred.T @ targets)
        start = -float(middle @ weights)
        columns = [weights[places.groups == column] for column in range(len(places))]
        is_choice = tuple(bool(one) for one in places.is_choice)
        scaled = (w * np.sqrt(0.5) if c else w for w, c in zip(columns, is_choice, strict=True))
        return cls(start, tuple(scaled), is_choice)

    def of_column(self, column: int, values: Array) -> Array:
        """What values of one parameter add to a prediction; NaN is a value that is not active."""
        weights = self.weights[column]
        inactive = np.isnan(values)
        if self.is_choice[column]:
            options = np.where(inactive, 0, values).astype(np.intp)
            return np.where(inactive, weights.mean(), weights[options])
        return float(weights[0]) * np.where(inactive, UNKNOWN, values)

    def predict(self, rows: Array) -> Array:
        """The prediction for each row, in standard deviations from the mean of the region."""
        total = np.full(len(rows), self.start)
        for column in range(len(self.weights)):
            total += self.of_column(column, rows[:, column])
        return total

    def is_good(self, rows: Array) -> Mask:
        """Which rows have a prediction above the mean."""
        good: Mask = self.predict(rows) > 0
        return good
