"""Searches, and the training of what each has found, as the trials of one scheduler.

    scheduler = FIFOScheduler(
        search_then_retrain,
        searcher=SearchThenRetrain(search_then_retrain.space, searches=3),
        num_trials=6,
        on_parent_failure="fail",
    )

A training has its search as its parent: it waits for the end of that without a slot, takes the
genotype from its checkpoint, and stands beside it in the lineage. The best of several searches is
the one whose network learns best, as in DARTS (arXiv 1806.09055, section 3.1).
"""

from __future__ import annotations

from typing import Any

import numpy as np

from ...core.decorators import args as arguments
from ...core.words import Launch
from ...searcher import Searcher
from ...space import Choice, Int, Namespace, Space
from ..recipes import SMALL as NETWORK
from .settings import SMALL as SEARCH


@arguments(
    stage=Choice("search", "retrain"),
    seed=Int(0, 2**31 - 1),
    data="digits",
    data_root=None,
    search=SEARCH,
    retrain=NETWORK,
)
def search_then_retrain(args: Any, reporter: Any) -> None:
    """Search, or train the network that the parent has found.

    `search` and `retrain` are the settings of `train_supernet` and `train_network`, and the reports
    are theirs.
    """
    import torch  # noqa: F401  # named here, it is imported once for all trials of a node

    common = {name: args[name] for name in ("seed", "data", "data_root")}
    if args.stage == "search":
        from . import search

        search.train(Namespace({**args.search, **common}), reporter)
        return
    from .. import retrain

    (parent,) = reporter.parents
    genotype = reporter.load(parent=parent)["genotype"]
    retrain.train(Namespace({**args.retrain, **common, "genotype": genotype}), reporter)


class SearchThenRetrain(Searcher):
    """First the searches, with the seeds 0, 1, ..., then for each the training of what it found."""

    def __init__(self, space: Space, *, searches: int) -> None:
        super().__init__(space, points_to_evaluate=[])
        self.searches = searches

    def suggest(self, trial_id: int, rng: np.random.Generator) -> dict[str, Any] | Launch | None:
        """The trial of this number; None after the last training."""
        if trial_id < self.searches:
            return {"stage": "search", "seed": trial_id}
        parent = trial_id - self.searches
        if parent >= self.searches:
            return None
        return Launch({"stage": "retrain", "seed": parent}, parents=(parent,))

    def may_need(self, trial_id: int) -> bool:
        """Whether the trial is a search: its training needs the checkpoint."""
        return trial_id < self.searches
