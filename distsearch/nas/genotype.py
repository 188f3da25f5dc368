"""What a search finds: which operations two cells are made of, and what each of them reads."""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import SpaceError, nearest, suggest
from ..resource.private import replace

FILE = "genotype.json"
SPACE = "pc-darts"
NODES = 4
OPERATIONS = (  # the order of the architecture parameters
    "none",
    "max_pool_3x3",
    "avg_pool_3x3",
    "skip_connect",
    "sep_conv_3x3",
    "sep_conv_5x5",
    "dil_conv_3x3",
    "dil_conv_5x5",
)

Edge = tuple[str, int]


@dataclass(frozen=True)
class Cell:
    """A cell: its nodes, and which of them are its output.

    `nodes`: of each node the two edges whose sum it is, each the name of an operation and what that
    reads: 0 and 1 are the outputs of the two cells before, 2 is the first node. `concat`: the
    nodes, by these numbers, whose channels together are the output of the cell.
    """

    nodes: tuple[tuple[Edge, Edge], ...]
    concat: tuple[int, ...]


@dataclass(frozen=True)
class Genotype:
    """The two cells of a network; `reduce` halves height and width."""

    normal: Cell
    reduce: Cell

    def as_json(self) -> dict[str, Any]:
        """The genotype as in genotype.json: for each cell all edges, two for each node."""
        cells: dict[str, Any] = {}
        for name, cell in (("normal", self.normal), ("reduce", self.reduce)):
            cells[name] = [list(edge) for node in cell.nodes for edge in node]
            cells[f"{name}_concat"] = list(cell.concat)
        return {"space": SPACE, **cells}

    def as_text(self) -> str:
        """The genotype as JSON in one line, for the arguments of a train function."""
        return json.dumps(self.as_json())

    def save(self, folder: str | os.PathLike[str]) -> Path:
        """Write genotype.json into a folder, all at once; returns its path."""
        return replace(Path(folder) / FILE, f"{self.as_text()}\n".encode())


def _cell(*edges: Edge) -> Cell:
    nodes = tuple(zip(edges[::2], edges[1::2], strict=True))
    return Cell(nodes, tuple(range(2, 2 + len(nodes))))


# Published with PC-DARTS (arXiv 1907.05737): found on CIFAR-10, and on ImageNet.
NAMED = {
    "pc-darts-cifar10": Genotype(
        normal=_cell(
            ("sep_conv_3x3", 1),
            ("skip_connect", 0),
            ("sep_conv_3x3", 0),
            ("dil_conv_3x3", 1),
            ("sep_conv_5x5", 0),
            ("sep_conv_3x3", 1),
            ("avg_pool_3x3", 0),
            ("dil_conv_3x3", 1),
        ),
        reduce=_cell(
            ("sep_conv_5x5", 1),
            ("max_pool_3x3", 0),
            ("sep_conv_5x5", 1),
            ("sep_conv_5x5", 2),
            ("sep_conv_3x3", 0),
            ("sep_conv_3x3", 3),
            ("sep_conv_3x3", 1),
            ("sep_conv_3x3", 2),
        ),
    ),
    "pc-darts-imagenet": Genotype(
        normal=_cell(
            ("skip_connect", 1),
            ("sep_conv_3x3", 0),
            ("sep_conv_3x3", 0),
            ("skip_connect", 1),
            ("sep_conv_3x3", 1),
            ("sep_conv_3x3", 3),
            ("sep_conv_3x3", 1),
            ("dil_conv_5x5", 4),
        ),
        reduce=_cell(
            ("sep_conv_3x3", 0),
            ("skip_connect", 1),
            ("dil_conv_5x5", 2),
            ("max_pool_3x3", 1),
            ("sep_conv_3x3", 2),
            ("sep_conv_3x3", 1),
            ("sep_conv_5x5", 0),
            ("sep_conv_3x3", 3),
        ),
    ),
}


def find(genotype: str | os.PathLike[str]) -> Genotype:
    """A genotype by its published name, its file, or the folder of the search that found it.

    find("pc-darts-cifar10"), find("runs/digits"), find("runs/digits/genotype.json")

    Raises SpaceError for a name or a file that is not there, is damaged, or of another space.
    """
    if str(genotype) in NAMED:
        return NAMED[str(genotype)]
    path = Path(genotype).expanduser().absolute()
    if path.is_dir():
        if not (path / FILE).is_file():
            raise SpaceError(f"{path} has no {FILE}: no search has ended there yet")
        path /= FILE
    if not path.is_file():
        raise SpaceError(
            f"there is no genotype {str(genotype)!r}, and no file or folder {path}; "
            f"{suggest(str(genotype), NAMED)}"
        )
    try:
        text = path.read_text(encoding="utf-8")
    except (OSError, ValueError) as error:
        raise SpaceError(f"{path} cannot be read as text: {error}") from error
    return of_text(text, str(path))


def of_text(text: str, where: str = "the text") -> Genotype:
    """The genotype that `as_text` gave. Raises SpaceError, as `parse` does."""
    try:
        content = json.loads(text)
    except ValueError as error:
        raise SpaceError(f"{where} is damaged, it is no JSON: {error}") from error
    return parse(content, where)


def parse(content: Any, where: str, operations: Collection[str] = OPERATIONS[1:]) -> Genotype:
    """The genotype that `as_json` gave; `where` it comes from is said in errors.

    Raises SpaceError for what is not in the space: other operations, nodes that read later ones.
    """
    if not isinstance(content, Mapping):
        raise SpaceError(f"{where} holds a {type(content).__name__}, not a genotype")
    if missing := {"normal", "normal_concat", "reduce", "reduce_concat"} - {*content}:
        raise SpaceError(f"{where} is damaged, it has no {', '.join(sorted(missing))}")
    if (space := content.get("space")) != SPACE:
        raise SpaceError(f"{where} is a genotype of the space {space!r}, not of {SPACE!r}")
    cells = [
        _parsed(content[name], content[f"{name}_concat"], f"{name} in {where}", operations)
        for name in ("normal", "reduce")
    ]
    return Genotype(*cells)


def _parsed(edges: Any, concat: Any, where: str, operations: Collection[str]) -> Cell:
    if not isinstance(edges, list) or len(edges) != 2 * NODES:
        raise SpaceError(f"{where} has to be a list of {2 * NODES} edges, but is {edges!r}")
    for number, edge in enumerate(edges):
        if not isinstance(edge, list) or len(edge) != 2:
            raise SpaceError(f"edge {number} of {where} has to be [operation, input], not {edge!r}")
        name, source = edge
        if name not in operations:
            hint = nearest(str(name), operations) or f"there are {', '.join(operations)}"
            raise SpaceError(f"edge {number} of {where} has the operation {name!r}; {hint}")
        before = 2 + number // 2
        if type(source) is not int or not 0 <= source < before:
            raise SpaceError(
                f"edge {number} of {where} reads {source!r}, but its node can read 0 to "
                f"{before - 1}"
            )
    valid = range(2, 2 + NODES)
    if not isinstance(concat, list) or not concat or any(node not in valid for node in concat):
        raise SpaceError(f"the concat of {where} is {concat!r}; name nodes from 2 to {valid[-1]}")
    pairs = [(str(name), int(source)) for name, source in edges]
    return Cell(tuple(zip(pairs[::2], pairs[1::2], strict=True)), tuple(map(int, concat)))
