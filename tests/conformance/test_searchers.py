"""Every searcher passes the kit of searchers."""

from __future__ import annotations

from functools import partial

from distsearch.searcher import SEARCHERS, GridSearcher, RandomSearcher
from tests.conformance.searchers import SearcherKit


class TestRandom(SearcherKit):
    make = RandomSearcher


class TestGrid(SearcherKit):
    make = partial(GridSearcher, points=64)

    def is_exhaustive(self):
        return True


def test_every_searcher_that_has_a_name_is_tested_here():
    makers = [kit.make for kit in SearcherKit.__subclasses__()]
    tested = {getattr(make, "func", make) for make in makers}
    assert tested >= set(SEARCHERS.values())
