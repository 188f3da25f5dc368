"""Every searcher passes the kit of searchers."""

from __future__ import annotations

from functools import partial

import pytest

from distsearch.errors import OptionError
from distsearch.searcher import (
    SEARCHERS,
    BOHBSearcher,
    CMAESSearcher,
    EvolutionSearcher,
    GPSearcher,
    GridSearcher,
    LaMCTSSearcher,
    LaNASSearcher,
    MFGPSearcher,
    NSGA2Searcher,
    QMCSearcher,
    RandomSearcher,
    TPESearcher,
)
from distsearch.space import Dict, Real
from distsearch.testing import SearcherKit, SeveralObjectivesKit


class TestRandom(SearcherKit):
    make = RandomSearcher


class TestGrid(SearcherKit):
    make = staticmethod(partial(GridSearcher, points=40))

    def is_exhaustive(self):
        return True


class TestEvolution(SearcherKit):
    make = staticmethod(partial(EvolutionSearcher, population=4, sample=2))
    learns = True


class TestEvolutionWithParents(SearcherKit):
    make = staticmethod(partial(EvolutionSearcher, population=4, sample=2, inherit=True))
    learns = True


class TestBOHB(SearcherKit):
    make = staticmethod(partial(BOHBSearcher, random_share=0.2))
    learns = True


class TestMFGP(SearcherKit):
    make = staticmethod(partial(MFGPSearcher, first=4, random_share=0.1))
    learns = True


class TestLaNAS(SearcherKit):
    make = staticmethod(partial(LaNASSearcher, first=4, rebuild_every=3, least=2))
    learns = True


class TestLaMCTS(SearcherKit):
    make = staticmethod(partial(LaMCTSSearcher, first=4, leaf_size=8, candidates=16))
    learns = True


class TestTPE(SearcherKit):
    make = staticmethod(partial(TPESearcher, n_startup_trials=4))
    learns = True


class TestGP(SearcherKit):
    # Suggestions of the model take too long for so many: the tests of Optuna's searchers have them.
    make = staticmethod(partial(GPSearcher, n_startup_trials=1000))
    learns = True


class TestCMAES(SearcherKit):
    make = CMAESSearcher
    learns = True


class TestQMC(SearcherKit):
    make = QMCSearcher


class TestNSGA2(SearcherKit):
    make = staticmethod(partial(NSGA2Searcher, population_size=4))
    learns = True


class TestRandomOfSeveral(SeveralObjectivesKit):
    make = RandomSearcher


class TestGridOfSeveral(SeveralObjectivesKit):
    make = GridSearcher


class TestEvolutionOfSeveral(SeveralObjectivesKit):
    make = staticmethod(partial(EvolutionSearcher, population=4, sample=3))


class TestTPEOfSeveral(SeveralObjectivesKit):
    make = staticmethod(partial(TPESearcher, n_startup_trials=4))


class TestGPOfSeveral(SeveralObjectivesKit):
    make = staticmethod(partial(GPSearcher, n_startup_trials=4))
    suggestions = 6


class TestQMCOfSeveral(SeveralObjectivesKit):
    make = QMCSearcher


class TestNSGA2OfSeveral(SeveralObjectivesKit):
    make = staticmethod(partial(NSGA2Searcher, population_size=4))


def test_a_searcher_takes_several_objectives_and_is_tested_or_refuses_them():
    tested = {getattr(kit.make, "func", kit.make) for kit in SeveralObjectivesKit.__subclasses__()}
    for make in set(SEARCHERS.values()) - tested:
        with pytest.raises(OptionError, match="learns from one reward"):
            make(Dict(x=Real(0, 1))).aim(2)


def test_every_searcher_that_has_a_name_is_tested_here():
    tested = {getattr(kit.make, "func", kit.make) for kit in SearcherKit.__subclasses__()}
    assert tested >= set(SEARCHERS.values())
