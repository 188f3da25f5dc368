"""`@args`: a train function with its search space."""

from __future__ import annotations

import argparse
import inspect
from collections.abc import Callable, Iterable, Mapping
from functools import update_wrapper
from typing import TYPE_CHECKING, Any

from distsearch.errors import SpaceError
from distsearch.space import Dict, Namespace
from distsearch.space.base import successor

RESERVED = frozenset({"task_id", "num_cpus", "num_gpus", "gpu_ids"})  # every trial gets these


class TrainFunction:
    """A train function that knows its search space; `args` makes it.

    It is called like the function itself, with any arguments. It travels by cloudpickle.

    Attributes:
        space: the Dict of its arguments, spaces and constants.
        __wrapped__: the function.
    """

    space: Dict
    __wrapped__: Callable[..., Any]
    __name__: str

    def __init__(self, function: Callable[..., Any], arguments: Mapping[str, Any]) -> None:
        if not callable(function):
            raise SpaceError(f"@args stands on a train function, but got {function!r}")
        if inspect.iscoroutinefunction(function) or inspect.isgeneratorfunction(function):
            kind = "async" if inspect.iscoroutinefunction(function) else "a generator"
            raise SpaceError(
                f"the train function {function.__name__} is {kind}: calling it runs nothing; make "
                "it a plain function, with asyncio.run(...) inside if need be"
            )
        _refuse_reserved(arguments)
        update_wrapper(self, function)
        self.__name__ = getattr(function, "__name__", type(function).__name__)
        self.space = Dict(**arguments)
        self._args: Namespace | None = None

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function.

        `train_fn(train_fn.args, config, reporter=report)`, as AutoGluon has it, puts the values of
        a configuration over those arguments first.
        """
        if len(args) > 1 and isinstance(args[0], Namespace) and isinstance(args[1], Mapping):
            values, config, *others = args
            return self.__wrapped__(self._with_values_of(config, values), *others, **kwargs)
        return self.__wrapped__(*args, **kwargs)

    def _with_values_of(self, config: Mapping[str, Any], values: Namespace) -> Namespace:
        """The same arguments, with those that are searched as a configuration has them."""
        searched = {path.partition(".")[0] for path in self.space.validate(config)}
        built = self.space.build(config)
        return Namespace(values, **{name: built[name] for name in searched})

    if not TYPE_CHECKING:  # to a type checker there is no other attribute

        def __getattr__(self, name: str) -> Any:
            kind = type(self).__name__
            raise AttributeError(f"{kind} has no attribute {name!r}{successor(name)}")

    def __get__(self, instance: Any, owner: type | None = None) -> TrainFunction:
        """On a method: the train function of the instance, which travels with it."""
        bind = getattr(self.__wrapped__, "__get__", None)
        if instance is None or bind is None:
            return self
        return TrainFunction(bind(instance, owner), self.space)

    @property
    def args(self) -> Namespace:
        """The built default configuration, for a direct call: ``train_fn(train_fn.args, report)``.

        Built when it is first read. Setting values in it changes direct calls only; what a search
        uses is changed by `update`.
        """
        if self._args is None:
            self._args = self.space.build({})
        return self._args

    def update(self, /, **arguments: Any) -> TrainFunction:
        """Put other values or spaces in the place of known arguments; returns this function.

        ``train_fn.update(lr=0.1, momentum=Real(0.5, 0.99))``

        Raises:
            SpaceError: for a name that is not there, to the letter.
        """
        self.space = self.space.replace(**arguments)
        self._args = None
        return self

    def register_args(self, /, **arguments: Any) -> TrainFunction:
        """Add arguments, values or spaces; returns this function.

        Raises:
            SpaceError: for a name that is there already, or is reserved.
        """
        _refuse_reserved(arguments)
        for name in arguments:
            if name in self.space:
                raise SpaceError(f"{name!r} is there already; change it with update({name}=...)")
        self.space = Dict(**{**self.space, **arguments})
        self._args = None
        return self

    def __getstate__(self) -> dict[str, Any]:
        return {**vars(self), "_args": None}  # built anew where it is read

    def __repr__(self) -> str:
        return f"<train function {self.__name__}: {self.space!r}>"


def args(
    default: Mapping[str, Any] | argparse.Namespace | None = None, **arguments: Any
) -> Callable[[Callable[..., Any]], TrainFunction]:
    """Give a train function its arguments: spaces are searched, all else is constant.

    `default` holds arguments to start from, for instance those that argparse read; the named ones
    are put over them.

    >>> @args(batch_size=64, lr=Real(1e-4, 1e-1, log=True))
    ... def train_fn(args, reporter):
    ...     reporter(epoch=1, accuracy=args.lr)
    >>> train_fn.space.default
    {'lr': 0.0031622776601683794}

    Raises:
        SpaceError: for the names that every trial gets by itself (task_id, num_cpus, num_gpus,
            gpu_ids), and for a `default` that is neither a mapping nor a namespace.
    """
    if isinstance(default, argparse.Namespace):
        default = vars(default)
    if default is not None and not isinstance(default, Mapping):
        raise SpaceError(
            f"args takes arguments by name, and one mapping of defaults, but got {default!r}; "
            "write @args(lr=...), or @args() when there are none"
        )
    everything = {**(default or {}), **arguments}
    return lambda function: TrainFunction(function, everything)


def _refuse_reserved(names: Iterable[str]) -> None:
    if taken := sorted(RESERVED.intersection(names)):
        raise SpaceError(
            f"{', '.join(map(repr, taken))} cannot be an argument, as every trial gets it by "
            "itself; choose another name"
        )
