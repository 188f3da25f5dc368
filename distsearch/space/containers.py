"""Spaces made of parts (List, Dict), and the constants among them."""

from __future__ import annotations

import math
import re
from collections import deque
from collections.abc import Collection, Iterator, Mapping, Sequence
from typing import Any

from distsearch.errors import SpaceError, suggest
from distsearch.space.base import (
    Ask,
    Config,
    Domain,
    Space,
    join,
    plain,
)
from distsearch.space.namespace import Namespace
from distsearch.space.privacy import HIDDEN, is_secret, is_surely_secret, without_secrets

SHOWN = 8  # an error shows so many values one by one


class Container(Space):
    """A space that consists of named parts, without a value of its own."""

    parts: Mapping[str, Space]

    @property
    def size(self) -> float:
        return float(math.prod(part.size for part in self.parts.values()))

    def describe(self) -> dict[str, Any]:
        items = {name: part.describe() for name, part in self.parts.items()}
        for name, part in self.parts.items():
            if isinstance(part, Constant):
                items[name]["value"] = without_secrets(items[name]["value"], name)
            elif isinstance(part, List) and is_secret(name):
                _hide_constants(items[name])
        return {"type": self.kind, "items": items}

    def _parameters(self, path: str) -> Iterator[tuple[str, Domain]]:
        for name, part in self.parts.items():
            yield from part._parameters(join(path, name))

    def _walk(self, path: str, ask: Ask) -> Iterator[tuple[str, Any]]:
        for name, part in self.parts.items():
            yield from part._walk(join(path, name), ask)

    def _grid(self, path: str, points: int) -> Iterator[Config]:
        return _combinations(path, list(self.parts.items()), points)

    def _build_parts(self, path: str, config: Config) -> dict[str, Any]:
        return {name: part._build(join(path, name), config) for name, part in self.parts.items()}


class Constant(Container):
    """A value that is not searched: it has no parts, and trials get it as it is."""

    kind = "constant"
    parts = {}
    value: Any

    def __init__(self, value: Any) -> None:
        vars(self).update(value=value)

    @property
    def label(self) -> str:
        name = getattr(self.value, "__name__", None)
        return name if isinstance(name, str) else shorten(readable(without_secrets(self.value)))

    def describe(self) -> dict[str, Any]:
        value = without_secrets(self.value)
        return {"type": self.kind, "value": value if is_scalar(value) else readable(value)}

    def _build(self, path: str, config: Config) -> Any:
        return self.value

    def __repr__(self) -> str:
        return repr(without_secrets(self.value))


class List(Container):
    """A list of spaces and constants; in a configuration, the name of each is its position.

    >>> List(Int(1, 8), 'relu').build({'0': 3})
    [3, 'relu']

    Raises:
        SpaceError: for a list in place of the items; a list inside a list is `List(List(1, 2))`.
    """

    kind = "list"

    def __init__(self, *items: Any) -> None:
        if len(items) == 1 and not isinstance(items[0], Mapping):
            refuse_several("List", items[0])
        vars(self).update(parts={str(i): as_space(item) for i, item in enumerate(items)})

    def concealed(self) -> List:
        return List(*(part.concealed() for part in self.parts.values()))

    def _build(self, path: str, config: Config) -> list[Any]:
        return list(self._build_parts(path, config).values())

    def __repr__(self) -> str:
        return f"List({', '.join(map(repr, self.parts.values()))})"


class Dict(Container, Mapping[str, Any]):
    """Named spaces and constants, also as the space of a train function; builds a Namespace.

    It is a mapping of what was given: ``space['lr']``, ``'lr' in space``, ``{**space}``.

    >>> space = Dict(lr=Real(0, 1), net=Dict(width=Int(16, 64), depth=4))
    >>> space.default
    {'lr': 0.5, 'net.width': 40}
    >>> space.build({'net.width': 32}).net.depth
    4

    Raises:
        SpaceError: for a name that is empty or has a dot in it, as dots join paths, and for a
            mapping in place of the names.
    """

    kind = "dict"

    def __init__(self, /, *mapping: Any, **items: Any) -> None:
        if mapping:
            raise SpaceError("Dict takes its parts by name; write Dict(lr=...) or Dict(**mapping)")
        vars(self).update(parts=named_parts(items))

    def replace(self, /, **items: Any) -> Dict:
        """A new Dict, in which some names have other spaces or constants.

        Raises:
            SpaceError: for a name that this Dict does not have.
        """
        for name in items:
            if name not in self:
                raise SpaceError(f"there is no {name!r} to replace; {suggest(name, self)}")
        return Dict(**{**self, **items})

    def constants_of(self, config: Mapping[str, Any]) -> tuple[Config, Config]:
        """The constants in a configuration, by path, and the rest of the configuration.

        >>> Dict(lr=Real(0, 1), net=Dict(depth=4)).constants_of({'lr': 0.1, 'net': {'depth': 5}})
        ({'net.depth': 5}, {'lr': 0.1})
        """
        constants: Config = {}
        rest: Config = {}
        if not isinstance(config, Mapping):
            raise SpaceError(f"a configuration must be a mapping {{name: value}}, got {config!r}")
        for path, value in config.items():
            name, _, inner = str(path).partition(".")
            part = self.parts.get(name)
            if isinstance(part, Constant) and not inner:
                constants[name] = value
            elif isinstance(part, Dict) and (inner or isinstance(value, Mapping)):
                for found, all_of_them in zip(
                    part.constants_of({inner: value} if inner else value),
                    (constants, rest),
                    strict=True,
                ):
                    all_of_them.update({join(name, path): one for path, one in found.items()})
            else:
                rest[path] = value
        return constants, rest

    def replace_at(self, path: str, value: Any) -> Dict:
        """A new Dict with another space or constant at a path, as 'net.depth'.

        Raises:
            SpaceError: for a path that is not there, or that leads through anything but Dicts.
        """
        name, _, inner = path.partition(".")
        if not inner:
            return self.replace(**{name: value})
        part = self.get(name)
        if not isinstance(part, Dict):
            raise SpaceError(f"{path!r} cannot be replaced by itself; replace the whole {name!r}")
        return self.replace(**{name: part.replace_at(inner, value)})

    def _build(self, path: str, config: Config) -> Namespace:
        return Namespace(self._build_parts(path, config))

    def __getitem__(self, name: str) -> Any:
        return as_given(self.parts[name])

    def __iter__(self) -> Iterator[str]:
        return iter(self.parts)

    def __len__(self) -> int:
        return len(self.parts)

    def __repr__(self) -> str:
        return f"Dict({as_arguments(self.parts)})"


def as_space(value: Any) -> Space:
    """The value as a space: a plain dict or list with a space inside becomes a Dict or List."""
    if isinstance(value, Space):
        return value
    if isinstance(value, type) and issubclass(value, Space):
        raise SpaceError(f"got the class {value.__name__}; make a space of it: {value.__name__}()")
    if isinstance(value, set | frozenset | deque) and any(map(_has_space, value)):
        raise SpaceError(f"{value!r} has a space inside, where it is not looked for; give a list")
    if not _has_space(value):
        return Constant(plain(value))
    if isinstance(value, dict):
        return Dict(**named_parts(value))
    return List(*map(as_space, value))


def refuse_several(kind: str, value: Any) -> None:
    """Raise SpaceError for a container where its values have to be given one by one.

    A dict with a space inside stands for a Dict, and is one value.
    """
    if isinstance(value, str | bytes | Space) or (isinstance(value, dict) and _has_space(value)):
        return
    try:
        iter(value)
    except TypeError:
        return
    values = _one_by_one(value)
    given = shorten(repr(value))
    alone = "Dict(**values)" if isinstance(value, Mapping) else f"List({values})"
    raise SpaceError(
        f"{kind}({given}) has one part, the whole {given}; write {kind}({values}), or, if that one "
        f"is meant, {kind}({alone})"
    )


def _one_by_one(values: Any) -> str:
    """The values of a container, written as the arguments of a call."""
    if not isinstance(values, Collection) or len(values) > SHOWN:
        return "*values"
    if len(values) == 1 and isinstance(inner := next(iter(values)), list | tuple):
        return f"List({_one_by_one(inner)})"  # (a bare list would be refused again)
    return ", ".join(repr(plain(one)) for one in values)


def as_given(part: Space) -> Any:
    """The opposite of `as_space`: a constant's value, or the space."""
    return part.value if isinstance(part, Constant) else part


def named_parts(items: Mapping[Any, Any]) -> dict[str, Space]:
    """The named parts of a space; raises SpaceError for a name that cannot be."""
    for name in items:
        if not isinstance(name, str) or not name or "." in name:
            raise SpaceError(f"names must be strings, not empty and without dots, got {name!r}")
    parts = {name: as_space(item) for name, item in items.items()}
    return {
        name: part.concealed() if is_surely_secret(name) else part for name, part in parts.items()
    }


def _hide_constants(described: dict[str, Any]) -> None:
    """Take the constants that are texts out of the description of a List."""
    for item in described["items"].values():
        if item["type"] == List.kind:
            _hide_constants(item)
        elif isinstance(item.get("value"), str):
            item["value"] = HIDDEN


def as_arguments(parts: Mapping[str, Space]) -> str:
    """The parts, written as the arguments of a call that shows no secrets."""
    shown = {
        name: without_secrets(part.value, name) if isinstance(part, Constant) else part
        for name, part in parts.items()
    }
    if all(name.isidentifier() for name in parts):
        return ", ".join(f"{name}={part!r}" for name, part in shown.items())
    return f"**{shown!r}"


def is_scalar(value: Any) -> bool:
    """Whether a value is a scalar that JSON has: NaN and the infinities are none."""
    if type(value) is float:
        return math.isfinite(value)
    return value is None or type(value) in (str, int, bool)


def readable(value: Any) -> str:
    """A repr that is the same in every process: without addresses, with sets in order."""
    if isinstance(value, set | frozenset):
        return "{" + ", ".join(sorted(map(readable, value))) + "}"
    return re.sub(r" at 0x[0-9a-fA-F]+", "", repr(value))


def shorten(text: str, width: int = 60) -> str:
    """The text on one line of at most `width` characters."""
    line = " ".join(text.split())
    return line if len(line) <= width else line[: width - 1] + "…"


def _has_space(value: Any) -> bool:
    if isinstance(value, dict):
        return any(map(_has_space, value.values()))
    if isinstance(value, list | tuple):
        return any(map(_has_space, value))
    return isinstance(value, Space)


def _combinations(path: str, parts: Sequence[tuple[str, Space]], points: int) -> Iterator[Config]:
    if not parts:
        yield {}
        return
    (name, first), *rest = parts
    for head in first._grid(join(path, name), points):
        for tail in _combinations(path, rest, points):
            yield {**head, **tail}
