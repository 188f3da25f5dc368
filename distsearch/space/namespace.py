"""The values of a configuration, read as attributes or as keys."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, MutableMapping
from typing import Any

from distsearch.errors import suggest


class Namespace(MutableMapping[str, Any]):
    """Named values: ``args.lr`` and ``args['lr']`` are the same.

    It is a mapping, too (``in``, ``keys()``, ``items()``, ``get()``, ``**args``, ``vars(args)``).
    A value with the name of a method of mappings, such as 'items', can be read only by its key.

    >>> args = Namespace(lr=0.1, net=Namespace(width=32))
    >>> args.net.width, args['lr']
    (32, 0.1)
    """

    __slots__ = ("_values",)
    _values: dict[str, Any]

    def __init__(
        self, values: Mapping[str, Any] | Iterable[tuple[str, Any]] = (), /, **named: Any
    ) -> None:
        object.__setattr__(self, "_values", {**dict(values), **named})

    def __getitem__(self, name: str) -> Any:
        return self._values[name]

    def __setitem__(self, name: str, value: Any) -> None:
        self._values[name] = value

    def __delitem__(self, name: str) -> None:
        del self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def __getattr__(self, name: str) -> Any:
        if name in self._values:
            return self._values[name]
        raise AttributeError(f"there is no {name!r}; {suggest(name, map(str, self))}")

    def __setattr__(self, name: str, value: Any) -> None:
        self._values[name] = value

    @property
    def __dict__(self) -> dict[str, Any]:  # type: ignore[override]
        return self._values  # (for vars(args), which works as with argparse)

    def __reduce__(self) -> tuple[type[Namespace], tuple[dict[str, Any], ...]]:
        return type(self), (self._values,)

    def __repr__(self) -> str:
        return f"Namespace({', '.join(f'{name}={value!r}' for name, value in self.items())})"

    def to_dict(self) -> dict[str, Any]:
        """A plain dict; namespaces inside, also in lists, become plain dicts, too."""
        return {name: _without_namespaces(value) for name, value in self.items()}


class Arguments(Namespace):
    """What a train function is given: the values, and facts of its trial as further attributes.

    Facts are not among the keys, so that `build(**args)`, `vars(args)` and loops have the values
    alone, though `args['task_id']` works. A value hides a fact of the same name.

    >>> args = Arguments({'lr': 0.1}, {'task_id': 3})
    >>> args.task_id, dict(**args)
    (3, {'lr': 0.1})
    """

    __slots__ = ("_facts",)
    _facts: dict[str, Any]

    def __init__(self, values: Mapping[str, Any], facts: Mapping[str, Any]) -> None:
        super().__init__(values)
        object.__setattr__(self, "_facts", dict(facts))

    def __getitem__(self, name: str) -> Any:
        return self._values[name] if name in self._values else self._facts[name]

    def __getattr__(self, name: str) -> Any:
        own = name not in self._values and name in self._facts
        return self._facts[name] if own else super().__getattr__(name)

    def __reduce__(self) -> tuple[type[Namespace], tuple[dict[str, Any], ...]]:
        return type(self), (self._values, self._facts)


def _without_namespaces(value: Any) -> Any:
    if isinstance(value, Namespace):
        return value.to_dict()
    if type(value) is list:
        return [_without_namespaces(item) for item in value]
    return value
