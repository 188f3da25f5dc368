"""Several objectives, and constraints, in whole searches."""

from __future__ import annotations

import math
import sqlite3
import time

import pytest

import distsearch as ag
from distsearch.core import store
from distsearch.core.objectives import dominates
from distsearch.core.words import Status
from distsearch.errors import DistsearchError, NothingReported, OptionError, StoreError
from distsearch.scheduler import (
    FIFOScheduler,
    HyperbandScheduler,
    MedianStoppingScheduler,
    PASHAScheduler,
    PBTScheduler,
)
from distsearch.searcher import SEARCHERS, RandomSearcher

BOTH = {"reward_attr": ["accuracy", "latency"], "mode": ["max", "min"]}
WITHIN = {**BOTH, "constraints": "latency <= 20"}


@ag.args(x=ag.Real(0.0, 1.0), n=ag.Int(1, 9))
def train_fn(args, reporter):
    for epoch in range(1, 3):
        reporter(epoch=epoch, accuracy=args.x**0.5 * epoch / 2, latency=30 * args.x + args.n)


@ag.args(n=ag.Choice(*range(6)))
def scripted(args, reporter):
    nan = math.nan
    reports = {
        0: [(0.9, 9), (0.5, 5)],  # the last counts
        1: [(0.7, 4), (0.8, nan)],  # the last that has both
        2: [(0.9, nan), (nan, 1)],  # none has both
        3: [(0.99, 1)],  # fails afterwards
        4: [(0.6, 4)],  # dominated by 1
        5: [(0.4, 3), (0.95, None)],
    }
    for accuracy, latency in reports[args.n]:
        reporter(accuracy=accuracy, latency=latency)
    if args.n == 3:
        raise ValueError("broken")


@ag.args(x=ag.Choice(0.1, 0.2, 0.3, 0.4))
def traded(args, reporter):
    reporter(epoch=1, accuracy=args.x, latency=100 * args.x)


def finished(scheduler, number=None):
    scheduler.run(num_trials=number)
    assert scheduler.join_jobs(timeout=60)
    return scheduler


class Heard(RandomSearcher):
    """Keeps what it was told."""

    several = True

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.heard = []

    def tell(self, trial_id, config, *results):
        self.heard.append((config, *results))


class HeardAll(Heard):
    constrained = True


# The front


def test_the_front_has_the_trials_that_no_other_dominates_with_configurations_and_values(search):
    scheduler = finished(search(scripted, searcher="grid", **BOTH))
    front = scheduler.get_pareto_front()
    assert [member.values for member in front] == [
        {"accuracy": 0.7, "latency": 4},
        {"accuracy": 0.4, "latency": 3},
    ]
    assert [member.config["n"] for member in front] == [1, 5]
    assert [scheduler.trials[member.task_id].config["n"] for member in front] == [1, 5]


def test_the_last_report_with_finite_numbers_for_all_counts_and_without_one_there_is_no_metric(
    search,
):
    scheduler = finished(search(scripted, searcher="grid", **BOTH))
    trials = {trial.config["n"]: trial for trial in scheduler.trials}
    values = {n: trial.point and trial.point.values for n, trial in trials.items()}
    assert values == {0: (0.5, 5), 1: (0.7, 4), 2: None, 3: (0.99, 1), 4: (0.6, 4), 5: (0.4, 3)}
    assert trials[2].status is Status.NO_METRIC
    assert "the last one had accuracy=nan, latency=1" in trials[2].reason
    assert trials[3].status is Status.FAILED


def test_there_is_no_best_and_the_error_says_where_to_look(search):
    scheduler = finished(search(traded, **BOTH), 2)
    for ask in (
        scheduler.get_best_config,
        scheduler.get_best_reward,
        scheduler.get_best_task_id,
    ):
        with pytest.raises(DistsearchError, match=r"accuracy, latency.*get_pareto_front\(\)"):
            ask()


def test_before_any_report_the_front_is_an_error_that_says_so(search):
    with pytest.raises(NothingReported, match="'accuracy' with 'latency'"):
        search(traded, **BOTH).get_pareto_front()


def test_a_running_trial_is_in_the_front_by_what_it_has_reported_so_far(search, mailbox):
    @ag.args(mailbox="", x=ag.Real(0, 1))
    def waits(args, reporter):
        reporter(accuracy=args.x, latency=1)
        with open(args.mailbox, "w") as box:
            print("here", file=box)
        time.sleep(60)

    scheduler = search(waits, args={"mailbox": mailbox.path}, **BOTH)
    scheduler.run(num_trials=1)
    mailbox.take()
    deadline = time.monotonic() + 20
    while not scheduler.trials[0].reports:  # it is on its way
        assert time.monotonic() < deadline
    assert [member.task_id for member in scheduler.get_pareto_front()] == [0]


def test_a_final_training_is_not_in_the_front(search):
    scheduler = finished(search(traded, points_to_evaluate=[{"x": 0.1}], **BOTH), 1)
    scheduler.run_with_config({"x": 0.4})
    assert [member.config for member in scheduler.get_pareto_front()] == [{"x": 0.1}]


def test_with_one_objective_the_front_is_the_best_trial(search):
    scheduler = finished(search(traded, searcher="grid"))
    (member,) = scheduler.get_pareto_front()
    assert member.config == scheduler.get_best_config() == {"x": 0.4}
    assert member.values == {"accuracy": 0.4}


def test_the_picture_of_the_front_is_saved_and_refused_for_one_objective(search, tmp_path):
    scheduler = finished(search(traded, searcher="grid", **BOTH))
    scheduler.draw_pareto_front(tmp_path / "new" / "front.png")
    assert (tmp_path / "new" / "front.png").read_bytes().startswith(b"\x89PNG")
    with pytest.raises(DistsearchError, match="get_training_curves"):
        search(traded).draw_pareto_front("front.png")


def test_training_curves_are_those_of_the_first_objective_or_of_the_one_named(search, tmp_path):
    scheduler = finished(search(traded, searcher="grid", **BOTH))
    task = scheduler.trials[0].id
    x = scheduler.trials[0].config["x"]
    assert scheduler.get_training_curves()[task] == [(1, x)]
    picture = tmp_path / "latency.png"
    data = scheduler.get_training_curves(picture, reward_attr="latency")
    assert data[task] == [(1, 100 * x)]
    assert picture.exists()
    with pytest.raises(OptionError, match="accuracy, latency"):
        scheduler.get_training_curves(reward_attr="speed")


def test_the_end_says_how_large_the_front_is_and_the_log_has_the_values(search, capsys):
    scheduler = finished(search(traded, searcher="grid", verbose=2, **BOTH))
    assert "; 4 trials in the Pareto front of accuracy and latency; " in capsys.readouterr().out
    assert sorted(scheduler.metadata["pareto_front"]) == [0, 1, 2, 3]
    assert scheduler.metadata["reward_attr"] == ["accuracy", "latency"]
    scheduler.close()
    log = sqlite3.connect(scheduler.folder / "events.db")
    found = [row[0] for row in log.execute("select best from trials order by trial")]
    log.close()
    assert found == [f"[{t.config['x']},{100 * t.config['x']}]" for t in scheduler.trials]


# Constraints


def test_the_best_is_the_best_of_those_that_meet_the_constraints(search):
    scheduler = finished(search(traded, searcher="grid", constraints=["latency <= 25"]))
    assert scheduler.get_best_config() == {"x": 0.2}
    assert [trial.point.is_feasible for trial in scheduler.trials] == [True, True, False, False]
    assert all(trial.status is Status.FINISHED for trial in scheduler.trials)


def test_the_front_is_the_front_of_those_that_meet_the_constraints(search):
    limits = ["latency <= 35", "accuracy >= 0.2"]
    scheduler = finished(search(traded, searcher="grid", constraints=limits, **BOTH))
    assert [member.config["x"] for member in scheduler.get_pareto_front()] == [0.3, 0.2]


@pytest.mark.parametrize("several", [False, True])
def test_when_nothing_is_feasible_that_is_said_with_the_closest(search, capsys, several):
    options = BOTH if several else {}
    scheduler = search(traded, searcher="grid", constraints="latency <= 5", verbose=2, **options)
    finished(scheduler)
    ask = scheduler.get_pareto_front if several else scheduler.get_best_config
    with pytest.raises(NothingReported, match=r"violate latency <= 5; the closest, trial 0, by 5"):
        ask()
    assert "with latency <= 5 reported" in capsys.readouterr().out


def test_of_one_trial_the_best_feasible_report_counts(search):
    @ag.args(n=ag.Choice(0))
    def train_fn(args, reporter):
        for accuracy, latency in ((0.5, 10), (0.6, 15), (0.9, 30), (0.7, math.nan)):
            reporter(accuracy=accuracy, latency=latency)

    scheduler = finished(search(train_fn, searcher="grid", constraints="latency <= 20"))
    assert scheduler.get_best_reward() == 0.6


def test_max_reward_is_reached_only_by_a_feasible_trial(search):
    scheduler = search(
        traded, searcher="grid", slots=1, constraints="accuracy <= 0.2", max_reward=0.15
    )
    finished(scheduler)
    assert [trial.config["x"] for trial in scheduler.trials] == [0.1, 0.2]


def test_hyperband_stops_what_violates_a_constraint_at_a_rung(search):
    @ag.args(x=ag.Choice(0.1, 0.2, 0.9))
    def train_fn(args, reporter):
        for epoch in range(1, 4):
            reporter(epoch=epoch, accuracy=args.x, latency=100 * args.x)

    scheduler = search(
        train_fn,
        HyperbandScheduler,
        searcher="grid",
        slots=1,
        max_t=3,
        rung_levels=[1],
        reduction_factor=3,
        constraints="latency <= 50",
    )
    finished(scheduler)
    ended = {trial.config["x"]: trial.status for trial in scheduler.trials}
    assert ended == {0.1: Status.FINISHED, 0.2: Status.FINISHED, 0.9: Status.STOPPED}
    assert scheduler.get_best_config() == {"x": 0.2}


# Who can take them


@pytest.mark.parametrize(
    "rule", [HyperbandScheduler, PASHAScheduler, MedianStoppingScheduler, PBTScheduler]
)
def test_a_rule_that_ranks_by_one_reward_refuses_several_and_says_what_to_do(search, rule):
    options = {} if rule is MedianStoppingScheduler else {"max_t": 9}
    with pytest.raises(OptionError, match=f"{rule.__name__} ranks.*constraints=.*FIFOScheduler"):
        search(train_fn, rule, **BOTH, **options)


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"max_reward": 0.9}, "max_reward=0.9 is for one reward_attr"),
        ({"searcher": "cmaes"}, "CMAESSearcher learns from one reward.*'nsga2'"),
        ({"searcher": "bohb"}, "BOHBSearcher learns from one reward.*'nsga2'"),
        ({"constraints": "latency < 20"}, "as in 'latency <= 20'"),
        ({"evaluated_points": [({"x": 0.5}, 0.7)]}, "give a dict with all of them"),
        ({"evaluated_points": [({"x": 0.5}, {"accuracy": 1})]}, "accuracy, latency"),
    ],
)
def test_what_does_not_go_with_several_objectives_is_refused(search, options, says):
    with pytest.raises(OptionError, match=says):
        search(train_fn, **{**BOTH, **options})


def test_an_own_searcher_that_learns_has_to_say_that_it_takes_several(search):
    class Learns(RandomSearcher):
        def tell(self, trial_id, config, reward):
            self.best = max(self.best, reward)

    with pytest.raises(OptionError, match="Learns learns from one reward, not from 2"):
        search(train_fn, searcher=Learns(train_fn.space), **BOTH)

    class DoesNotLearn(RandomSearcher):
        pass

    scheduler = finished(search(train_fn, searcher=DoesNotLearn(train_fn.space), **BOTH), 3)
    assert scheduler.get_pareto_front()


@pytest.mark.parametrize("name", sorted(set(SEARCHERS) - {"gp", "cmaes", "bohb", "mfgp"}))
def test_every_searcher_is_resumed_and_suggests_what_it_would_have_suggested(
    search, name, monkeypatch
):
    # How much a suggestion made ahead of time knows depends on timing.
    monkeypatch.setattr(SEARCHERS[name], "slow", False)

    def run(folder, *numbers):
        for number in numbers:
            scheduler = search(
                train_fn, searcher=name, checkpoint=folder, resume=True, seed=3, slots=1, **WITHIN
            )
            finished(scheduler, number)
            scheduler.close()
        return scheduler

    through, resumed = run("through", 24), run("resumed", 14, 24)
    assert resumed.config_history == through.config_history
    assert resumed.get_pareto_front() == through.get_pareto_front()
    points = [trial.point for trial in through.trials]
    front = through.get_pareto_front()
    assert len(front) > 1
    assert all(member.values["latency"] <= 20 for member in front)
    for member in front:
        mine = through.trials[member.task_id].point.rewards
        assert not any(dominates(p.rewards, mine) for p in points if p.is_feasible)


def test_a_search_by_a_model_that_works_ahead_is_resumed(search):
    for number in (14, 24):
        scheduler = search(
            train_fn, searcher="tpe", checkpoint="run", resume=True, slots=3, **WITHIN
        )
        finished(scheduler, number)
        scheduler.close()
    assert sorted(event.trial for event in store.read(scheduler.folder, "started")) == list(
        range(24)
    )
    study = scheduler.searcher._study
    assert len(study.directions) == 2
    told = [trial for trial in study.trials if trial.state.name == "COMPLETE"]
    assert all(set(trial.constraints) == {"constraint 0"} for trial in told)
    assert len(told) >= 20


def test_a_searcher_that_cannot_use_constraints_hears_that_the_trial_failed(search):
    heard = {}
    for make in (Heard, HeardAll):
        searcher = make(traded.space, points_to_evaluate=[{"x": x} for x in (0.1, 0.2, 0.3)])
        scheduler = search(traded, searcher=searcher, constraints="latency <= 20", slots=1)
        finished(scheduler, 3)
        heard[make] = [result for _, *result in searcher.heard]
    assert heard[Heard] == [[0.1], [0.2], [None]]
    assert heard[HeardAll] == [[0.1, (-10.0,)], [0.2, (0.0,)], [0.3, (10.0,)]]


def test_known_results_of_several_objectives_are_told_kept_and_replayed(search):
    earlier = finished(search(traded, checkpoint="earlier", searcher="grid", **BOTH))
    earlier.close()
    heard = []
    for _ in range(2):
        searcher = HeardAll(traded.space)
        scheduler = search(
            traded,
            searcher=searcher,
            checkpoint="later",
            resume=True,
            evaluated_points=[
                ({"x": 0.3}, {"accuracy": 0.5, "latency": 7}),
                ({"x": 0.4}, {"accuracy": math.nan, "latency": 7}),
            ],
            warm_start="earlier",
            **WITHIN,
        )
        heard.append(list(searcher.heard))
        scheduler.close()
    assert heard[0] == heard[1]
    assert [result for _, *result in heard[0]] == [
        [(0.5, -7.0), (-13.0,)],
        [None],
        *([(x, -100 * x), (100 * x - 20,)] for x in (0.1, 0.2, 0.3, 0.4)),
    ]


@pytest.mark.parametrize(
    ("changed", "says"),
    [
        ({**BOTH, "mode": "max"}, r"mode: \['max', 'min'\] -> \['max', 'max'\]"),
        ({"reward_attr": "accuracy"}, r"reward_attr: \['accuracy', 'latency'\] -> 'accuracy'"),
        (BOTH, r"constraints: \['latency <= 20'\] -> \[\]"),
    ],
)
def test_other_objectives_are_another_search(search, changed, says):
    scheduler = finished(search(traded, checkpoint="run", **WITHIN), 2)
    state = scheduler.state_dict()
    scheduler.close()
    with pytest.raises(StoreError, match=says):
        search(traded, checkpoint="run", resume=True, **changed)
    with pytest.raises(StoreError, match=says):
        search(traded, **changed).load_state_dict(state)
    again = search(traded, **WITHIN)
    again.load_state_dict(state)
    assert again.get_pareto_front() == scheduler.get_pareto_front()


def test_a_rule_of_ones_own_sees_no_single_reward_but_all_metrics(search):
    class Looks(FIFOScheduler):
        def on_report(self, trial, report):
            seen.append((report.reward, report.metrics["accuracy"], report.metrics["latency"]))
            return super().on_report(trial, report)

    seen = []
    finished(search(traded, Looks, points_to_evaluate=[{"x": 0.2}], **BOTH), 1)
    assert seen == [(None, 0.2, 20)]
