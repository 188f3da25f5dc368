"""Every scheduler passes the kit of schedulers."""

from __future__ import annotations

from distsearch.core.words import Continue, Stop
from distsearch.scheduler import (
    CoevolutionScheduler,
    FIFOScheduler,
    HyperbandScheduler,
    MedianStoppingScheduler,
    PASHAScheduler,
    PBTScheduler,
)
from distsearch.testing import SchedulerKit


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


class TestHyperbandByStopping(SchedulerKit):
    make = HyperbandScheduler
    stops = bounds = True

    def options(self):
        return {"max_t": 9, "reduction_factor": 2, "brackets": 2, "type": "stopping"}


class TestHyperbandByPromotion(SchedulerKit):
    make = HyperbandScheduler
    pauses = bounds = True

    def options(self):
        return {"max_t": 9, "reduction_factor": 2, "type": "promotion"}


class TestSynchronousHyperband(SchedulerKit):
    make = HyperbandScheduler
    pauses = bounds = True

    def options(self):
        return {"max_t": 9, "reduction_factor": 2, "brackets": 2, "type": "synchronous"}


class TestMedianStopping(SchedulerKit):
    make = MedianStoppingScheduler
    stops = True


class TestPASHA(SchedulerKit):
    make = PASHAScheduler
    pauses = bounds = True

    def options(self):
        return {"max_t": 9, "reduction_factor": 2}


class TestPBT(SchedulerKit):
    make = PBTScheduler
    stops = breeds = bounds = True

    def options(self):
        return {"max_t": 9, "population_size": len(self.points)}


class TestCoevolution(SchedulerKit):
    make = CoevolutionScheduler
    stops = breeds = True

    def options(self):
        return {"cells": (len(self.points), 1), "generations": 3}
