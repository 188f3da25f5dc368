"""What is known before a search starts: given results, or those of earlier experiments."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..core import store
from ..core.metrics import number
from ..core.objectives import Objectives, Point
from ..core.words import Status
from ..errors import OptionError, SpaceError, StoreError
from ..space import Space
from ..space.base import plain
from .base import Config

Folder = str | os.PathLike[str]
Result = float | Mapping[str, float] | None  # one reward, or several metrics; None: a failure


@dataclass
class Known:
    """Pairs of a configuration and its reward, in the user's sign (None: it failed).

    With several objectives or constraints the reward is a dict of the metrics that these need.

    `left_out`: a line for each experiment of which not all configurations fit the space.
    """

    points: list[tuple[Config, Result]] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


def collect(
    space: Space,
    evaluated: Iterable[tuple[Mapping[str, Any], Result]] | None,
    folders: Folder | Iterable[Folder] | None,
    objectives: Objectives,
) -> Known:
    """What is known by the arguments `evaluated_points` and `warm_start` of a scheduler.

    Raises SpaceError for a given point outside the space, OptionError for a point that is no pair
    with a number, StoreError for a folder that has no experiment, or no trial that has reported
    this reward.
    """
    known = Known()
    if not isinstance(evaluated, Iterable | None):
        raise OptionError(f"evaluated_points={evaluated!r}; give pairs (configuration, reward)")
    if not isinstance(folders, str | os.PathLike | Iterable | None):
        raise OptionError(f"warm_start={folders!r}; give the folder of an experiment, or several")
    for point in evaluated or ():
        try:
            config, reward = point
        except (TypeError, ValueError):
            raise OptionError(
                f"evaluated_points are pairs (configuration, reward), but got {point!r}"
            ) from None
        known.points.append((space.validate(config), _given(reward, objectives)))
    if isinstance(folders, (str, os.PathLike)):
        folders = [folders]
    elif not isinstance(folders or (), Iterable):
        raise OptionError(
            f"warm_start={folders!r}; give the folder of an earlier search, or several of them"
        )
    for folder in folders or ():
        _collect_from(Path(folder).expanduser().absolute(), space, known, objectives)
    return known


def _given(reward: Any, objectives: Objectives) -> Result:
    """The reward of an evaluated point; None if it is not finite."""
    if reward is None:
        return None
    if objectives.is_plain:
        return number(_checked(reward))
    if not isinstance(reward, Mapping) or not reward.keys() >= set(objectives.metrics):
        raise OptionError(
            f"evaluated_points: got the reward {reward!r}, but this search compares by "
            f"{', '.join(objectives.metrics)}; give a dict with all of them"
        )
    metrics = {name: _checked(reward[name]) for name in objectives.metrics}
    return _metrics_of(objectives.point(metrics), metrics, objectives)


def _checked(reward: Any) -> float:
    """A reward as a number; OptionError for other things, which would count as a failure."""
    reward = plain(reward)
    if isinstance(reward, bool) or not isinstance(reward, (int, float)):
        raise OptionError(
            f"evaluated_points: the reward {reward!r} is no number but of type "
            f"{type(reward).__name__}; give a number, or None for a trial that failed"
        )
    return reward


def _metrics_of(point: Point | None, report: Mapping[str, Any], objectives: Objectives) -> Result:
    return None if point is None else {name: float(report[name]) for name in objectives.metrics}


def _collect_from(folder: Path, space: Space, known: Known, objectives: Objectives) -> None:
    found = list(_results(folder, objectives))
    if all(reward is None for _, reward in found):
        wanted = " with ".join(map(repr, objectives.metrics))
        raise StoreError(
            f"warm_start={str(folder)!r}: no trial there has reported {wanted}; give "
            "the experiment of another search, or the reward_attr= that it had"
        )
    problems = []
    for config, reward in found:
        try:
            known.points.append((space.validate(config), reward))
        except SpaceError as error:
            problems.append(str(error))
    if problems:
        known.left_out.append(
            f"warm start from {folder}: {len(problems)} of {len(found)} configurations do not fit "
            f"this search and are left out; the first because {problems[0]}"
        )


def _results(folder: Path, objectives: Objectives) -> Iterator[tuple[Config, Result]]:
    """The trials of an experiment that failed (None) or have a result, and that result."""
    if not (folder / store.FILE).exists():
        raise StoreError(f"warm_start={str(folder)!r}: there is no experiment in that folder")
    store.verify(folder)
    configs: dict[int, Config] = {}
    results: dict[int, Result] = {}
    failed = set()
    take = _best_reward if objectives.is_plain else _counting_report
    for event in store.read(folder, "launched", "report", "ended"):
        if event.trial is None:
            continue
        if event.kind == "launched":
            if not event.body["is_final"]:  # (a final trial may have trained otherwise)
                configs[event.trial] = event.body["config"]
        elif event.kind == "ended":
            if Status(event.body["status"]).is_failure:
                failed.add(event.trial)
        else:
            results[event.trial] = take(results.get(event.trial), event.body, objectives)
    for trial_id, config in configs.items():
        if trial_id in failed:
            yield config, None
        elif results.get(trial_id) is not None:
            yield config, results[trial_id]


def _best_reward(so_far: Result, report: Mapping[str, Any], objectives: Objectives) -> Result:
    reward = number(report.get(objectives.names[0]))
    if reward is None or not isinstance(so_far, float):
        return so_far if reward is None else reward
    return min(so_far, reward) if objectives.modes[0] == "min" else max(so_far, reward)


def _counting_report(so_far: Result, report: Mapping[str, Any], objectives: Objectives) -> Result:
    point = objectives.point(report)
    old = objectives.point(so_far) if isinstance(so_far, Mapping) else None
    if point is None or not objectives.counts_instead(point, old):
        return so_far
    return _metrics_of(point, report, objectives)
