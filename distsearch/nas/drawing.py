"""The picture of a genotype: both cells as circuits, in which no line crosses a box.

Every feature map is a vertical line, the inputs of the cell first. A node stands at the end of its
two edges, each a box with its operation; what later nodes read of it goes down from there, and its
share of the cell's output to the right.
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from typing import Any

from ..core.curves import render
from .genotype import Cell, Genotype

LINE = "#444444"
FILLS = (  # the colour of an operation, by how its name begins
    ("skip", "#e6e6e6"),
    ("identity", "#e6e6e6"),
    ("max_pool", "#cfe3f5"),
    ("avg_pool", "#dff0f7"),
    ("sep_conv", "#fde3c8"),
    ("dil_conv", "#e4dcf1"),
)
OTHER = "#e2efda"
# Inches: the width and the height of a box, the radius of a node.
BOX, BOX_HEIGHT, RADIUS = 1.5, 0.3, 0.17
FIRST, COLUMN, ROW, APART = 0.75, 2.25, 0.95, 0.21


def draw(genotype: Genotype, filename: str | os.PathLike[str], title: str = "") -> None:
    """Save the picture of both cells to a file, whose ending says the format: png, pdf, svg, ...

    draw(distsearch.nas.genotype.find("runs/digits"), "cells.pdf")
    """
    cells = (("normal cell", genotype.normal), ("reduction cell", genotype.reduce))
    width = max(_columns(cell)[-1] for _, cell in cells) + 1.3
    heights = [len(cell.nodes) * ROW + 0.9 for _, cell in cells]

    def paint(figure: Any) -> None:
        axes = figure.subplots(len(cells), 1, height_ratios=heights)
        for where, (name, cell), height in zip(axes, cells, heights, strict=True):
            where.set_xlim(-0.45, width - 0.45)
            where.set_ylim(height - 0.45, -0.45)
            where.set_aspect("equal")
            where.set_axis_off()
            where.set_title(name, loc="left", fontsize=11, fontweight="bold")
            _paint(where, cell)
        if title:
            figure.suptitle(title, fontsize=12)

    render(paint, size=(width, sum(heights) + 0.7), filename=filename, plot=False)


def _columns(cell: Cell) -> list[float]:
    """Where each feature map is: the two inputs, the nodes, and last the output of the cell."""
    last = FIRST
    nodes = [last := last + COLUMN for _ in cell.nodes]
    return [0.0, FIRST, *nodes, last + 0.95]


def _paint(axes: Any, cell: Cell) -> None:
    columns = _columns(cell)
    rows = [0.0, 0.0, *(ROW * (node + 1) for node in range(len(cell.nodes)))]
    reads = _reads(cell, rows)
    for source, taps in enumerate(reads):
        if taps:
            x, top = columns[source], rows[source]
            axes.plot([x, x], [top, max(taps)], color=LINE, linewidth=1.1, zorder=1)
            for tap in sorted(taps)[:-1]:
                axes.plot([x], [tap], "o", color=LINE, markersize=3.2, zorder=4)
    for node, pair in enumerate(cell.nodes):
        for (name, source), row in zip(_upper_first(pair), _two(rows[node + 2]), strict=True):
            end, level = columns[node + 2], rows[node + 2]
            meet = end - 0.34  # the two edges are added here
            _line(axes, [columns[source], meet], [row, row])
            axes.plot([meet, meet, end], [row, level, level], color=LINE, linewidth=1.1, zorder=2)
            _box(axes, meet - BOX / 2 - 0.1, row, name)
    out = columns[-1]
    shares = [rows[node] for node in cell.concat]
    for node in cell.concat:
        _line(axes, [columns[node], out], [rows[node]] * 2)
    axes.plot([out, out], [min(shares) - 0.2, max(shares) + 0.2], color="black", linewidth=4)
    middle = (min(shares) + max(shares)) / 2
    axes.text(out + 0.12, middle, "$c_{k}$", va="center", fontsize=13)
    # As genotype.json counts feature maps: those of the two cells before are 0 and 1.
    labels = ["$c_{k-2}$", "$c_{k-1}$", *map(str, range(2, 2 + len(cell.nodes)))]
    for label, x, y in zip(labels, columns, rows, strict=False):
        _circle(axes, x, y, label)


def _reads(cell: Cell, rows: Sequence[float]) -> list[list[float]]:
    """The heights at which each feature map is read."""
    reads: list[list[float]] = [[] for _ in rows]
    for node, pair in enumerate(cell.nodes):
        for (_, source), row in zip(_upper_first(pair), _two(rows[node + 2]), strict=True):
            reads[source].append(row)
    return reads


def _upper_first(pair: Sequence[tuple[str, int]]) -> list[tuple[str, int]]:
    """The edges of a node from above: the one from the later, nearer feature map first."""
    return sorted(pair, key=lambda edge: -edge[1])


def _two(row: float) -> tuple[float, float]:
    return row - APART, row + APART


def _line(axes: Any, x: Sequence[float], y: Sequence[float]) -> None:
    """A horizontal line, with a gap in what it crosses."""
    start, end = x
    axes.plot(
        [start + 0.05, end], y, color="white", linewidth=4.5, zorder=1.5, solid_capstyle="butt"
    )
    axes.plot(x, y, color=LINE, linewidth=1.1, zorder=2)


def _box(axes: Any, x: float, y: float, name: str) -> None:
    from matplotlib.patches import FancyBboxPatch

    fill = next((colour for begin, colour in FILLS if name.startswith(begin)), OTHER)
    corner = (x - BOX / 2, y - BOX_HEIGHT / 2)
    look: dict[str, Any] = {"facecolor": fill, "edgecolor": LINE, "linewidth": 0.9, "zorder": 3}
    rounded = "round,pad=0,rounding_size=0.08"
    axes.add_patch(FancyBboxPatch(corner, BOX, BOX_HEIGHT, boxstyle=rounded, **look))
    axes.text(x, y, told(name), ha="center", va="center", fontsize=9.5, zorder=5)


def _circle(axes: Any, x: float, y: float, label: str) -> None:
    from matplotlib.patches import Circle

    is_input = label.startswith("$")
    fill = "#fff5cc" if is_input else "white"
    radius = RADIUS * (1.55 if is_input else 1)
    axes.add_patch(Circle((x, y), radius, facecolor=fill, edgecolor=LINE, zorder=4))
    axes.text(x, y, label, ha="center", va="center", fontsize=10, zorder=5)


def told(name: str) -> str:
    """The name of an operation for people.

    >>> told("sep_conv_3x3")
    'sep conv 3×3'
    """
    *words, last = name.split("_")
    size = last.replace("x", "×") if last[:1].isdigit() else last
    return " ".join([*words, size])
