"""What people ask of a search that runs: to stop or pause a trial, to pause all, to let them go on.

What is asked holds, whatever the rule would do: a trial that is paused by request is held, that is,
it stays out of the queue until it is let go on. For the rule such a trial still runs.
"""

from __future__ import annotations

from ..errors import RequestRefused
from .attempt import Attempt
from .attempts import Attempts
from .children import Children
from .counsel import Counsel
from .ends import Ends, verdict_of
from .ledger import Ledger
from .phrases import counted
from .queue import Queue
from .rule import Rule
from .search import Search
from .words import Status, Stop, Trial

PAUSE_S = 30.0  # so long a trial that is to pause may take to its next checkpoint


class Interventions:
    """Does what is asked, or raises RequestRefused, which says why not; used in the loop's thread.

    interventions.stop_trial(trial, by="ann")
    interventions.pause_trial(trial, by="ann")           # what it goes on from, in words
    interventions.let_go(trial, by="bob")
    interventions.pause_search(by="ann"); interventions.let_search_go(by="ann")
    """

    def __init__(
        self,
        search: Search,
        rule: Rule,
        counsel: Counsel,
        ledger: Ledger,
        queue: Queue,
        children: Children,
        attempts: Attempts,
        ends: Ends,
    ) -> None:
        self._search = search
        self._rule = rule
        self._counsel = counsel
        self._ledger = ledger
        self._queue = queue
        self._children = children
        self._attempts = attempts
        self._ends = ends
        self._said_held: set[int] = set()  # the held trials of which the user was told last

    def stop_trial(self, trial: Trial, by: str) -> None:
        """End a trial that runs or waits, whatever the rule would have it do.

        Raises RequestRefused for a trial that cannot be stopped now.
        """
        self._check_may_change(trial)
        attempt = self._attempts.of(trial)
        if attempt is None:
            self._children.remove(trial)
            self._ends.end_trial(trial, f"by {by}", Status.STOPPED)
            if not self._search.is_idle:
                self._search.wake()
            return
        decided = self._ledger.decided.get(trial.id)
        if decided is None:  # the stop is logged as the rule's decisions are, and holds like them
            body = {"word": Stop.word, "reason": "", "by": by, "report": trial.reports}
            self._search.log("decided", trial, body)
            decided = self._ledger.decided[trial.id]
        elif not isinstance(decided, Stop):
            raise RequestRefused(f"trial {trial.id} is just being paused by the rule")
        self._search.stop(attempt, *verdict_of(decided))

    def pause_trial(self, trial: Trial, by: str) -> str:
        """Have a trial give its slots back until `let_go`; returns, in words, what it goes on from.

        A trial that saves checkpoints runs on to its next one, for up to 30 s. It stays paused also
        in a later run of the driver. Raises RequestRefused for a trial that cannot be paused now.
        """
        self._check_may_change(trial)
        if trial.status is Status.PAUSED:
            raise RequestRefused(f"trial {trial.id}: the rule has paused it, nothing of it runs")
        if trial.id in self._ledger.held:
            raise RequestRefused(f"trial {trial.id} is paused by request already")
        if trial.is_final:
            raise RequestRefused(f"run_with_config waits for trial {trial.id}; stop it instead")
        if trial in self._children:
            parents = ", ".join(map(str, trial.parents))
            raise RequestRefused(f"trial {trial.id} does not run: it waits for trials {parents}")
        attempt = self._attempts.of(trial)
        if attempt is None:
            self._search.log("held", trial, {"by": by})
            self._queue.remove(trial)
            self._search.fill()
            return "it had not started" if not trial.attempt else "it did not run"
        saves = trial.saves_first is not None
        if not self.pause(attempt, by, PAUSE_S if saves else 0.0):
            raise RequestRefused(f"trial {trial.id} is just being ended or paused")
        self._search.log("held", trial, {"by": by})
        return "it goes on from its newest checkpoint" if saves else "it has saved nothing"

    def pause(self, attempt: Attempt, by: str, after_save_s: float = PAUSE_S) -> bool:
        """End an attempt whose trial goes on later; False if it is just being ended or paused."""
        if attempt.trial.id in self._ledger.decided:
            return False
        return self._search.stop(attempt, Status.PAUSED, f"paused by {by}", after_save_s)

    def has_saved(self, attempt: Attempt) -> None:
        """Have a trial pause whose first checkpoint was awaited, where the search is paused."""
        if self._ledger.paused_by:
            self.pause(attempt, self._ledger.paused_by)

    def let_go(self, trial: Trial, by: str) -> None:
        """Let a trial go on that was paused, by request or by the rule.

        Raises RequestRefused for a trial that is not paused, and where the whole search is.
        """
        is_held, was_paused = trial.id in self._ledger.held, trial.status is Status.PAUSED
        if not is_held and not was_paused:
            raise RequestRefused(f"trial {trial.id} is not paused: it is {trial.status.value}")
        if self._ledger.paused_by:
            raise RequestRefused("the whole search is paused: let it go on, without naming a trial")
        if self._search.ending and not self._search.is_idle:
            raise RequestRefused(f"the search is just ending: {self._search.ending}")
        if trial in self._queue:  # the rule has let it go on already
            return
        if was_paused and not self._rule.paused_may_go_on:
            raise RequestRefused(
                f"trial {trial.id}: the rule decides once and for all which trials of a rung go on"
            )
        if self._search.has_begun:
            self._search.begin_given_only()
        self._search.log("let_go", trial, {"by": by})
        if was_paused:
            self._counsel.ask("on_let_go", trial, otherwise=None)
        # (Else the next run() starts it, or the end of the attempt that is just being paused does.)
        if self._search.has_begun and trial.status is not Status.RUNNING:
            self._search.start_given(trial)

    def pause_search(self, by: str) -> str:
        """Start nothing more until `let_search_go`; returns, in words, what still runs.

        Trials that save checkpoints give their slots back after their next one, or after 30 s;
        others run to their ends, as all that they did would be lost. The search stays paused also
        in a later run of the driver. Raises RequestRefused where there is nothing to pause.
        """
        if self._ledger.paused_by:
            raise RequestRefused(f"the search is paused already, by {self._ledger.paused_by}")
        if self._search.is_idle or self._search.ending:
            why = self._search.why_it_ends
            raise RequestRefused(f"the search ends already, or has ended{f': {why}' * bool(why)}")
        self._search.log("search_held", body={"by": by})
        self._search.launch_no_more()
        saving = [one for one in self._attempts if one.trial.saves_first is not None]
        paused = sum(self.pause(attempt, by) for attempt in saving)
        left = len(self._attempts) - paused
        return f"{counted(paused)} to pause after the next checkpoint, {left} to go on to the end"

    def let_search_go(self, by: str) -> None:
        """Let a search go on that was paused by request. Raises RequestRefused if it was not."""
        if not self._ledger.paused_by:
            raise RequestRefused("the search is not paused")
        self._search.log("search_let_go", body={"by": by})
        self._search.fill()

    def _check_may_change(self, trial: Trial) -> None:
        """Raise RequestRefused for a trial that has ended, or cannot be changed yet."""
        why = ""
        if trial.status.is_end:
            why = f"it has ended: {trial.status.value}"
        elif trial.status is Status.RUNNING and trial not in self._attempts:
            why = "the search that is to go on with it has not begun yet; ask again in a moment"
        if why:
            raise RequestRefused(f"trial {trial.id}: {why}")

    # What is held

    @property
    def held(self) -> list[Trial]:
        """The trials that are paused by request and hold no slots any more."""
        return [one for one in self._ledger.held.values() if one not in self._attempts]

    def say_what_is_held(self) -> None:
        """Tell the user once which trials are held, where nothing else is left."""
        held = set(self._ledger.held)
        if held and held != self._said_held:
            ids = ", ".join(map(str, sorted(held)))
            self._search.say(
                f"nothing is left but what is paused by request, until `go-on`: trial {ids}"
            )
        self._said_held = held
