"""The searcher of a search that is read from its folder, so that its tree can be looked at.

searcher = by_regions(distsearch.open("runs/digits"))
searcher.overview()
"""

from __future__ import annotations

from ..core.results import Results
from ..core.words import Status
from ..errors import DistsearchError
from ..space.reading import described
from .lamcts import LaMCTSSearcher
from .lanas import LaNASSearcher
from .region_searcher import RegionSearcher

BY_REGIONS: dict[str, type[RegionSearcher]] = {
    one.__name__: one for one in (LaNASSearcher, LaMCTSSearcher)
}


def by_regions(results: Results) -> RegionSearcher:
    """The searcher of a search, which learns a tree of regions; told all that it was told there.

    Raises DistsearchError for a search with another searcher, SpaceError where the log does not
    tell all of its space.
    """
    name = results.searched["searcher"]
    if name not in BY_REGIONS:
        raise DistsearchError(f"{name} learns no tree of regions")
    options = dict(results.searched.get("search_options", {}))
    options.pop("pool", None)  # (the tree does not depend on the pool)
    space = described(results.searched["space"])
    searcher = BY_REGIONS[name](space, points_to_evaluate=[], **options)
    for trial in results.trials:
        if trial.is_final:
            continue
        if trial.status.is_end or trial.status is Status.PAUSED:
            searcher.tell(trial.id, trial.config, trial.best_reward)
        else:
            searcher.replay(trial.id, trial.config)
    return searcher
