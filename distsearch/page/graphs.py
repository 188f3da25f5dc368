"""Panels of graphs: who descends from whom, the tree of a search by regions, the grid of GANs."""

from __future__ import annotations

import math
from collections import defaultdict
from collections.abc import Mapping, Sequence
from itertools import pairwise
from pathlib import Path
from typing import Any

import numpy as np
from bokeh.models import LinearColorMapper
from bokeh.palettes import Cividis256
from bokeh.transform import dodge

from ..core import pedigree
from ..core.lineage import Descent, line_of
from ..core.record import INSIDE
from ..errors import DistsearchError
from ..nas.lanas.pictures import places
from ..plots.colours import BEST, GREY, RED
from ..plots.draw import NO_PARENTS
from ..searcher import replayed
from .of_parameters import INK, colour_bar
from .panel import Data, Panel, hover, new_figure, sources, ticks
from .view import View

Options = Mapping[str, str]
DRAWN = 800  # a lineage shows at most so many trials
SAMPLES = 9  # so many samples of each cell's generator are shown


# Lineage


def prepare_lineage(views: Sequence[View], options: Options) -> Data:
    """Families by generation; of many trials the best one's line and its relatives first."""
    (view,) = views
    of = view.results.lineage()
    if not any(one.parents for one in of.values()):
        return Data(empty=NO_PARENTS)
    ledger = view.story.ledger
    best = None if ledger.objectives.several or ledger.best is None else ledger.best.id
    line = [] if best is None else line_of(of, best)
    drawn = _relatives(of, line)
    shown = {trial: of[trial] for trial in drawn}
    rows = pedigree.places(
        {t: one._replace(parents=_drawn_parents(one, shown)) for t, one in shown.items()}, line
    )
    trials = sorted(shown)
    at = {trial: (float(shown[trial].generation), rows[trial]) for trial in trials}
    rewards = [shown[trial].reward for trial in trials]
    known = [one for one in rewards if one is not None] or [0.0]
    low, high = float(np.percentile(known, 10)), float(max(known))
    if ledger.objectives.modes[0] == "min":
        low, high = float(min(known)), float(np.percentile(known, 90))
    nodes = {
        "x": [at[trial][0] for trial in trials],
        "y": [at[trial][1] for trial in trials],
        "trial": [float(trial) for trial in trials],
        "value": [math.nan if one is None else one for one in rewards],
        "status": [shown[trial].status for trial in trials],
        "marker": [
            "x" if shown[trial].status in pedigree.FAILURES else "circle" for trial in trials
        ],
        "ring": [BEST if trial in line else "#00000000" for trial in trials],
    }
    labels = {
        "x": [at[trial][0] for trial in line if trial in at],
        "y": [at[trial][1] for trial in line if trial in at],
        "text": [str(trial) for trial in line if trial in at],
    }
    shape = {
        "height": max(rows.values(), default=0.0) + 1,
        "generations": max((one.generation for one in shown.values()), default=0),
        "low": low,
        "high": high if high > low else low + 1,
        "best_is_high": ledger.objectives.modes[0] == "max",
        "objective": ledger.objectives.names[0],
    }
    note = f"{len(shown)} of {len(of)} trials are drawn: those of families" * (len(shown) < len(of))
    return Data(shape, {"edges": _edges(shown, at, line), "nodes": nodes, "labels": labels}, note)


def _edges(
    shown: Mapping[int, Descent], at: Mapping[int, tuple[float, float]], line: Sequence[int]
) -> dict[str, list[Any]]:
    """A line from each parent to its child; the best trial's line stands out."""
    on_line = {*pairwise(line)}
    edges = []
    for trial in sorted(shown):
        for place, parent in enumerate(shown[trial].parents):
            if parent in at:
                marked = (trial, parent) in on_line
                look = (BEST, 2.5) if marked else (GREY, 0.5 if place else 1.0)
                edges.append((*at[parent], *at[trial], *look))
    names = ("x0", "y0", "x1", "y1", "colour", "width")
    return {name: [edge[column] for edge in edges] for column, name in enumerate(names)}


def _relatives(of: Mapping[int, Descent], line: Sequence[int]) -> set[int]:
    """Trials to draw: those that have parents or children, the line of the best one first."""
    children: dict[int, list[int]] = defaultdict(list)
    for trial, one in of.items():
        for parent in one.parents:
            children[parent].append(trial)
    found: dict[int, None] = dict.fromkeys(line)
    for trial in [*line]:
        found |= dict.fromkeys([*of[trial].parents, *children[trial]])
    for trial in reversed([*of]):  # the youngest families first, each from its root on
        if len(found) >= DRAWN:
            break
        if of[trial].parents:
            found |= dict.fromkeys([*line_of(of, trial), *of[trial].parents])
    return {*[*found][:DRAWN]}


def _drawn_parents(one: Descent, shown: Mapping[int, Descent]) -> tuple[int, ...]:
    return tuple(parent for parent in one.parents if parent in shown)


def draw_lineage(data: Data) -> Any:
    """Generations from left to right; the line of the best trial stands out."""
    shape = data.shape
    fig = new_figure(
        x="generation",
        y="",
        height=int(min(900, max(260, 90 + 14 * shape["height"]))),
        y_range=(shape["height"] - 0.3, -0.7),
        x_range=(-0.5, shape["generations"] + 0.5),
    )
    of = sources(data)
    palette = Cividis256 if shape["best_is_high"] else Cividis256[::-1]
    mapper = LinearColorMapper(
        palette=palette, low=shape["low"], high=shape["high"], nan_color="#00000000"
    )
    fig.segment("x0", "y0", "x1", "y1", source=of["edges"], line_color="colour", line_width="width")
    nodes = fig.scatter(
        "x",
        "y",
        source=of["nodes"],
        size=9,
        marker="marker",
        fill_color={"field": "value", "transform": mapper},
        line_color={"field": "ring"},
        line_width=2,
    )
    fig.text("x", "y", "text", source=of["labels"], **INK, x_offset=7, y_offset=-3)
    value = (shape["objective"], "@value{0.[00000]}")
    hover(fig, [nodes], [("trial", "@trial{0}"), value, ("status", "@status")])
    fig.yaxis.visible = fig.grid.visible = False
    fig.xaxis[0].ticker.desired_num_ticks = min(10, shape["generations"] + 1)
    fig.xaxis[0].ticker.min_interval = 1
    colour_bar(fig, shape, mapper)
    return fig


# The tree of regions


def prepare_tree(views: Sequence[View], options: Options) -> Data:
    """The regions of LaNAS or LaMCTS, the good part of each on its left."""
    (view,) = views
    try:
        regions = view.once(
            "tree", lambda: replayed.by_regions(view.results).overview(), seldom=True
        )
    except DistsearchError as error:
        return Data(empty=str(error))
    if not regions:
        return Data(empty="the tree has not grown yet")
    at = places(regions)
    means = [one.mean for one in regions if one.mean is not None] or [0.0]
    edges: dict[str, list[Any]] = {
        "x0": [],
        "y0": [],
        "x1": [],
        "y1": [],
        "colour": [],
        "width": [],
    }
    for region, (x, y, parent) in zip(regions, at, strict=True):
        if parent is not None:
            look = (RED, 3.0) if region.is_chosen else (GREY, 1.0)
            row = (at[parent][0], at[parent][1], x, y, *look)
            for column, value in zip(edges.values(), row, strict=True):
                column.append(value)
    nodes = {
        "x": [x for x, _, _ in at],
        "y": [y for _, y, _ in at],
        "mean": [math.nan if one.mean is None else one.mean for one in regions],
        "trials": [one.trials for one in regions],
        "running": [one.running for one in regions],
        "size": [9 + 3 * math.sqrt(one.trials + one.running) for one in regions],
        "ring": [RED if one.is_chosen else GREY for one in regions],
        "part": ["all" if one.side is None else "good" if one.side else "bad" for one in regions],
    }
    depth = max(one.depth for one in regions)
    leaves = sum(one.is_leaf for one in regions)
    shape = {
        "low": min(means),
        "high": max(means) + 1e-9,
        "depth": depth,
        "leaves": leaves,
        "objective": "mean reward",
    }
    return Data(shape, {"edges": edges, "nodes": nodes})


def draw_tree(data: Data) -> Any:
    """The tree, its root on top; red: where the latest suggestion came from."""
    shape = data.shape
    fig = new_figure(
        x="left: the good part; larger: more trials; red: the latest path",
        y="splits",
        height=140 + 60 * shape["depth"],
        y_range=(-shape["depth"] - 0.6, 0.6),
    )
    of = sources(data)
    mapper = LinearColorMapper(
        palette=Cividis256, low=shape["low"], high=shape["high"], nan_color="#00000000"
    )
    fig.segment("x0", "y0", "x1", "y1", source=of["edges"], line_color="colour", line_width="width")
    look = {"fill_color": {"field": "mean", "transform": mapper}, "line_color": "ring"}
    nodes = fig.scatter("x", "y", source=of["nodes"], size="size", line_width=2, **look)
    lines = [("part", "@part"), ("trials", "@trials"), ("running", "@running")]
    hover(fig, [nodes], [*lines, ("mean reward", "@mean{0.[0000]}")])
    fig.xaxis.ticker, fig.grid.visible = [], False
    ticks(fig.yaxis[0], [(-n, str(n)) for n in range(shape["depth"] + 1)])
    if shape["depth"]:
        colour_bar(fig, shape, mapper)
    return fig


# The grid of GANs


def prepare_grid(views: Sequence[View], options: Options) -> Data:
    """Each cell of a coevolution with its FID and samples of its newest generator."""
    (view,) = views
    run = view.story.folder.parent
    evolves = view.story.searched["scheduler"] == "CoevolutionScheduler"
    if not (evolves and view.story.folder.name == INSIDE and (run / "settings.json").is_file()):
        return Data(empty="this search is no coevolution of GANs (see `distsearch gan train`)")
    try:
        return view.once("grid", lambda: _grid(run), seldom=True)
    except (DistsearchError, ImportError, OSError) as error:
        return Data(empty=f"there are no samples yet: {error}")


def _grid(folder: Path) -> Data:
    import torch

    from ..gan.pictures import as_pixels, fids, tiled
    from ..gan.saved import Run, newest_generators_of

    run = Run(folder)
    width, height = map(int, run.settings.grid.lower().split("x"))
    mixtures = fids(run)
    cells: dict[str, list[Any]] = {"x": [], "y": [], "fid": [], "generation": [], "text": []}
    pictures = []
    points: dict[str, list[Any]] = {"x": [], "y": []}
    for cell, generator in sorted(newest_generators_of(run).items()):
        row, column = divmod(cell, width)
        generation, fid = mixtures.get(cell, [(0, math.nan)])[-1]
        words = f"cell {cell}: FID {fid:.1f}, generation {generation}"
        for name, value in zip(cells, (column, row, fid, generation, words), strict=True):
            cells[name].append(value)
        made = as_pixels(generator.make(SAMPLES, torch.Generator().manual_seed(run.settings.seed)))
        if made.ndim == 2:  # points of the plane are drawn where they lie
            reach = 2.5 * (float(np.abs(made).max()) or 1.0)
            points["x"] += (column + made[:, 0] / reach).tolist()
            points["y"] += (row + made[:, 1] / reach).tolist()
            continue
        pictures.append([column, row, tiled(made).tolist()])
    shape = {"width": width, "height": height, "pictures": pictures, "data": run.settings.data}
    return Data(shape, {"cells": cells, "points": points})


def draw_grid(data: Data) -> Any:
    """The grid: samples in each cell, its FID below."""
    shape = data.shape
    fig = new_figure(
        x=str(shape["data"]),
        y="",
        height=min(900, 90 + 200 * shape["height"]),
        x_range=(-0.55, shape["width"] - 0.45),
        y_range=(shape["height"] - 0.45, -0.55),
    )
    fig.sizing_mode, fig.width = "scale_width", min(1100, 120 + 200 * shape["width"])
    fig.max_width = fig.width  # and narrower where the window is
    of = sources(data)
    frames = fig.rect("x", "y", 0.96, 0.96, source=of["cells"], fill_alpha=0, line_color=GREY)
    for column, row, image in shape["pictures"]:
        pixels = np.array(image, dtype=np.uint8)
        if pixels.shape[2] == 1:
            pixels = np.repeat(pixels, 3, axis=2)
        opaque = np.dstack([pixels, np.full(pixels.shape[:2], 255, np.uint8)])
        packed = np.ascontiguousarray(opaque).view(np.uint32)[:, :, 0]
        where = {"x": column - 0.4, "y": row + 0.34, "dw": 0.8, "dh": 0.8}
        fig.image_rgba([packed], **where, origin="bottom_left", anchor="top_left")
    fig.scatter("x", "y", source=of["points"], size=4, alpha=0.7)
    look = {"text_align": "center", "text_baseline": "bottom"}
    fig.text("x", dodge("y", 0.47), "text", source=of["cells"], **INK, **look)
    fid = ("FID of its mixture", "@fid{0.[0]}")
    hover(fig, [frames], [("", "@text"), fid, ("generation", "@generation")])
    fig.axis.ticker, fig.grid.visible = [], False
    return fig


PANELS = (
    Panel("lineage", "Lineage", "", prepare_lineage, draw_lineage),
    Panel("tree", "Tree of regions", "", prepare_tree, draw_tree, is_slow=True),
    Panel(
        "grid",
        "Grid of GANs",
        "Samples of each cell's newest generator, and the FID of its mixture.",
        prepare_grid,
        draw_grid,
        is_slow=True,
    ),
)
