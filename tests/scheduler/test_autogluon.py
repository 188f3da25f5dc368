"""What AutoGluon's distributed scheduler offered is here, by the same names."""

from __future__ import annotations

import inspect
import re
from pathlib import Path

import pytest

import distsearch as ag
from distsearch.errors import OptionError
from distsearch.scheduler import FIFOScheduler, HyperbandScheduler

PAGE = (Path(__file__).resolve().parents[2] / "docs/coming-from-autogluon.md").read_text()
FIFO = [
    "train_fn",
    "args",
    "resource",
    "searcher",
    "search_options",
    "num_trials",
    "time_out",
    "max_reward",
    "reward_attr",
    "mode",
    "time_attr",
    "checkpoint",
    "resume",
    "dist_ip_addrs",
    "visualizer",
    "training_history_callback",
    "training_history_callback_delta_secs",
]
HYPERBAND = ["max_t", "grace_period", "reduction_factor", "rung_levels", "brackets", "type"]
METHODS = [
    "run",
    "join_jobs",
    "run_with_config",
    "add_job",
    "get_best_config",
    "get_best_reward",
    "get_best_task_id",
    "get_training_curves",
    "add_remote",
    "remove_remote",
    "upload_files",
    "state_dict",
    "load_state_dict",
    "save",
    "close",
    "shutdown",
    "training_history",
    "config_history",
    "metadata",
    "num_finished_tasks",
]


def test_the_arguments_of_its_schedulers_come_in_the_same_order():
    assert list(inspect.signature(FIFOScheduler).parameters)[: len(FIFO)] == FIFO
    assert set(HYPERBAND) <= set(inspect.signature(HyperbandScheduler).parameters)


@pytest.mark.parametrize("name", METHODS)
def test_its_methods_are_there(name):
    assert hasattr(FIFOScheduler, name)


def test_its_spaces_are_there_by_both_of_their_names():
    assert ag.space.Categorical is ag.Choice
    for name in ("Real", "Int", "Bool", "Choice", "Categorical", "List", "Dict"):
        assert getattr(ag.space, name) is getattr(ag, name)


def test_a_program_for_it_runs_with_the_import_changed(search):
    @ag.obj(rank=ag.Int(1, 5), kind=ag.space.Categorical("a", "b"))
    class Net:
        def __init__(self, rank, kind):
            self.rank, self.kind = rank, kind

    @ag.func(x=ag.Real(0, 1))
    def double(x):
        return 2 * x

    @ag.args(net=Net(), doubled=double(), flag=ag.Bool(), sizes=ag.List(ag.Int(1, 3), 7), epochs=1)
    def train_fn(args, reporter):
        assert args.net.rank == args["net"].rank and args.sizes[1] == 7
        for epoch in range(args.epochs):
            reporter(epoch=epoch + 1, accuracy=args.doubled, task=args.task_id)

    train_fn.args.epochs = 2
    scheduler = search(
        train_fn,
        resource={"num_cpus": 1, "num_gpus": 0},
        searcher="random",
        search_options={"random_seed": 7, "first_is_default": True},
        visualizer="none",
        delay_get_config=True,
    )
    scheduler.run(num_trials=3)
    scheduler.join_jobs()
    assert scheduler.num_finished_tasks == 3
    assert sorted(scheduler.training_history) == list(scheduler.config_history) == [0, 1, 2]
    assert {len(reports) for reports in scheduler.training_history.values()} == {2}
    first = scheduler.training_history[0][0]
    assert first["task"] == 0 and {"time_this_iter", "time_since_start"} <= first.keys()
    best = scheduler.get_best_config()
    scheduler.run_with_config(best)
    state = scheduler.state_dict()
    assert scheduler.get_best_reward() == max(
        c[-1][1] for c in scheduler.get_training_curves().values()
    )
    other = search(train_fn, search_options={"random_seed": 7, "first_is_default": True})
    other.load_state_dict(state)
    assert other.get_best_task_id() == scheduler.get_best_task_id()
    scheduler.shutdown()


@pytest.mark.parametrize(
    ("use", "successor"),
    [
        (lambda train_fn: ag.scheduler.RLScheduler, "searcher='evolution'"),
        (lambda train_fn: ag.searcher.SKoptSearcher, "searcher='gp'"),
        (lambda train_fn: ag.done, "join_jobs"),
        (lambda train_fn: ag.searcher.RandomSearcher(train_fn.space).get_config(), "ask"),
        (lambda train_fn: ag.searcher.RandomSearcher(train_fn.space).get_best_reward, "scheduler"),
        (lambda train_fn: train_fn.cs, "space.sample"),
        (lambda train_fn: FIFOScheduler.__new__(FIFOScheduler).join_tasks(), "join_jobs"),
    ],
)
def test_the_error_about_a_name_that_is_gone_names_its_successor(use, successor):
    @ag.args(x=ag.Real(0, 1))
    def train_fn(args, reporter):
        pass

    with pytest.raises(AttributeError, match="in place of AutoGluon's there is") as caught:
        use(train_fn)
    assert successor in str(caught.value)


@pytest.mark.parametrize(
    ("options", "said"),
    [
        ({"search_options": {"opt_maxiter": 9}, "searcher": "bayesopt"}, "Gaussian process; leave"),
        ({"search_options": {"num_init_random": 9}, "searcher": "random"}, "n_startup_trials"),
        ({"searcher": "constrained_bayesopt"}, "constraints="),
        ({"controller_lr": 0.1}, "controller; leave it out"),
        ({"constraint_attr": "memory"}, "constraints="),
        ({"stop_jobs_after_time_out": False}, "stop_jobs_after_time_out=True"),
        ({"visualizer": "mxboard"}, "scheduler.get_training_curves('curves.png')"),
    ],
)
def test_an_argument_that_is_gone_names_what_takes_its_place(options, said):
    @ag.args(x=ag.Real(0, 1))
    def train_fn(args, reporter):
        pass

    with pytest.raises(OptionError, match=re.escape(said)):
        FIFOScheduler(train_fn, **options)
    with pytest.raises(OptionError, match="is PASHAScheduler"):
        HyperbandScheduler(train_fn, max_t=9, type="pasha")


def test_an_error_inside_a_property_of_a_rule_is_told_as_it_is():
    class Rule(FIFOScheduler):
        @property
        def planned(self):
            return self.nothing_of_that_name

    with pytest.raises(AttributeError, match="no attribute 'nothing_of_that_name'"):
        Rule.__new__(Rule).planned


def test_what_the_page_says_to_write_is_there():
    rows = re.findall(r"^\| (.+) \| (.+) \|$", PAGE, re.MULTILINE)[1:]
    assert len(rows) > 25
    written = " ".join(new if new != "the same" else old for old, new in rows)
    for name in re.findall(r"\bag\.(?:space\.)?([A-Za-z]\w*)", written):
        assert hasattr(ag, name) or name == "space", name
    for name in re.findall(r"\bscheduler\.(\w+)", written):
        assert hasattr(FIFOScheduler, name), name
