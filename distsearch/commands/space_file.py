"""A search space in a file: `space.toml`, a table for each parameter.

epochs = 10                       # a constant

[lr]
type = "real"                     # real, int, bool or choice
lower = 1e-4
upper = 1e-1
log = true

[optimizer]
type = "choice"
options = ["sgd", "adam"]

[net.layers]                      # a table in a table: {net.layers}
type = "int"
lower = 1
upper = 4

[model]
type = "choice"                   # {model} is "cnn" or "mlp"; what belongs to the other
[model.options.cnn.channels]      # is not active, and left out: {model.channels}
type = "int"
lower = 8
upper = 64
[model.options.mlp.width]
type = "int"
lower = 16
upper = 512
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from typing import Any

from ..errors import OptionError, SpaceError, suggest
from ..resource.toml import read_toml
from ..space import Bool, Choice, Dict, Int, Real

OPTION = "option"  # the key of an option's name in the table of that option
_NUMBERS = {"real": Real, "int": Int}
_FIELDS = {
    "real": ("lower", "upper", "log", "step", "default"),
    "int": ("lower", "upper", "log", "step", "default"),
    "bool": (),
    "choice": ("options",),
}


class Table(Dict):
    """A table that is one of several options, called by its name in configurations."""

    def __init__(self, name: str, parts: Mapping[str, Any]) -> None:
        super().__init__(**parts)
        vars(self).update(name_of_option=name)

    @property
    def label(self) -> str:
        """The name of the option."""
        return str(vars(self)["name_of_option"])


def read(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The spaces and constants of a file, by name. Raises SpaceError, which names the table."""
    try:
        given = read_toml(path)
    except OptionError as error:
        raise SpaceError(f"the space {error}") from error
    try:
        return {name: _part(name, value) for name, value in given.items()}
    except SpaceError as error:
        raise SpaceError(f"{path}: {error}") from error


def _part(path: str, value: Any) -> Any:
    """What a table, or a value, of this name stands for."""
    if not isinstance(value, Mapping):
        return value
    kind = value.get("type")
    if kind is None or isinstance(kind, Mapping):  # a parameter may be called "type"
        if not any(isinstance(part, Mapping) for part in value.values()):
            raise SpaceError(f"[{path}] has no type; give type = one of {', '.join(_FIELDS)}")
        return Dict(**{name: _part(f"{path}.{name}", part) for name, part in value.items()})
    if kind not in _FIELDS:
        raise SpaceError(f"[{path}] type = {kind!r}; {suggest(str(kind), _FIELDS)}")
    fields = {name: part for name, part in value.items() if name != "type"}
    for name in fields:
        if name not in _FIELDS[kind]:
            raise SpaceError(f"[{path}] {name} = ...: {suggest(name, ['type', *_FIELDS[kind]])}")
    try:
        if kind in _NUMBERS:
            for name in ("lower", "upper"):
                if name not in fields:
                    raise SpaceError(f"{name} is missing; give {name} = a number")
            return _NUMBERS[kind](**fields)
        return Bool() if kind == "bool" else _choice(path, fields.get("options"))
    except SpaceError as error:
        text = str(error)
        raise SpaceError(text if text.startswith("[") else f"[{path}] {text}") from error


def _choice(path: str, options: Any) -> Choice:
    if isinstance(options, Mapping) and options:
        tables = []
        for name, table in options.items():
            if not isinstance(table, Mapping):
                raise SpaceError(
                    f'options.{name} is no table; give options = ["a", "b"], or a table for each'
                )
            where = f"{path}.options.{name}"
            parts = {key: _part(f"{where}.{key}", part) for key, part in table.items()}
            if OPTION in parts:
                raise SpaceError(f"options.{name}: {OPTION!r} is its own name; rename that")
            tables.append(Table(name, {OPTION: name, **parts}))
        return Choice(*tables)
    if isinstance(options, list) and options:
        return Choice(*options) if len(options) > 1 else Choice(options[0])
    raise SpaceError('options is missing; give options = ["a", "b"], or a table for each')
