"""Coevolving GANs beside isolated ones and a single one; what a generation costs beyond training.

python -m benchmarks.coevolution                                # digits, 3 seeds: about 15 minutes
python -m benchmarks.coevolution --only overhead                # or scaling, opponents: see below
python -m benchmarks.coevolution --data mnist.npz --minutes 8 --repeats 1

- overhead: generations that train nothing, here and on two nodes over SSH on loopback (those need
  OpenSSH's sshd).
- scaling: how much faster two slots are than one.
- opponents: digits with 0, half and all of the steps against neighbours' networks.
- quality: each repeat is a seed. All three get the same number of passes over the data: 2 x 2
  coevolving cells and 2 x 2 isolated ones 120 each, the single GAN 480. (With `--minutes` it is the
  same time, for the single one as many minutes on one slot.) Scores are of 10,000 fresh images of
  the best mixture, whose weights have evolved on others.
"""

from __future__ import annotations

import argparse
import os
import sys
import time
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from statistics import mean
from typing import Any

import numpy as np

import distsearch as ag
from distsearch.core.store import read
from distsearch.core.words import Status
from distsearch.gan import Settings, pictures, train
from distsearch.gan.saved import SEARCH, Run
from distsearch.scheduler import CoevolutionScheduler
from tests.openssh import SSHD, OpenSSH

from .common import Figure, parser, ratio, scratch, show

FIRST_SEED = 1  # 0 and 10 were for choosing what is usual
MEGABYTE = 1_000_000
GENOME_BYTES = (1_000, MEGABYTE)
OVERHEAD_GENERATIONS = 60
SCALING_GENERATIONS = 20
PARTS = ("overhead", "quality", "scaling", "opponents")


@ag.args(cell=0, generation=0, genome_bytes=MEGABYTE)
def empty_generation(args, reporter):
    """Reads what the neighbourhood has published, publishes as much, and trains nothing."""
    for parent in reporter.parents:
        reporter.load(parent)
    genome = np.full(args.genome_bytes, args.generation % 256, np.uint8)
    reporter.save({"cell": args.cell, "genome": genome})
    reporter(generation=args.generation, loss=1.0)


def overhead(folder: Path, slots: int, genome_bytes: int, **where: Any) -> float:
    """Milliseconds of a slot for a generation, with two neighbours, that trains nothing.

    The first of each cell, which wait for processes, do not count.
    """
    with CoevolutionScheduler(
        empty_generation,
        args={"genome_bytes": genome_bytes},
        cells="2x2",
        generations=OVERHEAD_GENERATIONS,
        reward_attr="loss",
        mode="min",
        checkpoint=folder,
        verbose=0,
        **where,
    ) as scheduler:
        scheduler.run()
        scheduler.join_jobs()
        assert all(trial.status is Status.FINISHED for trial in scheduler.trials)
        ends = sorted(event.time for event in read(scheduler.folder, "ended"))
    rest = ends[len(scheduler.cells) :]
    return 1000 * slots * (rest[-1] - rest[0]) / (len(rest) - 1)


@contextmanager
def ssh_nodes(folder: Path) -> Iterator[dict[str, Any]]:
    """The options of a search over two nodes on loopback, behind OpenSSH's own server."""
    with OpenSSH(folder / "one") as one, OpenSSH(folder / "two") as two:
        config = folder / "config"
        lines = [
            f"Host {name}\n HostName 127.0.0.1\n Port {host.port}\n"
            f" IdentityFile {host.folder}/user_key\n"
            f" UserKnownHostsFile {host.folder}/known_hosts\n"
            for name, host in (("one", one), ("two", two))
        ]
        config.write_text("".join(lines))
        nodes = [ag.Node(name, python=sys.executable, num_cpus=1) for name in ("one", "two")]
        yield {"dist_ip_addrs": nodes, "ssh_config": [str(config)], "local": False}


def overheads(folder: Path, repeats: int) -> list[Figure]:
    """What a generation costs here with one slot and with two, and on two nodes."""

    def figures(where: str, slots: int, of_megabyte: float, **options: Any) -> Iterator[Figure]:
        for size in GENOME_BYTES:
            places = [folder / f"{where}-{size}-{n}" for n in range(repeats)]
            values = [overhead(place, slots, size, **options) for place in places]
            goal = of_megabyte if size == MEGABYTE else None
            yield Figure(f"{where}, genomes of {size // 1000:,} KB", values, "ms", at_most=goal)

    found = [
        one
        for n in (1, 2)
        for one in figures(
            f"{n} slot{'s' * (n > 1)}", n, 10, local=ag.Node("localhost", num_cpus=n)
        )
    ]
    if SSHD is not None:
        with ssh_nodes(folder) as nodes:
            found += figures("2 SSH nodes", 2, 40, **nodes)
    return found


def scaling(given: argparse.Namespace, folder: Path) -> list[Figure]:
    """Generations a second on one slot and on two, between the first end and the last."""
    found: dict[int, list[float]] = {1: [], 2: []}
    for repeat in range(given.repeats):
        for slots, values in found.items():
            settings = Settings(data=given.data, grid=given.grid, generations=SCALING_GENERATIONS)
            place = folder / f"slots-{slots}-{repeat}"
            local = ag.Node("localhost", num_cpus=slots)
            train(settings, place, local=local, verbose=0, say=lambda line: None)
            ends = sorted(event.time for event in read(place / SEARCH, "ended"))
            rest = ends[len(settings.graph) :]
            values.append((len(rest) - 1) / (rest[-1] - rest[0]))
    one, two = (Figure(f"generations/s, {n} slot{'s' * (n > 1)}", v) for n, v in found.items())
    return [one, two, ratio("2 slots / 1 slot", two, one)]


def opponents(given: argparse.Namespace, folder: Path) -> list[Figure]:
    """FID of the best mixture, by the share of steps against neighbours' networks."""
    figures = []
    for share in (0.0, 0.5, 1.0):
        values = []
        for seed in range(FIRST_SEED, FIRST_SEED + given.repeats):
            settings = Settings(
                data=given.data,
                grid=given.grid,
                generations=given.generations,
                against_neighbours=share,
                seed=seed,
            )
            _, _, fid, _ = population(folder / f"{share}-{seed}", settings, given.minutes)
            values.append(fid)
        figures.append(Figure(f"mixture FID, {100 * share:.0f}% against neighbours", values))
    return figures


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
    """One GAN, trained alone in this process for as long as all cells of a grid together.

    As with the others, it is the best generator that is scored, not the newest.
    """
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
    from distsearch.gan.individual import network_of
    from distsearch.gan.saved import Generator, scored

    network = network_of("generator", own.best.weights, settings, examples.shape)
    made = Generator(0, own.best.generation, settings, examples.shape, network)
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
    figures = [Figure(name, values, at_most=goals.get(name)) for name, values in found.items()]
    by_name = {figure.name: figure for figure in figures}
    for other, goal in (("mixture FID, isolated", 0.5), ("FID, one GAN", None)):
        name = f"coevolving / {other.removeprefix('mixture ')}"
        share = ratio(name, by_name["mixture FID, coevolving"], by_name[other])
        figures.append(Figure(name, share.values, "x", at_most=goal))
    return figures


def main() -> None:
    options = parser(__doc__, repeats=3)
    options.add_argument("--data", default="digits")
    options.add_argument("--grid", default="2x2")
    options.add_argument("--generations", type=int, default=120)
    options.add_argument("--minutes", type=float, help="a time for each in place of generations")
    options.add_argument("--only", choices=PARTS, help="one part (default: overhead and quality)")
    options.add_argument("--out", type=Path, help="keep the runs and pictures in this folder")
    given = options.parse_args()
    if os.path.exists(given.data):
        given.data = os.path.abspath(given.data)
    with scratch() as temporary:
        folder = given.out or temporary
        name = f"GANs on {given.data}, {given.grid}"
        if given.only in ("overhead", None):
            show("Overhead per generation", overheads(temporary, given.repeats), given.json)
        if given.only in ("quality", None):
            show(name, quality(given, folder), given.json)
        if given.only == "scaling":
            show(f"{name}: slots", scaling(given, folder), given.json)
        if given.only == "opponents":
            show(f"{name}: opponents", opponents(given, folder), given.json)


if __name__ == "__main__":
    main()
