"""Population based training: the rule by hand, exploration, and small real populations."""

from __future__ import annotations

import math
import shutil
import time
from pathlib import Path

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

import distsearch as ag
from distsearch import Choice, Dict, Int, Real
from distsearch.core import checkpoint, store
from distsearch.core.words import Report, Status, Trial
from distsearch.errors import OptionError
from distsearch.resource.cache import inherit
from distsearch.scheduler import PBTScheduler
from distsearch.scheduler.pbt import explore
from distsearch.testing.spaces import spaces

NET = Choice("small", Dict(width=Int(1, 64)), Dict(depth=Int(2, 9)))
MIXED = Dict(lr=Real(1e-4, 1e-1, log=True), layers=Int(1, 8), net=NET, fixed=3)


class Never:
    """Randomness that never draws anew, and takes the first of what there is to choose."""

    def random(self, size=None):
        return 1.0 if size is None else np.full(size, 0.5)

    def integers(self, high):
        return 0


class Always(Never):
    """Randomness that always draws anew."""

    def random(self, size=None):
        return 0.0 if size is None else np.full(size, 0.5)


def test_numbers_are_multiplied_by_a_factor_and_choices_stay():
    config = {"lr": 0.01, "layers": 4, "net": "dict", "net.dict.width": 10}
    found = explore(MIXED, config, Never(), factors=(0.8, 1.2))
    assert found == {"lr": 0.008, "layers": 3, "net": "dict", "net.dict.width": 8}


def test_numbers_are_clipped_to_their_range_and_integers_move_by_one_at_least():
    space = Dict(lr=Real(0.1, 1.0), few=Int(1, 9), many=Int(1, 9))
    found = explore(space, {"lr": 0.11, "few": 1, "many": 2}, Never(), factors=(0.8,))
    assert found == {"lr": 0.1, "few": 1, "many": 1}
    found = explore(space, {"lr": 0.9, "few": 1, "many": 9}, Never(), factors=(1.2,))
    assert found == {"lr": 1.0, "few": 2, "many": 9}


def test_a_resampled_choice_moves_to_another_option_with_new_parameters():
    config = {"lr": 0.01, "layers": 4, "net": "small"}
    found = explore(MIXED, config, Always())
    assert found["net"] == "dict" and 1 <= found["net.dict.width"] <= 64


@given(spaces, st.integers(0, 2**32 - 1), st.floats(0, 1))
def test_what_is_explored_is_inside_the_space(space, seed, probability):
    rng = np.random.default_rng(seed)
    config = space.sample(rng)
    for _ in range(5):
        config = explore(space, config, rng, resample_probability=probability)
        assert space.validate(config) == config


def meet(folder, task_id, members=4, bound_s=30):
    """Let the members of the first generation begin together, however long each took to start."""
    (folder / str(task_id)).touch()
    deadline = time.monotonic() + bound_s
    while len(list(folder.iterdir())) < members:
        assert time.monotonic() < deadline, "the others did not come"
        time.sleep(0.01)


@ag.args(
    lr=Real(0.01, 1.0), end=100, fate=Choice("fine", "raise", "nan", "leave", "unsaved"), folder=""
)
def train_fn(args, reporter):
    """Learns `lr` an epoch; the child of a trial goes on from what that one had learned."""
    state = reporter.load() or {"epoch": 0, "learned": 0.0}
    learned = state["learned"]
    if args.folder and not state["epoch"]:
        meet(Path(args.folder), args.task_id)
    for epoch in range(state["epoch"] + 1, args.end + 1):
        learned += args.lr
        if args.fate == "raise" and epoch == 3:
            raise KeyError("no such key")
        if args.fate == "leave" and epoch == 3:
            return None
        if args.fate != "unsaved":
            reporter.save({"epoch": epoch, "learned": learned})
        reporter(epoch=epoch, accuracy=math.nan if args.fate == "nan" else learned, lr=args.lr)
    return learned


@pytest.fixture
def population(search):
    """A population of four that does not run, told of reports by hand."""
    scheduler = search(train_fn, PBTScheduler, population_size=4, max_t=10, seed=1)
    trials = scheduler.experiment.ledger.trials

    def begin():
        launch = scheduler.next_launch()
        trials[len(trials)] = Trial(
            len(trials), launch.config, launch.parents, Status.RUNNING, saved_step=1
        )

    def report(trial, epoch, reward):
        decision = scheduler.on_report(trials[trial], Report(trial, 1, {}, reward, epoch))
        return decision.word

    scheduler.begin, scheduler.report = begin, report
    for _ in range(4):
        begin()
    return scheduler


def test_the_worst_of_four_is_replaced_by_a_child_of_the_best(population):
    for trial, reward in [(0, 0.5), (1, 0.9), (2, 0.4)]:
        assert population.report(trial, 1, reward) == ("stop" if trial == 2 else "continue")
    child = population.next_launch()
    assert child.parents == (1,)
    assert child.config != population.experiment.ledger.trials[1].config


def test_equally_good_members_are_not_replaced(population):
    assert [population.report(trial, 1, 0.5) for trial in range(4)] == ["continue"] * 4


def test_nan_is_the_worst(population):
    assert population.report(0, 1, 0.1) == "continue"
    assert population.report(1, 1, None) == "stop"


def test_a_member_is_compared_once_an_interval_whatever_epochs_it_reports(population):
    population.perturbation_interval = 3
    population.report(0, 3, 0.9)
    assert population.report(1, 2, 0.1) == "continue"
    assert population.report(1, 4, 0.1) == "stop"


def test_who_has_saved_nothing_is_no_parent(population):
    population.experiment.ledger.trials[0].saved_step = None
    population.report(0, 1, 0.9)
    assert population.report(1, 1, 0.1) == "continue"


def test_a_member_that_has_ended_is_compared_with_no_longer(population):
    population.report(0, 1, 0.9)
    population.experiment.ledger.trials[0].status = Status.FAILED
    population.on_end(population.experiment.ledger.trials[0])
    assert population.report(1, 1, 0.1) == "continue"


def test_a_child_of_one_that_has_reached_max_t_is_not_launched(population):
    population.report(0, 9, 0.9)
    assert population.report(1, 1, 0.1) == "stop"
    assert population.report(0, 10, 0.95) == "continue"
    assert not hasattr(population.next_launch(), "config")


def test_a_line_is_not_replaced_without_end(population):
    """Whatever is reported: a place is compared max_t / interval times at most."""
    population.report(0, 1, 1.0)
    worst, replaced = 1, 0
    while population.report(worst, 2, 0.1) == "stop":
        population.begin()
        worst, replaced = len(population.experiment.ledger.trials) - 1, replaced + 1
    assert replaced == 10


def assert_lineage(scheduler):
    """Every child began with what its parent had learned, and the log says whose child it is."""
    history = scheduler.training_history
    logged = {e.trial: e.body.get("parents", []) for e in store.read(scheduler.folder, "launched")}
    children = [trial for trial in scheduler.trials if trial.parents]
    for trial in scheduler.trials:
        assert list(trial.parents) == logged[trial.id]
    lineage = scheduler.lineage()
    for child in children:
        assert lineage[child.id].inherited == child.parents or child.status is Status.WAITING
        reports = history.get(child.id)
        if not reports:
            continue
        begin = reports[0]["accuracy"] - reports[0]["lr"]
        learned = {round(report["accuracy"], 9) for report in history[child.parents[0]]}
        assert round(begin, 9) in learned
    return children


def test_a_population_learns_more_than_its_first_generation_could(search):
    """On one slot its members take turns, so that the same ones are compared in every run."""
    scheduler = search(
        train_fn,
        PBTScheduler,
        slots=1,
        population_size=4,
        max_t=12,
        args={"end": 12, "fate": "fine"},
        points_to_evaluate=[{"lr": lr} for lr in (0.1, 0.2, 0.3, 0.4)],
        seed=3,
    )
    scheduler.run()
    assert scheduler.join_jobs(timeout=60)
    assert assert_lineage(scheduler) and scheduler.get_best_reward() > 12 * 0.4
    assert_all_ended_well(scheduler)


def test_members_that_train_at_the_same_time_replace_each_other(search, tmp_path):
    """Who is compared with whom depends on how fast each is: that children come does not."""
    scheduler = search(
        train_fn,
        PBTScheduler,
        slots=4,
        population_size=4,
        max_t=12,
        args={"end": 12, "fate": "fine", "folder": str(tmp_path)},
        points_to_evaluate=[{"lr": lr} for lr in (0.1, 0.2, 0.3, 0.4)],
        seed=3,
    )
    scheduler.run()
    assert scheduler.join_jobs(timeout=60)
    assert assert_lineage(scheduler)
    assert_all_ended_well(scheduler)


def assert_all_ended_well(scheduler):
    allowed = {Status.FINISHED, Status.STOPPED, Status.NO_METRIC}
    assert {trial.status for trial in scheduler.trials} <= allowed
    assert max(r["epoch"] for rs in scheduler.training_history.values() for r in rs) == 12


def test_members_that_fail_end_early_or_report_nan_hang_nothing(search):
    fates = ["fine", "raise", "nan", "leave", "unsaved", "fine"]
    scheduler = search(
        train_fn,
        PBTScheduler,
        slots=2,
        population_size=6,
        max_t=8,
        args={"end": 8},
        points_to_evaluate=[{"lr": 0.1 * (n + 1), "fate": fate} for n, fate in enumerate(fates)],
        resample_probability=0.1,
        seed=5,
    )
    scheduler.run()
    assert scheduler.join_jobs(timeout=60)
    assert all(trial.status.is_end for trial in scheduler.trials)
    assert_lineage(scheduler)


def test_a_population_ends_when_the_searcher_has_no_more_members(search):
    scheduler = search(
        train_fn,
        PBTScheduler,
        slots=1,
        population_size=9,
        args={"end": 4, "fate": "fine", "lr": Choice(0.1, 0.2, 0.3)},
        max_t=4,
    )
    scheduler.run()
    assert scheduler.join_jobs(timeout=30)
    assert len([trial for trial in scheduler.trials if not trial.parents]) == 3
    assert all(trial.status.is_end for trial in scheduler.trials)


def test_a_child_takes_the_newest_checkpoint_of_the_first_parent_that_has_one(tmp_path):
    parents = [tmp_path / "1", tmp_path / "2"]
    for step in (4, 5):
        checkpoint.save({"step": step}, parents[1] / "checkpoints", step)
    own = tmp_path / "3" / "checkpoints"
    inherit(own, parents)
    shutil.rmtree(parents[1])
    assert checkpoint.load(own) == {"step": 5}
    checkpoint.save({"step": 6}, own, 6)
    assert checkpoint.load(own) == {"step": 6}


def test_a_child_with_a_checkpoint_of_its_own_or_without_a_source_inherits_nothing(tmp_path):
    checkpoint.save({"step": 9}, tmp_path / "1" / "checkpoints", 9)
    own = tmp_path / "2" / "checkpoints"
    inherit(own, [tmp_path / "7"])
    assert checkpoint.load(own) is None
    checkpoint.save({"step": 1}, own, 1)
    inherit(own, [tmp_path / "1"])
    assert checkpoint.load(own) == {"step": 1}


def test_a_folder_is_inherited_as_a_copy_that_may_be_changed(tmp_path):
    model = tmp_path / "model"
    model.mkdir()
    (model / "manifest.json").write_text("mine")
    checkpoint.save(model, tmp_path / "1" / "checkpoints", 1)
    own = tmp_path / "2" / "checkpoints"
    inherit(own, [tmp_path / "1"])
    (checkpoint.load(own) / "manifest.json").write_text("changed")
    assert (checkpoint.load(tmp_path / "1" / "checkpoints") / "manifest.json").read_text() == "mine"


@pytest.mark.parametrize(
    "wrong",
    [
        {"population_size": 1},
        {"perturbation_interval": 0},
        {"quantile_fraction": 0.6},
        {"resample_probability": 2},
        {"perturbation_factors": ()},
    ],
)
def test_settings_that_make_no_sense_are_refused(search, wrong):
    with pytest.raises(OptionError, match=next(iter(wrong))):
        search(train_fn, PBTScheduler, max_t=4, **wrong)
