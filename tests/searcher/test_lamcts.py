"""LaMCTS behind ask and tell."""

from __future__ import annotations

import math
import sys

import numpy as np
import pytest

from distsearch.errors import MissingPackage, OptionError
from distsearch.searcher import LaMCTSSearcher, RandomSearcher
from distsearch.searcher.lamcts import Curved, expected_improvement
from distsearch.searcher.places import Places
from distsearch.space import Bool, Choice, Dict, Real

BOX = Dict(**{f"x{n}": Real(-5, 10) for n in range(5)})
NESTED = Dict(net=Choice("small", Dict(width=Real(0, 1), deep=Bool())), lr=Real(0, 1))


def sphere(config):
    return -sum(value**2 for value in config.values())


def lamcts(space=BOX, **options):
    return LaMCTSSearcher(space, **{"points_to_evaluate": [], "seed": 1, "first": 10, **options})


def best_of(searcher, count, reward=sphere):
    rewards = []
    for number in range(count):
        config = searcher.ask(number)
        rewards.append(reward(config))
        searcher.tell(number, config, rewards[-1])
    return max(rewards)


def test_it_comes_near_the_best_where_random_search_does_not():
    found = [best_of(lamcts(seed=seed), 40) for seed in range(2)]
    random = [best_of(RandomSearcher(BOX, seed=seed), 40) for seed in range(2)]
    assert min(found) > -2
    assert max(random) < -8


def test_the_split_tells_the_good_cluster_from_the_bad_one_across_a_curve():
    space = Dict(x=Real(0, 1), y=Real(0, 1))
    places = Places(space)
    rows = places.draw(np.random.default_rng(0), 200)
    scores = -np.hypot(rows[:, 0] - 0.5, rows[:, 1] - 0.5)
    split = Curved.fit(places, rows, (scores - scores.mean()) / scores.std(), 10.0, seed=0)
    good = split.is_good(rows)
    assert scores[good].mean() > scores[~good].mean() + 0.1
    assert split.is_good(np.array([[0.5, 0.5]])).all()
    assert not split.is_good(np.array([[0.02, 0.02], [0.98, 0.98]])).any()


def test_every_suggestion_meets_all_inequalities_on_the_path():
    class Noted(LaMCTSSearcher):
        def suggest_in(self, leaf, rng):
            self.leaf = leaf
            return super().suggest_in(leaf, rng)

    searcher = Noted(BOX, points_to_evaluate=[], seed=1, leaf_size=6, first=12)
    for number in range(50):
        config = searcher.ask(number)
        if number > 12:
            assert searcher.leaf.contains(searcher.places.row(config)[None]).all()
        searcher.tell(number, config, sphere(config))
    assert len(searcher.tree().leaves) > 1


def test_all_constraints_count_and_not_any():
    """A trial that meets one of two constraints is no better for it than one that meets none."""
    space = Dict(x=Real(0, 1), y=Real(0, 1))
    searcher = lamcts(space)
    searcher.aim(1, 2)
    for number in range(40):
        config = searcher.ask(number)
        over = (config["x"] - 0.5, config["y"] - 0.5)
        searcher.tell(number, config, config["x"] + config["y"], over)
    later = [searcher.ask(number) for number in range(40, 46)]
    assert all(one["x"] < 0.6 and one["y"] < 0.6 for one in later)
    assert max(one["x"] + one["y"] for one in later) > 0.8


def test_a_conditional_space_is_searched_in_the_better_branch():
    def reward(config):
        return config.get("net.dict.width", -1.0) - abs(config["lr"] - 0.3)

    searcher = lamcts(NESTED)
    assert best_of(searcher, 35, reward) > 0.85


def test_expected_improvement_worked_by_hand():
    mean, deviation = np.array([0.0, 1.0, -30.0]), np.array([1.0, 1e-9, 1.0])
    found = expected_improvement(mean, deviation, 0.0)
    assert found == pytest.approx([1 / math.sqrt(2 * math.pi), 1.0, 0.0])


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"leaf_size": 1}, "leaf_size=1, but it must be 2 or more"),
        ({"candidates": 0}, "candidates=0"),
        ({"penalty": 0}, "penalty=0"),
        ({"first": 0}, "first=0"),
    ],
)
def test_settings_that_make_no_sense_are_refused(options, says):
    with pytest.raises(OptionError, match=says):
        lamcts(**options)


def test_without_scikit_learn_it_says_what_to_install(monkeypatch):
    monkeypatch.setitem(sys.modules, "sklearn", None)
    with pytest.raises(MissingPackage, match="pip install scikit-learn"):
        lamcts()
