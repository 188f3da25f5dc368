"""A searcher of your own: which configuration to try next.

    python tutorials/06_own_searcher.py

A searcher is asked for a configuration whenever a slot is free, and told what became of it. It may
be asked many times before it is told anything, as trials run side by side, and results come in any
order. It knows nothing of trials' processes, nor of nodes: it can be tried without a search.
"""

from __future__ import annotations

import json
import math

import numpy as np

import distsearch as ag
from distsearch.searcher import RandomSearcher, Searcher


class AroundTheBest(Searcher):
    """Local search: a random step from the best so far; the steps shrink while nothing improves.

    `explore`: how many random configurations come first.
    """

    def __init__(self, space, *, explore=8, step=0.1, **options):
        super().__init__(space, **options)  # seed=, points_to_evaluate=
        self.explore = explore
        self.step = step  # of a number, in widths of its range
        self.best, self.best_reward = None, -math.inf
        self.seen = set()

    @staticmethod
    def name(config):
        """The same for equal configurations, in whichever order their parameters come."""
        return json.dumps(config, sort_keys=True)

    def ask(self, trial_id):
        config = super().ask(trial_id)  # one of points_to_evaluate, else what `suggest` says
        if config is not None:
            self.seen.add(self.name(config))
        return config

    def suggest(self, trial_id, rng):
        # `rng` comes from (seed, trial_id): with no other randomness than that, a search does not
        # depend on which trial ends first, and can be replayed from its log.
        for _ in range(100):
            if self.best is None or len(self.seen) < self.explore:
                config = self.space.sample(rng)
            else:
                # Every configuration is a vector in [0, 1] too: numbers on their own (perhaps
                # logarithmic) scale, one coordinate per option of a choice.
                vector = self.space.encode(self.best)
                # Mostly small steps, now and then a large one, which also changes choices.
                step = self.step * rng.standard_cauchy(len(vector))
                config = self.space.decode(vector + step)
            if self.name(config) not in self.seen:
                return config
        # A small space is used up at some point; then None ends the search.
        left = (config for config in self.space.grid(1000) if self.name(config) not in self.seen)
        return next(left, None)

    def tell(self, trial_id, config, reward):
        # Larger is better, also with mode="min"; None: the trial failed, or reported no number.
        # A trial that was paused is told again when it has more; others' trials are told too.
        self.seen.add(self.name(config))
        if reward is None or math.isnan(reward):
            return
        if reward > self.best_reward:
            self.best, self.best_reward = config, reward
        else:
            self.step = max(0.01, 0.95 * self.step)


# Something cheap to find the best of: 1.0, at lr=0.003, width=48, dropout=0.2, relu.
@ag.args(
    lr=ag.Real(1e-5, 1e0, log=True),
    width=ag.Int(4, 256, log=True),
    dropout=ag.Real(0.0, 0.8),
    activation=ag.Choice("tanh", "relu", "gelu"),
)
def train_fn(args, reporter):
    reporter(epoch=1, accuracy=accuracy_of(vars(args)))


def accuracy_of(config):
    away = math.log10(config["lr"] / 0.003) ** 2 + math.log2(config["width"] / 48) ** 2 / 4
    away += 10 * (config["dropout"] - 0.2) ** 2
    away += {"tanh": 0.5, "relu": 0.0, "gelu": 0.1}[config["activation"]]
    return math.exp(-away / 2)


def try_out(make, seed, count):
    """Ask and tell without a search: the best reward after each of so many trials, one by one."""
    searcher = make(train_fn.space, seed=seed)
    found = []
    for trial_id in range(count):
        config = searcher.ask(trial_id)
        reward = accuracy_of(config)
        searcher.tell(trial_id, config, reward)
        found.append(max([reward, *found[-1:]]))
    return found


def draw(runs, picture):
    from matplotlib.figure import Figure

    figure = Figure(figsize=(7, 4.5), layout="constrained")
    axes = figure.subplots()
    for name, found in runs.items():
        low, middle, high = np.percentile(1 - np.array(found), [25, 50, 75], axis=0)
        trials = np.arange(1, len(middle) + 1)
        (line,) = axes.plot(trials, middle, lw=2.5, label=name)
        axes.fill_between(trials, low, high, color=line.get_color(), alpha=0.2)
    axes.set_yscale("log")
    axes.set_xlabel("trials")
    axes.set_ylabel("distance of the best accuracy from 1")
    axes.set_title(f"Median and quartiles of {len(found)} seeds")
    axes.legend()
    figure.savefig(picture, dpi=110)


def main():
    # 1. Alone, over many seeds: 20 searches of 80 trials take less than a second.
    runs = {
        "random": [try_out(RandomSearcher, seed, 80) for seed in range(20)],
        "around the best": [try_out(AroundTheBest, seed, 80) for seed in range(20)],
    }
    for name, found in runs.items():
        print(f"{name:>16}: median of the best after 80 trials {np.median(found, axis=0)[-1]:.4f}")
    picture = "curves_of_own_searcher.png"
    draw(runs, picture)
    print(f"picture of the curves: {picture}")

    # 2. In a search, with real trials, side by side. The searcher is given ready-made.
    searcher = AroundTheBest(train_fn.space, seed=0, explore=12)
    with ag.scheduler.FIFOScheduler(train_fn, searcher=searcher, num_trials=80) as scheduler:
        scheduler.run()
        scheduler.join_jobs()
        print(f"\nbest accuracy: {scheduler.get_best_reward():.4f}")
        print(f"best configuration: {scheduler.get_best_config()}")


# The kit that distsearch's own searchers have to pass checks yours too, over randomly nested spaces
# (pip install pytest hypothesis):
#
#     from distsearch.testing import SearcherKit
#
#     class TestAroundTheBest(SearcherKit):
#         make = AroundTheBest
#         learns = True                  # results change what it suggests


if __name__ == "__main__":
    main()
