"""What holds for every scheduler, whatever becomes of its trials."""

from __future__ import annotations

import itertools
import math
import shutil
import sqlite3
from pathlib import Path
from typing import Any

import pytest

from .. import Choice, Int, Node, Real, args
from ..core import store
from ..core.store import FILE
from ..core.words import Status
from ..scheduler import Scheduler

ENDS = {status.value for status in Status if status.is_end}


@args(
    fate=Choice("fine", "sparse", "raise", "exit", "leave", "kill", "nothing", "nan", "bad"),
    x=Real(-1.0, 1.0),
    epochs=Int(1, 4),
)
def train_fn(args: Any, reporter: Any) -> Any:
    """Reports a few epochs, goes on where it was, and comes to a good or bad end."""
    import os
    import signal
    import sys

    if args.fate == "nothing":
        return None
    last = (reporter.load() or {"epoch": 0})["epoch"]
    for epoch in (2, 4, 9) if args.fate == "sparse" else range(1, args.epochs + 1):
        if epoch <= last:
            continue
        reporter.save({"epoch": epoch})
        value = {"nan": math.nan, "bad": "high"}.get(args.fate, args.x / epoch)
        reporter(epoch=epoch, accuracy=value)
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
    "sparse": "finished",
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


@args(x=Real(-1.0, 1.0))
def endless(args: Any, reporter: Any) -> None:
    """Never ends by itself."""
    for epoch in itertools.count(1 + (reporter.load() or {"epoch": 0})["epoch"]):
        reporter.save({"epoch": epoch})
        reporter(epoch=epoch, accuracy=args.x + epoch)


class SchedulerKit:
    """`make(train_fn, **options)` makes it.

    `stops`: whether it ends trials early, `pauses`: whether it may leave some paused, `breeds`:
    whether there are trials with parents, `bounds`: whether it has a `max_t`.
    """

    make: type[Scheduler]
    stops = pauses = breeds = bounds = False

    def options(self) -> dict[str, Any]:
        """What this scheduler needs besides."""
        return {}

    def search(self, folder: Path, make: Any = None, **options: Any) -> Scheduler:
        """A scheduler on four slots of this machine."""
        return (make or self.make)(
            options.pop("train_fn", train_fn),
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
        """A search over all fates that is over; `decided` holds its decisions."""
        folder = tmp_path_factory.mktemp("searched") / "run"
        with cls().search(folder, make=recording(cls.make), mode=request.param) as scheduler:
            scheduler.run(num_trials=24)
            assert scheduler.join_jobs(timeout=60)
            yield scheduler

    def test_every_trial_ends_in_the_status_that_befits_it(self, searched):
        for trial in searched.trials:
            expected = {EXPECTED[trial.config["fate"]]}
            expected |= {"stopped"} if self.stops else set()
            expected |= {"paused"} if self.pauses else set()
            # One whose parent had no epoch left for it has nothing to report.
            expected |= {"stopped", "finished"} if trial.parents else set()
            assert trial.status.value in expected
            assert trial.reason or trial.status in (Status.FINISHED, Status.PAUSED)
        ended = [trial for trial in searched.trials if trial.status.is_end]
        assert searched.num_finished_tasks == len(ended)

    def test_it_runs_as_many_trials_as_were_asked_for(self, searched):
        assert len(searched.trials) == 24 or (self.breeds and len(POINTS) <= len(searched.trials))

    def test_ids_count_from_0(self, searched):
        assert [trial.id for trial in searched.trials] == list(range(len(searched.trials)))
        assert list(searched.config_history) == list(range(len(searched.trials)))
        assert all(type(trial.id) is int for trial in searched.trials)

    def test_the_given_points_were_launched_first_in_order(self, searched):
        configs = [searched.config_history[n] for n in range(len(POINTS))]
        assert configs == POINTS

    def test_every_configuration_is_inside_the_space(self, searched):
        for config in searched.config_history.values():
            assert train_fn.space.validate(config) == config

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
        statuses = {trial.id: trial.status for trial in searched.trials}
        assert ends == {n: status.value for n, status in statuses.items() if status.is_end}
        paused = [n for n, status in statuses.items() if status is Status.PAUSED]
        assert sorted(set(statuses) - set(ends)) == paused

    def test_no_two_attempts_of_a_trial_overlap_and_none_comes_after_its_end(self, searched):
        assert_attempts_in_turn(searched.folder)

    def test_a_trial_runs_again_only_after_it_was_paused_or_killed(self, searched):
        over = [event.trial for event in store.read(searched.folder, "paused", "lost")]
        for trial in searched.trials:
            is_paused = trial.status is Status.PAUSED
            assert trial.attempt == 1 + over.count(trial.id) - is_paused
            assert trial.attempt >= 4 or trial.status is not Status.KILLED

    def test_a_replay_of_the_log_comes_to_the_same_decisions(self, searched, tmp_path):
        copy = cut_log(searched.folder, tmp_path / "copy", share=1.0)
        again = self.search(
            copy, make=recording(self.make), mode=searched.metadata["mode"], resume=True
        )
        with again:
            assert again.decided == searched.decided
            assert {t.id: t.status for t in again.trials} == {
                t.id: t.status for t in searched.trials
            }

    @pytest.mark.parametrize("share", [0.35, 0.7])
    def test_a_search_whose_driver_was_killed_goes_on(self, searched, tmp_path, share):
        copy = cut_log(searched.folder, tmp_path / "copy", share)
        before = {event.trial for event in store.read(copy, "ended")}
        known = {e.trial: e.body["config"] for e in store.read(copy, "launched")}
        with self.search(copy, mode=searched.metadata["mode"], resume=True) as again:
            again.run(num_trials=24)
            assert again.join_jobs(timeout=60)
            assert [trial.id for trial in again.trials] == list(range(len(again.trials)))
            assert len(again.trials) == 24 or self.breeds
            for trial in again.trials:
                assert trial.status.is_end or (self.pauses and trial.status is Status.PAUSED)
            configs = again.config_history
            assert {trial: configs[trial] for trial in known} == known
            started = [e.trial for e in store.read(copy, "started") if e.trial in before]
            was = [e.trial for e in store.read(searched.folder, "started") if e.trial in before]
            assert started == was, "what had ended does not run again"
            assert_attempts_in_turn(copy, killed=True)

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
        ended = [row for row in rows if row[1] in ENDS]
        assert ended == [
            (t.id, t.status.value, t.best_reward) for t in searched.trials if t.status.is_end
        ]
        statuses = {trial: status for trial, status, _ in rows}
        assert statuses == {t.id: t.status.value for t in searched.trials}

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

    def test_a_configuration_of_the_user_runs_to_its_end(self, tmp_path):
        with self.search(tmp_path / "run") as scheduler:
            scheduler.run(num_trials=2)
            added = scheduler.add_job({"fate": "fine", "x": -1.0, "epochs": 2})
            assert scheduler.join_jobs(timeout=60)
            assert scheduler.trials[added].status.is_end or self.pauses
            config = {"fate": "fine", "x": -1.0, "epochs": 2}
            assert scheduler.run_with_config(config) == len(scheduler.trials) - 1

    def test_no_trial_goes_on_beyond_max_t(self, tmp_path):
        if not self.bounds:
            pytest.skip("it has no max_t")
        options = {"train_fn": endless, "points_to_evaluate": None, "max_t": 5}
        with self.search(tmp_path / "run", **options) as scheduler:
            scheduler.run(num_trials=6)
            assert scheduler.join_jobs(timeout=60)
            for trial, reports in scheduler.training_history.items():
                assert max(report["epoch"] for report in reports) <= 6
                status = scheduler.trials[trial].status
                assert status in (Status.STOPPED, Status.PAUSED)

    def test_the_same_seed_suggests_the_same(self, tmp_path):
        if self.breeds:
            pytest.skip("what children come first is a matter of timing")
        histories = []
        for run in ("first", "second"):
            with self.search(tmp_path / run, points_to_evaluate=None) as scheduler:
                scheduler.run(num_trials=8)
                assert scheduler.join_jobs(timeout=60)
                histories.append(scheduler.config_history)
        assert histories[0] == histories[1]


def recording(make: Any) -> Any:
    """The scheduler, with a list `decided` of what it decided at each report."""

    class Recording(make):
        @property
        def decided(self) -> list[Any]:
            return vars(self).setdefault("_decided", [])

        def due_at(self, trial: Any) -> Any:
            return make.due_at(self, trial) if make.on_report is not Scheduler.on_report else None

        def on_report(self, trial: Any, report: Any) -> Any:
            decision = super().on_report(trial, report)
            self.decided.append((trial.id, report.sequence, report.time, decision.word))
            return decision

    Recording.__name__ = make.__name__  # it is written to the log
    return Recording


def cut_log(folder: Path, copy: Path, share: float) -> Path:
    """A copy of an experiment as it was when this share of its log was written."""
    copy.mkdir()
    source = sqlite3.connect(folder / FILE)
    target = sqlite3.connect(copy / FILE)
    source.backup(target)
    source.close()
    (last,) = target.execute("select max(id) from events").fetchone()
    target.execute("delete from events where id > ?", (round(share * last),))
    target.commit()
    target.close()
    for part in folder.iterdir():  # the checkpoints: of those that the log does not know yet too
        if part.is_dir():
            shutil.copytree(part, copy / part.name, ignore_dangling_symlinks=True)
    return copy


def assert_attempts_in_turn(folder: Path, killed: bool = False) -> None:
    """Each attempt starts after the one before it was over (or its driver was killed)."""
    running: dict[int, int] = {}
    attempts: dict[int, int] = {}
    ended: set[int] = set()
    for event in store.read(folder):
        if event.kind == "experiment" and killed:
            running.clear()
        if event.trial is None:
            continue
        assert event.trial not in ended
        if event.kind == "started":
            assert event.trial not in running
            assert event.attempt == attempts.get(event.trial, 0) + 1
            running[event.trial] = attempts[event.trial] = event.attempt
        elif event.kind in ("paused", "ended", "lost"):
            running.pop(event.trial, None)
            ended |= {event.trial} if event.kind == "ended" else set()
        elif event.kind == "report":
            assert running[event.trial] == event.attempt
