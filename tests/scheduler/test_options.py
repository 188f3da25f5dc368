"""Arguments that cannot be are refused before anything starts, by name, with what to give."""

from __future__ import annotations

import math
import sys

import numpy as np
import pytest

import distsearch as ag
from distsearch.errors import DistsearchError, NothingReported, OptionError, SpaceError
from distsearch.scheduler import (
    FIFOScheduler,
    HyperbandScheduler,
    MedianStoppingScheduler,
    PBTScheduler,
)
from distsearch.searcher import Searcher


@ag.args(x=ag.Real(0, 1))
def train_fn(args, reporter):
    reporter(epoch=1, accuracy=args.x)


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("max_reward", math.nan),
        ("max_reward", True),
        ("reward_attr", ""),
        ("time_attr", ""),
        ("max_failures", True),
        ("retries", {"failed": True}),
        ("seed", -1),
        ("seed", True),
        ("checkpoint", ""),
        ("checkpoint", 3),
        ("checkpoint", "a\0b"),
        ("local", "yes"),
        ("tunnel", "yes"),
        ("ssh_config", "no-such-file"),
        ("ssh_config", 3),
        ("training_history_callback_delta_secs", -3),
        ("training_history_callback_delta_secs", "soon"),
        ("points_to_evaluate", 3),
        ("points_to_evaluate", {"x": 0.5}),
        ("evaluated_points", 3),
        ("warm_start", 3),
        ("search_options", 3),
        ("search_options", ["points"]),
        ("search_options", {3: 4}),
    ],
)
def test_an_argument_of_a_scheduler_that_cannot_be_is_named_with_what_to_give(name, value):
    with pytest.raises(DistsearchError, match=r"give|valid are|there is no") as caught:
        FIFOScheduler(train_fn, **{name: value})
    wanted = "searcher" if value == {3: 4} else name.partition("[")[0]
    assert wanted in str(caught.value)


@pytest.mark.parametrize(
    ("rule", "name", "value"),
    [
        (HyperbandScheduler, "brackets", "1"),
        (HyperbandScheduler, "brackets", 1.0),
        (HyperbandScheduler, "brackets", None),
        (HyperbandScheduler, "reduction_factor", "3"),
        (HyperbandScheduler, "reduction_factor", math.inf),
        (HyperbandScheduler, "grace_period", "1"),
        (HyperbandScheduler, "grace_period", True),
        (HyperbandScheduler, "grace_period", 10),  # of max_t=9: it would compare nobody
        (HyperbandScheduler, "rung_levels", 3),
        (HyperbandScheduler, "rung_levels", ["1"]),
        (MedianStoppingScheduler, "grace_period", "1"),
        (MedianStoppingScheduler, "min_samples", 1.5),
        (PBTScheduler, "population_size", "4"),
        (PBTScheduler, "population_size", 4.5),
        (PBTScheduler, "quantile_fraction", "a"),
        (PBTScheduler, "perturbation_interval", None),
        (PBTScheduler, "perturbation_factors", ()),
        (PBTScheduler, "perturbation_factors", ("a",)),
    ],
)
def test_a_setting_of_a_rule_that_cannot_be_is_named(rule, name, value):
    bound = {} if rule is MedianStoppingScheduler else {"max_t": 9}
    with pytest.raises(OptionError, match="rungs|rung_levels" if name == "rung_levels" else name):
        rule(train_fn, **bound, **{name: value})


@pytest.mark.parametrize(
    ("searcher", "options"),
    [("tpe", {"n_startup_trials": "a"}), ("evolution", {"inherit": "yes"})],
)
def test_an_option_of_a_searcher_that_it_would_see_late_or_never_is_refused(searcher, options):
    with pytest.raises(OptionError, match=next(iter(options))):
        FIFOScheduler(train_fn, searcher=searcher, search_options=options)


def test_configurations_timeouts_and_ids_that_cannot_be_are_refused(search):
    scheduler = search(ag.args(x=ag.Real(0, 1), rate=1)(train_fn.__wrapped__))
    for call in (scheduler.add_job, scheduler.run_with_config):
        with pytest.raises(SpaceError, match="a configuration must be a mapping"):
            call("x")
    with pytest.raises(SpaceError, match="kept as JSON"):
        scheduler.run_with_config({"rate": np.ones(2)})
    for timeout in ("a", -1, math.nan):
        with pytest.raises(OptionError, match="timeout"):
            scheduler.join_jobs(timeout=timeout)
    for task_id in (99, -1, "x"):
        with pytest.raises(NothingReported, match="there is no trial"):
            scheduler.load_checkpoint(task_id)
    scheduler.run(num_trials=1)
    assert scheduler.join_jobs(timeout=math.inf)
    assert scheduler.load_checkpoint(0) is None


def test_a_space_inside_a_set_is_not_taken_for_a_constant():
    with pytest.raises(SpaceError, match="a space inside"):
        ag.args(rates={ag.Real(0, 1)})(lambda args, reporter: None)


@pytest.mark.parametrize(
    "function",
    [
        lambda args: None,
        lambda: None,
        lambda args, reporter, more: None,
        lambda args, *, reporter: None,
    ],
)
def test_a_train_function_that_cannot_be_called_as_trials_do_is_refused(function):
    with pytest.raises(OptionError, match=r"a trial calls .*\(args, reporter\), but"):
        FIFOScheduler(ag.args(x=ag.Real(0, 1))(function))


@ag.args(x=ag.Real(0, 1))
def misspells_the_time(args, reporter):
    for epoch in range(9):
        reporter(epochs=epoch + 1, accuracy=args.x)


def test_a_report_without_the_time_by_which_trials_are_compared_is_told_once(capsys, search):
    scheduler = search(misspells_the_time, HyperbandScheduler, max_t=9, num_trials=3, verbose=1)
    scheduler.run()
    assert scheduler.join_jobs()
    said = capsys.readouterr().out
    assert said.count("had no time_attr='epoch', by which trials are compared") == 1
    assert "accuracy, epochs" in said


def test_what_is_asked_of_a_search_that_goes_on_and_comes_too_late_is_said(capsys, search):
    for points, seed, said_of in (([0.1], 1, ()), ([0.1], 1, ()), ([0.2], 2, ("seed=2", "warm_"))):
        known = [({"x": x}, 0.5) for x in points]
        options = {"checkpoint": "same", "seed": seed, "evaluated_points": known, "verbose": 1}
        with search(train_fn, **options):
            said = capsys.readouterr().out
        assert said.count("not used") == len(said_of)
        assert all(what in said for what in said_of)


def helper():
    return 1


@ag.args(x=ag.Real(0, 1))
def calls_the_helper(args, reporter):
    reporter(epoch=1, accuracy=args.x + helper())


def test_a_helper_that_is_defined_anew_after_the_scheduler_was_made_is_said(
    capsys, search, monkeypatch
):
    scheduler, old = search(calls_the_helper, verbose=1), helper
    for new in (old, lambda: 2):
        monkeypatch.setattr(sys.modules[__name__], "helper", new)
        scheduler.run(num_trials=1)
        assert scheduler.join_jobs()
        assert ("make a new scheduler" in capsys.readouterr().out) == (new is not old)


def test_a_searcher_that_was_not_begun_as_all_are_is_told_how():
    class Own(Searcher):
        def __init__(self):
            pass

    with pytest.raises(OptionError, match=r"Own.__init__ has to call super\(\).__init__\(space"):
        FIFOScheduler(train_fn, searcher=Own())
