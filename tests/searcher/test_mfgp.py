"""The multi-fidelity Gaussian process behind ask and tell."""

from __future__ import annotations

import math

import numpy as np
import pytest
from threadpoolctl import threadpool_info

import distsearch as ag
from distsearch.errors import OptionError
from distsearch.scheduler import HyperbandScheduler
from distsearch.searcher import MFGPSearcher, RandomSearcher
from distsearch.searcher.mfgp import Results, normal_scores, whole_level
from distsearch.space import Bool, Choice, Dict, Int, Real

LINE = Dict(x=Real(0, 1))
FLAT = Dict(x=Real(0, 1), y=Real(1e-4, 1, log=True), n=Int(1, 50), kind=Choice(*"abcd"))
NESTED = Dict(net=Choice("small", Dict(width=Real(0, 1), deep=Bool())), lr=Real(0, 1))


def mfgp(space=LINE, **options):
    """One that does not explore, unless told."""
    return MFGPSearcher(space, points_to_evaluate=[], **{"seed": 1, "hope": 0.0, **options})


def known(searcher, count, reward, time=math.inf, space=LINE, start=0):
    """Let random configurations be observed, all after the same time."""
    for number in range(start, start + count):
        config = space.sample(np.random.default_rng((7, number)))
        searcher.observe(-1 - number, config, reward(config), time)
    return searcher


def nearness(place):
    return lambda config: -abs(config["x"] - place)


def mean_x(searcher, count=8):
    return np.mean([searcher.ask(number)["x"] for number in range(count)])


def test_suggestions_are_random_until_the_first_trials_were_observed():
    none = mfgp(FLAT)
    few = known(mfgp(FLAT), 9, nearness(0.3), space=FLAT)
    enough = known(mfgp(FLAT), 10, nearness(0.3), space=FLAT)
    expected = [none.ask(number) for number in range(5)]
    assert [few.ask(number) for number in range(5)] == expected
    assert not any(enough.ask(number) == expected[number] for number in range(5))


def test_a_share_of_the_suggestions_is_random():
    random = [mfgp().ask(number) for number in range(40)]
    searcher = known(mfgp(random_share=0.25), 30, nearness(0.3))
    found = sum(searcher.ask(number) != random[number] for number in range(40))
    # The first draw of a trial says whether it is random, so a random one is not that of `random`.
    assert found == 40
    searcher = known(mfgp(random_share=0.25), 30, nearness(0.3))
    away = [abs(searcher.ask(number)["x"] - 0.3) > 0.1 for number in range(40)]
    assert 4 <= sum(away) <= 16


def test_without_rungs_it_finds_what_it_is_told():
    searcher = mfgp()
    for number in range(15):
        config = LINE.sample(np.random.default_rng((7, number)))
        searcher.tell(-1 - number, config, nearness(0.62)(config))
    assert mean_x(searcher) == pytest.approx(0.62, abs=0.05)


def test_short_trainings_say_where_to_look_until_long_ones_say_otherwise():
    searcher = known(mfgp(), 20, nearness(0.8), time=1)
    assert mean_x(searcher) == pytest.approx(0.8, abs=0.1)
    searcher = known(mfgp(), 20, nearness(0.8), time=1)
    known(searcher, 20, lambda config: 1 + nearness(0.3)(config), start=20)
    assert mean_x(searcher) == pytest.approx(0.3, abs=0.1)


def test_what_pauses_or_ends_after_a_rung_counts_there_and_not_as_a_whole_training():
    searcher = known(mfgp(), 20, nearness(0.8), time=1)
    for number in range(20):
        config = LINE.sample(np.random.default_rng((7, number)))
        searcher.tell(-1 - number, config, nearness(0.2)(config))
    assert mean_x(searcher) == pytest.approx(0.8, abs=0.1)


def test_it_hopes_for_more_where_trials_are_compared_at_rungs():
    def asked(hope, time):
        return known(mfgp(FLAT, hope=hope), 20, nearness(0.5), time, space=FLAT).ask(0)

    assert asked(None, 1) == asked(4.0, 1) != asked(1.0, 1)
    assert asked(None, math.inf) == asked(1.0, math.inf) != asked(4.0, math.inf)


def test_hope_leads_to_where_nothing_is_known():
    def left_half(searcher):
        for number in range(20):
            config = {"x": number / 40}
            searcher.tell(-1 - number, config, nearness(0.3)(config))
        return searcher

    assert mean_x(left_half(mfgp()), 3) < 0.5
    assert left_half(mfgp(hope=8.0)).ask(0)["x"] > 0.6


def test_where_a_trial_runs_others_are_not_sent():
    alone, beside = (known(mfgp(hope=4.0), 15, nearness(0.5)) for _ in range(2))
    place = alone.ask(0)["x"]
    beside.replay(1, {"x": place})
    assert abs(beside.ask(0)["x"] - place) > 0.005


@pytest.mark.parametrize("reward", [None, math.nan, -math.inf])
def test_where_trials_failed_is_suggested_less(reward):
    searcher = mfgp()
    for number in range(30):
        config = LINE.sample(np.random.default_rng((7, number)))
        searcher.tell(-1 - number, config, reward if config["x"] > 0.5 else config["x"])
    assert 0.3 < mean_x(searcher) < 0.52


def test_what_was_good_before_it_failed_is_not_to_be_repeated():
    searcher = known(mfgp(), 30, lambda config: config["x"], time=1)
    for number in range(30):
        config = LINE.sample(np.random.default_rng((7, number)))
        if config["x"] > 0.6:
            searcher.tell(-1 - number, config, None)
    assert mean_x(searcher) < 0.65


def test_a_failed_trial_that_runs_again_is_worth_what_it_reaches_then():
    searcher = known(mfgp(), 20, lambda config: config["x"])
    best = max((LINE.sample(np.random.default_rng((7, n)))["x"], n) for n in range(20))[1]
    config = LINE.sample(np.random.default_rng((7, best)))
    searcher.tell(-1 - best, config, None)
    searcher.observe(-1 - best, config, 2.0, math.inf)
    untouched = known(mfgp(), 20, lambda config: config["x"])
    assert mean_x(searcher) == pytest.approx(mean_x(untouched), abs=0.05)


def test_noise_does_not_lead_it_astray():
    searcher = mfgp()
    for number in range(60):
        rng = np.random.default_rng((7, number))
        config = LINE.sample(rng)
        searcher.tell(-1 - number, config, -((config["x"] - 0.4) ** 2) + rng.normal(0, 0.05))
    assert mean_x(searcher) == pytest.approx(0.4, abs=0.12)


def test_the_scale_of_rewards_makes_no_difference():
    plain = known(mfgp(FLAT), 20, nearness(0.3), space=FLAT)
    steep = known(mfgp(FLAT), 20, lambda c: -math.exp(30 * abs(c["x"] - 0.3)), space=FLAT)
    assert [plain.ask(n) for n in range(4)] == [steep.ask(n) for n in range(4)]


def test_it_finds_the_good_option_and_the_parameters_that_belong_to_it():
    def reward(config):
        return 1 - abs(config["net.dict.width"] - 0.8) if config["net"] == "dict" else 0.0

    searcher = known(mfgp(NESTED), 40, reward, space=NESTED)
    found = [searcher.ask(number) for number in range(10)]
    wide = [config["net.dict.width"] for config in found if config["net"] == "dict"]
    assert len(wide) >= 9
    assert np.median(np.abs(np.array(wide) - 0.8)) < 0.1


def test_it_beats_random_search():
    def reward(config):
        near = abs(config["x"] - 0.3) + abs(math.log10(config["y"]) + 2) / 4
        return -near - abs(config["n"] - 20) / 50 - (config["kind"] != "c") / 2

    best = []
    for make in (MFGPSearcher, RandomSearcher):
        searcher, rewards = make(FLAT, seed=3), []
        for number in range(50):
            config = searcher.ask(number)
            rewards.append(reward(config))
            searcher.tell(number, config, rewards[-1])
        best.append(max(rewards))
    assert best[0] > -0.1 > best[1]


def test_a_resumed_search_suggests_the_same_though_the_kernel_was_fitted_on_the_way():
    searcher, log = mfgp(FLAT, hope=4.0), []
    for number in range(40):
        config = searcher.ask(number)
        searcher.observe(number, config, nearness(0.3)(config), 1)
        log.append(config)
    resumed = mfgp(FLAT, hope=4.0)
    for number, config in enumerate(log):
        assert resumed.replay(number, config)
        resumed.observe(number, config, nearness(0.3)(config), 1)
    assert [resumed.ask(n) for n in (40, 41)] == [searcher.ask(n) for n in (40, 41)]


@ag.args(x=Real(0, 1), net=Choice("small", Dict(width=Int(1, 64))))
def train_fn(args, reporter):
    if args.x > 0.9:
        raise RuntimeError("it diverged")
    wide = 0 if args.net == "small" else args.net.width / 64
    for epoch in range(9):
        reporter(epoch=epoch + 1, accuracy=(1 - abs(args.x - 0.3) + wide) * (epoch + 1))


def test_a_search_with_rungs_goes_on_where_it_was_and_finds_the_best(tmp_path):
    rewards = []
    for num_trials in (12, 30):
        with HyperbandScheduler(
            train_fn,
            searcher="mfgp",
            type="promotion",
            max_t=9,
            checkpoint=tmp_path / "search",
            local=ag.Node("localhost", num_cpus=2),
            seed=1,
            verbose=0,
        ) as scheduler:
            scheduler.run(num_trials=num_trials)
            assert scheduler.join_jobs(60)
            assert len(scheduler.trials) == num_trials
            rewards.append(scheduler.get_best_reward())
    assert rewards[1] >= rewards[0]
    assert rewards[1] > 9 * 1.85


def test_a_suggestion_leaves_the_threads_of_others_as_they_were():
    def threads():
        return [pool["num_threads"] for pool in threadpool_info()]

    searcher = known(mfgp(), 15, nearness(0.5))
    before = threads()
    searcher.ask(0)
    assert threads() == before


def test_of_many_results_the_best_half_is_kept_and_some_of_all_others():
    scores = np.random.default_rng(0).permutation(1000.0 * np.arange(100))
    results = Results(scores[:, None], scores, scores, 0.0).spread(20)
    kept = sorted(results.scores / 1000, reverse=True)
    assert kept[:10] == list(range(99, 89, -1))
    assert kept[10] == 89 and kept[-1] == 0
    assert (results.rows[:, 0] == results.scores).all()


def test_a_whole_training_lies_as_far_beyond_the_last_rung_as_that_beyond_those_before():
    assert whole_level([math.inf]) == 0
    assert whole_level([1, math.inf]) == pytest.approx(1)
    assert whole_level([2, 8, 32, math.inf]) == pytest.approx(math.log(128, 3))


def test_equal_rewards_have_equal_scores_and_the_scores_no_mean():
    scores = normal_scores(np.array([5.0, -math.inf, 1.0, 1.0, -math.inf]))
    assert scores[1] == scores[4] < scores[2] == scores[3] < scores[0]
    assert normal_scores(np.arange(9.0)).mean() == pytest.approx(0, abs=1e-12)


@pytest.mark.parametrize(
    "wrong", [{"first": 1}, {"random_share": 2}, {"candidates": 0}, {"hope": -1}]
)
def test_settings_that_make_no_sense_are_refused(wrong):
    with pytest.raises(OptionError, match=next(iter(wrong))):
        mfgp(**wrong)
