"""What is known before a search starts: given results, or those of earlier experiments."""

from __future__ import annotations

import os
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..core import store
from ..core.metrics import number
from ..core.words import Status
from ..errors import SpaceError, StoreError
from ..space import Space
from .base import Config

Folder = str | os.PathLike[str]


@dataclass
class Known:
    """Pairs of a configuration and its reward in the user's sign (None: it failed).

    `left_out`: a line for each experiment of which not all configurations fit the space.
    """

    points: list[tuple[Config, float | None]] = field(default_factory=list)
    left_out: list[str] = field(default_factory=list)


def collect(
    space: Space,
    evaluated: Iterable[tuple[Mapping[str, Any], float | None]] | None,
    folders: Folder | Iterable[Folder] | None,
    *,
    reward_attr: str,
    mode: str,
) -> Known:
    """What the arguments `evaluated_points` and `warm_start` of a scheduler say.

    Raises SpaceError for a given point outside the space, StoreError for a folder that has no
    experiment, or none that reported this reward.
    """
    known = Known()
    for point in evaluated or ():
        try:
            config, reward = point
        except (TypeError, ValueError):
            raise SpaceError(
                f"evaluated_points are pairs (configuration, reward), but got {point!r}"
            ) from None
        known.points.append((space.validate(config), number(reward)))
    if isinstance(folders, (str, os.PathLike)):
        folders = [folders]
    for folder in folders or ():
        _collect_from(Path(folder), space, known, reward_attr, mode)
    return known


def _collect_from(folder: Path, space: Space, known: Known, reward_attr: str, mode: str) -> None:
    found = list(_results(folder, reward_attr, mode))
    if all(reward is None for _, reward in found):
        raise StoreError(
            f"warm_start={str(folder)!r}: no trial there has reported {reward_attr!r}; give "
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


def _results(folder: Path, reward_attr: str, mode: str) -> Iterator[tuple[Config, float | None]]:
    """The trials of an experiment that failed (None), or had a reward: their best."""
    if not (folder / store.FILE).exists():
        raise StoreError(f"warm_start={str(folder)!r}: there is no experiment in that folder")
    better = min if mode == "min" else max
    configs: dict[int, Config] = {}
    best: dict[int, float] = {}
    failed = set()
    for event in store.read(folder, "launched", "report", "ended"):
        if event.trial is None:
            continue
        if event.kind == "launched":
            configs[event.trial] = event.body["config"]
        elif event.kind == "ended":
            if Status(event.body["status"]).is_failure:
                failed.add(event.trial)
        elif (reward := number(event.body.get(reward_attr))) is not None:
            best[event.trial] = better(best.get(event.trial, reward), reward)
    for trial_id, config in configs.items():
        if trial_id in failed:
            yield config, None
        elif trial_id in best:
            yield config, best[trial_id]
