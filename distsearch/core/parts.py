"""The parts of a search: which there are, and what each of them needs of the others."""

from __future__ import annotations

from collections.abc import Callable

from ..resource.manager import DistributedResourceManager
from .activity import Activity
from .attempts import Attempts
from .children import Children
from .counsel import Counsel
from .dispatcher import Dispatcher
from .earlier import Earlier
from .ends import Ends
from .hearing import Hearing
from .interventions import Interventions
from .keeper import Keeper
from .ledger import Ledger
from .nodes import Nodes
from .preparation import Preparation
from .printed import Printed
from .queue import Queue
from .reports import Reports
from .rests import Rests
from .rule import Rule
from .search import Search
from .settings import Settings
from .shortage import Shortage
from .source import Source
from .store import Store
from .supplies import Supplies
from .words import Status


class Parts(Search):
    """Has all parts of a search, and connects them; `Experiment` does the rest.

    A part gets the parts that it uses; it turns to the search itself (see `Search`) for what
    several parts have to do together.
    """

    def __init__(
        self,
        rule: Rule,
        settings: Settings,
        manager: DistributedResourceManager,
        store: Store,
        say: Callable[[str], None],
        show: Callable[[str], None],
    ) -> None:
        self.rule = rule
        self.settings = settings
        self.manager = manager
        self.store = store
        self.say = say

        # How the search stands, by its log alone; and what the rule answers, checked.
        self.ledger = Ledger(settings.objectives, settings.time_attr)
        self.counsel = Counsel(rule, self.end)

        # Who has slots, who is to start, who waits for a parent's weights, who comes next.
        self.attempts = Attempts()
        self.queue = Queue(self.wake, is_held=lambda trial: trial.id in self.ledger.held)
        self.children = Children(
            self.ledger,
            settings.on_parent_failure,
            settings.parent_retries,
            log=self.log,
            say=say,
            give_up=lambda child, reason: self.ends.end_trial(child, reason, Status.FAILED),
            start=self.queue.put,
        )
        self.source = Source(
            rule, self.ledger, self.queue, self.children, launch=self.new_trial, wake=self.wake
        )

        # Where the checkpoints are; whether anything is left to do; who gets a free slot.
        self.keeper = Keeper(
            self.ledger,
            store,
            settings,
            manager.remotes,
            self.counsel,
            log=self.log,
            say=say,
            parents=self.children.needed_parents,
            on_rest=lambda: self.activity.look(),
        )
        self.activity = Activity(
            self,
            self.ledger,
            self.attempts,
            self.children,
            self.source,
            self.keeper,
            Shortage(manager, settings.resource, say=say, is_over=lambda: self.is_idle),
            only_held=lambda: self.interventions.say_what_is_held(),
            when_durable=store.when_durable,
        )
        self.dispatcher = Dispatcher(
            manager,
            settings.resource,
            self.source,
            self.queue,
            may_start=lambda: not self.ending and not self.ledger.paused_by,
            start=self.start,
            on_error=self.end,
            on_filled=self.activity.look,
            say=say,
        )

        # How a trial that has its slots starts, and what becomes of it when its attempt is over.
        self.preparation = Preparation(
            settings,
            self.keeper,
            due_at=self.counsel.due_at,
            on_failed=self.did_not_start,
            on_orphaned=self.orphaned,
        )
        self.ends = Ends(
            self,
            self.ledger,
            self.queue,
            self.counsel,
            retries=settings.retries,
            judge_node=self.dispatcher.ended_on_node,
        )

        # What people ask for, and what an earlier run of the driver has left.
        self.interventions = Interventions(
            self,
            rule,
            self.counsel,
            self.ledger,
            self.queue,
            self.children,
            self.attempts,
            self.ends,
        )
        self.earlier = Earlier(self.ledger, self.queue, self.children, self.ends, say)

        # Which nodes there are, what they are given, and what they say.
        self.supplies = Supplies(settings, say)
        self.nodes = Nodes(
            self, manager, self.attempts, self.supplies, forget=self.dispatcher.suspects.forget
        )
        self.rests = Rests(manager, say)
        self.reports = Reports(self, settings, store, self.counsel, self.ledger, self.attempts)
        self.hearing = Hearing(
            self,
            self.attempts,
            self.interventions,
            self.keeper,
            self.preparation.meetings,
            Printed(store, settings, say=say, show=show),
            self.reports,
            self.rests,
            self.supplies,
        )
