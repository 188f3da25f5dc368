"""Optuna's samplers behind ask and tell."""

from __future__ import annotations

import logging
import math
import sys
from functools import partial

import numpy as np
import optuna
import pytest

from distsearch.errors import MissingPackage, OptionError
from distsearch.searcher import (
    CMAESSearcher,
    EvolutionSearcher,
    GPSearcher,
    NSGA2Searcher,
    OptunaSearcher,
    QMCSearcher,
    RandomSearcher,
    TPESearcher,
)
from distsearch.space import Bool, Choice, Dict, Int, List, Real

ALL = OptunaSearcher.__subclasses__()
PLAIN = Dict(x=Real(-1, 1), y=Real(1e-3, 1e3, log=True))
NESTED = Dict(
    lr=Real(1e-4, 1e-1, log=True),
    net=Choice("small", Dict(width=Int(1, 64), deep=Bool())),
    odd=Choice(1, True, 1.0, None, "1", (1, 2)),
    list=List(Int(3, 3), Real(0.5, 0.5)),
)


def reward(config):
    """Best at x = 0.25 and y = 1."""
    return -((config["x"] - 0.25) ** 2) - math.log10(config["y"]) ** 2 / 9


def asked_and_told(searcher, count, pending=0, value=reward):
    """Ask and tell so many times, with some trials always running; the configurations."""
    configs = []
    for number in range(count):
        configs.append(searcher.ask(number))
        if number >= pending:
            told = configs[number - pending]
            searcher.tell(number - pending, told, value(told))
    return configs


@pytest.mark.parametrize("make", ALL)
def test_options_that_look_alike_and_conditional_parameters_come_through(make):
    searcher = make(NESTED, seed=1, points_to_evaluate=[])
    configs = asked_and_told(searcher, 14, pending=3, value=lambda config: config["lr"])
    assert all(NESTED.validate(config) == config for config in configs)
    assert {config["net"] for config in configs} == {"small", "dict"}
    assert len({(type(config["odd"]), config["odd"]) for config in configs}) >= 4


@pytest.mark.parametrize("make", [TPESearcher, CMAESSearcher, GPSearcher])
def test_what_learns_beats_random_search(make):
    count = 20 if make is GPSearcher else 60
    pairs = []
    for seed in range(1 if make is GPSearcher else 3):
        best = [
            max(map(reward, asked_and_told(searcher(PLAIN, seed=seed), count)[10:]))
            for searcher in (make, RandomSearcher)
        ]
        pairs.append(best)
    assert all(learnt > random for learnt, random in pairs)


def test_the_model_of_gp_is_deterministic_copes_with_failures_and_avoids_what_runs():
    def run():
        searcher = GPSearcher(PLAIN, seed=2, n_startup_trials=4)
        configs = asked_and_told(
            searcher, 9, pending=4, value=lambda config: None if config["x"] < 0 else config["x"]
        )
        return [*configs, *(searcher.ask(number) for number in range(9, 12))]

    first = run()
    assert first == run()
    assert len({(config["x"], config["y"]) for config in first}) == len(first)


def test_tpe_is_told_of_running_trials():
    searcher = TPESearcher(PLAIN, seed=1)
    searcher.ask(0), searcher.ask(1)
    searcher.tell(0, PLAIN.default, 0.5)
    states = [trial.state.name for trial in searcher._study.trials]
    assert states == ["COMPLETE", "RUNNING"]
    assert searcher._study.trials[1].params.keys() == {"x", "y"}


@pytest.mark.parametrize("bad", [None, math.nan, math.inf, -math.inf])
def test_a_reward_that_is_no_number_fails_the_trial(bad):
    searcher = TPESearcher(PLAIN)
    searcher.tell(0, searcher.ask(0), bad)
    assert searcher._study.trials[0].state.name == "FAIL"


def test_a_paused_trial_counts_with_the_best_reward_that_it_was_told_last():
    searcher = TPESearcher(PLAIN)
    config = searcher.ask(0)
    searcher.tell(0, config, 0.25)
    searcher.tell(0, config, 0.75)
    searcher.tell(0, config, None)  # it failed after it was resumed
    assert [trial.value for trial in searcher._study.trials] == [0.75]


def test_a_paused_trial_is_told_again_with_other_values_and_violations():
    searcher = NSGA2Searcher(PLAIN)
    searcher.aim(2, 1)
    config = searcher.ask(0)
    searcher.tell(0, config, (0.25, -3.0), (2.0,))
    searcher.tell(0, config, (0.75, -4.0), (-1.0,))
    (trial,) = searcher._study.trials
    assert (trial.values, trial.constraints) == ([0.75, -4.0], {"constraint 0": -1.0})
    assert trial.state.name == "COMPLETE"


@pytest.mark.parametrize(
    "make",
    [
        TPESearcher,
        GPSearcher,
        partial(NSGA2Searcher, population_size=8),
        partial(EvolutionSearcher, population=16, sample=8),
    ],
)
@pytest.mark.parametrize("objectives", [1, 2])
def test_what_learns_from_violations_suggests_more_that_is_feasible(make, objectives):
    searcher = make(PLAIN, seed=1)
    searcher.aim(objectives, 1)
    count = 24 if make is GPSearcher else 60
    feasible = []
    for number in range(count):
        config = searcher.ask(number)
        at = math.log10(config["y"])
        rewards = (-((at - 1) ** 2), -((at + 1) ** 2))  # x is of no use but for the constraint
        violation = config["x"] + 0.6  # met by a fifth of what is drawn at random
        feasible.append(violation <= 0)
        searcher.tell(number, config, rewards if objectives > 1 else rewards[0], (violation,))
    assert sum(feasible[count // 2 :]) >= 0.5 * (count // 2)


def test_to_tpe_a_trial_that_trained_for_longer_is_better_whatever_its_reward():
    def mean_x(reward_at_9):
        """Of suggestions, after trials of which those at x > 0 alone went on to epoch 9."""
        searcher = TPESearcher(PLAIN, seed=1, points_to_evaluate=[])
        for number in range(40):
            config = PLAIN.sample(np.random.default_rng(number))
            searcher.observe(-1 - number, config, 0.5 - config["x"], 1)
            searcher.tell(-1 - number, config, 0.5 - config["x"])
            if config["x"] > 0.3 and reward_at_9 is not None:
                searcher.observe(-1 - number, config, reward_at_9, 9)
                searcher.tell(-1 - number, config, 0.5 - config["x"])
        return np.mean([searcher.ask(number)["x"] for number in range(20)])

    assert mean_x(None) < -0.3
    assert mean_x(-10.0) > 0.2


def test_to_tpe_a_trial_is_pruned_until_it_was_trained_whole():
    searcher = TPESearcher(PLAIN)
    config, states = searcher.ask(0), []
    for time, reward in ((1, 0.25), (3, 0.5), (math.inf, 0.75)):
        searcher.observe(0, config, reward, time)
        searcher.tell(0, config, reward)
        states.append((searcher._study.trials[0].state.name, searcher._study.trials[0].value))
    assert [name for name, _ in states] == ["PRUNED", "PRUNED", "COMPLETE"]
    assert states[-1][1] == 0.75


@pytest.mark.parametrize("make", ALL)
def test_a_small_space_is_suggested_to_its_end_in_parallel(make):
    space = Dict(a=Choice("x", "y", Dict(deep=Bool())), b=Int(1, 2))
    searcher = make(space, seed=1)
    found = [searcher.ask(number) for number in range(9)]
    assert found.pop() is None
    assert len({str(config) for config in found}) == 8


def test_a_suggestion_depends_on_its_number_and_what_was_told_not_on_earlier_suggestions():
    one, other = TPESearcher(PLAIN, seed=3), TPESearcher(PLAIN, seed=3)
    for number in range(12):
        config = PLAIN.sample(np.random.default_rng(number))
        for searcher in (one, other):
            searcher.tell(-1 - number, config, reward(config))
    one._first.clear(), other._first.clear()
    assert one.ask(40) == other.ask(40)
    assert one.ask(41) != PLAIN.default


def test_optuna_says_nothing_about_several_objectives_and_constraints_either(
    capfd, caplog, recwarn
):
    for make in (TPESearcher, GPSearcher, NSGA2Searcher, QMCSearcher):
        searcher = make(Dict(n=Int(1, 30)), seed=1)
        searcher.aim(2, 1)
        for number in range(14):
            n = searcher.ask(number)["n"]
            more = ((n - 9.0,),) if searcher.constrained else ()
            for _ in range(2):
                searcher.tell(number, {"n": n}, (float(n), -float(n * n)), *more)
    assert capfd.readouterr() == ("", "")
    assert caplog.records == []
    assert [str(one.message) for one in recwarn if "optuna" in str(one.filename)] == []


def test_options_go_to_the_sampler_and_wrong_ones_are_refused_at_once():
    assert TPESearcher(PLAIN, n_startup_trials=3).sampler(0)._n_startup_trials == 3
    with pytest.raises(OptionError, match="'n_startup'; did you mean 'n_startup_trials'"):
        TPESearcher(PLAIN, n_startup=3)
    with pytest.raises(OptionError, match="qmc_type"):
        QMCSearcher(PLAIN, qmc_type="latin")


def test_a_missing_optuna_is_named_with_the_command_that_installs_it(monkeypatch):
    monkeypatch.setitem(sys.modules, "optuna", None)
    with pytest.raises(MissingPackage, match="pip install optuna cmaes"):
        NSGA2Searcher(PLAIN)


def test_optuna_says_nothing_and_its_settings_are_as_before(capfd, caplog, recwarn):
    caplog.set_level(logging.INFO)
    level = optuna.logging.get_verbosity()
    filters = [list(logging.getLogger(name).filters) for name in logging.root.manager.loggerDict]
    for make in ALL:
        asked_and_told(make(NESTED, seed=1), 12, pending=2, value=lambda config: config["lr"])
    assert capfd.readouterr() == ("", "")
    assert caplog.records == []
    assert [str(one.message) for one in recwarn if "optuna" in str(one.filename)] == []
    assert optuna.logging.get_verbosity() == level
    names = list(logging.root.manager.loggerDict)[: len(filters)]
    assert [list(logging.getLogger(name).filters) for name in names] == filters
    optuna.create_study()
    assert "A new study created" in caplog.text


def test_ranges_with_steps_are_ordered_ranges_to_optuna_with_the_values_that_trials_get():
    steps = Dict(
        width=Int(16, 128, step=16),
        rate=Real(0, 1, step=0.1),
        decay=Real(0.001, 0.1, log=True, step=0.001),
    )
    searcher = TPESearcher(steps, seed=1, n_startup_trials=3)
    configs = [searcher.ask(number) for number in range(12)]
    for number, config in enumerate(configs):
        assert steps.validate(config) == config
        searcher.tell(number, config, config["rate"])
    for trial, config in zip(searcher._study.trials, configs, strict=True):
        assert trial.params == {
            "width": config["width"] // 16 - 1,
            "rate": round(config["rate"] * 10),
            "decay": config["decay"],
        }
        assert "Categorical" not in str(trial.distributions)
