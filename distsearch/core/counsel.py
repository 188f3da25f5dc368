"""What the rule says: its errors and answers that make no sense end the search, and say why."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, TypeVar

from .rule import Rule
from .words import Continue, Decision, Pause, Report, Stop, Trial

T = TypeVar("T")


class Counsel:
    """Asks a rule (a scheduler), which may be a user's own, and checks what it answers.

        counsel = Counsel(rule, end_search)
        counsel.on_report(trial, report)                     # Continue(), Stop() or Pause()
        counsel.ask("may_need", trial, otherwise=True)

    `end_search(reason, error)` is called for an error of the rule.
    """

    def __init__(self, rule: Rule, end_search: Callable[[str, BaseException], None]) -> None:
        self._rule = rule
        self._end_search = end_search

    def ask(self, word: str, *about: Any, otherwise: T) -> T:
        """Call the rule; an error of its own ends the search, and `otherwise` is the answer."""
        try:
            answer: T = getattr(self._rule, word)(*about)
            return answer
        except BaseException as error:  # sys.exit() too: it would end the loop's thread
            self._end_search(f"{type(self._rule).__name__}.{word} failed: {error!r}", error)
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

    def _refuse(self, word: str, answer: object, right: str) -> None:
        name = f"{type(self._rule).__name__}.{word}"
        error = TypeError(f"{name} returned {answer!r}; return {right}")
        self._end_search(str(error), error)
