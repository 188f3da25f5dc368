"""Searchers: which configuration to try next, behind ask and tell."""

from .base import Searcher
from .grid import GridSearcher
from .random import RandomSearcher

SEARCHERS: dict[str, type[Searcher]] = {"random": RandomSearcher, "grid": GridSearcher}

__all__ = ["SEARCHERS", "GridSearcher", "RandomSearcher", "Searcher"]
