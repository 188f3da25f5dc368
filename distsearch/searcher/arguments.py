"""Which arguments a searcher takes by name, and the errors for other names.

AutoGluon's names are taken where they mean the same; else the error names their successor.
"""

from __future__ import annotations

import inspect
from collections.abc import Collection, Iterable, Mapping
from typing import Any

from ..errors import OptionError, suggest

ALIASES = {"bayesopt": "gp", "skopt": "gp"}  # AutoGluon's, both are Gaussian processes
SUCCESSORS = {
    "RL": "searcher='evolution', or 'lanas'",
    "bayesopt_hyperband": "searcher='bohb'",
    "constrained_bayesopt": "searcher='gp' with constraints=",
    "constraint_attr": "constraints=['METRIC <= 0']",
    "search_space": "what @args(...) says above the train function",
    "num_init_random": "n_startup_trials of 'gp' and 'tpe', or first of 'mfgp'",
    "debug_log": "the log of the experiment; leave it out",
    "searcher_data": "what every searcher hears of (see Searcher.observe); leave it out",
}
RENAMED = {"num_init_random": "n_startup_trials", "n_initial_points": "n_startup_trials"}
_DETAILS = {
    "its Gaussian process": "num_init_candidates num_fantasy_samples initial_scoring map_reward "
    "min_reward cost_metric_name gp_resource_kernel resource_acq opt_maxiter opt_nstarts "
    "opt_skip_init_length opt_skip_period opt_skip_num_max_resource opt_warmstart opt_verbose "
    "opt_debug_writer profiler run_id base_estimator acq_func acq_optimizer",
    "its controller": "controller_lr controller_batch_size controller_resource ema_baseline_decay "
    "sync",
}
SUCCESSORS |= {
    name: f"a detail of {whose}; leave it out"
    for whose, names in _DETAILS.items()
    for name in names.split()
}

Points = Iterable[Mapping[str, Any]]


def names_taken(kind: type, without: Collection[str] = ()) -> list[str]:
    """The names that a call of a class takes; also those of its bases, if it hands them on."""
    names: list[str] = []
    for one in kind.__mro__:
        if "__init__" not in vars(one) or one is object:
            continue
        parameters = inspect.signature(vars(one)["__init__"]).parameters.values()
        named = [p.name for p in parameters if p.kind in (p.POSITIONAL_OR_KEYWORD, p.KEYWORD_ONLY)]
        names += [name for name in named[1:] if name not in names]
        if all(p.kind is not p.VAR_KEYWORD for p in parameters):
            break
    return [name for name in names if name not in without]


def refuse_unknown(what: str, given: Iterable[str], valid: Collection[str]) -> None:
    """Raise OptionError, with the nearest name or the successor, for a name that is not valid."""
    for name in given:
        if name in SUCCESSORS and name not in valid:
            raise OptionError(
                f"{what} has no argument {name!r}; AutoGluon's is here {SUCCESSORS[name]}"
            )
        if name not in valid:
            raise OptionError(f"{what} has no argument {name!r}; {suggest(str(name), valid)}")


def renamed(options: Mapping[str, Any], valid: Collection[str]) -> dict[str, Any]:
    """The options, with our names in place of AutoGluon's where these mean the same.

    >>> renamed({"num_init_random": 2}, ["n_startup_trials"])
    {'n_startup_trials': 2}
    """
    return {
        RENAMED[name] if name not in valid and RENAMED.get(name) in valid else name: value
        for name, value in options.items()
    }


def taken_out(
    options: Mapping[str, Any] | None, seed: int | None, points: Points | None
) -> tuple[dict[str, Any], int | None, Points | None]:
    """Search options without those that are arguments of the scheduler, and these arguments.

    They are `seed`, and AutoGluon's `random_seed` and `first_is_default` (whether the default
    configuration is tried first): search options, seed and points to evaluate are returned.

    >>> taken_out({"random_seed": 7, "sample": 5}, None, None)
    ({'sample': 5}, 7, None)

    Raises OptionError for options that are no dict, and for a seed other than the scheduler's.
    """
    if not isinstance(options, Mapping | None):
        raise OptionError(f"search_options={options!r}; give a dict of names and values")
    rest = dict(options or {})
    for name in ("seed", "random_seed"):
        if name in rest:
            seed = same_seed(name, rest.pop(name), seed)
    if "points_to_evaluate" in rest and points is None:
        points = rest.pop("points_to_evaluate")
    if "first_is_default" in rest:
        first: list[Mapping[str, Any]] = [{}] if rest.pop("first_is_default") else []
        points = [*first, *(points or [])]
    return rest, seed, points


def same_seed(name: str, value: Any, seed: int | None) -> int:
    """The seed that is given under another name; OptionError where the two differ."""
    if seed is not None and seed != value:
        raise OptionError(f"{name}={value!r} and seed={seed!r} differ; give seed= alone")
    if isinstance(value, bool) or not isinstance(value, int):
        raise OptionError(f"{name}={value!r}; give an integer")
    return value
