"""Who descends from whom: when a child can start, what stands in for a lost parent, generations."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any, NamedTuple

from ..errors import LineageError
from .words import Status, Trial

POLICIES = ("nearest_ancestor", "scratch", "fail", "retry")


class Descent(NamedTuple):
    """One trial in the lineage of a search.

    `inherited`: for each parent, from whose weights the trial went on (those of the parent itself,
    unless it was lost; None: of nobody); empty while that is not decided. `generation`: 0 without
    parents, else one more than the highest generation of its parents. `reward` is in the user's own
    sign.
    """

    parents: tuple[int, ...]
    inherited: tuple[int | None, ...]
    generation: int
    status: str
    reward: float | None
    config: dict[str, Any]


def check_parents(parents: Sequence[int], trials: Mapping[int, Trial]) -> None:
    """Raise LineageError unless all are earlier trials: so no trial descends from itself."""
    unknown = [parent for parent in parents if parent not in trials]
    if unknown:
        child = len(trials)
        known = f"0 to {child - 1}" if child else "none"
        raise LineageError(
            f"trial {child} cannot have the parent {unknown[0]!r}: parents are ids of trials that "
            f"were launched before it ({known}), so that there is no circle"
        )


def is_committed(parent: Trial, wait_for: str) -> bool:
    """Whether a child can go on from a parent's weights: a checkpoint of them counts for good.

    With wait_for='end' that is so once nothing trains the weights any more: the parent is paused,
    or has ended well. What a failed trial saved on its way is not what its child was meant to have.
    """
    if parent.saved_step is None:
        return False
    rests = parent.status is Status.PAUSED or parent.status.is_end
    return wait_for == "checkpoint" or (rests and not parent.status.is_failure)


def nearest_ancestor(trials: Mapping[int, Trial], parent: Trial) -> int | None:
    """The closest ancestor of a lost parent that has weights and has not failed, if any."""
    line, seen = list(parent.parents), set(parent.parents)
    for trial_id in line:
        ancestor = trials[trial_id]
        if ancestor.saved_step is not None and not ancestor.status.is_failure:
            return trial_id
        line.extend(further for further in ancestor.parents if further not in seen)
        seen.update(ancestor.parents)
    return None


def generations(parents_of: Mapping[int, tuple[int, ...]]) -> dict[int, int]:
    """How many generations lie before each trial; parents come before children, as ids do.

    >>> generations({0: (), 1: (0,), 2: (0, 1)})
    {0: 0, 1: 1, 2: 2}
    """
    found: dict[int, int] = {}
    for trial_id in sorted(parents_of):
        found[trial_id] = max((found[parent] + 1 for parent in parents_of[trial_id]), default=0)
    return found


def descents(trials: Mapping[int, Trial]) -> dict[int, Descent]:
    """The lineage of all trials, by their ids."""
    generation = generations({trial_id: trial.parents for trial_id, trial in trials.items()})
    return {
        trial_id: Descent(
            trial.parents,
            trial.inherits or (),
            generation[trial_id],
            trial.status.value,
            trial.best_reward,
            dict(trial.config),
        )
        for trial_id, trial in trials.items()
    }


def line_of(descents: Mapping[int, Descent], trial_id: int) -> list[int]:
    """A trial and those whose weights it has, the trial first, along the first parents."""
    line = [trial_id]
    while True:
        of = descents[line[-1]]
        before = next((one for one in of.inherited or of.parents if one is not None), None)
        if before is None:
            return line
        line.append(before)
