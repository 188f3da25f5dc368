"""Pictures of a coevolution: samples, the grid's scores, and how they have come about."""

from __future__ import annotations

import math
from collections import defaultdict
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from ..core.curves import as_text, render
from ..scheduler.coevolution import graph_of

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

    from .saved import Mixture, Run

SHOWN = 100  # a picture shows so many samples
NAMED = 10  # up to so many cells each line has a colour and a name


def draw_all(run: Run, mixture: Mixture, baseline: Run | None = None) -> None:
    """Draw samples.png, heatmap.png and fid.png into the folder of a run.

    `baseline`: an isolated run, whose curves are drawn beside those of this one.
    """
    examples, _ = mixture.sample(SHOWN, seed=run.settings.seed)
    title = f"{_data_of(run)}: the best mixture, FID {mixture.scores.fid:.1f}"
    draw_samples(as_pixels(examples), run.folder / "samples.png", title)
    draw_heatmap(run, run.folder / "heatmap.png")
    draw_fid(run, run.folder / "fid.png", baseline)


def _data_of(run: Run) -> str:
    """The name of a run's data, for a title: the last part of a path."""
    return Path(run.settings.data).name


def as_pixels(examples: Tensor) -> NDArray[Any]:
    """Images as uint8 (count x channels x height x width); points as they are (count x 2)."""
    if examples.ndim == 2:
        return np.asarray(examples.cpu())
    return np.asarray(((examples + 1) * 127.5).round().clamp(0, 255).byte().cpu())


def draw_samples(samples: NDArray[Any], filename: Path, title: str) -> None:
    """The first hundred images side by side; points as points."""
    if samples.ndim == 2:

        def paint_points(figure: Any) -> None:
            axes = figure.add_subplot()
            axes.scatter(samples[:, 0], samples[:, 1], s=6, alpha=0.6)
            axes.set(title=as_text(title), aspect="equal")

        render(paint_points, size=(6, 6), filename=filename, plot=False)
        return
    image = tiled(samples[:SHOWN])

    def paint(figure: Any) -> None:
        axes = figure.add_subplot()
        axes.imshow(image.squeeze(), cmap="gray", vmin=0, vmax=255, interpolation="nearest")
        axes.set_title(as_text(title))
        axes.axis("off")

    height, width = image.shape[:2]
    render(paint, size=(7, 0.5 + 7 * height / width), filename=filename, plot=False)


def tiled(images: NDArray[Any]) -> NDArray[Any]:
    """Images (count x channels x height x width) in one, a line of pixels between them.

    >>> tiled(np.zeros((6, 1, 8, 8), np.uint8)).shape
    (19, 28, 1)
    """
    columns = math.ceil(math.sqrt(len(images)))
    rows = math.ceil(len(images) / columns)
    _, channels, height, width = images.shape
    whole = np.full((rows * (height + 1) + 1, columns * (width + 1) + 1, channels), 90, np.uint8)
    for number, image in enumerate(images):
        row, column = divmod(number, columns)
        top, left = row * (height + 1) + 1, column * (width + 1) + 1
        whole[top : top + height, left : left + width] = image.transpose(1, 2, 0)
    return whole


def fids(run: Run, name: str = "fid") -> dict[int, list[tuple[int, float]]]:
    """For each cell what its generations have reported: (generation, FID), ..."""
    record = run.record
    history = record.training_history
    found: defaultdict[int, list[tuple[int, float]]] = defaultdict(list)
    for trial in record.ledger.trials.values():
        if trial.bracket is not None and not trial.status.is_failure:
            found[trial.bracket] += [
                (one["generation"], one[name]) for one in history.get(trial.id, ())
            ]
    return {cell: sorted(points) for cell, points in sorted(found.items())}


def draw_heatmap(run: Run, filename: Path) -> None:
    """The grid of cells, each with the FID of its newest mixture and of its own generator."""
    mixtures, owns = fids(run), fids(run, "own_fid")
    width, height = map(int, run.settings.grid.lower().split("x"))
    values = np.full((height, width), np.nan)
    for cell, points in mixtures.items():
        values[divmod(cell, width)] = points[-1][1]

    def paint(figure: Any) -> None:
        axes = figure.add_subplot()
        shown = axes.imshow(values, cmap="viridis_r")
        middle = np.nanmean([np.nanmin(values), np.nanmax(values)])
        for cell in range(len(graph_of(run.settings.grid))):
            row, column = divmod(cell, width)
            text = f"cell {cell}\nno generation yet"
            if cell in mixtures:
                generation, fid = mixtures[cell][-1]
                own = f"its own: {owns[cell][-1][1]:.1f}"
                text = f"cell {cell}\n{fid:.1f}\n{own}\n(gen. {generation})"
            colour = "white" if values[row, column] > middle else "black"
            axes.text(column, row, text, ha="center", va="center", color=colour, fontsize=9)
        axes.set(xticks=range(width), yticks=range(height))
        axes.set_title(as_text(f"{_data_of(run)}: FID of each cell's mixture"))
        figure.colorbar(shown, ax=axes, label="FID (the lower, the better)")

    size = (2.5 + 1.6 * width, 1.2 + 1.6 * height)
    render(paint, size=size, filename=filename, plot=False)


def draw_fid(run: Run, filename: Path, baseline: Run | None = None) -> None:
    """How the FID of each cell's mixture has fallen; dashed: the cells of an isolated run."""

    def paint(figure: Any) -> None:
        axes = figure.add_subplot()
        for cell, points in ({} if baseline is None else fids(baseline)).items():
            # (The legend leaves out labels that begin with _.)
            label = "_" if cell else "isolated"
            axes.plot(*zip(*points, strict=True), "--", color="grey", lw=1.2, label=label)
        cells = fids(run)
        for cell, points in cells.items():
            label = f"cell {cell}" if len(cells) <= NAMED else "_"
            colour = f"C{cell % NAMED}"
            axes.plot(*zip(*points, strict=True), color=colour, lw=1.2, label=label)
        axes.set(yscale="log", xlabel="generation", ylabel="FID")
        for axis in (axes.yaxis.set_major_formatter, axes.yaxis.set_minor_formatter):
            axis(lambda value, _: f"{value:g}")
        axes.set_title(as_text(f"{_data_of(run)}: FID of each cell's mixture"))
        axes.grid(alpha=0.3, which="both")
        if axes.get_legend_handles_labels()[1]:
            axes.legend(frameon=False)

    render(paint, size=(8, 4.8), filename=filename, plot=False)
