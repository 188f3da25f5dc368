"""Regularised evolution."""

from __future__ import annotations

import math

import numpy as np
import pytest

from distsearch.errors import OptionError
from distsearch.searcher import EvolutionSearcher, RandomSearcher
from distsearch.space import Choice, Dict, Int, Real

FLAT = Dict(x=Real(0, 1), y=Real(1e-4, 1, log=True), n=Int(1, 50), kind=Choice(*"abcd"))
NESTED = Dict(net=Choice("small", Dict(width=Int(1, 64), depth=Int(1, 64))), lr=Real(0, 1))


def evolution(space=FLAT, **options):
    return EvolutionSearcher(space, seed=1, points_to_evaluate=[], **options)


def fill(searcher, rewards):
    """Let trials with these rewards be asked for and told; their configurations."""
    configs = [searcher.ask(number) for number in range(len(rewards))]
    for number, reward in enumerate(rewards):
        searcher.tell(number, configs[number], reward)
    return configs


def differing(one, other):
    return {path for path in one.keys() | other.keys() if one.get(path) != other.get(path)}


def test_the_first_population_is_random():
    searcher, random = evolution(population=8, sample=2), RandomSearcher(FLAT, seed=1)
    random._first.clear()
    assert [searcher.ask(n) for n in range(8)] == [random.ask(n) for n in range(8)]


def test_a_child_differs_from_the_best_of_its_sample_in_at_least_one_parameter():
    searcher = evolution(population=4, sample=4, mutation_probability=0)
    configs = fill(searcher, [0.1, 0.9, 0.2, None])
    for number in range(4, 20):
        assert len(differing(searcher.ask(number), configs[1])) == 1


def test_with_probability_1_every_parameter_changes():
    searcher = evolution(population=4, sample=4, mutation_probability=1)
    configs = fill(searcher, [0.1, 0.9, 0.2, 0.3])
    assert differing(searcher.ask(4), configs[1]) == set(configs[1])


def test_the_oldest_leaves_however_good_it_was():
    searcher = evolution(population=3, sample=3, mutation_probability=0)
    fill(searcher, [9.0, 0.1, 0.2])
    config = searcher.ask(3)
    searcher.tell(3, config, 0.5)
    assert len(differing(searcher.ask(4), config)) == 1
    searcher.tell(0, config, 99.0)  # it is dead, though it had only paused
    assert len(differing(searcher.ask(5), config)) == 1


def test_a_paused_trial_keeps_its_age_when_it_gets_better():
    searcher = evolution(population=3, sample=3, mutation_probability=0)
    configs = fill(searcher, [0.1, 0.5, 0.2])
    searcher.tell(0, configs[0], 0.9)
    assert len(differing(searcher.ask(3), configs[0])) == 1
    searcher.tell(3, searcher.ask(4), 0.0)
    assert len(differing(searcher.ask(5), configs[1])) == 1


def test_a_newly_chosen_option_brings_its_parameters_and_the_old_ones_go():
    searcher = evolution(NESTED, population=2, sample=2, mutation_probability=1)
    small, wide = NESTED.validate({"net": "small"}), NESTED.validate({"net": "dict"})
    for number, parent in enumerate([small, wide]):
        searcher.tell(-1 - number, parent, float(number))
    assert searcher.ask(0).keys() == small.keys()
    searcher.tell(-3, small, 3.0)
    assert searcher.ask(1).keys() == wide.keys()


def test_with_every_trial_failed_it_goes_on_at_random():
    searcher = evolution(population=3, sample=2)
    fill(searcher, [None, math.nan, None])
    assert searcher.ask(3) is not None


def test_known_results_count_for_the_first_population():
    searcher = evolution(population=3, sample=3, mutation_probability=0)
    configs = [FLAT.sample(np.random.default_rng(number)) for number in range(3)]
    for number, config in enumerate(configs):
        searcher.tell(-1 - number, config, float(number))
    assert len(differing(searcher.ask(0), configs[2])) == 1


def test_it_finds_better_configurations_than_random_search():
    def reward(config):
        return -((config["x"] - 0.3) ** 2) - abs(config["n"] - 17) / 50 - (config["kind"] != "c")

    def best_of(searcher):
        found = []
        for number in range(150):
            config = searcher.ask(number)
            found.append(reward(config))
            searcher.tell(number, config, found[-1])
        return max(found)

    pairs = [
        (
            best_of(EvolutionSearcher(FLAT, seed=seed, population=20, sample=5)),
            best_of(RandomSearcher(FLAT, seed=seed)),
        )
        for seed in range(7)
    ]
    assert sum(evolved > random for evolved, random in pairs) >= 6


@pytest.mark.parametrize("wrong", [{"population": 5}, {"sample": 0}, {"mutation_probability": 1.5}])
def test_settings_that_make_no_sense_are_refused(wrong):
    with pytest.raises(OptionError, match=next(iter(wrong))):
        evolution(**wrong)


def test_with_several_rewards_the_parent_is_one_that_no_other_of_the_sample_dominates():
    space = Dict(x=Choice(*range(9)))
    searcher = EvolutionSearcher(space, seed=1, population=9, sample=9, points_to_evaluate=[])
    rewards = {0: (1, 1), 1: (3, 0), 2: (0, 3), 3: (2, 2), 4: (2, 1), 5: (1, 2)}
    for x, both in rewards.items():
        searcher.tell(x, {"x": x}, both)
    parents = {
        searcher._members[searcher._parent(np.random.default_rng(seed))][1]["x"]
        for seed in range(40)
    }
    assert parents == {1, 2, 3}


def test_the_parent_violates_the_constraints_least():
    space = Dict(x=Choice(*range(9)))
    searcher = EvolutionSearcher(space, seed=1, population=9, sample=9, points_to_evaluate=[])
    for x, reward, violations in ((0, 9.0, (1, 1)), (1, 5.0, (-4, 1)), (2, 7.0, (1, -9))):
        searcher.tell(x, {"x": x}, reward, violations)
    assert searcher._parent(np.random.default_rng(0)) == 2
    searcher.tell(3, {"x": 3}, 0.0, (0, 0))
    assert searcher._parent(np.random.default_rng(0)) == 3
