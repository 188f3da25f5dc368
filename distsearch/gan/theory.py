"""The smallest GAN that shows what goes wrong with GANs, and what coevolution does about it.

The generator is a mixture of two normal distributions with unit variance, of which it learns the
means; the discriminator says "real" inside of two intervals, of which it learns the ends. So the
game's value, its gradients and the distance to the truth are known exactly, and one sees from which
starts a way of training arrives.

Sources: Li et al., "On the Limitations of First-Order Approximation in GAN Dynamics",
arXiv:1706.09884 (2018), for the GAN; Al-Dujaili et al., "Towards Distributed Coevolutionary GANs",
arXiv:1807.08194 (2018), for the coevolution of its parameters.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor

from ..core.curves import render

TRUTH = (-2.0, 2.0)  # the means of the real distribution
REACH = 6.0  # starts lie between minus this and this
SUCCESS = 0.1  # a generator with at most this total variation has arrived
STEPS = 150
RATE = 0.3  # the learning rate of gradient steps
SIGMA = 0.5  # the standard deviation of mutations
POINTS = 400  # densities are compared at so many points


@dataclass(frozen=True)
class Way:
    """A way of training: 'gradient', or coevolution of (parents, children) of both kinds.

    `turn`: whether both kinds change at once ('parallel'), each against the other as it was, or the
    discriminators after the generators ('alternating').
    """

    name: str
    parents: int = 1
    children: int = 0
    turn: str = "alternating"


WAYS = (
    Way("gradient steps, alternating"),
    *(
        Way(f"({parents}, {children}) coevolution, {turn}", parents, children, turn)
        for turn in ("alternating", "parallel")
        for parents, children in ((1, 4), (5, 10), (10, 20))
    ),
)


@dataclass
class Found:
    """Where a way has led: rows are starts of the first mean, columns of the second.

    `success`: the share of runs that have arrived, `distance`: their mean total variation, both
    over the last quarter of the steps. `path`: the means of one run, step by step.
    """

    way: Way
    success: Any
    distance: Any
    path: list[tuple[float, float]] = field(default_factory=list)


def value(generators: Tensor, discriminators: Tensor) -> Tensor:
    """The game's value, E real D + E fake (1 - D): generators make it small, the others large.

    `generators`: ... x 2 means. `discriminators`: ... x 4 ends, as (left, right, left, right).
    """
    real = _inside(torch.tensor(TRUTH).expand(generators.shape), discriminators)
    return real + 1 - _inside(generators, discriminators)


def total_variation(generators: Tensor) -> Tensor:
    """Half the integral of the absolute difference of the densities, real and generated."""
    points = torch.linspace(-REACH - 6, REACH + 6, POINTS)

    def density(means: Tensor) -> Tensor:
        gaps = points - means[..., None]
        return torch.exp(-gaps.square() / 2).mean(dim=-2) / math.sqrt(math.tau)

    difference = density(generators) - density(torch.tensor(TRUTH))
    return difference.abs().sum(dim=-1) * (points[1] - points[0]) / 2


def follow(way: Way, *, side: int = 14, repeats: int = 3, seed: int = 0) -> Found:
    """Train from `side` x `side` starts, `repeats` times from each with other discriminators."""
    rng = torch.Generator().manual_seed(seed)
    starts = torch.linspace(-REACH, REACH, side)
    grid = torch.stack(torch.meshgrid(starts, starts, indexing="ij"), dim=-1).reshape(-1, 2)
    generators = grid.repeat_interleave(repeats, dim=0)
    ends = torch.rand(len(generators), 4, generator=rng) * 2 * REACH - REACH
    discriminators = ends.sort(dim=-1).values
    train = _gradient if way.children == 0 else _coevolution
    far, arrived, path = torch.zeros(len(generators)), torch.zeros(len(generators)), []
    late = STEPS - STEPS // 4
    shown = (side // 4 * side + side // 3) * repeats  # (a start whose means are on one side)
    for step, found in enumerate(train(way, generators, discriminators, rng)):
        path.append((float(found[shown, 0]), float(found[shown, 1])))
        if step >= late:
            distance = total_variation(found)
            far += distance
            arrived += distance <= SUCCESS

    def by_start(sums: Tensor) -> Any:
        return (sums / (STEPS - late)).reshape(side, side, repeats).mean(dim=2).numpy()

    return Found(way, by_start(arrived), by_start(far), path)


def experiment(folder: Path, *, side: int = 14, repeats: int = 3, seed: int = 0) -> list[Found]:
    """Follow all ways, and draw theory.png into a folder: about half a minute on one core."""
    found = [follow(way, side=side, repeats=repeats, seed=seed) for way in WAYS]
    draw(found, folder / "theory.png")
    return found


def draw(found: Sequence[Found], filename: Path) -> None:
    """Above a heat map of success for each way, below how two of them went from one start."""

    def paint(figure: Any) -> None:
        above, below = figure.subfigures(2, 1, height_ratios=[2, 1])
        panels = above.subplots(2, 4).ravel()
        for axes, one in zip(panels, found, strict=False):
            extent = (-REACH, REACH, -REACH, REACH)
            shown = axes.imshow(
                one.success, origin="lower", extent=extent, vmin=0, vmax=1, cmap="viridis"
            )
            axes.plot(*TRUTH, "r*", *TRUTH[::-1], "r*", ms=8)
            axes.set_title(f"{one.way.name}\n{100 * one.success.mean():.0f}% arrive", fontsize=8)
            axes.set(xlabel="second mean at the start", ylabel="first mean at the start")
            axes.label_outer()
        above.colorbar(shown, ax=panels.tolist(), label="share of runs that arrive", shrink=0.8)
        for axes in panels[len(found) :]:
            axes.axis("off")
        paths = [found[0], max(found[1:], key=lambda one: one.success.mean())]
        for axes, one in zip(below.subplots(1, 2), paths, strict=True):
            axes.plot(np.array(one.path), label=["first mean", "second mean"])
            for mean in TRUTH:
                axes.axhline(mean, color="red", ls=":", lw=1)
            axes.set(title=one.way.name, xlabel="step", ylim=(-REACH - 1, REACH + 1))
            axes.legend(frameon=False, fontsize=8)
        figure.suptitle("Two means to be learned (stars, dotted): from which starts one arrives")

    render(paint, size=(13, 9.5), filename=filename, plot=False)


def _inside(means: Tensor, ends: Tensor) -> Tensor:
    """The probability that a mixture's examples are in the intervals."""
    below = (torch.erf((ends[..., None] - means[..., None, :]) / math.sqrt(2)) + 1) / 2
    left, right = below[..., 0::2, :], below[..., 1::2, :]
    return (right - left).sum(dim=-2).mean(dim=-1)


def _gradient(way: Way, generators: Tensor, discriminators: Tensor, rng: torch.Generator) -> Any:
    """Steps along exact gradients, first of the discriminator, then of the generator."""
    truth = torch.tensor(TRUTH)
    signs = torch.tensor([-1.0, 1.0, -1.0, 1.0])  # where an interval begins, and where it ends

    def bell(gaps: Tensor) -> Tensor:
        return torch.exp(-gaps.square() / 2) / math.sqrt(math.tau)

    for _ in range(STEPS):
        real = bell(discriminators[..., None] - truth).mean(dim=-1)
        fake = bell(discriminators[..., None] - generators[..., None, :]).mean(dim=-1)
        discriminators = discriminators + RATE * signs * (real - fake)
        discriminators = discriminators.sort(dim=-1).values
        at_ends = bell(discriminators[..., None] - generators[..., None, :])
        slope = (signs[:, None] * at_ends).sum(dim=-2) / 2
        generators = generators - RATE * slope
        yield generators


def _coevolution(way: Way, generators: Tensor, discriminators: Tensor, rng: torch.Generator) -> Any:
    """A (mu, lambda) strategy for both kinds: fitness is the mean value against the other kind."""

    def spread(one: Tensor) -> Tensor:
        noise = torch.randn(len(one), way.parents, one.shape[1], generator=rng)
        noise[:, 0] = 0
        return one[:, None] + SIGMA * noise

    makers, tellers = spread(generators), spread(discriminators).sort(dim=-1).values
    for _ in range(STEPS):
        before = makers
        makers = _next(way, makers, rng, lambda new, to=tellers: -_against(new, to))
        facing = makers if way.turn == "alternating" else before
        tellers = _next(way, tellers, rng, lambda new, to=facing: _against(to, new).transpose(1, 2))
        yield makers[:, 0]  # the best one of the generation


def _against(makers: Tensor, tellers: Tensor) -> Tensor:
    """The value of each pair: runs x makers x tellers."""
    runs, count, others = len(makers), makers.shape[1], tellers.shape[1]
    return value(
        makers[:, :, None].expand(runs, count, others, 2),
        tellers[:, None].expand(runs, count, others, 4),
    )


def _next(way: Way, parents: Tensor, rng: torch.Generator, fitness: Any) -> Tensor:
    """The best children, the very best first; a parent is nobody's own child."""
    runs, _, size = parents.shape
    chosen = torch.randint(way.parents, (runs, way.children), generator=rng)
    children = parents.gather(1, chosen[..., None].expand(-1, -1, size))
    children = children + SIGMA * torch.randn(children.shape, generator=rng)
    if size == 4:
        children = children.sort(dim=-1).values
    scores = fitness(children).mean(dim=-1)
    best = scores.argsort(dim=-1, descending=True)[:, : way.parents]
    return children.gather(1, best[..., None].expand(-1, -1, size))
