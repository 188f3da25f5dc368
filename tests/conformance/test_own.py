"""The rule and the searcher of the tutorials pass the kits, as those of a user's own have to."""

from __future__ import annotations

import importlib.util
from pathlib import Path

from distsearch.testing import SchedulerKit, SearcherKit

TUTORIALS = Path(__file__).resolve().parents[2] / "tutorials"


def tutorial(name):
    """A tutorial as a module; what it does when it is run is not done."""
    spec = importlib.util.spec_from_file_location(name, TUTORIALS / f"{name}.py")
    module = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(module)
    return module


class TestARuleOfOnesOwn(SchedulerKit):
    make = tutorial("05_own_rule").LaggardStopping
    stops = True

    def options(self):
        return {"margin": 0.05, "patience": 3}


class TestASearcherOfOnesOwn(SearcherKit):
    make = tutorial("06_own_searcher").AroundTheBest
    learns = True
