"""Every searcher passes the kit of searchers."""

from __future__ import annotations

from distsearch.searcher import SEARCHERS, GridSearcher, RandomSearcher
from tests.conformance.searchers import SearcherKit


class TestRandom(SearcherKit):
    make = RandomSearcher


class TestGrid(SearcherKit):
    make = GridSearcher

    def is_exhaustive(self):
        return True


def test_every_searcher_that_has_a_name_is_tested_here():
    tested = {kit.make for kit in SearcherKit.__subclasses__()}
    assert tested >= set(SEARCHERS.values())
