"""The user's face of a search: FIFOScheduler, all of its interface on local slots."""

from __future__ import annotations

import argparse
import dataclasses
import enum
import io
import json
import math
import os
import pickle
import re
import sqlite3
import subprocess
import sys
import threading
import time
from contextlib import redirect_stdout
from pathlib import Path
from statistics import median
from typing import NamedTuple

import numpy as np
import pytest

import distsearch as ag
from distsearch import Node
from distsearch.core.store import read
from distsearch.core.words import Continue, Launch, Status, Stop
from distsearch.errors import (
    DistsearchError,
    NodeError,
    NothingReported,
    OptionError,
    ResourceError,
    SpaceError,
    StoreError,
    StoreLocked,
    TrialFailed,
)
from distsearch.scheduler import FIFOScheduler
from distsearch.searcher import RandomSearcher, Searcher


@ag.args(x=ag.Real(0.0, 1.0))
def identity(args, reporter):
    reporter(epoch=1, accuracy=args.x)
    return {"x": args.x, "task": args.task_id}


@ag.args(rewards=ag.Choice((0.1, 0.7, 0.3), (0.2, math.nan), (math.nan,), (math.nan, 0.6)))
def several(args, reporter):
    for epoch, value in enumerate(args.rewards):
        reporter(epoch=epoch + 1, accuracy=value)


@ag.args(mailbox="", seconds=60.0, x=ag.Real(0.0, 1.0))
def sleeper(args, reporter):
    reporter(epoch=1, accuracy=args.x)
    with open(args.mailbox, "w") as mailbox:
        print(args.task_id, file=mailbox)
    time.sleep(args.seconds)


def by_status(scheduler):
    return [trial.status for trial in scheduler.trials]


# The example, and what it shows


def test_the_example_of_the_interface_runs_word_for_word(tmp_path):
    """As on the page, but for the time that its trials sleep, and for a node of its own."""
    script = """
@ag.args(batch_size=64, lr=ag.Real(1e-4, 1e-1, log=True), momentum=0.9, wd=ag.Real(1e-4, 5e-4))
def train_fn(args, reporter):
    print('task_id: {}, lr: {}'.format(args.task_id, args.lr))
    for e in range(10):
        top1_accuracy = 1 - np.power(1.8, -np.random.uniform(e, 2 * e))
        reporter(epoch=e + 1, accuracy=top1_accuracy)
    time.sleep(0.01)

scheduler = ag.scheduler.FIFOScheduler(train_fn, resource={'num_cpus': 2, 'num_gpus': 0},
                                       local=ag.Node('localhost', num_cpus=8))
print(scheduler)
scheduler.run(num_trials=20)
scheduler.join_jobs()
scheduler.get_training_curves()
"""
    names = {"time": time, "np": np, "ag": ag, "__name__": "__main__"}
    with redirect_stdout(io.StringIO()) as printed:
        exec(script, names)
    scheduler = names["scheduler"]
    try:
        printed = printed.getvalue()
        shown = re.findall(r"^task_id: (\d+), lr: ([\d.e-]+)$", printed, re.MULTILINE)
        assert sorted(int(task) for task, _ in shown) == list(range(20))
        assert {int(t): float(lr) for t, lr in shown} == {
            t: config["lr"] for t, config in scheduler.config_history.items()
        }
        curves = scheduler.get_training_curves()
        assert sorted(curves) == list(range(20))
        assert all([at for at, _ in curve] == list(range(1, 11)) for curve in curves.values())
        assert scheduler.num_finished_tasks == 20
        # forked trials must not all draw the same numbers
        assert len({curve[-1] for curve in curves.values()}) > 15
    finally:
        scheduler.close()


def test_repr_shows_every_node_with_its_slots(search):
    scheduler = search(identity, local=Node("localhost", num_cpus=8, num_gpus=0, memory_gb=64.39))
    assert re.fullmatch(
        r"FIFOScheduler\(\n"
        r"DistributedResourceManager\{\n"
        r"\(Remote: Remote REMOTE_ID: 0,\n"
        r"\t<Remote: '\S+' processes=1 threads=8, memory=64\.39 GB>, "
        r"Resource: NodeResourceManager\(8 CPUs, 0 GPUs\)\)\n"
        r"\}\)",
        repr(scheduler),
    )


def test_the_train_function_gets_its_arguments_its_slots_and_its_number(search):
    @ag.args(x=ag.Real(0.0, 1.0), net=ag.Dict(width=ag.Choice(8, 16)), name="toy")
    def train_fn(args, reporter):
        reporter(
            accuracy=args.x,
            seen=[args.task_id, args.num_cpus, args.num_gpus, args.gpu_ids, args["name"]],
            width=args.net.width + args["net"]["width"],
        )

    scheduler = search(train_fn, resource={"num_cpus": 2}, num_trials=3)
    scheduler.run()
    scheduler.join_jobs()
    for task, reports in scheduler.training_history.items():
        assert reports[0]["seen"] == [task, 2, 0, [], "toy"]
        assert reports[0]["width"] in (16, 32)


def test_what_a_local_trial_prints_appears_without_a_prefix(search, capfd):
    @ag.args(x=ag.Real(0.0, 1.0))
    def prints(args, reporter):
        import os

        print("printed")
        os.system("echo from a grandchild")
        reporter(accuracy=1)

    scheduler = search(prints, verbose=2)
    scheduler.run(num_trials=1)
    scheduler.join_jobs()
    scheduler.close()
    lines = capfd.readouterr().out.splitlines()
    assert "printed" in lines
    assert "from a grandchild" in lines


def test_trials_that_will_not_come_are_not_said_to_be_waiting(search, capfd):
    @ag.args(x=ag.Choice(10, 20))
    def train_fn(args, reporter):
        reporter(accuracy=args.x)

    scheduler = search(train_fn, searcher="grid", num_trials=5, verbose=2)
    scheduler.run()
    scheduler.join_jobs()
    (last,) = [line for line in capfd.readouterr().out.splitlines() if " trials in " in line]
    assert last.startswith("2 trials in ") and "2 done" in last
    assert "waiting" not in last


@ag.args(x=ag.Real(0.0, 1.0))
def fails_and_prints(args, reporter):
    print(f"printed by {args.task_id}\nand more")
    raise ValueError("no")


@pytest.mark.parametrize("verbose", [1, 2, True])
def test_verbose_1_shows_failures_and_2_what_trials_print_too(search, capfd, verbose):
    scheduler = search(fails_and_prints, verbose=verbose)
    scheduler.run(num_trials=2)
    scheduler.join_jobs()
    said = capfd.readouterr().out
    assert re.search("trial [01] failed: ValueError: no", said) and "2 failed" in said
    assert ("printed by 1" in said) == (verbose == 2 or verbose is True)


def test_each_line_that_a_trial_prints_may_say_which_trial_it_is(search, capfd):
    scheduler = search(fails_and_prints, verbose=2, label_output=True)
    scheduler.run(num_trials=2)
    scheduler.join_jobs()
    said = capfd.readouterr().out.splitlines()
    for number in range(2):
        assert f"[trial {number}] printed by {number}" in said
        assert f"[trial {number}] and more" in said


def test_verbose_0_prints_nothing(search, capfd):
    scheduler = search(fails_and_prints)
    scheduler.run(num_trials=2)
    scheduler.join_jobs()
    scheduler.close()
    assert capfd.readouterr() == ("", "")


# How much, how long


def test_num_trials_may_come_in_the_constructor_or_in_run(search):
    scheduler = search(identity, num_trials=3)
    scheduler.run()
    assert scheduler.join_jobs() is True
    assert scheduler.num_finished_tasks == 3
    other = search(identity, num_trials=3)
    other.run(num_trials=2)
    other.join_jobs()
    assert other.num_finished_tasks == 2


def test_run_again_after_the_end_goes_on_with_more_trials(search):
    scheduler = search(identity)
    scheduler.run(num_trials=2)
    scheduler.join_jobs()
    scheduler.run(num_trials=3)
    scheduler.join_jobs()
    assert [trial.id for trial in scheduler.trials] == [0, 1, 2, 3, 4]
    assert set(by_status(scheduler)) == {Status.FINISHED}
    assert len({config["x"] for config in scheduler.config_history.values()}) == 5


@pytest.mark.parametrize("where", ["constructor", "run"])
def test_time_out_stops_running_trials_promptly(search, mailbox, where):
    options = {"time_out": 2.0}
    scheduler = search(
        sleeper, args={"mailbox": mailbox.path}, slots=2, **(options if where != "run" else {})
    )
    started = time.monotonic()
    scheduler.run(**(options if where == "run" else {}))
    assert scheduler.join_jobs(timeout=20) is True
    assert 2.0 <= time.monotonic() - started < 20
    assert by_status(scheduler) == [Status.STOPPED, Status.STOPPED]
    assert all("time_out=2 s" in trial.reason for trial in scheduler.trials)
    assert len(scheduler.training_history) == 2, "what they had reported is kept"


def test_join_jobs_with_a_timeout_is_total_and_says_what_is_left(search, mailbox, capfd):
    scheduler = search(sleeper, args={"mailbox": mailbox.path}, slots=2, verbose=2)
    scheduler.run(num_trials=40)
    mailbox.take(), mailbox.take()
    started = time.monotonic()
    assert scheduler.join_jobs(timeout=0.5) is False
    assert 0.5 <= time.monotonic() - started < 15, "not for each trial"
    scheduler.close()
    said = capfd.readouterr().out
    assert "after join_jobs(timeout=0.5): 2 trials running (0, 1), 38 not started" in said


def test_join_jobs_before_run_returns_at_once(search):
    assert search(identity).join_jobs(timeout=5) is True


def test_a_search_that_would_never_end_is_refused(search):
    with pytest.raises(ResourceError, match="num_trials=, time_out= or max_reward="):
        search(identity).run()


@pytest.mark.parametrize(
    "searcher", ["random", "evolution", "mfgp", "bohb", "tpe", "lanas", "lamcts", "auto"]
)
def test_searchers_that_never_end_are_refused_without_a_bound(search, searcher):
    with pytest.raises(ResourceError, match="num_trials="):
        search(identity, searcher=searcher).run()


class Three(Searcher):
    """Ends after three suggestions."""

    def suggest(self, trial_id, rng):
        return self.space.sample(rng) if trial_id < 3 else None


class ThreeLaunches(FIFOScheduler):
    """A rule that ends after three launches."""

    def next_launch(self):
        return super().next_launch() if len(self.ledger.trials) < 3 else None


@pytest.mark.parametrize(
    ("options", "count"),
    [
        ({"searcher": "grid"}, 5),
        ({"searcher": Three(identity.space)}, 3),
        ({"scheduler": ThreeLaunches}, 3),
    ],
)
def test_a_search_that_ends_by_itself_needs_no_bound_and_says_why_it_ended(
    search, capfd, options, count
):
    scheduler = search(identity, verbose=2, **options)
    scheduler.run()
    assert scheduler.join_jobs(timeout=30) is True
    assert len(scheduler.trials) == count
    assert f"there are no more configurations to try ({count})" in capfd.readouterr().out


def test_the_summary_says_which_bound_has_ended_the_search(search, capfd):
    scheduler = search(identity, searcher="grid", verbose=2)
    scheduler.run(num_trials=2)
    scheduler.join_jobs()
    assert "; num_trials=2 are launched\n" in capfd.readouterr().out
    scheduler.run(num_trials=9)
    scheduler.join_jobs()
    said = capfd.readouterr().out
    assert "; there are no more configurations to try (3 of num_trials=9)\n" in said


def test_a_finite_space_ends_by_itself(search):
    @ag.args(a=ag.Choice(1, 2), b=ag.Bool())
    def train_fn(args, reporter):
        reporter(accuracy=args.a)

    scheduler = search(train_fn)
    scheduler.run()
    assert scheduler.join_jobs(timeout=20) is True
    seen = {json.dumps(config, sort_keys=True) for config in scheduler.config_history.values()}
    assert len(seen) == scheduler.num_finished_tasks == 4


# Rewards: what is best


@pytest.mark.parametrize(("mode", "goal"), [("max", 0.9), ("min", 0.1)])
def test_max_reward_ends_the_search_when_a_trial_reaches_it(search, mode, goal):
    points = [{"x": 0.5}, {"x": 1 - goal}, {"x": goal}]
    scheduler = search(identity, slots=1, max_reward=goal, mode=mode, points_to_evaluate=points)
    scheduler.run()
    assert scheduler.join_jobs(timeout=20) is True
    assert scheduler.num_finished_tasks == 3
    assert scheduler.get_best_task_id() == 2
    assert scheduler.get_best_reward() == goal


def test_run_with_config_still_works_after_max_reward_was_reached(search):
    @ag.args(x=ag.Real(0.0, 1.0))
    def train_fn(args, reporter):
        for epoch in range(5):
            reporter(epoch=epoch + 1, accuracy=args.x)
            time.sleep(0.02)
        return "trained to the end"

    scheduler = search(train_fn, max_reward=0.4, points_to_evaluate=[{"x": 0.4}])
    scheduler.run()
    scheduler.join_jobs(timeout=20)
    assert scheduler.run_with_config(scheduler.get_best_config()) == "trained to the end"
    assert scheduler.trials[-1].furthest == 5


def test_the_best_is_the_best_report_of_any_trial_and_nan_never_wins(search):
    scheduler = search(several, searcher="grid")
    scheduler.run()
    scheduler.join_jobs()
    assert [trial.best_reward for trial in scheduler.trials] == [0.7, 0.2, None, 0.6]
    assert scheduler.get_best_reward() == 0.7
    assert scheduler.get_best_task_id() == 0
    assert scheduler.get_best_config() == scheduler.config_history[0]
    assert scheduler.trials[2].status is Status.NO_METRIC


def test_mode_min_takes_the_smallest_and_nan_never_wins(search):
    scheduler = search(several, searcher="grid", mode="min")
    scheduler.run()
    scheduler.join_jobs()
    assert [trial.best_reward for trial in scheduler.trials] == [0.1, 0.2, None, 0.6]
    assert (scheduler.get_best_task_id(), scheduler.get_best_reward()) == (0, 0.1)


def test_another_reward_and_time_can_be_named(search):
    @ag.args(x=ag.Real(0.0, 1.0))
    def train_fn(args, reporter):
        for step in (10, 20):
            reporter(step=step, loss=args.x / step)

    scheduler = search(train_fn, reward_attr="loss", time_attr="step", mode="min")
    scheduler.run(num_trials=3)
    scheduler.join_jobs()
    best = scheduler.get_best_task_id()
    assert scheduler.get_best_reward() == min(t.best_reward for t in scheduler.trials)
    x = scheduler.config_history[best]["x"]
    assert scheduler.get_training_curves()[best] == [(10, x / 10), (20, x / 20)]


def test_the_best_before_any_report_is_an_error_that_says_so(search):
    scheduler = search(identity)
    for ask in (scheduler.get_best_config, scheduler.get_best_reward, scheduler.get_best_task_id):
        with pytest.raises(NothingReported, match="no trial has reported 'accuracy' yet"):
            ask()
    assert scheduler.training_history == {}
    assert scheduler.get_training_curves() == {}


def test_the_best_of_failed_trials_is_an_error_that_says_why(search):
    @ag.args(x=ag.Real(0.0, 1.0))
    def train_fn(args, reporter):
        raise RuntimeError("no data here")

    scheduler = search(train_fn)
    scheduler.run(num_trials=3)
    scheduler.join_jobs()
    with pytest.raises(NothingReported, match="3 trials failed: RuntimeError: no data here"):
        scheduler.get_best_config()


# Configurations


def test_the_first_trial_is_the_default_configuration(search):
    @ag.args(lr=ag.Real(1e-4, 1e-2, log=True), width=ag.Int(2, 10, default=3), kind=ag.Choice("a"))
    def train_fn(args, reporter):
        reporter(accuracy=1)

    scheduler = search(train_fn)
    scheduler.run(num_trials=1)
    scheduler.join_jobs()
    assert scheduler.config_history[0] == {"lr": pytest.approx(1e-3), "width": 3, "kind": "a"}


def test_points_to_evaluate_come_first_in_their_order(search):
    points = [{"x": 0.25}, {}, {"x": 0.75}]
    scheduler = search(identity, points_to_evaluate=points)
    scheduler.run(num_trials=4)
    scheduler.join_jobs()
    xs = [config["x"] for config in scheduler.config_history.values()]
    assert xs[:3] == [0.25, 0.5, 0.75]
    assert xs[3] not in xs[:3]


def test_the_same_seed_suggests_the_same_configurations(search):
    def configs(seed):
        scheduler = search(identity, seed=seed)
        scheduler.run(num_trials=6)
        scheduler.join_jobs()
        return scheduler.config_history

    assert configs(7) == configs(7)
    assert configs(7) != configs(8)


def test_args_replaces_values_and_spaces_of_the_decorator(search):
    @ag.args(x=ag.Real(0.0, 1.0), y=1)
    def train_fn(args, reporter):
        reporter(accuracy=args.x + args.y)

    scheduler = search(train_fn, args={"x": 0.5, "y": ag.Choice(10, 20)}, searcher="grid")
    scheduler.run()
    scheduler.join_jobs()
    assert sorted(t.best_reward for t in scheduler.trials) == [10.5, 20.5]
    assert train_fn.args.y == 1, "the decorated function itself is not changed"


def test_a_searcher_of_ones_own_is_asked_and_told(search):
    class Recording(RandomSearcher):
        def tell(self, trial_id, config, reward):
            told[trial_id] = (config["x"], reward)

    told = {}
    scheduler = search(identity, searcher=Recording(identity.space, seed=1), mode="min")
    scheduler.run(num_trials=3)
    scheduler.join_jobs()
    assert told == {t: (c["x"], -c["x"]) for t, c in scheduler.config_history.items()}


def test_run_with_config_returns_what_the_function_returned(search):
    scheduler = search(identity)
    assert scheduler.run_with_config({"x": 0.25}) == {"x": 0.25, "task": 0}
    scheduler.run(num_trials=2)
    scheduler.join_jobs()
    best = scheduler.get_best_config()
    assert scheduler.run_with_config(best)["x"] == best["x"]
    assert scheduler.num_finished_tasks == 2


@ag.args(x=ag.Real(0.0, 1.0))
def returns_what_is_called_a_secret(args, reporter):
    reporter(accuracy=args.x)
    return {"token": "the", "counts": [{"token": "a", "cookie": "oat"}], "at": "http://h/?token=t"}


def test_what_is_called_a_secret_comes_back_from_a_final_run_and_is_not_in_the_log(search):
    scheduler = search(returns_what_is_called_a_secret)
    returned = scheduler.run_with_config({"x": 0.5})
    assert returned["token"] == "the" and returned["at"] == "http://h/?token=t"
    assert returned["counts"] == [{"token": "a", "cookie": "oat"}]
    (ended,) = (event.body for event in read(scheduler.folder, "ended"))
    assert ended["returned"]["counts"] == [{"token": "(a secret)", "cookie": "(a secret)"}]


@pytest.mark.parametrize("reuse", [False, True])
def test_what_is_no_json_comes_back_from_a_final_run_as_it_was(search, reuse):
    torch = pytest.importorskip("torch")

    @ag.args(x=ag.Real(0.0, 1.0))
    def train_fn(args, reporter):
        import torch

        reporter(accuracy=args.x)
        probabilities = np.arange(200_000.0).reshape(2, -1)
        return {
            "array": probabilities,
            "one": np.array([args.x]),
            "tensor": torch.tensor([1.0, args.x], dtype=torch.bfloat16),
            "bytes": b"\x00\xff",
            "tuple": (1, math.nan, math.inf),
            7: "seven",
            "long": [0.5] * 50_000,
        }

    scheduler = search(train_fn, isolation="reuse" if reuse else "fresh")
    found = scheduler.run_with_config({"x": 0.25})
    assert list(found) == ["array", "one", "tensor", "bytes", "tuple", 7, "long"]
    assert np.array_equal(found["array"], np.arange(200_000.0).reshape(2, -1))
    assert found["one"].tolist() == [0.25]
    assert torch.equal(found["tensor"], torch.tensor([1.0, 0.25], dtype=torch.bfloat16))
    assert found["bytes"] == b"\x00\xff" and found[7] == "seven"
    assert repr(found["tuple"]) == "(1, nan, inf)" and found["long"] == [0.5] * 50_000
    assert scheduler.run_with_config({"x": 0.5})["one"].tolist() == [0.5]


def test_what_only_pickle_could_bring_back_is_text_and_a_warning_names_it(search):
    @ag.args(x=ag.Real(0.0, 1.0))
    def train_fn(args, reporter):
        reporter(accuracy=args.x)
        return {"score": np.float64(args.x), "models": [Path("a"), np.ones(2)]}

    scheduler = search(train_fn)
    with pytest.warns(RuntimeWarning, match=r"\['models'\]\[0\] is a PosixPath.*reporter.save"):
        found = scheduler.run_with_config({"x": 0.25})
    assert found["score"] == 0.25 and found["models"][0] == "PosixPath('a')"
    assert found["models"][1].tolist() == [1, 1]


def test_what_a_trial_gives_back_keeps_the_fields_of_its_class_and_a_warning_names_it(search):
    class Losses(NamedTuple):
        train: float
        valid: float

    @dataclasses.dataclass
    class Score:
        losses: Losses
        api_key: str = "k3y"

    class Size(enum.IntEnum):
        LARGE = 2

    class Colour(str, enum.Enum):
        RED = "red"

    @ag.args(x=ag.Real(0.0, 1.0))
    def train_fn(args, reporter):
        score = Score(Losses(0.5, 0.25))
        reporter(accuracy=args.x, score=score, pair=[score.losses])
        return {
            "score": score,
            "size": Size.LARGE,
            "in": Colour.RED,
            "plain": {"x": [np.float64(args.x)]},
        }

    scheduler = search(train_fn)
    scheduler.run(num_trials=1)
    scheduler.join_jobs()
    losses = {"train": 0.5, "valid": 0.25}
    report = scheduler.training_history[0][0]
    assert report["score"] == {"losses": losses, "api_key": "(a secret)"}
    assert report["pair"] == [losses]
    with pytest.warns(RuntimeWarning) as warned:
        found = scheduler.run_with_config({"x": 0.25})
    assert found["score"] == {"losses": (0.5, 0.25), "api_key": "k3y"}
    assert found["size"] == 2 and found["in"] == "red" and found["plain"] == {"x": [0.25]}
    text = str(warned[0].message)
    assert re.search(r"\['score'\] is a .*Score \(.*comes back as the dict of its fields", text)
    assert re.search(r"\['losses'\] is a .*Losses \(.*comes back as a plain tuple", text)
    assert re.search(r"\['size'\] is a .*Size \(.*comes back as a plain int", text)
    assert "plain'" not in text


def test_what_cannot_be_kept_of_what_a_final_run_returns_does_not_fail_it(search):
    pytest.importorskip("torch")

    class Mute:
        def __repr__(self):
            raise RuntimeError

    @ag.args(x=ag.Real(0.0, 1.0), kind=ag.Choice("circle", "sparse", "mute"))
    def train_fn(args, reporter):
        import torch

        reporter(accuracy=args.x)
        circle = {}
        circle["self"] = circle
        return {"circle": circle, "sparse": torch.eye(2).to_sparse(), "mute": Mute()}[args.kind]

    scheduler = search(train_fn)
    for number, kind in enumerate(("circle", "sparse", "mute")):
        with pytest.warns(RuntimeWarning, match="comes back as its text"):
            scheduler.run_with_config({"x": 0.25, "kind": kind})
        assert scheduler.trials[number].status is Status.FINISHED


def test_a_file_that_a_trial_has_saved_is_given_back_by_load_checkpoint(search, tmp_path):
    @ag.args(x=ag.Real(0.0, 1.0))
    def train_fn(args, reporter):
        before = reporter.load()
        assert before is None or before.read_bytes() == b"a model"
        model = reporter.folder / "model.bin"
        model.write_bytes(b"a model")
        reporter.save(model)
        reporter(accuracy=args.x)

    scheduler = search(train_fn)
    scheduler.run(num_trials=1)
    scheduler.join_jobs()
    assert scheduler.trials[0].status is Status.FINISHED
    assert scheduler.load_checkpoint().read_bytes() == b"a model"
    assert scheduler.load_checkpoint().name == "model.bin"


def test_a_final_run_is_in_no_result_of_the_search_and_sql_says_which_it_is(search, tmp_path):
    scheduler = search(identity, searcher="grid", checkpoint="named")
    scheduler.run(num_trials=2)
    scheduler.join_jobs()
    scheduler.run_with_config({"x": 0.99})
    found = [scheduler, ag.open(tmp_path / "named")]
    for results in found:
        histories = (results.training_history, results.config_history, results.lineage())
        assert [list(one) for one in (*histories, results.get_training_curves())] == [[0, 1]] * 4
        assert results.metadata["num_trials"] == results.num_finished_tasks == 2
        assert [trial.is_final for trial in results.trials] == [False, False, True]
        assert list(results.dataframe()["is_final"]) == [False, False, True]
    assert "2 trials (2 finished), 1 by run_with_config" in repr(found[1])
    scheduler.close()
    with sqlite3.connect(tmp_path / "named/events.db") as connection:
        query = "select trial, is_final from trials order by trial"
        assert list(connection.execute(query)) == [(0, 0), (1, 0), (2, 1)]
    with search(identity, searcher="grid", checkpoint="named") as again:
        again.run(num_trials=3)
        again.join_jobs()
        assert list(again.config_history) == [0, 1, 3]


def test_a_searcher_and_a_warm_start_do_not_hear_of_a_final_run(search):
    class Hears(RandomSearcher):
        def tell(self, trial_id, config, reward, *more):
            told.append(config["x"])

    told = []
    with search(identity, searcher=Hears(identity.space), checkpoint="named") as scheduler:
        scheduler.run(num_trials=1)
        scheduler.join_jobs()
        scheduler.run_with_config({"x": 0.99})
        own = list(scheduler.config_history.values())
    assert told == [config["x"] for config in own]
    told.clear()
    search(identity, searcher=Hears(identity.space), warm_start="named")
    assert told == [config["x"] for config in own]


def test_run_with_config_raises_with_the_traceback_when_the_trial_fails(search):
    @ag.args(x=ag.Real(0.0, 1.0))
    def train_fn(args, reporter):
        raise KeyError("nowhere")

    with pytest.raises(TrialFailed, match=r"(?s)trial 0 failed: KeyError: 'nowhere'.*in train_fn"):
        search(train_fn).run_with_config({"x": 0.1})


def test_run_with_config_that_is_cut_off_by_the_end_of_the_search_raises(search, mailbox):
    scheduler = search(sleeper, args={"mailbox": mailbox.path}, slots=1)
    scheduler.run(time_out=1)
    mailbox.take()
    with pytest.raises(TrialFailed, match="time_out=1 s is over"):
        scheduler.run_with_config({"x": 0.5})  # which waits for the one slot


def test_add_job_runs_one_more_configuration_before_the_next_suggestion(search, mailbox):
    scheduler = search(sleeper, args={"mailbox": mailbox.path, "seconds": 0.2}, slots=1)
    scheduler.run(num_trials=2)
    assert mailbox.take() == "0"
    added = scheduler.add_job({"x": 0.123})
    assert mailbox.take() == str(added)
    scheduler.join_jobs()
    assert scheduler.config_history[added] == {"x": 0.123}
    assert scheduler.num_finished_tasks == 3


def test_add_job_after_the_end_runs_just_that_one(search):
    scheduler = search(identity, max_reward=0.5)
    scheduler.run(num_trials=10)
    scheduler.join_jobs()
    before = scheduler.num_finished_tasks
    added = scheduler.add_job({"x": 0.9})
    assert scheduler.join_jobs(timeout=20) is True
    assert scheduler.num_finished_tasks == before + 1
    assert scheduler.trials[added].status is Status.FINISHED


@pytest.mark.parametrize("call", ["add_job", "run_with_config"])
def test_a_configuration_that_is_not_of_the_space_is_refused(search, call):
    scheduler = search(identity)
    with pytest.raises(SpaceError, match="y"):
        getattr(scheduler, call)({"x": 0.5, "y": 1})
    with pytest.raises(SpaceError, match="x"):
        getattr(scheduler, call)({"x": 7.0})
    assert scheduler.trials == []


# What was asked is what is done


@ag.args(kind=ag.Choice("float", "numpy", "list", "bool", "nan", "reports"))
def returns_its_reward(args, reporter):
    if args.kind == "reports":
        reporter(epoch=1, accuracy=0.25)
    values = {"float": 0.5, "numpy": np.float32(0.75), "list": [0.9], "bool": True}
    return {**values, "nan": math.nan, "reports": 7}[args.kind]


def test_one_number_that_is_returned_is_the_reward_of_a_trial_that_never_reported(search):
    scheduler = search(returns_its_reward, searcher="grid", reward_attr="accuracy")
    scheduler.run()
    assert scheduler.join_jobs(timeout=30)
    found = {one.config["kind"]: (one.status.value, one.best_reward) for one in scheduler.trials}
    assert found == {
        "float": ("finished", 0.5),
        "numpy": ("finished", 0.75),
        "list": ("no_metric", None),
        "bool": ("no_metric", None),
        "nan": ("no_metric", None),
        "reports": ("finished", 0.25),
    }
    reasons = {one.config["kind"]: one.reason for one in scheduler.trials}
    assert "accuracy=...), and returned no number" in reasons["list"]
    assert "accuracy was never a number (the last report had nan)" in reasons["nan"]
    assert scheduler.run_with_config({"kind": "float"}) == 0.5


@ag.args(x=ag.Real(0.0, 1.0), name="acc")
def reports_another_name(args, reporter):
    for epoch in range(3):
        reporter(**{"epoch": epoch + 1, args.name: args.x})


def test_the_first_report_without_the_reward_is_told_at_once_and_once(search, capsys):
    scheduler = search(reports_another_name, slots=1, verbose=2)
    scheduler.run(num_trials=2)
    assert scheduler.join_jobs(timeout=30)
    said = capsys.readouterr().out
    warning = "warning: trial 0: no report had reward_attr='accuracy'; the last one had acc, epoch"
    assert said.count("warning:") == said.count(warning) == 1
    assert said.index(warning) < said.index("no_metric")


def test_a_report_with_the_reward_is_no_reason_to_warn_not_even_nan(search, capsys):
    for options in ({"args": {"name": "accuracy"}}, {"args": {"x": math.nan, "name": "accuracy"}}):
        scheduler = search(reports_another_name, slots=1, verbose=2, **options)
        scheduler.run(num_trials=1)
        assert scheduler.join_jobs(timeout=30)
    assert "warning:" not in capsys.readouterr().out


def with_epochs():
    @ag.args(lr=ag.Real(0.0, 1.0), epochs=3, net=ag.Dict(depth=4))
    def train_fn(args, reporter):
        reporter(epoch=1, accuracy=args.lr, epochs=args.epochs)
        return [args.epochs, args.net.depth]

    return train_fn


def said_epochs(scheduler):
    scheduler.run(num_trials=2)
    assert scheduler.join_jobs(timeout=30)
    return {report["epochs"] for (report,) in scheduler.training_history.values()}


def test_what_is_changed_before_the_scheduler_counts(search, capsys):
    train_fn = with_epochs()
    train_fn.args.epochs = 7
    train_fn.args.lr = 0.25
    scheduler = search(train_fn, num_trials=2, verbose=2)
    assert "lr=0.25 is fixed, it is not searched in Real(0.0, 1.0)" in capsys.readouterr().out
    assert said_epochs(scheduler) == {7}
    assert scheduler.get_best_reward() == 0.25


def test_what_args_fixes_is_said_and_its_own_args_change_nothing(search, capsys):
    train_fn = with_epochs()
    scheduler = search(train_fn, args=train_fn.args, verbose=2)
    assert scheduler.train_fn.space == train_fn.space
    assert "is fixed" not in capsys.readouterr().out
    scheduler = search(train_fn, args=argparse.Namespace(lr=0.25, epochs=9), verbose=2)
    assert scheduler.train_fn.space["epochs"] == 9
    assert "lr=0.25 is fixed, it is not searched in Real(0.0, 1.0)" in capsys.readouterr().out
    with pytest.raises(SpaceError, match=r"no 'learning_rate' to replace; .*'lr'"):
        search(train_fn, args={"learning_rate": ag.Real(2, 3)})


def test_what_is_changed_after_the_scheduler_was_made_is_an_error(search):
    train_fn = with_epochs()
    scheduler = search(train_fn)
    train_fn.update(epochs=5)
    for call in (scheduler.run, scheduler.add_job, scheduler.run_with_config):
        with pytest.raises(SpaceError, match=r"train_fn were changed .*\n.*epochs.*: 3 -> 5\nMake"):
            call({"lr": 0.5})
    train_fn.args.epochs = 3
    assert said_epochs(scheduler) == {3}
    train_fn.update(epochs=5)  # for the next one
    assert said_epochs(search(train_fn)) == {5}


def test_nothing_can_be_changed_while_trials_run(search, mailbox):
    scheduler = search(sleeper, args={"mailbox": mailbox.path}, slots=1)
    scheduler.run(num_trials=1)
    mailbox.take()
    for change in (sleeper.update, sleeper.register_args):
        with pytest.raises(SpaceError, match="a search with sleeper runs"):
            change(more=1)
    with pytest.raises(SpaceError, match="a search with sleeper runs"):
        sleeper.args.x = 0.5
    scheduler.close()
    sleeper.args.mailbox = ""


def test_a_final_run_takes_other_constants(search):
    class Learns(RandomSearcher):
        def tell(self, trial_id, config, reward, violations=()):
            self.space.encode(config)

    train_fn = with_epochs()
    scheduler = search(train_fn, searcher=Learns(train_fn.space))
    assert said_epochs(scheduler) == {3}
    best = scheduler.get_best_config()
    assert scheduler.run_with_config(best) == [3, 4]
    assert scheduler.run_with_config({**best, "epochs": 50, "net": {"depth": 6}}) == [50, 6]
    assert scheduler.trials[-1].config == {**best, "epochs": 50, "net.depth": 6}
    assert scheduler.run_with_config({**best, "epochs": np.int64(5), "net.depth": 7}) == [5, 7]
    with pytest.raises(SpaceError, match=r"epochs=.*cannot be in a configuration, .* as JSON"):
        scheduler.run_with_config({**best, "epochs": (1, 2)})
    with pytest.raises(SpaceError, match=r"'epochs' is a constant of .*run_with_config"):
        scheduler.add_job({**best, "epochs": 50})
    with pytest.raises(SpaceError, match="no parameter 'epoch'"):
        scheduler.run_with_config({**best, "epoch": 50})


# Data


def test_training_history_holds_every_report_with_its_times(search):
    @ag.args(x=ag.Real(0.0, 1.0))
    def train_fn(args, reporter):
        for epoch in range(3):
            time.sleep(0.01)
            reporter(epoch=epoch + 1, accuracy=args.x, note="here")

    scheduler = search(train_fn)
    scheduler.run(num_trials=2)
    scheduler.join_jobs()
    history = scheduler.training_history
    assert sorted(history) == [0, 1]
    for task, reports in history.items():
        assert [r["epoch"] for r in reports] == [1, 2, 3]
        assert {r["accuracy"] for r in reports} == {scheduler.config_history[task]["x"]}
        assert all(r["time_this_iter"] >= 0.01 and r["note"] == "here" for r in reports)
        since = [r["time_since_start"] for r in reports]
        assert since == sorted(since) and since[-1] >= 0.03


def test_metadata_says_what_was_searched_and_how_it_stands(search):
    scheduler = search(identity, seed=5, resource={"num_cpus": 2})
    scheduler.run(num_trials=2)
    scheduler.join_jobs()
    metadata = scheduler.metadata
    assert json.dumps(metadata)
    assert metadata["train_fn"] == "identity"
    assert metadata["scheduler"] == "FIFOScheduler"
    assert "x" in json.dumps(metadata["search_space"])
    assert (metadata["seed"], metadata["num_cpus"]) == (5, 2)
    assert (metadata["reward_attr"], metadata["mode"]) == ("accuracy", "max")
    assert metadata["num_trials"] == metadata["num_finished_tasks"] == 2
    assert metadata["best_reward"] == scheduler.get_best_reward()


def test_the_history_callback_hears_the_history_when_trials_end(search):
    calls = []
    before = time.time()
    scheduler = search(
        identity,
        slots=1,
        training_history_callback=lambda history, start: calls.append((history, start)),
        training_history_callback_delta_secs=0,
    )
    scheduler.run(num_trials=3)
    scheduler.join_jobs()
    assert len(calls) >= 3
    assert calls[-1][0] == scheduler.training_history
    assert before <= calls[-1][1] <= time.time()


def test_the_history_callback_is_not_called_more_often_than_asked(search):
    calls = []
    scheduler = search(identity, training_history_callback=lambda *args: calls.append(args))
    scheduler.run(num_trials=8)
    scheduler.join_jobs()
    assert 1 <= len(calls) <= 2, "at the first end and at the last; 60 s between, by default"
    assert len(calls[-1][0]) == 8


def test_curves_are_data_and_a_picture_on_request(search, tmp_path):
    scheduler = search(several, searcher="grid")
    scheduler.run()
    scheduler.join_jobs()
    data = scheduler.get_training_curves(filename=str(tmp_path / "curves.png"), use_legend=False)
    assert data == {0: [(1, 0.1), (2, 0.7), (3, 0.3)], 1: [(1, 0.2)], 3: [(2, 0.6)]}
    assert (tmp_path / "curves.png").read_bytes().startswith(b"\x89PNG")


# Rules of one's own


class MedianStop(FIFOScheduler):
    """Stop a trial that trails the median of its peers at the same epoch."""

    def __init__(self, *args, **options):
        self.at_epoch = {}
        super().__init__(*args, **options)

    def on_report(self, trial, report):
        peers = self.at_epoch.setdefault(report.time, [])
        peers.append(report.reward)
        return Stop() if report.reward < median(peers) else Continue()


@ag.args(x=ag.Choice(0.9, 0.1, 0.8, 0.2))
def ten_epochs(args, reporter):
    for epoch in range(10):
        try:
            reporter(epoch=epoch + 1, accuracy=args.x)
        except Exception:
            reporter(epoch=-1, accuracy=-1.0)  # a stop is no Exception: this is never reached


def test_a_rule_of_ones_own_stops_the_hopeless_early(search):
    scheduler = search(ten_epochs, scheduler=MedianStop, searcher="grid", slots=1)
    scheduler.run()
    scheduler.join_jobs()
    assert [(trial.status, trial.reports) for trial in scheduler.trials] == [
        (Status.FINISHED, 10),  # 0.9
        (Status.STOPPED, 1),  # 0.1 < median(0.9, 0.1)
        (Status.STOPPED, 2),  # 0.8 = median(0.9, 0.1, 0.8), but below median(0.9, 0.8)
        (Status.STOPPED, 1),  # 0.2
    ]


def test_a_rule_that_raises_ends_the_search_with_its_error(search):
    class Broken(FIFOScheduler):
        def on_report(self, trial, report):
            raise ZeroDivisionError("in the rule")

    scheduler = search(identity, scheduler=Broken)
    scheduler.run(num_trials=5)
    with pytest.raises(ZeroDivisionError, match="in the rule"):
        scheduler.join_jobs(timeout=20)
    assert all(trial.status.is_end for trial in scheduler.trials)


def test_a_searcher_that_raises_ends_the_search_with_its_error(search):
    class Broken(RandomSearcher):
        def suggest(self, trial_id, rng):
            raise ZeroDivisionError("in the searcher")

    scheduler = search(identity, searcher=Broken(identity.space))
    scheduler.run(num_trials=5)
    with pytest.raises(ZeroDivisionError, match="in the searcher"):
        scheduler.join_jobs(timeout=20)


@pytest.mark.parametrize("where", ["on_report", "on_end", "next_launch"])
def test_a_rule_that_calls_sys_exit_ends_the_search_instead_of_hanging_it(search, where):
    def leave(*_):
        sys.exit(3)

    rule = type("Leaving", (FIFOScheduler,), {where: leave})
    scheduler = search(identity, scheduler=rule)
    scheduler.run(num_trials=5)
    with pytest.raises(SystemExit):
        scheduler.join_jobs(timeout=20)
    assert all(trial.status.is_end for trial in scheduler.trials)


def test_a_rule_that_waits_for_its_own_search_is_told_so(search):
    class Waiting(FIFOScheduler):
        def on_end(self, trial):
            self.join_jobs()

    scheduler = search(identity, scheduler=Waiting)
    scheduler.run(num_trials=5)
    with pytest.raises(RuntimeError, match="cannot be called from a rule"):
        scheduler.join_jobs(timeout=20)


def test_a_rule_that_decides_nothing_ends_the_search_and_says_what_is_wanted(search):
    class Forgetful(FIFOScheduler):
        def on_report(self, trial, report):
            pass

    scheduler = search(identity, scheduler=Forgetful)
    scheduler.run(num_trials=5)
    with pytest.raises(
        TypeError, match=r"returned None; return Continue\(\), Stop\(\) or Pause\(\)"
    ):
        scheduler.join_jobs(timeout=20)


def test_a_searcher_may_suggest_numbers_of_numpy_and_leave_out_defaults(search):
    @ag.args(x=ag.Real(0.0, 1.0), n=ag.Int(1, 9, default=4))
    def train_fn(args, reporter):
        reporter(accuracy=args.x)

    class Partial(RandomSearcher):
        def suggest(self, trial_id, rng):
            return {"x": np.float32(0.25)}

    scheduler = search(train_fn, searcher=Partial(train_fn.space, points_to_evaluate=[]))
    scheduler.run(num_trials=2)
    assert scheduler.join_jobs(timeout=20) is True
    assert scheduler.get_best_config() == {"x": 0.25, "n": 4}


@pytest.mark.parametrize("config", [{"x": 2}, {"y": 0.5}, 5])
def test_a_searcher_that_suggests_what_is_not_in_the_space_ends_the_search(search, config):
    class Lost(RandomSearcher):
        def suggest(self, trial_id, rng):
            return config

    scheduler = search(identity, searcher=Lost(identity.space))
    scheduler.run(num_trials=9)
    with pytest.raises(SpaceError):
        scheduler.join_jobs(timeout=20)


def test_a_rule_that_launches_what_cannot_be_sent_ends_the_search(search):
    class Odd(FIFOScheduler):
        def next_launch(self):
            return Launch({"x": object()})

    scheduler = search(identity, scheduler=Odd)
    scheduler.run(num_trials=2)
    with pytest.raises(SpaceError, match="x"):
        scheduler.join_jobs(timeout=20)


# Processes


@ag.args(x=ag.Real(0.0, 1.0))
def tells_its_process(args, reporter):
    import os

    reporter(accuracy=args.x, pid=os.getpid())


@pytest.mark.parametrize(("isolation", "processes"), [("fresh", 6), ("reuse", 2)])
def test_trials_have_a_fresh_process_each_or_reuse_one_a_slot(search, isolation, processes):
    scheduler = search(tells_its_process, isolation=isolation, slots=2)
    scheduler.run(num_trials=6)
    scheduler.join_jobs()
    pids = {reports[0]["pid"] for reports in scheduler.training_history.values()}
    assert len(pids) == processes
    assert set(by_status(scheduler)) == {Status.FINISHED}


@ag.args(x=ag.Real(0.0, 1.0))
def writes_a_model(args, reporter):
    with open("model.pt", "x") as model:
        print(args.task_id, file=model)
    reporter(accuracy=args.x, data=os.path.exists("data.txt"), folder=args.folder)


@pytest.mark.parametrize("isolation", ["fresh", "reuse"])
@pytest.mark.parametrize("is_uploaded", [True, False])
def test_each_trial_writes_relative_files_into_a_folder_of_its_own(search, is_uploaded, isolation):
    Path("data.txt").write_text("data")
    options = {} if is_uploaded else {"work_in": "trial"}
    scheduler = search(writes_a_model, isolation=isolation, **options)
    if is_uploaded:
        scheduler.upload_files("data.txt")
    scheduler.run(num_trials=4)
    scheduler.join_jobs()
    assert set(by_status(scheduler)) == {Status.FINISHED}
    for task_id, (report,) in scheduler.training_history.items():
        folder = Path(report["folder"])
        assert folder == scheduler.folder / "trials" / str(task_id)
        assert (folder / "work/model.pt").read_text() == f"{task_id}\n"
        assert (folder / "output.txt").exists() and report["data"] is is_uploaded
    assert not Path("model.pt").exists()


def test_a_trial_that_runs_again_finds_what_it_has_written_and_later_uploads(search):
    @ag.args(x=ag.Real(0.0, 1.0))
    def train_fn(args, reporter):
        if not os.path.exists("state"):
            Path("state").write_text("1")
            os.kill(os.getpid(), 9)
        reporter(accuracy=args.x, data=Path("data.txt").read_text())

    Path("data.txt").write_text("data")
    scheduler = search(train_fn)
    scheduler.upload_files("data.txt")
    scheduler.run(num_trials=1)
    scheduler.join_jobs()
    assert (scheduler.trials[0].status, scheduler.trials[0].attempt) == (Status.FINISHED, 2)


def test_arguments_can_be_passed_on_and_hold_no_facts_of_the_trial(search):
    @ag.args(x=ag.Real(0.0, 1.0), net=ag.Dict(width=4))
    def train_fn(args, reporter):
        def build(x, net):
            return x * net.width

        again = pickle.loads(pickle.dumps(args))
        facts = [args.task_id, args["num_cpus"], args.get("num_gpus"), again.gpu_ids]
        reporter(accuracy=build(**args), keys=sorted(vars(args)), facts=facts, n=len(dict(**again)))

    scheduler = search(train_fn)
    scheduler.run(num_trials=1)
    scheduler.join_jobs()
    (report,) = scheduler.training_history[0]
    assert (report["accuracy"], report["keys"], report["n"]) == (2.0, ["net", "x"], 2)
    assert report["facts"] == [0, 1, 0, []]


def test_an_argument_named_folder_is_the_users_own(search):
    @ag.args(x=ag.Real(0.0, 1.0), folder="/data")
    def train_fn(args, reporter):
        reporter(accuracy=args.x, folder=[args.folder, args["folder"]])

    scheduler = search(train_fn)
    scheduler.run(num_trials=1)
    scheduler.join_jobs()
    assert scheduler.training_history[0][0]["folder"] == ["/data", "/data"]


def test_what_argparse_has_for_the_searched_arguments_is_the_first_trial(search):
    parsed = argparse.Namespace(lr=0.02, batch=32, opt="sgd", epochs=1, wd=7.0)
    spaces = {
        "lr": ag.Real(1e-4, 1.0, log=True),
        "opt": ag.Choice("adam", "sgd"),
        "wd": ag.Real(0, 1),
    }

    @ag.args(parsed, **spaces)
    def train_fn(args, reporter):
        reporter(accuracy=args.lr * args.epochs)

    scheduler = search(train_fn, checkpoint="named")
    scheduler.run(num_trials=2)
    scheduler.join_jobs()
    assert scheduler.config_history[0] == {"lr": 0.02, "opt": "sgd", "wd": 0.5}
    assert scheduler.config_history[1] != scheduler.config_history[0]
    scheduler.close()
    with pytest.raises(StoreError, match=r"(?s)lr.default: 0.02 -> 0.03.*opt.default"):
        search(
            ag.args(argparse.Namespace(lr=0.03, epochs=1), **spaces)(train_fn.__wrapped__),
            checkpoint="named",
        )


def test_a_reused_process_forgets_the_folder_and_the_output_of_earlier_trials(search, capfd):
    @ag.args(x=ag.Choice(*range(7)))
    def train_fn(args, reporter):
        import os

        print("hello from", args.x)
        reporter(accuracy=args.x, folder=os.getcwd())
        if args.x == 0:
            os.chdir("/")
        if args.x == 1:
            sys.stdout = io.StringIO()
        if args.x == 2:
            sys.stdout.close()
        if args.x == 3:
            sys.stdout = io.TextIOWrapper(sys.stdout.detach())
        if args.x == 4:
            sys.stdout = sys.__stdout__ = None
        if args.x == 5:
            sys.stderr = sys.__stderr__ = io.StringIO()

    scheduler = search(train_fn, searcher="grid", isolation="reuse", slots=1, verbose=2)
    scheduler.run()
    assert scheduler.join_jobs(timeout=20) is True
    assert by_status(scheduler) == [Status.FINISHED] * 7
    assert len({reports[0]["folder"] for reports in scheduler.training_history.values()}) == 1
    said = capfd.readouterr().out
    assert [x for x in range(7) if f"hello from {x}" in said] == list(range(7))


def test_a_reused_process_that_dies_costs_only_its_own_trial(search):
    @ag.args(x=ag.Choice(0, 1, 2, 3))
    def train_fn(args, reporter):
        import os

        if args.x == 1:
            os._exit(5)
        if args.x == 2:
            raise ValueError("just this one")
        reporter(accuracy=args.x)

    scheduler = search(train_fn, isolation="reuse", slots=1, searcher="grid")
    scheduler.run()
    assert scheduler.join_jobs(timeout=30) is True
    assert by_status(scheduler) == [
        Status.FINISHED,
        Status.EXITED,
        Status.FAILED,
        Status.FINISHED,
    ]


def test_start_method_spawn_starts_a_new_interpreter(search):
    @ag.args(x=ag.Real(0.0, 1.0))
    def train_fn(args, reporter):
        with open("/proc/self/cmdline", "rb") as file:
            reporter(accuracy=args.x, command=file.read().decode().split("\0"))

    def commands(method):
        scheduler = search(train_fn, start_method=method, slots=2)
        scheduler.run(num_trials=2)
        scheduler.join_jobs()
        assert set(by_status(scheduler)) == {Status.FINISHED}
        return [reports[0]["command"] for reports in scheduler.training_history.values()]

    assert all("distsearch.core.trial_process" in command for command in commands("spawn"))
    assert not any("distsearch.core.trial_process" in command for command in commands("fork"))


def test_two_searches_of_one_process_share_the_slots(search, tmp_path):
    @ag.args(x=ag.Real(0.0, 1.0), spans="")
    def train_fn(args, reporter):
        start = time.monotonic()
        time.sleep(0.05)
        reporter(accuracy=args.x, span=[start, time.monotonic()])

    node = Node("localhost", num_cpus=2, memory_gb=5.4321)
    both = [search(train_fn, local=node), search(train_fn, local=node)]
    for scheduler in both:
        scheduler.run(num_trials=16)
    for scheduler in both:
        assert scheduler.join_jobs(timeout=30) is True
        assert [trial.id for trial in scheduler.trials] == list(range(16))
    spans = [
        [reports[0]["span"] for reports in scheduler.training_history.values()]
        for scheduler in both
    ]
    everything = spans[0] + spans[1]
    at_once = [sum(a <= start < b for a, b in everything) for start, _ in everything]
    assert max(at_once) <= 2
    ends = [max(end for _, end in own) for own in spans]
    starts = [min(start for start, _ in own) for own in spans]
    assert starts[1] < ends[0], "the second does not wait until the first is over"


# The end


def test_closing_ends_running_trials_and_says_so(search, mailbox, capfd):
    with search(sleeper, args={"mailbox": mailbox.path}, slots=2, verbose=2) as scheduler:
        scheduler.run(num_trials=3)
        mailbox.take(), mailbox.take()
        started = time.monotonic()
    assert time.monotonic() - started < 9
    assert "closed while 2 trials ran" in capfd.readouterr().out
    assert [(t.status, t.reason) for t in scheduler.trials] == [(Status.WAITING, "closed")] * 2


def test_a_program_that_closes_none_of_its_many_schedulers_ends_without_a_word(tmp_path):
    text = """
import distsearch as ag
@ag.args(x=ag.Real(0, 1))
def train_fn(args, reporter):
    reporter(accuracy=args.x)
if __name__ == "__main__":
    kept = [ag.scheduler.FIFOScheduler(train_fn) for _ in range(10)]
"""
    (tmp_path / "many.py").write_text(text)
    package = Path(ag.__file__).parents[1]
    done = subprocess.run(
        [sys.executable, "many.py"],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(package)},
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert (done.returncode, done.stdout, done.stderr) == (0, "", "")


def test_results_can_be_read_after_close_and_nothing_can_be_started(search, tmp_path):
    scheduler = search(identity, checkpoint=tmp_path / "kept")
    scheduler.run(num_trials=3)
    scheduler.join_jobs()
    best, history = scheduler.get_best_config(), scheduler.training_history
    scheduler.close()
    scheduler.close()
    assert scheduler.get_best_config() == best
    assert scheduler.training_history == history
    assert len(scheduler.get_training_curves()) == 3
    assert scheduler.metadata["num_finished_tasks"] == 3
    assert "FIFOScheduler" in repr(scheduler)
    for call in (
        scheduler.run,
        scheduler.join_jobs,
        lambda: scheduler.add_job({"x": 0.5}),
        lambda: scheduler.run_with_config({"x": 0.5}),
        lambda: scheduler.upload_files([]),
        lambda: scheduler.add_remote("host"),
    ):
        with pytest.raises(DistsearchError, match="this scheduler is closed"):
            call()


def test_the_log_can_be_read_with_sql(search, tmp_path):
    scheduler = search(several, searcher="grid", checkpoint=tmp_path / "log")
    scheduler.run()
    scheduler.join_jobs()
    connection = sqlite3.connect(tmp_path / "log" / "events.db")
    rows = connection.execute("select trial, status, best from trials order by trial").fetchall()
    connection.close()
    assert rows == [
        (0, "finished", 0.7),
        (1, "finished", 0.2),
        (2, "no_metric", None),
        (3, "finished", 0.6),
    ]


def test_a_second_search_in_the_same_folder_is_refused(search, tmp_path):
    search(identity, checkpoint=tmp_path / "mine")
    with pytest.raises(StoreLocked, match="process"):
        search(identity, checkpoint=tmp_path / "mine")


def test_a_search_that_has_ended_gives_its_folder_to_the_next_one_of_its_process(search, capfd):
    """As when a cell of a notebook, which makes a scheduler, runs again."""
    first = search(identity, checkpoint="named")
    first.run(num_trials=2)
    first.join_jobs()
    os.symlink("named", "another_name")
    second = search(identity, checkpoint="another_name", verbose=1)
    assert "whose search has ended, is closed" in capfd.readouterr().out
    assert len(second.trials) == 2 and len(first.trials) == 2
    with pytest.raises(DistsearchError, match="this scheduler is closed"):
        first.run(num_trials=3)
    second.run(num_trials=3)
    second.join_jobs()
    assert len(search(identity, checkpoint="named", resume=False).trials) == 0


def test_a_search_that_goes_on_keeps_its_folder(search, mailbox):
    first = search(sleeper, args={"mailbox": mailbox.path}, checkpoint="named")
    first.run(num_trials=1)
    mailbox.take()
    with pytest.raises(StoreLocked, match=r"this very process.*Call close\(\)"):
        search(sleeper, args={"mailbox": mailbox.path}, checkpoint="named")
    assert first.is_running


def test_a_loaded_search_can_be_resumed_with_the_seed_that_it_brought(search, tmp_path):
    first = search(identity, seed=1)
    first.run(num_trials=3)
    first.join_jobs()
    state = json.loads(first.save(tmp_path / "state.json").read_text())
    second = search(identity, seed=2, checkpoint=tmp_path / "second")
    second.load_state_dict(state)
    second.run(num_trials=4)
    second.join_jobs()
    second.close()
    third = search(identity, checkpoint=tmp_path / "second", resume=True)
    third.run(num_trials=6)
    assert third.join_jobs(timeout=20) is True
    alone = search(identity, seed=1)
    alone.run(num_trials=6)
    alone.join_jobs()
    assert third.config_history == alone.config_history


def test_what_is_no_state_is_refused_as_such(search):
    with pytest.raises(StoreError, match="not what state_dict"):
        search(identity).load_state_dict({"events": []})


def test_many_threads_may_wait_for_the_end_at_once(search):
    scheduler = search(identity, verbose=2)
    joined = []
    for _ in range(3):
        scheduler.run(num_trials=2)
        waiters = [
            threading.Thread(target=lambda: joined.append(scheduler.join_jobs(20)), daemon=True)
            for _ in range(8)
        ]
        for waiter in waiters:
            waiter.start()
        for waiter in waiters:
            waiter.join(30)
    assert joined == [True] * 24


def test_a_process_forked_from_the_driver_leaves_its_search_alone(driver):
    one = driver("""
import os, sys
import distsearch as ag

@ag.args(go=ag.Choice("go"))
def train_fn(args, reporter):
    reporter(epoch=1, accuracy=0.5)
    open(args.go).read()  # until somebody has opened it to write
    reporter(epoch=2, accuracy=0.6)

if __name__ == "__main__":
    go = os.path.abspath("go")
    os.mkfifo(go)
    scheduler = ag.scheduler.FIFOScheduler(train_fn, args={"go": go}, verbose=0, checkpoint="kept")
    scheduler.run(num_trials=1)
    child = os.fork()
    if child == 0:
        try:
            scheduler.join_jobs()
        except ag.errors.DistsearchError as error:
            print("CHILD", error, flush=True)
        sys.exit()  # which closes what is open, but not the search of another process
    os.waitpid(child, 0)
    open(go, "w").close()
    print("JOINED", scheduler.join_jobs(timeout=20), scheduler.trials[0].status.value, flush=True)
    scheduler.close()
    if os.fork() == 0:  # it holds the log's lock open, which its parent has given back
        sys.exit()
    ag.scheduler.FIFOScheduler(train_fn, args={"go": go}, checkpoint="kept").close()
    print("AGAIN", flush=True)
""")
    assert one.words_after("CHILD this scheduler belongs to process")
    assert one.words_after("JOINED") == ["True", "finished"]
    one.words_after("AGAIN")
    assert "closed while" not in one.end()


def test_closing_lets_someone_who_waits_in_another_thread_go_on(search, mailbox):
    scheduler = search(sleeper, args={"mailbox": mailbox.path}, slots=1)
    scheduler.run(num_trials=2)
    mailbox.take()
    joined = []
    waiter = threading.Thread(target=lambda: joined.append(scheduler.join_jobs()), daemon=True)
    waiter.start()
    scheduler.close()
    waiter.join(10)
    assert joined == [True]


# What is refused


@pytest.mark.parametrize(
    ("options", "error", "says"),
    [
        ({"mode": "best"}, OptionError, "mode='best'.*'max', 'min'"),
        ({"searcher": "magic"}, OptionError, "searcher='magic'.*'random', 'grid'"),
        ({"isolation": "none"}, OptionError, "isolation='none'.*'fresh', 'reuse'"),
        ({"start_method": "clone"}, OptionError, "start_method='clone'.*'fork', 'spawn'"),
        ({"visualizer": "tv"}, OptionError, "visualizer='tv'"),
        ({"folder": "x"}, OptionError, "no argument 'folder'"),
        ({"ledger": None}, OptionError, "no argument 'ledger'"),
        ({"resource": {"cpus": 1}}, ResourceError, "cpus.*num_cpus"),
        ({"resource": {"num_cpus": -1}}, ResourceError, "num_cpus=-1"),
        ({"points_to_evaluate": [{"y": 1}]}, SpaceError, "y"),
        ({"args": {"x": ag.Real(0, 1), "task_id": 3}}, SpaceError, "task_id"),
        ({"dist_ip_addrs": "a b"}, ResourceError, "'a b'"),
        ({"searcher": RandomSearcher}, OptionError, "searcher=RandomSearcher.train_fn.space"),
        (
            {"search_options": {"speed": 1}},
            OptionError,
            "'random' has no argument 'speed'",
        ),
        ({"mode": "minimize"}, OptionError, "mode='minimize'; did you mean 'min'"),
        ({"searcher": "TPE"}, OptionError, "did you mean 'tpe'"),
        ({"searcher": "bayesopt_hyperband"}, OptionError, "AutoGluon calls so is searcher='bohb'"),
        ({"searcher": "RL"}, OptionError, "AutoGluon calls so is searcher='evolution'"),
        (
            {"num_trails": 3},
            OptionError,
            "FIFOScheduler has no .*did you mean 'num_trials'",
        ),
        ({"searcher_data": "all"}, OptionError, "what happens here is .*searcher_data='rungs'"),
        ({"seed": 1, "random_seed": 2}, OptionError, "random_seed=2 and seed=1 differ"),
        ({"search_options": {"random_seed": "x"}}, OptionError, "random_seed='x'; give an integer"),
        ({"warm_start": 7}, OptionError, "warm_start=7; give the folder"),
        ({"trial_timeout": "5"}, ResourceError, "trial_timeout='5'; give a number above 0"),
        ({"report_timeout": 0}, ResourceError, "report_timeout=0; give a number above 0"),
        ({"num_trials": 3.0}, ResourceError, "num_trials=3.0; give an integer above 0"),
        ({"max_reward": "0.9"}, OptionError, "max_reward='0.9'; give a number"),
        ({"reward_attr": None}, OptionError, "reward_attr=None; give a name"),
        ({"max_failures": None}, OptionError, "max_failures=None; give an integer"),
        ({"seed": "abc"}, OptionError, "seed='abc'; give an integer"),
        ({"training_history_callback": 5}, OptionError, "give a function or None"),
        ({"local": False}, NodeError, "leaves no node"),
        ({"dist_ip_addrs": 5}, ResourceError, "a node is text or a Node, got 5; give .host."),
        ({"client": 5}, ResourceError, "client=5; give a distributed.Client"),
        ({"resume": "yes"}, OptionError, "resume=.yes.; give True or False or None"),
    ],
)
def test_wrong_arguments_are_refused_with_what_is_right(search, options, error, says):
    with pytest.raises(error, match=says):
        search(identity, **options)


@pytest.mark.parametrize(
    "options", [{"num_trials": 0}, {"num_trials": 2.5}, {"time_out": -1}, {"time_out": "2 s"}]
)
def test_a_wrong_number_of_trials_or_seconds_is_refused(search, options):
    with pytest.raises(ResourceError, match=next(iter(options))):
        search(identity).run(**options)


def test_a_function_without_the_decorator_is_refused(search):
    def plain(args, reporter):
        pass

    with pytest.raises(OptionError, match="@args"):
        search(plain)


@ag.args(x=ag.Real(0, 1))
def saves_a_folder_of_its_home(args, reporter):
    Path("~/model").expanduser().mkdir()
    reporter.save("~/model")
    reporter(epoch=1, accuracy=args.x)


def test_every_path_may_begin_with_the_home_folder(search, tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    (tmp_path / "home").mkdir()
    first = search(saves_a_folder_of_its_home, checkpoint="~/runs/first")
    first.run(num_trials=1)
    assert first.join_jobs(timeout=30)
    assert first.folder == tmp_path / "home" / "runs" / "first"
    assert first.trials[0].saved_step == 0
    assert first.save("~/kept/state.json") == tmp_path / "home" / "kept" / "state.json"
    first.get_training_curves("~/pictures/curves.png")
    assert (tmp_path / "home" / "pictures" / "curves.png").exists()
    first.close()
    search(saves_a_folder_of_its_home, warm_start="~/runs/first", checkpoint="second")
    assert not Path("~").exists()
