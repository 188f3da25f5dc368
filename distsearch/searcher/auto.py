"""Which searcher to take when the user leaves it open."""

from __future__ import annotations

import math

from ..space import Choice, Space
from . import SEARCHERS

NAMES = {made.__name__: name for name, made in SEARCHERS.items()}
MANY = 5000  # of so many trials a model, which looks at 500, gains little for its cost


def choose(
    space: Space,
    *,
    rule: str = "FIFOScheduler",
    num_trials: int | None = None,
    max_t: float | None = None,
    objectives: int = 1,
    earlier: str | None = None,
) -> tuple[str, str]:
    """The name of the searcher that suits a search, and why, in one line.

    `rule`: the name of the scheduler's class. `max_t`: how long a trial trains at most, if the rule
    stops or pauses trials earlier; None if it does not. `objectives`: how many rewards there are.
    `earlier`: the class of the searcher of a run that is resumed, with which the search goes on.

    >>> choose(Dict(lr=Real(1e-4, 1e-1, log=True)), rule='HyperbandScheduler', max_t=81)
    ('mfgp', 'a Gaussian process learns most from few trials, and from short ones, up to 81')

    The figures behind these choices are in benchmarks/README.md.
    """
    if earlier in NAMES:
        return NAMES[earlier], "the search that is resumed has begun with it"
    if rule == "PBTScheduler":
        return "random", "the rule itself changes configurations; it starts from random ones"
    if num_trials is not None and space.size <= num_trials:
        return "random", f"{num_trials} trials are enough for all {space.size:g} configurations"
    if objectives > 1:
        return "evolution", f"it learns from {objectives} objectives and needs no other package"
    if num_trials is not None and num_trials > MANY:
        return (
            "evolution",
            f"with {num_trials} trials, cheap suggestions count for more than a model",
        )
    why = "a Gaussian process learns most from few trials"
    if max_t is not None and math.isfinite(max_t):
        why += f", and from short ones, up to {max_t:g}"
    kinds = [isinstance(domain, Choice) for domain in space.parameters.values()]
    if any(is_choice for is_choice in kinds) and not all(kinds):
        why += "; choices and numbers are both in its kernel"
    return "mfgp", why
