"""`@args`: a train function with its search space."""

from __future__ import annotations

import argparse
import inspect
from collections.abc import Callable, Iterable, Mapping
from functools import update_wrapper
from typing import TYPE_CHECKING, Any, Protocol
from weakref import WeakSet

from distsearch.errors import SpaceError
from distsearch.space import Dict, Namespace
from distsearch.space.autogluon import missing
from distsearch.space.base import join, with_default
from distsearch.space.containers import as_space
from distsearch.space.privacy import without_secrets

RESERVED = frozenset({"task_id", "num_cpus", "num_gpus", "gpu_ids"})  # every trial gets these
# Each trial gets these, too, unless its space has arguments of these names (the rank of a matrix,
# say); the space of a trial with several processes must not have any.
RANK_ARGS = ("rank", "local_rank", "world_size")
SHOWN = 100  # so many characters of a value are shown in a line


class UsingSearch(Protocol):
    """A search that uses a train function."""

    @property
    def is_running(self) -> bool:
        """Whether trials run or are still to be launched."""


class _Arguments(Namespace):
    """The arguments of a train function: what is set here changes what its searches use.

    `change(path, value)` is called for each value that is set, and returns what is kept here.
    """

    __slots__ = ("_change", "_path")
    _change: Callable[[str, Any], Any]
    _path: str

    def __init__(
        self, values: Namespace, change: Callable[[str, Any], Any], path: str = ""
    ) -> None:
        super().__init__(values)
        object.__setattr__(self, "_change", change)
        object.__setattr__(self, "_path", path)
        for name, value in values.items():
            super().__setitem__(name, self._changeable(name, value))

    def _changeable(self, name: str, value: Any) -> Any:
        """The value; a namespace becomes one of this class, as its values may be set as well."""
        if type(value) is Namespace:
            return _Arguments(value, self._change, join(self._path, name))
        return value

    def __setitem__(self, name: str, value: Any) -> None:
        changed = self._change(join(self._path, name), value)
        super().__setitem__(name, self._changeable(name, changed))

    def __setattr__(self, name: str, value: Any) -> None:
        self[name] = value

    def __delitem__(self, name: str) -> None:
        raise SpaceError(f"{name!r} cannot be taken away from the arguments of a train function")

    @property
    def __dict__(self) -> Any:  # type: ignore[override]  # so that vars(args).update(...) counts too
        return self

    def __reduce__(self) -> tuple[type[Namespace], tuple[dict[str, Any], ...]]:
        return Namespace, (dict(self),)


class TrainFunction:
    """A train function that knows its search space; `args` makes it.

        @args(lr=Real(1e-4, 1e-1, log=True), epochs=5)
        def train_fn(args, reporter): ...

    It is called like the function itself, with any arguments. It travels by cloudpickle.

    Attributes:
        space: the Dict of its arguments, spaces and constants.
        __wrapped__: the function.
    """

    space: Dict
    __wrapped__: Callable[..., Any]
    __name__: str
    _declared: Dict  # the space as it was declared, without values that were set in `args`
    _searches: WeakSet[UsingSearch]

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
        self.space = self._declared = Dict(**arguments)
        self._args: Namespace | None = None
        self._searches = WeakSet()

    def __call__(self, *args: Any, **kwargs: Any) -> Any:
        """Call the function.

        `train_fn(train_fn.args, config, reporter=report)`, as AutoGluon has it, takes the arguments
        with the values of a configuration in their place.
        """
        # (Not `Mapping`: to ask a reporter whether it is one takes a forked process 0.6 ms.)
        configs = (dict, Namespace)
        if len(args) > 1 and isinstance(args[0], Namespace) and isinstance(args[1], configs):
            values, config, *others = args
            return self.__wrapped__(self._with_values_of(config, values), *others, **kwargs)
        if args and isinstance(args[0], _Arguments):  # what the function sets, it sets in a copy
            args = (Namespace(args[0]), *args[1:])
        return self.__wrapped__(*args, **kwargs)

    def _with_values_of(self, config: Mapping[str, Any], values: Namespace) -> Namespace:
        """The arguments, of which those that are searched have the values of a configuration."""
        searched = {path.partition(".")[0] for path in self.space.validate(config)}
        built = self.space.build(config)
        return Namespace(values, **{name: built[name] for name in searched})

    if not TYPE_CHECKING:  # to a type checker there is no other attribute

        def __getattr__(self, name: str) -> Any:
            return missing(self, name)

    def __get__(self, instance: Any, owner: type | None = None) -> TrainFunction:
        """On a method: the train function of the instance, which travels with it."""
        bind = getattr(self.__wrapped__, "__get__", None)
        if instance is None or bind is None:
            return self
        return TrainFunction(bind(instance, owner), self.space)

    @property
    def args(self) -> Namespace:
        """The built default configuration, for a direct call: ``train_fn(train_fn.args, report)``.

        Built when it is first read. ``train_fn.args.epochs = 7`` is ``train_fn.update(epochs=7)``:
        schedulers that are made from then on use that value, and do not search the argument.
        """
        if self._args is None:
            self._args = _Arguments(self.space.build({}), self._set)
        return self._args

    @property
    def fixed(self) -> list[str]:
        """A line for each argument that was to be searched, and has a value in `args` instead."""
        return [
            f"{name}={_short(without_secrets(self.space[name], name))} is fixed, it is not "
            f"searched in {_short(self._declared[name])}"
            for name, part in self._declared.parts.items()
            if part.size != 1 and name in self.space and self.space.parts[name].size == 1
        ]

    def with_args(self, values: Mapping[str, Any]) -> TrainFunction:
        """Another train function: some arguments have the values or spaces that are given here.

        Raises:
            SpaceError: for a name that is not there, to the letter.
        """
        _refuse_reserved(values)
        other = TrainFunction(self.__wrapped__, self.space.replace(**values))
        other._declared = self._declared
        return other

    def note(self, search: UsingSearch) -> None:
        """Refuse changes while this search runs: it uses the function as it is now."""
        self._searches.add(search)

    def update(self, /, **arguments: Any) -> TrainFunction:
        """Put other values or spaces in the place of known arguments; returns this function.

        ``train_fn.update(lr=0.1, momentum=Real(0.5, 0.99))``

        Raises:
            SpaceError: for a name that is not there, to the letter; and while a search runs, which
                uses the arguments with which it has begun.
        """
        self._check_free()
        self.space = self.space.replace(**arguments)
        self._declared = self._declared.replace(**arguments)
        self._args = None
        return self

    def register_args(self, /, **arguments: Any) -> TrainFunction:
        """Add arguments, which are values or spaces, or replace them; returns this function.

        ``train_fn.register_args(epochs=3, wd=Real(0, 1))``; `update` refuses names that are new.

        Raises:
            SpaceError: for a name that is reserved.
        """
        _refuse_reserved(arguments)
        self._check_free()
        self.space = Dict(**{**self.space, **arguments})
        self._declared = Dict(**{**self._declared, **arguments})
        self._args = None
        return self

    def _set(self, path: str, value: Any) -> Any:
        """Put a value or a space in the place of an argument; returns what `args` has of it."""
        if path in RESERVED or (path in RANK_ARGS and path not in self.space):
            return value  # no argument of the search, but a direct call may read it
        self._check_free()
        self.space = self.space.replace_at(path, value)
        return as_space(value).build({})

    def _check_free(self) -> None:
        """Raise SpaceError while a search with this function runs."""
        if any(search.is_running for search in self._searches):
            raise SpaceError(
                f"a search with {self.__name__} runs, which goes on with the arguments that it "
                "began with; change them before its scheduler is made, or after join_jobs()"
            )

    def __getstate__(self) -> dict[str, Any]:
        # (`args` is built anew where it is read.)
        return {**vars(self), "_args": None, "_searches": WeakSet()}

    def __repr__(self) -> str:
        return f"<train function {self.__name__}: {self.space!r}>"


def args(
    default: Mapping[str, Any] | argparse.Namespace | None = None, **arguments: Any
) -> Callable[[Callable[..., Any]], TrainFunction]:
    """Give a train function its arguments: spaces are searched, all else is constant.

    `default` holds arguments to start from, for instance those that argparse has read; the named
    ones replace them: `args(parser.parse_args(), lr=Real(1e-4, 1e-1))`. Where `default` has a value
    for an argument that is searched, that value is the argument's default, and is tried in the
    first trial, if it lies in the space.

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
    default = default or {}
    spaces = {
        name: with_default(space, default[name]) if name in default else space
        for name, space in arguments.items()
    }
    everything = {**default, **spaces}
    return lambda function: TrainFunction(function, everything)


def _short(value: Any) -> str:
    """A value for one line, shortened: an architecture may have thousands of characters."""
    text = repr(value)
    return text if len(text) <= SHOWN else f"{text[: SHOWN - 3]}..."


def _refuse_reserved(names: Iterable[str]) -> None:
    if taken := sorted(RESERVED.intersection(names)):
        raise SpaceError(
            f"{', '.join(map(repr, taken))} cannot be an argument, as every trial gets it by "
            "itself; choose another name"
        )
