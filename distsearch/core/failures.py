"""How trials fail: in which kinds, and when it is sure that all of them would."""

from __future__ import annotations

import math
from collections.abc import Iterable, Iterator
from dataclasses import dataclass

from ..errors import SearchFailed
from .words import Trial

ALIKE = 5  # so many first trials that fail alike end the search (more where more run at a time)


@dataclass(eq=False)
class Kind:
    """Trials that failed in the same way."""

    first: Trial
    name: str
    reason: str  # the status of the first trial, and what happened
    error: str  # the traceback, kept here as the trial may run again for its children
    trials: set[int]
    furthest: float  # how far any of them came


class Failures:
    """The failures of a search: what to say of each, and whether to give up.

        failures = Failures()
        failures.reported(trial)                # whenever a trial has reported
        failures.one_did_well()                 # whenever a trial has ended otherwise
        failures.note(trial)                    # whenever a trial has failed; then
        say(failures.news)
        failures.all_alike(unended=3)           # (reason, error) where that is enough, or None

    Failures are of one kind when their status, error type and last line of code agree. `one_did`:
    whether a trial is known to have done well already. `news`: what to say of the failure that was
    noted last: all of it for the first of a kind, their number whenever it is a power of two, and
    else ''.
    """

    def __init__(self, one_did: bool = False) -> None:
        self.news = ""
        self._kinds: dict[tuple[str, ...], Kind] = {}
        self._differ = one_did  # trials have ended in several ways
        self._furthest = -math.inf  # how far any trial came

    def __iter__(self) -> Iterator[tuple[int, str]]:
        """For each kind of failure: how many trials failed so, and how the first one ended."""
        return ((len(kind.trials), kind.reason) for kind in list(self._kinds.values()))

    def reported(self, trial: Trial) -> None:
        """Take note of how far a trial has come."""
        if trial.furthest > self._furthest:
            self._furthest = trial.furthest

    def one_did_well(self) -> None:
        """Take note of a trial that ended, but did not fail."""
        self._differ = True

    def note(self, trial: Trial) -> None:
        """Take note of a failure."""
        signature, name = _kind_of(trial)
        kind = self._kinds.get(signature)
        if kind is None:
            reason = f"{trial.status.value}: {trial.reason}"
            kind = Kind(trial, name, reason, trial.error, {trial.id}, trial.furthest)
            self._kinds[signature] = kind
            self._differ = self._differ or len(self._kinds) > 1
            detail = f"\n{trial.error.rstrip()}" if trial.error else ""
            self.news = f"trial {trial.id}{on_host(trial)} {reason}{detail}"
            return
        before = len(kind.trials)  # (a trial that ran again for its children is counted)
        kind.furthest = max(kind.furthest, trial.furthest)
        kind.trials.add(trial.id)
        count = len(kind.trials)
        is_power_of_two = count & (count - 1) == 0
        self.news = (
            f"{count} trials failed as trial {kind.first.id}{on_host(kind.first)} did: {kind.name}"
            if count > before and is_power_of_two
            else ""
        )

    def all_alike(self, unended: int) -> tuple[str, SearchFailed] | None:
        """Why to give up, in words and as an error, if all trials fail.

        Trials that fail are the first to end, and others may yet do well. So it is sure only when
        no trial has come further than those that failed, and at most as many may still do well
        (`unended`: they run, wait, or are paused and may go on) as have failed.
        """
        if self._differ or not self._kinds:
            return None
        (kind,) = self._kinds.values()
        count = len(kind.trials)
        if count < max(ALIKE, unended) or kind.furthest < self._furthest:
            return None
        reason = (
            f"the first {count} trials all failed alike ({kind.reason}), so the search was ended"
        )
        detail = f"\n\nTrial {kind.first.id}:\n{kind.error}" if kind.error else ""
        return reason, SearchFailed(reason + detail)


def kinds(trials: Iterable[Trial]) -> list[list[Trial]]:
    """The trials that have failed, those of one kind together, the most frequent kind first."""
    found: dict[tuple[str, ...], list[Trial]] = {}
    for trial in trials:
        if trial.status.is_failure and not trial.is_final:
            found.setdefault(_kind_of(trial)[0], []).append(trial)
    return sorted(found.values(), key=len, reverse=True)


def on_host(trial: Trial) -> str:
    """' on gpu1', where a trial has failed; '' for the driver's own machine."""
    return f" on {trial.host}" if trial.host not in ("", "localhost") else ""


def _kind_of(trial: Trial) -> tuple[tuple[str, ...], str]:
    """What failures of one kind have in common, and the name of the kind."""
    lines = [line.strip() for line in trial.error.strip().splitlines()]
    places = [line for line in lines if line.startswith("File ")]
    name = trial.reason.partition(":")[0] if trial.error else trial.reason
    return (trial.status.value, name, places[-1] if places else ""), name
