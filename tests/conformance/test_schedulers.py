"""Every scheduler passes the kit of schedulers."""

from __future__ import annotations

from distsearch.core.words import Continue, Stop
from distsearch.scheduler import FIFOScheduler
from tests.conformance.schedulers import SchedulerKit


class StopsLate(FIFOScheduler):
    """A rule of a user's own."""

    def on_report(self, trial, report):
        return Stop() if report.time >= 3 else Continue()


class TestFIFO(SchedulerKit):
    make = FIFOScheduler


class TestReusedProcesses(SchedulerKit):
    make = FIFOScheduler

    def options(self):
        return {"isolation": "reuse"}


class TestARuleThatStops(SchedulerKit):
    make = StopsLate
    stops = True
