"""Searchers inside a search: slow ones, resuming, what they are told, warm starts."""

from __future__ import annotations

import math
import os
import shutil
import signal
import threading

import pytest

import distsearch as ag
from distsearch.core import store
from distsearch.core.words import Continue, Launch, Pause, Status
from distsearch.errors import SpaceError
from distsearch.scheduler import FIFOScheduler, HyperbandScheduler
from distsearch.searcher import SEARCHERS, RandomSearcher, Searcher, ahead


@ag.args(x=ag.Real(0.0, 1.0), net=ag.Choice("small", ag.Dict(width=ag.Int(1, 9))))
def train_fn(args, reporter):
    for epoch in range(1, 4):
        reporter(epoch=epoch, accuracy=args.x * epoch)


@ag.args(x=ag.Real(0.0, 1.0), net=ag.Choice("small", ag.Dict(width=ag.Int(1, 9))))
def saves(args, reporter):
    reporter.save({"x": args.x})
    reporter(epoch=1, accuracy=args.x)


class Heard(RandomSearcher):
    """Keeps what it was told."""

    def __init__(self, *args, **options):
        super().__init__(*args, **options)
        self.heard = []

    def tell(self, trial_id, config, reward):
        self.heard.append((trial_id, dict(config), reward))


class HeardAtRungs(Heard):
    """Keeps what it was told of rungs, too."""

    def observe(self, trial_id, config, reward, time):
        self.heard.append((trial_id, reward, time))


class SlowAtRungs(HeardAtRungs):
    """The same, in a thread of its own."""

    slow = True


class Slow(Heard):
    """Suggests only in a thread of its own."""

    slow = True

    def suggest(self, trial_id, rng):
        assert threading.current_thread().name == "distsearch-searcher"
        return super().suggest(trial_id, rng)


class InPart(Searcher):
    """Suggests some parameters only."""

    def suggest(self, trial_id, rng):
        return {"x": (trial_id + 1) / 16}


class InPartSlowly(InPart):
    """The same, in a thread of its own."""

    slow = True


class ChildrenInPart(InPart):
    """The same, with a parent."""

    def suggest(self, trial_id, rng):
        config = super().suggest(trial_id, rng)
        return Launch(config, parents=(trial_id - 1,)) if trial_id else config


class ChildrenInPartSlowly(ChildrenInPart):
    """The same, in a thread of its own."""

    slow = True


@pytest.mark.parametrize("make", [InPart, InPartSlowly, ChildrenInPart, ChildrenInPartSlowly])
def test_what_is_suggested_in_part_gets_its_defaults_and_the_search_is_resumed(search, make):
    for number in (3, 5):
        searcher = make(saves.space, points_to_evaluate=[])
        scheduler = search(saves, searcher=searcher, checkpoint="run", resume=True)
        scheduler.run(num_trials=number)
        assert scheduler.join_jobs(timeout=60)
        scheduler.close()
    expected = [{"x": (n + 1) / 16, "net": "small"} for n in range(5)]
    assert [trial.config for trial in scheduler.trials] == expected
    launched = store.read(scheduler.folder, "launched")
    assert [event.body["config"] for event in launched] == expected


@pytest.mark.parametrize("name", ["random", "bohb"])
def test_what_the_user_gives_in_part_gets_its_defaults_and_the_search_is_resumed(search, name):
    for number in (2, 3):
        scheduler = search(
            train_fn,
            searcher=name,
            points_to_evaluate=[{"x": 0.25}, {"net": "dict"}],
            checkpoint="run",
            resume=True,
            seed=1,
            slots=1,
        )
        scheduler.run(num_trials=number)
        assert scheduler.join_jobs(timeout=60)
        if number == 2:
            scheduler.add_job({"x": 0.75})
            assert scheduler.join_jobs(timeout=60)
        scheduler.close()
    configs = [trial.config for trial in scheduler.trials]
    assert configs[0] == {"x": 0.25, "net": "small"}
    assert configs[2] == {"x": 0.75, "net": "small"}
    assert all(train_fn.space.validate(config) == config for config in configs)
    assert len(configs) == 4


@pytest.mark.parametrize("slow", [False, True])
@pytest.mark.parametrize(
    ("suggested", "named"),
    [
        ({"x": 7.0}, "x must be"),
        ({"xx": 0.5}, "no parameter 'xx'"),
        ({"x": 0.5, "net.dict.width": 3}, "'net.dict.width' is not active"),
        (Launch({"x": "much"}), "x must be"),
        (0.5, "must be a mapping"),
    ],
)
def test_a_suggestion_outside_the_space_ends_the_search_and_names_searcher_and_parameter(
    search, suggested, named, slow
):
    class Wild(Searcher):
        def suggest(self, trial_id, rng):
            return suggested

    Wild.slow = slow
    scheduler = search(train_fn, searcher=Wild(train_fn.space, points_to_evaluate=[]))
    scheduler.run(num_trials=4)
    with pytest.raises(SpaceError, match=f"Wild suggested .*{named}"):
        scheduler.join_jobs(timeout=60)
    assert scheduler.trials == []


@pytest.mark.parametrize("slow", [False, True])
def test_a_searcher_over_some_of_the_parameters_leaves_the_others_at_their_defaults(search, slow):
    class OfX(RandomSearcher):
        pass

    OfX.slow = slow
    for number in (3, 5):
        searcher = OfX(ag.Dict(x=ag.Real(0.0, 1.0)), seed=1)
        scheduler = search(train_fn, searcher=searcher, checkpoint="run", resume=True)
        scheduler.run(num_trials=number)
        assert scheduler.join_jobs(timeout=60)
        scheduler.close()
    assert {trial.config["net"] for trial in scheduler.trials} == {"small"}
    assert len({trial.config["x"] for trial in scheduler.trials}) == 5


@pytest.mark.parametrize("name", sorted(set(SEARCHERS) - {"gp"}))
def test_every_searcher_runs_by_its_name_and_is_resumed(search, name):
    for number in (12, 18):
        scheduler = search(train_fn, searcher=name, checkpoint="run", resume=True, seed=1)
        scheduler.run(num_trials=number)
        assert scheduler.join_jobs(timeout=60)
        assert scheduler.num_finished_tasks == number
        scheduler.close()
    started = [event.trial for event in store.read(scheduler.folder, "started")]
    assert sorted(started) == list(range(18))


@pytest.mark.parametrize("name", ["tpe", "bohb"])
def test_a_search_by_hyperband_with_a_model_is_resumed(search, name):
    for number in (12, 20):
        scheduler = search(
            train_fn,
            HyperbandScheduler,
            searcher=name,
            checkpoint="run",
            resume=True,
            max_t=3,
            type="promotion",
        )
        scheduler.run(num_trials=number)
        assert scheduler.join_jobs(timeout=60)
        scheduler.close()
    assert len(scheduler.trials) == 20


@ag.args(x=ag.Real(0.0, 1.0))
def loses(args, reporter):
    for epoch in (2, 4, 9):
        reporter(epoch=epoch, loss=args.x / epoch)


@pytest.mark.parametrize("make", [HeardAtRungs, SlowAtRungs])
@pytest.mark.parametrize("kind", ["stopping", "promotion", "synchronous"])
def test_a_searcher_hears_at_each_rung_what_trials_reached_there_also_when_resumed(
    search, kind, make
):
    def run(number):
        searcher = make(loses.space, seed=1)
        scheduler = search(
            loses,
            HyperbandScheduler,
            searcher=searcher,
            slots=1,
            checkpoint="run",
            resume=True,
            max_t=9,
            grace_period=1,
            type=kind,
            reward_attr="loss",
            mode="min",
        )
        scheduler.run(num_trials=number)
        assert scheduler.join_jobs(timeout=60)
        scheduler.close()
        return searcher.heard, scheduler.training_history

    heard, history = run(9)
    level = {2: 1, 4: 3, 9: math.inf}
    at_rungs = [one for one in heard if not isinstance(one[1], dict)]
    expected = {
        (trial, -report["loss"], level[report["epoch"]])
        for trial, reports in history.items()
        for report in reports
    }
    assert len(at_rungs) == len(set(at_rungs))
    assert set(at_rungs) <= expected
    if make is HeardAtRungs:  # a slow one may not have come to the last ones when it was closed
        assert set(at_rungs) == expected
        assert {time for *_, time in at_rungs} == {1, 3, math.inf}
    again, _ = run(12)
    assert again[: len(heard)] == heard


def test_a_search_waits_for_its_slow_searcher_and_logs_what_each_suggestion_knew(search):
    scheduler = search(train_fn, searcher=Slow(train_fn.space), slots=2)
    scheduler.run(num_trials=8)
    assert scheduler.join_jobs(timeout=60)
    told = [event.body["told"] for event in store.read(scheduler.folder, "launched")]
    assert len(told) == 8
    assert told == sorted(told)
    assert told[-1] >= 4


def test_one_slot_suggests_from_all_results_so_that_the_seed_decides_everything(
    search, monkeypatch
):
    # Beside trials that take no time each suggestion would be worth making ahead.
    monkeypatch.setattr(ahead, "CHEAP", math.inf)

    def run():
        scheduler = search(train_fn, searcher="tpe", slots=1, seed=5)
        scheduler.run(num_trials=14)
        assert scheduler.join_jobs(timeout=60)
        launched = list(store.read(scheduler.folder, "launched"))
        assert [event.body["told"] for event in launched] == list(range(14))
        return scheduler.config_history

    assert run() == run()


def test_a_slow_searcher_that_raises_ends_the_search_with_its_error(search):
    class Broken(Slow):
        def suggest(self, trial_id, rng):
            raise ZeroDivisionError("no idea")

    scheduler = search(train_fn, searcher=Broken(train_fn.space))
    scheduler.run(num_trials=8)
    with pytest.raises(ZeroDivisionError, match="no idea"):
        scheduler.join_jobs(timeout=60)


def test_a_slow_searcher_with_nothing_left_ends_the_search(search):
    @ag.args(n=ag.Int(1, 5))
    def small(args, reporter):
        reporter(accuracy=args.n)

    scheduler = search(small, searcher=Slow(small.space))
    scheduler.run()
    assert scheduler.join_jobs(timeout=60)
    assert sorted(config["n"] for config in scheduler.config_history.values()) == [1, 2, 3, 4, 5]


def test_trials_of_the_user_beside_a_slow_searcher_are_told_under_other_numbers(search):
    searcher = Slow(train_fn.space)
    scheduler = search(train_fn, searcher=searcher, slots=1)
    scheduler.run(num_trials=3)
    assert scheduler.join_jobs(timeout=60)
    scheduler.add_job({"x": 0.625})
    assert scheduler.join_jobs(timeout=60)
    scheduler.run(num_trials=2)
    assert scheduler.join_jobs(timeout=60)
    scheduler.close()
    numbers = {config["x"]: number for number, config, _ in searcher.heard}
    history = scheduler.config_history
    expected = [0, 1, 2, -1, 3, 4]
    got = [numbers.get(history[trial]["x"], expected[trial]) for trial in history]
    assert got == expected


SEARCH = """
import os, sys
import distsearch as ag

@ag.args(x=ag.Real(0.0, 1.0), y=ag.Choice(1, 2, 3), fifo={fifo!r})
def train_fn(args, reporter):
    gate = os.open(args.fifo, os.O_RDONLY)
    os.read(gate, 1)
    os.close(gate)
    reporter(epoch=1, accuracy=args.x)
    print("TRIAL", args.task_id)

if __name__ == "__main__":
    scheduler = ag.scheduler.FIFOScheduler(
        train_fn, local=ag.Node("localhost", num_cpus=2), searcher="tpe", checkpoint="run",
        resume=True, seed=3, search_options=dict(n_startup_trials=3))
    scheduler.run(num_trials=24)
    print("RESUMED", len(scheduler.trials), flush=True)
    scheduler.join_jobs()
    print("DONE", scheduler.num_finished_tasks, flush=True)
"""


def test_a_driver_killed_amid_a_search_by_tpe_goes_on_where_it_was(driver, tmp_path):
    fifo = tmp_path / "gate"
    os.mkfifo(fifo)
    gate = os.open(fifo, os.O_RDWR)  # a trial goes on for each byte
    one = driver(SEARCH.format(fifo=str(fifo)))
    one.words_after("RESUMED")
    os.write(gate, b"." * 12)
    for _ in range(12):
        one.words_after("TRIAL")
    folder = tmp_path / "run"
    one.process.send_signal(signal.SIGKILL)
    one.process.wait(10)
    before = list(store.read(folder))
    other = driver(SEARCH.format(fifo=str(fifo)))
    other.words_after("RESUMED")
    os.write(gate, b"." * 20)
    assert other.words_after("DONE") == ["24"]
    os.close(gate)
    ended = [event.trial for event in store.read(folder, "ended")]
    assert sorted(ended) == list(range(24)), "each trial ended once"
    assert [event.kind for event in before].count("ended") >= 9
    finished_before = {event.trial for event in before if event.kind == "ended"}
    last = before[-1].id
    again = {event.trial for event in store.read(folder, "started") if event.id > last}
    assert not again & finished_before, "nothing that had ended ran again"
    configs = [str(event.body["config"]) for event in store.read(folder, "launched")]
    assert len(configs) == len(set(configs)) == 24


def test_the_searcher_hears_the_best_of_a_paused_trial_and_again_when_it_ends(search):
    class PauseOnce(FIFOScheduler):
        def on_report(self, trial, report):
            return Pause() if report.time == 2 and trial.attempt == 1 else Continue()

        def next_resume(self):
            paused = [trial.id for trial in self.trials if trial.status is Status.PAUSED]
            return paused[0] if paused else None

    searcher = Heard(train_fn.space, points_to_evaluate=[{"x": 0.25}])
    scheduler = search(train_fn, PauseOnce, searcher=searcher, slots=1)
    scheduler.run(num_trials=1)
    assert scheduler.join_jobs(timeout=60)
    assert [(number, reward) for number, _, reward in searcher.heard] == [(0, 0.5), (0, 0.75)]


def test_a_warm_start_is_told_first_kept_in_the_log_and_replayed_without_its_folder(search):
    earlier = search(train_fn, checkpoint="earlier", seed=1)
    earlier.run(num_trials=5)
    assert earlier.join_jobs(timeout=60)
    earlier.close()
    heard = []
    for _ in range(2):
        searcher = Heard(train_fn.space)
        scheduler = search(
            train_fn,
            searcher=searcher,
            checkpoint="later",
            resume=True,
            mode="min",
            evaluated_points=[({"x": 0.5}, 0.25)],
            warm_start="earlier" if earlier.folder.exists() else None,
        )
        heard.append(list(searcher.heard))
        scheduler.close()
        shutil.rmtree(earlier.folder, ignore_errors=True)
    assert heard[0] == heard[1]
    assert [number for number, _, _ in heard[0]] == [-1, -2, -3, -4, -5, -6]
    assert heard[0][0][1:] == ({"x": 0.5, "net": "small"}, -0.25)
    assert {reward for _, _, reward in heard[0][1:]} == {
        -trial.config["x"] for trial in earlier.trials
    }
    assert scheduler.trials == []


def test_what_does_not_fit_is_said_once(search, capsys):
    earlier = search(train_fn, checkpoint="earlier", seed=1)
    earlier.run(num_trials=5)
    assert earlier.join_jobs(timeout=60)
    earlier.close()
    search(train_fn, args={"x": ag.Real(2.0, 3.0)}, warm_start="earlier", verbose=2)
    assert capsys.readouterr().out.count("5 of 5 configurations do not fit") == 1


def test_a_given_result_outside_the_space_is_refused(search):
    with pytest.raises(SpaceError, match="x must be"):
        search(train_fn, evaluated_points=[({"x": 7}, 0.5)])
