"""Asks the rule, and checks its answers: an error, or an answer without sense, ends the search."""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any, TypeVar

from ..errors import shown
from .rule import Rule
from .words import Continue, Decision, Pause, Report, Stop, Trial

T = TypeVar("T")


class Counsel:
    """Asks a rule (a scheduler), which may be a user's own, and checks what it answers.

        counsel = Counsel(rule, end_search)
        counsel.on_report(trial, report)                     # Continue(), Stop() or Pause()
        counsel.ask("on_end", trial, otherwise=None)

    `end_search(reason, error)` is called for an error of the rule.
    """

    def __init__(self, rule: Rule, end_search: Callable[[str, BaseException], None]) -> None:
        self._rule = rule
        self._end_search = end_search

    def ask(self, word: str, *about: Any, otherwise: T) -> T:
        """What the rule answers; where it fails, the search ends, and `otherwise` is the answer."""
        try:
            answer: T = getattr(self._rule, word)(*about)
            return answer
        except BaseException as error:  # sys.exit() too: it would end the loop's thread
            self._end_search(f"{type(self._rule).__name__}.{word} failed: {shown(error)}", error)
            return otherwise

    def on_report(self, trial: Trial, report: Report) -> Decision:
        """What the rule decides on a report."""
        decision: Decision = self.ask("on_report", trial, report, otherwise=Continue())
        if isinstance(decision, (Continue, Stop, Pause)):
            return decision
        self._refuse("on_report", decision, "Continue(), Stop() or Pause()")
        return Continue()

    def due_at(self, trial: Trial) -> str | list[float] | None:
        """At which reports a trial is to wait for a decision."""
        due: Any = self.ask("due_at", trial, otherwise=None)
        if due is None or due == "every":
            return due  # type: ignore[no-any-return]
        try:
            return [float(time) for time in due]
        except (TypeError, ValueError):
            self._refuse("due_at", due, "'every', a list of times, or None")
            return None

    def may_need(self, trial: Trial) -> bool:
        """Whether a trial that has ended may become a parent: its checkpoint is then kept."""
        return self.ask("may_need", trial, otherwise=True)

    def read_on(self, trial: Trial) -> Iterable[str]:
        """On which nodes (their hosts) what a trial has just saved will be read."""
        return self.ask("read_on", trial, otherwise=())

    @property
    def keeps_only_needed(self) -> bool:
        """Whether checkpoints go as soon as nobody needs them, even where all would fit."""
        return self._rule.keeps_only_needed

    def _refuse(self, word: str, answer: object, right: str) -> None:
        name = f"{type(self._rule).__name__}.{word}"
        error = TypeError(f"{name} returned {answer!r}; return {right}")
        self._end_search(str(error), error)
