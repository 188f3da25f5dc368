"""The trials of a search as a table of pandas."""

from __future__ import annotations

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any

from ..errors import MissingPackage
from .objectives import Objectives
from .words import Status, Trial

if TYPE_CHECKING:
    import pandas


def of(trials: Sequence[Trial], objectives: Objectives) -> pandas.DataFrame:
    """A row for each trial, in the order of their ids; see `Results.dataframe`.

    Raises MissingPackage when pandas is not installed.
    """
    try:
        import pandas
    except ImportError as error:
        raise MissingPackage(
            "dataframe() needs pandas, which is not installed: pip install pandas"
        ) from error

    def column(values: Sequence[Any], dtype: str) -> pandas.Series:
        return pandas.Series(values, dtype=dtype)

    first = {"id": column([trial.id for trial in trials], "int64")}
    state = {
        "status": [trial.status.value for trial in trials],
        "attempt": column([trial.attempt for trial in trials], "int64"),
        "host": [trial.host for trial in trials],
    }
    last = {
        "best_time": column([trial.best_time for trial in trials], "float64"),
        "seconds": column([_seconds(trial) for trial in trials], "float64"),
        "reason": [trial.reason for trial in trials],
        "parents": [trial.parents for trial in trials],
        "is_final": column([trial.is_final for trial in trials], "bool"),
    }
    results: dict[str, Any] = {}
    if objectives.several:
        for n, name in enumerate(objectives.names):
            values = [None if trial.point is None else trial.point.values[n] for trial in trials]
            results[_free(name, "value", {*first, *state, *last})] = column(values, "float64")
    else:
        results["best"] = column([trial.best_reward for trial in trials], "float64")
    if objectives.constraints:
        meets = [None if trial.point is None else trial.point.is_feasible for trial in trials]
        results[_free("feasible", "is", results)] = column(meets, "boolean")

    taken = {*first, *state, *results, *last}
    parameters = {}
    for name in dict.fromkeys(name for trial in trials for name in trial.config):
        values = [trial.config.get(name) for trial in trials]
        parameters[_free(name, "config", taken)] = _of_parameter(values)
    return pandas.DataFrame(
        {**first, **parameters, **state, **results, **last}, index=pandas.RangeIndex(len(trials))
    )


def _of_parameter(values: Sequence[Any]) -> pandas.Series:
    """A column of the values' own type; None stands where the parameter was not active."""
    import pandas

    known = pandas.Series({n: value for n, value in enumerate(values) if value is not None})
    if len(known) < len(values) and known.dtype.kind in "iub":  # integers and booleans have no NaN
        known = known.convert_dtypes()
    return known.reindex(range(len(values)))


def _seconds(trial: Trial) -> float | None:
    """How long the last attempt of a trial took, in seconds; None while none is over."""
    return None if trial.status is Status.RUNNING or not trial.attempt else trial.seconds


def _free(name: str, prefix: str, taken: Collection[str]) -> str:
    return f"{prefix}.{name}" if name in taken else name
