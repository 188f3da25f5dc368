"""Searchers: which configuration to try next, behind ask and tell."""

from typing import Any

from ..space.autogluon import successor
from .base import Searcher
from .bohb import BOHBSearcher
from .evolution import EvolutionSearcher
from .grid import GridSearcher
from .lamcts import LaMCTSSearcher
from .lanas import LaNASSearcher
from .mfgp import MFGPSearcher
from .optuna import (
    CMAESSearcher,
    GPSearcher,
    NSGA2Searcher,
    OptunaSearcher,
    QMCSearcher,
    TPESearcher,
)
from .random import RandomSearcher

SEARCHERS: dict[str, type[Searcher]] = {
    "random": RandomSearcher,
    "grid": GridSearcher,
    "evolution": EvolutionSearcher,
    "bohb": BOHBSearcher,
    "mfgp": MFGPSearcher,
    "lanas": LaNASSearcher,
    "lamcts": LaMCTSSearcher,
    "tpe": TPESearcher,
    "gp": GPSearcher,
    "cmaes": CMAESSearcher,
    "qmc": QMCSearcher,
    "nsga2": NSGA2Searcher,
}

__all__ = [
    "SEARCHERS",
    "BOHBSearcher",
    "CMAESSearcher",
    "EvolutionSearcher",
    "GPSearcher",
    "GridSearcher",
    "LaMCTSSearcher",
    "LaNASSearcher",
    "MFGPSearcher",
    "NSGA2Searcher",
    "OptunaSearcher",
    "QMCSearcher",
    "RandomSearcher",
    "Searcher",
    "TPESearcher",
]


def __getattr__(name: str) -> Any:
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}{successor(name)}")
