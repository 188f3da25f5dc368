"""What holds for every scheduler, whatever becomes of its trials."""

from __future__ import annotations

import itertools
import math
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from distsearch import Choice, Int, Node, Real, args
from distsearch.core import store
from distsearch.core.store import FILE
from distsearch.core.words import Status
from distsearch.scheduler import FIFOScheduler

ENDS = {status.value for status in Status if status.is_end}


@args(
    fate=Choice("fine", "raise", "exit", "leave", "kill", "nothing", "nan", "bad"),
    x=Real(-1.0, 1.0),
    epochs=Int(1, 4),
)
def train_fn(args: Any, reporter: Any) -> Any:
    """Reports a few epochs and comes to a good or bad end."""
    import os
    import signal
    import sys

    if args.fate == "nothing":
        return None
    for epoch in range(args.epochs):
        value = {"nan": math.nan, "bad": "high"}.get(args.fate, args.x / (epoch + 1))
        reporter(epoch=epoch + 1, accuracy=value)
    if args.fate == "raise":
        raise KeyError("no such key")
    if args.fate == "exit":
        sys.exit(3)
    if args.fate == "leave":
        os._exit(4)
    if args.fate == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    return args.task_id


EXPECTED = {
    "fine": "finished",
    "raise": "failed",
    "exit": "exited",
    "leave": "exited",
    "kill": "killed",
    "nothing": "no_metric",
    "nan": "no_metric",
    "bad": "no_metric",
}
POINTS = [
    {"fate": fate, "x": x, "epochs": epochs}
    for (fate, x), epochs in zip(
        itertools.product(EXPECTED, (0.5, -0.25)), itertools.cycle((3, 1, 2)), strict=False
    )
]


class SchedulerKit:
    """`make(train_fn, **options)` makes it; `stops`: whether it ends trials early."""

    make: type[FIFOScheduler]
    stops = False

    def options(self) -> dict[str, Any]:
        """What this scheduler needs besides."""
        return {}

    def search(self, folder: Path, **options: Any) -> FIFOScheduler:
        """A scheduler on four slots of this machine."""
        return self.make(
            train_fn,
            **{
                "local": Node("localhost", num_cpus=4),
                "verbose": 0,
                "checkpoint": folder,
                "points_to_evaluate": POINTS,
                "seed": 1,
                **self.options(),
                **options,
            },
        )

    @pytest.fixture(scope="class", params=["max", "min"])
    @classmethod
    def searched(cls, request: Any, tmp_path_factory: Any) -> Any:
        """A search over all fates that is over."""
        folder = tmp_path_factory.mktemp("searched") / "run"
        with cls().search(folder, mode=request.param) as scheduler:
            scheduler.run(num_trials=24)
            assert scheduler.join_jobs(timeout=60)
            yield scheduler

    def test_every_trial_ends_in_the_status_that_befits_it(self, searched):
        assert len(searched.trials) == 24
        for trial in searched.trials:
            expected = {EXPECTED[trial.config["fate"]]} | ({"stopped"} if self.stops else set())
            assert trial.status.value in expected
            assert trial.status.value in ENDS
            assert trial.reason or trial.status is Status.FINISHED
        assert searched.num_finished_tasks == 24

    def test_ids_count_from_0(self, searched):
        assert [trial.id for trial in searched.trials] == list(range(24))
        assert list(searched.config_history) == list(range(24))
        assert all(type(trial.id) is int for trial in searched.trials)

    def test_the_given_points_were_launched_first_in_order(self, searched):
        configs = [searched.config_history[n] for n in range(len(POINTS))]
        assert configs == POINTS

    def test_histories_agree_with_the_log(self, searched):
        events = list(store.read(searched.folder))
        configs = {e.trial: e.body["config"] for e in events if e.kind == "launched"}
        assert searched.config_history == configs
        reports: dict[int, list[Any]] = {}
        for event in events:
            if event.kind == "report":
                reports.setdefault(event.trial, []).append(event.body)
        assert repr(searched.training_history) == repr(reports)  # NaN equals nothing
        ends = {e.trial: e.body["status"] for e in events if e.kind == "ended"}
        assert ends == {trial.id: trial.status.value for trial in searched.trials}

    def test_no_trial_runs_twice(self, searched):
        started = [event.trial for event in store.read(searched.folder, "started")]
        assert sorted(started) == sorted(set(started)) == list(range(24))
        ended = [event.trial for event in store.read(searched.folder, "ended")]
        assert sorted(ended) == list(range(24))

    def test_the_best_is_the_best_number_reported_by_any_trial(self, searched):
        better = max if searched.metadata["mode"] == "max" else min
        found: list[tuple[float, int]] = []
        for event in store.read(searched.folder, "report"):
            value = event.body["accuracy"]
            if isinstance(value, float) and not math.isnan(value):
                found.append((value, event.trial))
        best = better(value for value, _ in found)
        best_id = min(trial for value, trial in found if value == best)
        assert searched.get_best_reward() == best
        assert searched.get_best_task_id() == best_id
        assert searched.get_best_config() == searched.config_history[best_id]

    def test_each_trial_knows_its_best(self, searched):
        better = max if searched.metadata["mode"] == "max" else min
        for trial in searched.trials:
            values = [r["accuracy"] for r in searched.training_history.get(trial.id, [])]
            numbers = [v for v in values if isinstance(v, float) and not math.isnan(v)]
            assert trial.best_reward == (better(numbers) if numbers else None)

    def test_anyone_can_read_how_it_ended(self, searched):
        connection = sqlite3.connect(searched.folder / FILE)
        rows = connection.execute(
            "select trial, status, best from trials order by trial"
        ).fetchall()
        connection.close()
        assert rows == [(t.id, t.status.value, t.best_reward) for t in searched.trials]

    def test_what_failed_tells_why(self, searched):
        for trial in searched.trials:
            if trial.status is Status.FAILED:
                assert "KeyError: 'no such key'" in trial.error
            if trial.status is Status.EXITED:
                assert str({"exit": 3, "leave": 4}[trial.config["fate"]]) in trial.reason
            if trial.status is Status.KILLED:
                assert "SIGKILL" in trial.reason

    def test_it_can_go_on_with_more_trials(self, tmp_path):
        with self.search(tmp_path / "run") as scheduler:
            scheduler.run(num_trials=3)
            assert scheduler.join_jobs(timeout=60)
            scheduler.run(num_trials=2)
            assert scheduler.join_jobs(timeout=60)
            assert [trial.id for trial in scheduler.trials] == [0, 1, 2, 3, 4]
            assert scheduler.config_history[4] == POINTS[4]

    def test_the_same_seed_suggests_the_same(self, tmp_path):
        histories = []
        for run in ("first", "second"):
            with self.search(tmp_path / run, points_to_evaluate=None) as scheduler:
                scheduler.run(num_trials=8)
                assert scheduler.join_jobs(timeout=60)
                histories.append(scheduler.config_history)
        assert histories[0] == histories[1]
