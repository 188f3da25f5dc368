"""Coevolving GANs beside isolated ones and a single one; what a generation costs beyond training.

python -m benchmarks.coevolution                                # digits, 3 seeds: about 15 minutes
python -m benchmarks.coevolution --overhead                     # only the overhead: seconds
python -m benchmarks.coevolution --data mnist.npz --minutes 8 --repeats 1

Each repeat is a seed. All three get the same number of passes over the data: 2 x 2 coevolving
cells and 2 x 2 isolated ones 120 each, the single GAN 480. (With `--minutes` it is the same time,
for the single one as many minutes on one slot.) Scores are of 10,000 fresh images of the best
mixture, whose weights have evolved on others.
"""

from __future__ import annotations

import argparse
import os
import time
from pathlib import Path
from statistics import mean

import numpy as np

import distsearch as ag
from distsearch.gan import Settings, pictures, train
from distsearch.gan.saved import Run
from distsearch.scheduler import CoevolutionScheduler

from .common import Figure, parser, ratio, scratch, show

FIRST_SEED = 1  # 0 and 10 were for choosing what is usual
GENOME_BYTES = 1_000_000
OVERHEAD_GENERATIONS = 60


@ag.args(cell=0, generation=0)
def empty_generation(args, reporter):
    """Reads what the neighbourhood has published, publishes as much, and trains nothing."""
    for parent in reporter.parents:
        reporter.load(parent)
    genome = np.full(GENOME_BYTES, args.generation % 256, np.uint8)
    reporter.save({"cell": args.cell, "genome": genome})
    reporter(generation=args.generation, loss=1.0)


def overhead(folder: Path, slots: int) -> float:
    """Milliseconds of a slot for a generation of 1 MB, with two neighbours, that trains nothing."""
    with CoevolutionScheduler(
        empty_generation,
        cells="2x2",
        generations=OVERHEAD_GENERATIONS,
        reward_attr="loss",
        mode="min",
        local=ag.Node("localhost", num_cpus=slots),
        checkpoint=folder,
        verbose=0,
    ) as scheduler:
        begin = time.perf_counter()
        scheduler.run()
        scheduler.join_jobs()
        seconds = time.perf_counter() - begin
        return 1000 * seconds * slots / len(scheduler.trials)


def population(
    folder: Path, settings: Settings, minutes: float | None
) -> tuple[Run, float, float, float]:
    """A run, its seconds, and FID and TVD of its best mixture."""
    begin = time.perf_counter()
    slots = min(os.cpu_count() or 1, len(settings.graph))
    local = ag.Node("localhost", num_cpus=slots)
    best = train(settings, folder, local=local, minutes=minutes, verbose=0, say=lambda line: None)
    scores = best.scores
    return Run(folder), time.perf_counter() - begin, scores.fid, scores.tvd or 0.0


def single(settings: Settings, run: Run, minutes: float | None) -> tuple[float, float]:
    """One GAN, trained alone in this process for as long as all cells of a grid together."""
    import torch

    from distsearch.gan.cell import Neighbourhood

    torch.set_num_threads(1)
    examples, judge, own = run.examples, run.judge, None
    end = None if minutes is None else time.monotonic() + 60 * minutes
    number = 0
    while True:
        number += 1
        published = [] if own is None else [own]
        seed = (settings.seed, 0, number)
        around = Neighbourhood(0, settings, examples, judge, published, seed)
        own, _ = around.generation(number)
        is_over = number >= 4 * settings.generations if end is None else time.monotonic() > end
        if is_over:
            break
    from distsearch.gan.saved import Generator, scored

    made = Generator(0, number, settings, examples.shape, own.generator.network)
    scores = scored([made], [1.0], judge, settings.seed).scores
    return scores.fid, scores.tvd or 0.0


def newest_of_cells(run: Run) -> float:
    """The mean FID of the cells' own generators, as they reported it last."""
    return mean(points[-1][1] for points in pictures.fids(run, "own_fid").values())


def quality(given: argparse.Namespace, folder: Path) -> list[Figure]:
    """Coevolving, isolated and single, seed by seed."""
    found: dict[str, list[float]] = {}
    for seed in range(FIRST_SEED, FIRST_SEED + given.repeats):
        common = {"data": given.data, "generations": given.generations, "grid": given.grid}
        coevolving = Settings(**common, seed=seed)
        alone = Settings(**common, seed=seed, isolated=True)
        places = folder / f"coevolving-{seed}", folder / f"isolated-{seed}"
        run, seconds, fid, tvd = population(places[0], coevolving, given.minutes)
        other, _, fid_alone, tvd_alone = population(places[1], alone, given.minutes)
        pictures.draw_fid(run, folder / f"fid-{seed}.png", other)
        fid_one, tvd_one = single(alone, run, given.minutes)
        trials = len(run.record.ledger.trials)
        slots = min(os.cpu_count() or 1, len(coevolving.graph))
        for name, value in {
            "mixture FID, coevolving": fid,
            "mixture FID, isolated": fid_alone,
            "FID, one GAN": fid_one,
            "mean FID of cells, coevolving": newest_of_cells(run),
            "mean FID of cells, isolated": newest_of_cells(other),
            "mixture TVD, coevolving": tvd,
            "mixture TVD, isolated": tvd_alone,
            "TVD, one GAN": tvd_one,
            "generations/s per slot": trials / seconds / slots,
        }.items():
            found.setdefault(name, []).append(value)
        print(f"seed {seed}:", {name: round(values[-1], 3) for name, values in found.items()})
    goals = {"mixture FID, coevolving": 12.0} if given.data == "digits" else {}
    figures = [Figure(name, values, below=goals.get(name)) for name, values in found.items()]
    by_name = {figure.name: figure for figure in figures}
    for other, goal in (("mixture FID, isolated", 0.5), ("FID, one GAN", None)):
        name = f"coevolving / {other.removeprefix('mixture ')}"
        share = ratio(name, by_name["mixture FID, coevolving"], by_name[other])
        figures.append(Figure(name, share.values, "x", below=goal))
    return figures


def main() -> None:
    options = parser(__doc__, repeats=3)
    options.add_argument("--data", default="digits")
    options.add_argument("--grid", default="2x2")
    options.add_argument("--generations", type=int, default=120)
    options.add_argument("--minutes", type=float, help="a time for each in place of generations")
    options.add_argument("--overhead", action="store_true", help="only what a generation costs")
    options.add_argument("--out", type=Path, help="keep the runs and pictures in this folder")
    given = options.parse_args()
    if os.path.exists(given.data):
        given.data = os.path.abspath(given.data)
    with scratch() as temporary:
        folder = given.out or temporary
        costs = [
            Figure(
                f"{slots} slot{'s' * (slots > 1)}, 1 MB, 2 neighbours",
                [overhead(temporary / f"{slots}-{n}", slots) for n in range(max(given.repeats, 3))],
                "ms",
                below=10,
            )
            for slots in (1, 2)
        ]
        show("Overhead per generation", costs, given.json)
        if not given.overhead:
            show(f"GANs on {given.data}, {given.grid}", quality(given, folder), given.json)


if __name__ == "__main__":
    main()
