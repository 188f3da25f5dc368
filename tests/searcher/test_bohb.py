"""BOHB's model behind ask and tell."""

from __future__ import annotations

import math

import numpy as np
import pytest

from distsearch.errors import OptionError
from distsearch.searcher import BOHBSearcher, RandomSearcher
from distsearch.searcher.bohb import Density
from distsearch.space import Bool, Choice, Dict, Int, Real

LINE = Dict(x=Real(0, 1))
FLAT = Dict(x=Real(0, 1), y=Real(1e-4, 1, log=True), n=Int(1, 50), kind=Choice(*"abcd"))
NESTED = Dict(net=Choice("small", Dict(width=Real(0, 1), deep=Bool())), lr=Real(0, 1))


def bohb(space=LINE, **options):
    return BOHBSearcher(space, points_to_evaluate=[], **{"seed": 1, **options})


def known(searcher, count, reward, time=math.inf, space=LINE):
    """Let random configurations be observed, all after the same time."""
    for number in range(count):
        config = space.sample(np.random.default_rng(number))
        searcher.observe(-1 - number, config, reward(config), time)
    return searcher


def mean_x(searcher, count=30):
    return np.mean([searcher.ask(number)["x"] for number in range(count)])


def test_suggestions_are_random_until_parameters_and_three_were_observed():
    none = bohb(FLAT, random_share=0)
    few = known(bohb(FLAT, random_share=0), 6, lambda config: config["x"], space=FLAT)
    enough = known(bohb(FLAT, random_share=0), 7, lambda config: config["x"], space=FLAT)
    expected = [none.ask(number) for number in range(10)]
    assert [few.ask(number) for number in range(10)] == expected
    assert not any(enough.ask(number) == expected[number] for number in range(10))


def test_it_learns_from_the_longest_budget_at_which_enough_was_observed():
    searcher = known(bohb(random_share=0), 30, lambda config: -config["x"], time=1)
    assert mean_x(searcher) < 0.25
    searcher = known(bohb(random_share=0), 30, lambda config: -config["x"], time=1)
    known(searcher, 3, lambda config: config["x"], time=9)
    assert mean_x(searcher) < 0.25
    searcher = known(bohb(random_share=0), 30, lambda config: -config["x"], time=1)
    known(searcher, 20, lambda config: config["x"], time=9)
    assert mean_x(searcher) > 0.75


def test_a_share_of_the_suggestions_is_random():
    means = [
        mean_x(known(bohb(random_share=share), 30, lambda config: config["x"]), 60)
        for share in (0, 1 / 3, 1)
    ]
    assert means[0] > means[1] > means[2]
    assert means[2] == pytest.approx(0.5, abs=0.15)


def test_what_pauses_or_ends_after_a_rung_counts_there_and_not_as_a_whole_training():
    searcher = known(bohb(random_share=0), 30, lambda config: config["x"], time=1)
    for number in range(30):
        config = LINE.sample(np.random.default_rng(number))
        searcher.tell(-1 - number, config, -config["x"])  # were it believed, small x were good
    assert mean_x(searcher) > 0.75


def test_without_rungs_it_learns_from_what_it_is_told():
    searcher = bohb(random_share=0)
    for number in range(30):
        config = LINE.sample(np.random.default_rng(number))
        searcher.tell(-1 - number, config, config["x"])
    assert mean_x(searcher) > 0.75


def test_where_trials_run_or_failed_is_suggested_less():
    def away(occupy):
        """How far suggestions are, on average, from the best known place."""
        found = []
        for number in range(20):
            searcher = known(bohb(random_share=0), 30, lambda config: -abs(config["x"] - 0.5))
            occupy(searcher)
            found.append(abs(searcher.ask(1000 + number)["x"] - 0.5))
        return np.mean(found)

    def run(searcher):
        for number in range(30):
            searcher.replay(100 + number, {"x": 0.5 + number / 10000})

    def fail(searcher):
        run(searcher)
        for number in range(30):
            searcher.tell(100 + number, {"x": 0.5 + number / 10000}, None)

    def succeed(searcher):
        run(searcher)
        for number in range(30):
            searcher.observe(100 + number, {"x": 0.5 + number / 10000}, 0.0, 1)

    def fail_after_a_good_start(searcher):
        for number in range(30):
            searcher.observe(100 + number, {"x": 0.5 + number / 10000}, 1.0, math.inf)
        fail(searcher)

    free = away(lambda searcher: None)
    assert away(run) > 1.2 * free
    assert away(fail) > 1.2 * free
    assert away(fail_after_a_good_start) > 1.2 * free
    assert away(succeed) == pytest.approx(free, abs=1e-9)  # they do not run any more


def test_nan_at_a_rung_is_worse_than_any_number():
    searcher = known(
        bohb(random_share=0), 30, lambda config: math.nan if config["x"] > 0.5 else config["x"]
    )
    assert 0.2 < mean_x(searcher) < 0.5


def test_it_finds_the_good_option_and_the_parameters_that_belong_to_it():
    def reward(config):
        return 1 - abs(config["net.dict.width"] - 0.8) if config["net"] == "dict" else 0.0

    searcher = bohb(NESTED, random_share=0)
    known(searcher, 60, reward, space=NESTED)
    found = [searcher.ask(number) for number in range(20)]
    deep = [config["net.dict.width"] for config in found if config["net"] == "dict"]
    assert len(deep) >= 16
    assert np.median(np.abs(np.array(deep) - 0.8)) < 0.15


def test_it_beats_random_search():
    def reward(config):
        near = abs(config["x"] - 0.3) + abs(math.log10(config["y"]) + 2) / 4
        return -near - abs(config["n"] - 20) / 50 - (config["kind"] != "c") / 2

    for seed in range(3):
        best = []
        for make in (BOHBSearcher, RandomSearcher):
            searcher, rewards = make(FLAT, seed=seed), []
            for number in range(80):
                config = searcher.ask(number)
                rewards.append(reward(config))
                searcher.tell(number, config, rewards[-1])
            best.append(np.median(sorted(rewards[40:])[-10:]))
        assert best[0] > best[1]


def test_a_density_sums_to_one_over_numbers_and_options():
    rows = [{"x": 0.02, "kind": 2.0}, {"x": 0.9, "kind": 2.0}, {"kind": 0.0}]
    domains = {"x": Real(0, 1), "kind": Choice(*"abc")}
    grid = (np.arange(4000) + 0.5) / 4000
    found = Density(domains, rows)
    total = sum(
        np.exp(found.log_at([{"x": x, "kind": kind} for x in grid])).mean() for kind in (0, 1, 2)
    )
    assert total == pytest.approx(1, abs=1e-3)


def test_the_density_of_a_choice_worked_by_hand():
    """Three observations, a a b of three options; the width is 1.06 * sqrt(4/9) * 3 ** -0.2."""
    found = Density({"k": Choice(*"abc")}, [{"k": 0.0}, {"k": 0.0}, {"k": 1.0}])
    away = 1.06 * (2 / 3) * 3**-0.2
    expected = [(2 * (1 - away) + away / 2) / 3, ((1 - away) + 2 * away / 2) / 3, away / 2]
    assert np.exp(found.log_at([{"k": float(n)} for n in range(3)])) == pytest.approx(expected)


@pytest.mark.parametrize(
    "wrong",
    [{"random_share": 2}, {"top_share": -1}, {"candidates": 0}, {"bandwidth_factor": 0}],
)
def test_settings_that_make_no_sense_are_refused(wrong):
    with pytest.raises(OptionError, match=next(iter(wrong))):
        bohb(**wrong)
