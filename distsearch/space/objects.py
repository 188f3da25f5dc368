"""Lazy objects and calls: classes and functions whose arguments may be spaces."""

from __future__ import annotations

import inspect
from collections.abc import Callable, Mapping
from typing import Any

from distsearch.errors import SpaceError
from distsearch.space.autogluon import successor
from distsearch.space.base import Config
from distsearch.space.containers import Container, as_arguments, as_given, named_parts


class Lazy(Container):
    """A class or a function with arguments that may be spaces, called only when it is built.

    `obj` and `func` make it. It is a space: a value for `args`, `Dict`, `List` and `Choice` (where
    its label is the name of the class or function).

    - A call gives another Lazy, with other arguments in place of some of the known ones. The one
      that is called does not change: `MyObj(rank=3)` leaves `MyObj` as it was.
    - ``.build(config)`` makes the instance, or the call, with the values of a configuration;
      ``.init()`` with the constants and defaults. In a train function it is already built.
    - ``.__wrapped__`` is the class or function itself. `isinstance(x, MyObj)` and
      `class Mine(MyObj)` work as with the class, and the attributes of the class are found,
      except those whose names spaces have, too. But `MyObj` is no type: write `super()`, not
      `super(MyObj, self)`, and `type(x) is MyObj.__wrapped__`.
    - cloudpickle pickles it by value, wherever it was defined.
    """

    __wrapped__: Callable[..., Any]
    __name__: str

    def __init__(self, target: Callable[..., Any], arguments: Mapping[str, Any]) -> None:
        if not callable(target):
            raise SpaceError(f"@obj stands on a class, @func on a function, but got {target!r}")
        named = _by_name(target, (), arguments)
        for name in ("__name__", "__qualname__", "__module__", "__doc__"):
            vars(self)[name] = getattr(target, name, None)
        vars(self).update(__wrapped__=target, parts=named_parts(named))

    @property
    def kind(self) -> str:  # type: ignore[override]
        """'obj' for a class, 'func' for a function."""
        return "obj" if isinstance(self.__wrapped__, type) else "func"

    @property
    def label(self) -> str:
        return self.__name__.replace(".", "_")

    def __call__(self, *positional: Any, **named: Any) -> Lazy:
        """Another Lazy, with other arguments (values or spaces) in place of some."""
        known = {name: as_given(part) for name, part in self.parts.items()}
        return Lazy(self.__wrapped__, {**known, **_by_name(self.__wrapped__, positional, named)})

    def init(self) -> Any:
        """The instance, or the result of the call, with constants and defaults."""
        return self.build({})

    def describe(self) -> dict[str, Any]:
        return {"name": self.__name__, **super().describe()}

    def _build(self, path: str, config: Config) -> Any:
        return self.__wrapped__(**self._build_parts(path, config))

    def __getattr__(self, name: str) -> Any:
        if name.startswith("__") or "__wrapped__" not in vars(self):
            raise AttributeError(f"a lazy object has no attribute {name!r}")
        try:
            return getattr(self.__wrapped__, name)
        except AttributeError as error:
            raise AttributeError(f"{error}{successor(name)}") from None

    def __instancecheck__(self, instance: object) -> bool:
        return isinstance(self.__wrapped__, type) and isinstance(instance, self.__wrapped__)

    def __mro_entries__(self, bases: tuple[Any, ...]) -> tuple[Any, ...]:
        return (self.__wrapped__,)

    def __repr__(self) -> str:
        return f"{self.__name__}({as_arguments(self.parts)})"


def obj(**arguments: Any) -> Callable[[type], Lazy]:
    """Make a class lazy, with arguments that may be spaces; see `Lazy`.

    >>> @obj(name=Choice('auto', 'gluon'), rank=Int(1, 4))
    ... class MyObj:
    ...     def __init__(self, name, rank, bias=True):
    ...         self.name, self.rank, self.bias = name, rank, bias
    >>> MyObj(rank=3)
    MyObj(name=Choice('auto', 'gluon'), rank=3)
    >>> MyObj(rank=3).init().rank
    3

    Raises:
        SpaceError: for an argument that the class does not take.
    """
    return lambda target: Lazy(target, arguments)


def func(**arguments: Any) -> Callable[[Callable[..., Any]], Lazy]:
    """Make a function lazy, with arguments that may be spaces; see `Lazy`.

    The train function gets the result of the call.

    >>> @func(width=Int(16, 64))
    ... def layers(width, depth=2):
    ...     return [width] * depth
    >>> layers(depth=3).build({'width': 32})
    [32, 32, 32]

    Raises:
        SpaceError: for an argument that the function does not take.
    """
    return lambda target: Lazy(target, arguments)


def _by_name(
    target: Callable[..., Any], positional: tuple[Any, ...], named: Mapping[str, Any]
) -> dict[str, Any]:
    """The arguments of a call by name, once it is sure that the target takes them."""
    try:
        signature = inspect.signature(target)
        signature.bind_partial(*positional, **named)
    except ValueError:  # (some builtins have no signature)
        signature = inspect.Signature()
    except TypeError as error:
        raise SpaceError(f"cannot call {target!r} so: {error}; it takes {signature}") from error
    takes = [p.name for p in signature.parameters.values() if p.kind is p.POSITIONAL_OR_KEYWORD]
    if len(positional) > len(takes):
        raise SpaceError(f"{positional[len(takes)]!r} has no name in {target!r}; give it by name")
    return {**dict(zip(takes, positional, strict=False)), **named}
