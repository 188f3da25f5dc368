"""The arguments of a scheduler: what they may be, and the settings that they amount to."""

from __future__ import annotations

import inspect
import json
import math
import os
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from numbers import Integral, Real
from pathlib import Path
from typing import Any

from ..core.budget import parse_bytes
from ..core.decorators import RANK_ARGS, TrainFunction
from ..core.folder import storage_of
from ..core.lineage import POLICIES
from ..core.objectives import Objectives
from ..core.results import Results
from ..core.settings import Settings, retries_of
from ..core.travel import pack
from ..core.words import Status
from ..errors import OptionError, ResourceError, SpaceError
from ..resource.node import Node
from ..resource.resource import Resource
from ..searcher.arguments import names_taken, refuse_unknown, same_seed
from ..space import Dict
from ..space.base import plain

AUTOGLUON = {  # arguments of AutoGluon, and the values that describe what happens here
    "delay_get_config": True,
    "searcher_data": "rungs",
    "rung_system_per_bracket": True,
    "maxt_pending": False,
    "keep_size_ratios": False,
    "do_snapshots": False,
    "training_history_searcher_info": False,
    "stop_jobs_after_time_out": True,
}
NoneType = type(None)
_KINDS: dict[Any, str] = {
    Integral: "an integer",
    Real: "a number",
    str: "a name",
    bool: "True or False",
    Callable: "a function",
    Mapping: "a dict",
    NoneType: "None",
}


@dataclass(frozen=True)
class Options:
    """The arguments of a scheduler that can be checked one by one; see FIFOScheduler.

    Raises OptionError or ResourceError for the first argument that cannot be.
    """

    resource: Mapping[str, Any] | Resource | None
    num_trials: int | None
    time_out: float | None
    max_reward: float | None
    time_attr: str
    resume: bool | None
    visualizer: str
    training_history_callback: Any
    training_history_callback_period: float
    local: Any
    tunnel: Any
    isolation: str
    start_method: str | None
    work_in: str | None
    trial_timeout: float | None
    report_timeout: float | None
    max_failures: int
    retries: Mapping[str, int] | None
    on_parent_failure: str
    storage: str | os.PathLike[str] | None
    keep: int
    max_bytes: str | float | None
    seed: int | None
    verbose: int
    label_output: bool

    def __post_init__(self) -> None:
        _choose("isolation", self.isolation, ("fresh", "reuse"))
        _choose("start_method", self.start_method, (None, "fork", "spawn"))
        _choose("work_in", self.work_in, (None, "trial"))
        if self.visualizer != "none":
            raise OptionError(
                f"visualizer={self.visualizer!r} of AutoGluon is not to be had; curves are drawn "
                "by scheduler.get_training_curves('curves.png'), live by `distsearch page`, and "
                "`distsearch export --to tensorboard` writes them for TensorBoard"
            )
        _choose("on_parent_failure", self.on_parent_failure, POLICIES)
        check_bounds(self.num_trials, self.time_out)
        _check_bound("trial_timeout", self.trial_timeout)
        _check_bound("report_timeout", self.report_timeout)
        _check_kind("max_reward", self.max_reward, Real, NoneType)
        if self.max_reward is not None and math.isnan(self.max_reward):
            raise OptionError("max_reward=nan; give a number or None")
        if not isinstance(self.time_attr, str) or not self.time_attr:
            raise OptionError(f"time_attr={self.time_attr!r}; give the name of a metric")
        _check_kind("max_failures", self.max_failures, Integral)
        _check_bound("keep", self.keep, Integral)
        _check_kind("retries", self.retries, Mapping, NoneType)
        _check_kind("resume", self.resume, bool, NoneType)
        _check_kind("seed", self.seed, Integral, NoneType)
        if self.seed is not None and self.seed < 0:
            raise OptionError(f"seed={self.seed}; give an integer from 0 on, or None")
        _choose("verbose", self.verbose, (0, 1, 2))
        _check_kind("label_output", self.label_output, bool)
        callback = self.training_history_callback
        _check_kind("training_history_callback", callback, Callable, NoneType)
        period = self.training_history_callback_period
        wanted = "a number of seconds from 0 on; give one"
        check_number("training_history_callback_delta_secs", period, wanted, least=0)
        _check_kind("tunnel", self.tunnel, bool, NoneType)
        if not isinstance(self.local, (bool, Node, NoneType)):
            raise OptionError(f"local={self.local!r}; give True, False, or Node('localhost', ...)")

    def settings(
        self,
        train_fn: TrainFunction,
        objectives: Objectives,
        folder: Path,
        earlier: Mapping[str, Any] | None,
    ) -> Settings:
        """The settings of the experiment in this folder; `earlier`: what its earlier run searched.

        Makes the place of its checkpoints in the storage. Raises PicklingError, ResourceError,
        OptionError for retries that cannot be, and what `storage_of` raises.
        """
        resource = Resource.parse(self.resource)
        _check_gang(resource, train_fn, self.isolation)
        return Settings(
            packed=pack(train_fn),
            packed_here=pack(train_fn, stays_here=True),
            resource=resource,
            complete=partial(complete, train_fn.space),
            objectives=objectives,
            time_attr=self.time_attr,
            max_reward=self.max_reward,
            reuse=self.isolation == "reuse",
            spawn=self.start_method == "spawn",
            trial_timeout_s=self.trial_timeout,
            report_timeout_s=self.report_timeout,
            retries=_retries(self.max_failures, self.retries),
            on_parent_failure=self.on_parent_failure,
            parent_retries=int(self.max_failures),
            storage=storage_of(folder, self.storage, earlier),
            keep=int(self.keep),
            max_bytes=parse_bytes(self.max_bytes),
            shows_output=self.verbose is True or self.verbose > 1,
            labels_output=self.label_output,
        )


def _check_gang(resource: Resource, train_fn: TrainFunction, isolation: str) -> None:
    """Raise OptionError or SpaceError for what a trial of several processes cannot have."""
    if resource.world_size == 1:
        return
    if isolation == "reuse":
        raise OptionError(
            f"isolation='reuse' with world_size={resource.world_size}: a process group that one "
            "trial has left open, or broken, would be the next one's; leave isolation='fresh'"
        )
    if taken := [name for name in RANK_ARGS if name in train_fn.space]:
        raise SpaceError(
            f"{taken[0]!r} is an argument of {train_fn.__name__}, but with world_size="
            f"{resource.world_size} every rank is told its own as args.{taken[0]}; rename yours"
        )


def check_bounds(num_trials: int | None, time_out: float | None) -> None:
    """Raise ResourceError unless each bound is None, or above 0."""
    _check_bound("num_trials", num_trials, Integral)
    _check_bound("time_out", time_out)


def check_objectives(
    objectives: Objectives, rule: str, ranks_by_reward: bool, max_reward: float | None
) -> None:
    """Raise OptionError for several objectives with a rule, or a goal, that is for one reward."""
    if not objectives.several:
        return
    if ranks_by_reward:
        raise OptionError(
            f"{rule} ranks trials by one reward, but reward_attr={list(objectives.names)!r}; give "
            "it one of these, perhaps with constraints= on the others, or use FIFOScheduler"
        )
    if max_reward is not None:
        raise OptionError(
            f"max_reward={max_reward!r} is for one reward_attr, not for {len(objectives.names)}; "
            "end the search with num_trials= or time_out="
        )


def with_args(train_fn: TrainFunction, args: Any) -> TrainFunction:
    """The train function with other arguments in the place of its own.

    `args`: a mapping, a namespace or None. Raises OptionError for what is not decorated by `@args`,
    SpaceError for a name that the function does not have.
    """
    if not isinstance(train_fn, TrainFunction):
        raise OptionError(
            f"{train_fn!r} is not decorated; write @args(lr=Real(...), ...) above its definition"
        )
    check_parameters(train_fn)
    if args is None or args is train_fn.args:
        return train_fn
    if not isinstance(args, Mapping) and not hasattr(args, "__dict__"):
        raise OptionError(f"args={args!r}; give a mapping or a namespace of arguments")
    values = args if isinstance(args, Mapping) else vars(args)
    return train_fn.with_args(values)


def check_parameters(train_fn: TrainFunction) -> None:
    """Raise OptionError where a train function does not take what a trial gives it."""
    try:
        parameters = inspect.signature(train_fn.__wrapped__)
    except (TypeError, ValueError):  # (a callable that is written in C may have none)
        return
    try:
        parameters.bind("args", "reporter")
    except TypeError as error:
        raise OptionError(
            f"a trial calls {train_fn.__name__}(args, reporter), but it is defined as "
            f"{train_fn.__name__}{parameters}: {error}"
        ) from None


def refuse_misspelt(rule: type, names: Iterable[str]) -> None:
    """Raise OptionError, with the nearest name, for a name that is no argument of a rule."""
    valid = names_taken(rule, without=names_taken(Results))  # (these are for `Results` itself)
    known = {*valid, "random_seed", *AUTOGLUON}
    refuse_unknown(rule.__name__, [name for name in names if name not in known], valid)


def seed_of_others(rule: type, others: Mapping[str, Any], seed: int | None) -> int | None:
    """The seed, after the further arguments `others` were checked, which AutoGluon has.

    `random_seed` among them is the seed. Raises OptionError for a name that the rule does not have,
    with the nearest name that it has, and for an argument of AutoGluon with a value that would
    change what happens here.
    """
    refuse_misspelt(rule, others)
    for name, value in others.items():
        if name == "random_seed":
            seed = same_seed(name, value, seed)
        elif value != AUTOGLUON[name]:
            raise OptionError(
                f"{name}={value!r} of AutoGluon is not to be had; what happens here is what it "
                f"calls {name}={AUTOGLUON[name]!r}"
            )
    return seed


def complete(space: Dict, config: Mapping[str, Any]) -> dict[str, Any]:
    """The whole configuration that a trial gets; `config` may have other values for constants.

    Raises SpaceError for what is not in the space, and for constants that JSON does not hold.
    """
    constants, rest = space.constants_of(config)
    for path, value in constants.items():
        constants[path] = value = plain(value)
        if not _is_json(value):
            raise SpaceError(
                f"{path}={value!r} cannot be in a configuration, which is kept as JSON (numbers, "
                f"text, lists, dicts); write train_fn.update({path}=...) and make a new scheduler"
            )
    return {**space.validate(rest), **constants}


def _is_json(value: Any) -> bool:
    """Whether JSON holds a value as it is."""
    try:
        return bool(json.loads(json.dumps(value, allow_nan=False)) == value)
    except (TypeError, ValueError, RecursionError):
        return False


def check_number(
    name: str,
    value: Any,
    valid: str,
    *,
    least: float = -math.inf,
    above: float = -math.inf,
    most: float = math.inf,
    kind: Any = Real,
) -> None:
    """Raise OptionError unless a value is a number from `least` (or above `above`) to `most`.

    `valid` says in words which values are valid.
    """
    is_number = isinstance(value, kind) and not isinstance(value, bool)
    if not (is_number and least <= value <= most and value > above):
        raise OptionError(f"{name}={value!r}, but it must be {valid}")


def is_whole(value: Any) -> bool:
    """Whether a value is an integer, of Python or NumPy; True and False are not."""
    return isinstance(value, Integral) and not isinstance(value, bool)


def config_files(
    given: str | os.PathLike[str] | Iterable[str | os.PathLike[str]] | None,
) -> list[str] | None:
    """The absolute paths of the files in `ssh_config`; OptionError for a file that is not there."""
    if given is None:
        return None
    if isinstance(given, str | os.PathLike):
        given = [given]
    if not isinstance(given, Iterable):
        raise OptionError(f"ssh_config={given!r}; give the paths of ssh's configuration files")
    files = [str(Path(file).expanduser().absolute()) for file in given]
    if gone := [file for file in files if not os.path.exists(file)]:
        raise OptionError(f"ssh_config: there is no file {gone[0]}")
    return files


def _choose(name: str, got: Any, valid: Sequence[Any]) -> None:
    if got not in valid:
        raise OptionError(f"{name}={got!r}, but it is one of {', '.join(map(repr, valid))}")


def _check_bound(name: str, value: Any, kind: Any = Real) -> None:
    if value is None:
        return
    if not isinstance(value, kind) or isinstance(value, bool) or not value > 0:
        wanted = "an integer" if kind is Integral else "a number"
        raise ResourceError(f"{name}={value!r}; give {wanted} above 0, or None")


def _check_kind(name: str, value: Any, *kinds: Any) -> None:
    if not isinstance(value, kinds) or (isinstance(value, bool) and bool not in kinds):
        wanted = " or ".join(_KINDS[kind] for kind in kinds)
        raise OptionError(f"{name}={value!r}; give {wanted}")


def _retries(max_failures: int, retries: Mapping[str, int] | None) -> dict[Status, int]:
    """How often a trial runs again after each kind of end; raises OptionError."""
    kinds = [status.value for status in Status if status.is_failure]
    for name, number in (retries or {}).items():
        if name not in kinds:
            raise OptionError(f"retries={retries!r}, but {name!r} is none of {', '.join(kinds)}")
        _check_kind(f"retries[{name!r}]", number, Integral)
    if min([max_failures, *(retries or {}).values()]) < 0:
        raise OptionError(f"max_failures={max_failures}, retries={retries}; give 0 and more")
    given = {Status(name): int(number) for name, number in (retries or {}).items()}
    return retries_of(given, max_failures)
