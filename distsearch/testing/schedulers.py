"""What holds for every scheduler, whatever becomes of its trials."""

from __future__ import annotations

import math
import shutil
import sqlite3
from collections.abc import Iterator
from pathlib import Path
from typing import Any, ClassVar

import pytest

from ..core import store
from ..core.decorators import TrainFunction
from ..core.store import FILE
from ..core.words import Decision, Report, Status, Trial
from ..resource.node import Node
from ..scheduler import Scheduler
from .fates import POINTS, STATUS_OF_FATE, endless, fated

ENDS = {status.value for status in Status if status.is_end}
TRIALS = 24
JOIN_S = 60.0  # bounds each wait for trials


class SchedulerKit:
    """What holds for every scheduler; derive a test class of your own from it.

        class TestMyRule(SchedulerKit):
            make = MyRule
            stops = True

            def options(self):
                return {"patience": 3}

    The searches run on this machine, with real trials on four slots: they finish, raise, exit, are
    killed, and report NaN, text, nothing, or only some epochs. Drivers are cut off at some moment,
    and go on. A few seconds in all, unless the rule is slow.

    `make`: the class. `stops`: whether it may end trials early, with Stop. `pauses`: whether it may
    leave some paused when the search is over. `breeds`: whether it starts trials with parents.
    `bounds`: whether it has an option `max_t`, beyond which no trial trains.
    `points`: the configurations with which its searches begin, at least one for each fate.
    """

    make: ClassVar[type[Scheduler]]
    stops: ClassVar[bool] = False
    pauses: ClassVar[bool] = False
    breeds: ClassVar[bool] = False
    bounds: ClassVar[bool] = False
    points: ClassVar[list[dict[str, Any]]] = POINTS

    def options(self) -> dict[str, Any]:
        """What this scheduler needs besides."""
        return {}

    def search(
        self,
        folder: Path,
        train_fn: TrainFunction = fated,
        make: type[Scheduler] | None = None,
        **options: Any,
    ) -> Scheduler:
        """A scheduler on four slots of this machine."""
        return (make or self.make)(
            train_fn,
            **{
                "local": Node("localhost", num_cpus=4),
                "verbose": 0,
                "checkpoint": folder,
                "points_to_evaluate": self.points,
                "seed": 1,
                **self.options(),
                **options,
            },
        )

    @pytest.fixture(scope="class", params=["max", "min"])
    @classmethod
    def searched(
        cls, request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
    ) -> Iterator[Scheduler]:
        """A search over all fates that is over; it has recorded its decisions."""
        folder = tmp_path_factory.mktemp("searched") / "run"
        with cls().search(folder, make=recording(cls.make), mode=request.param) as scheduler:
            scheduler.run(num_trials=TRIALS)
            assert scheduler.join_jobs(timeout=JOIN_S)
            yield scheduler

    def test_every_trial_ends_in_the_status_that_befits_it(self, searched: Scheduler) -> None:
        self.assert_ends_befit(searched)
        ended = [trial for trial in searched.trials if trial.status.is_end]
        assert searched.num_finished_tasks == len(ended)

    def assert_ends_befit(self, searched: Scheduler) -> None:
        """Each trial has ended as its configuration says, or as the rule wanted it."""
        for trial in searched.trials:
            expected = {STATUS_OF_FATE[trial.config["fate"]]}
            expected |= {"stopped"} if self.stops else set()
            expected |= {"paused"} if self.pauses else set()
            # One whose parent had no epoch left for it has nothing to report.
            expected |= {"stopped", "finished"} if trial.parents else set()
            assert trial.status.value in expected
            assert trial.reason or trial.status in (Status.FINISHED, Status.PAUSED)

    def test_trials_of_two_ranks_end_as_those_of_one_and_report_once(self, tmp_path: Path) -> None:
        points = self.points[::2]
        several: dict[str, Any] = {
            "resource": {"num_cpus": 1, "world_size": 2},
            "isolation": "fresh",
        }
        with self.search(tmp_path / "run", points_to_evaluate=points, **several) as searched:
            searched.run(num_trials=len(points))
            assert searched.join_jobs(timeout=JOIN_S)
            self.assert_ends_befit(searched)
            assert all(len(trial.hosts) in (0, 2) for trial in searched.trials)
            assert_attempts_in_turn(searched.folder)
            for remote in searched.manager.remotes.values():
                assert remote.slots.used == (0, 0.0)

    def test_it_runs_as_many_trials_as_were_asked_for(self, searched: Scheduler) -> None:
        assert len(searched.trials) == TRIALS or (
            self.breeds and len(self.points) <= len(searched.trials)
        )

    def test_ids_count_from_0(self, searched: Scheduler) -> None:
        assert [trial.id for trial in searched.trials] == list(range(len(searched.trials)))
        assert list(searched.config_history) == list(range(len(searched.trials)))
        assert all(type(trial.id) is int for trial in searched.trials)

    def test_the_given_points_were_launched_first_in_order(self, searched: Scheduler) -> None:
        configs = [searched.config_history[n] for n in range(len(self.points))]
        assert configs == self.points

    def test_every_configuration_is_inside_the_space(self, searched: Scheduler) -> None:
        for config in searched.config_history.values():
            assert fated.space.validate(config) == config

    def test_histories_agree_with_the_log(self, searched: Scheduler) -> None:
        events = list(store.read(searched.folder))
        configs = {e.trial: e.body["config"] for e in events if e.kind == "launched"}
        assert searched.config_history == configs
        reports: dict[int | None, list[Any]] = {}
        for event in events:
            if event.kind == "report":
                reports.setdefault(event.trial, []).append(event.body)
        in_order = dict(sorted(reports.items()))  # of the trials; they arrive as it happens
        assert repr(searched.training_history) == repr(in_order)  # NaN equals nothing
        ends = {e.trial: e.body["status"] for e in events if e.kind == "ended"}
        statuses = {trial.id: trial.status for trial in searched.trials}
        assert ends == {n: status.value for n, status in statuses.items() if status.is_end}
        paused = [n for n, status in statuses.items() if status is Status.PAUSED]
        assert sorted(set(statuses) - set(ends)) == paused

    def test_no_two_attempts_of_a_trial_overlap_and_none_comes_after_its_end(
        self, searched: Scheduler
    ) -> None:
        assert_attempts_in_turn(searched.folder)

    def test_a_trial_runs_again_only_after_it_was_paused_or_killed(
        self, searched: Scheduler
    ) -> None:
        over = [event.trial for event in store.read(searched.folder, "paused", "lost")]
        for trial in searched.trials:
            is_paused = trial.status is Status.PAUSED
            assert trial.attempt == 1 + over.count(trial.id) - is_paused
            assert trial.attempt >= 4 or trial.status is not Status.KILLED

    def test_a_replay_of_the_log_comes_to_the_same_decisions(
        self, searched: Scheduler, tmp_path: Path
    ) -> None:
        copy = cut_log(searched.folder, tmp_path / "copy", share=1.0)
        again = self.search(
            copy, make=recording(self.make), mode=searched.metadata["mode"], resume=True
        )
        with again:
            assert decided(again) == decided(searched)
            assert {t.id: t.status for t in again.trials} == {
                t.id: t.status for t in searched.trials
            }

    def test_a_search_whose_driver_was_killed_goes_on(
        self, searched: Scheduler, tmp_path: Path
    ) -> None:
        """One is killed early, the other late."""
        mode = searched.metadata["mode"]
        copy = cut_log(searched.folder, tmp_path / "copy", {"max": 0.35, "min": 0.7}[mode])
        before = {event.trial for event in store.read(copy, "ended")}
        known: dict[Any, Any] = {e.trial: e.body["config"] for e in store.read(copy, "launched")}
        with self.search(copy, mode=mode, resume=True) as again:
            again.run(num_trials=TRIALS)
            assert again.join_jobs(timeout=JOIN_S)
            assert [trial.id for trial in again.trials] == list(range(len(again.trials)))
            assert len(again.trials) == TRIALS or self.breeds
            for trial in again.trials:
                assert trial.status.is_end or (self.pauses and trial.status is Status.PAUSED)
            configs = again.config_history
            assert {trial: configs[trial] for trial in known} == known
            started = [e.trial for e in store.read(copy, "started") if e.trial in before]
            was = [e.trial for e in store.read(searched.folder, "started") if e.trial in before]
            assert started == was, "what had ended does not run again"
            assert_attempts_in_turn(copy, killed=True)

    def test_the_best_is_the_best_number_reported_by_any_trial(self, searched: Scheduler) -> None:
        better = max if searched.metadata["mode"] == "max" else min
        found: list[tuple[float, Any]] = []
        for event in store.read(searched.folder, "report"):
            value = event.body["accuracy"]
            if isinstance(value, float) and not math.isnan(value):
                found.append((value, event.trial))
        best = better(value for value, _ in found)
        best_id = min(trial for value, trial in found if value == best)
        assert searched.get_best_reward() == best
        assert searched.get_best_task_id() == best_id
        assert searched.get_best_config() == searched.config_history[best_id]

    def test_each_trial_knows_its_best(self, searched: Scheduler) -> None:
        better = max if searched.metadata["mode"] == "max" else min
        for trial in searched.trials:
            values = [r["accuracy"] for r in searched.training_history.get(trial.id, [])]
            numbers = [v for v in values if isinstance(v, float) and not math.isnan(v)]
            assert trial.best_reward == (better(numbers) if numbers else None)

    def test_anyone_can_read_how_it_ended(self, searched: Scheduler) -> None:
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

    def test_what_failed_tells_why(self, searched: Scheduler) -> None:
        for trial in searched.trials:
            if trial.status is Status.FAILED:
                assert "KeyError: 'no such key'" in trial.error
            if trial.status is Status.EXITED:
                assert str({"exit": 3, "leave": 4}[trial.config["fate"]]) in trial.reason
            if trial.status is Status.KILLED:
                assert "SIGKILL" in trial.reason

    def test_it_can_go_on_with_more_trials(self, tmp_path: Path) -> None:
        with self.search(tmp_path / "run") as scheduler:
            scheduler.run(num_trials=3)
            assert scheduler.join_jobs(timeout=JOIN_S)
            scheduler.run(num_trials=2)
            assert scheduler.join_jobs(timeout=JOIN_S)
            assert [trial.id for trial in scheduler.trials] == [0, 1, 2, 3, 4]
            assert scheduler.config_history[4] == self.points[4]

    def test_a_configuration_of_the_user_runs_to_its_end(self, tmp_path: Path) -> None:
        with self.search(tmp_path / "run") as scheduler:
            scheduler.run(num_trials=2)
            added = scheduler.add_job({"fate": "fine", "x": -1.0, "epochs": 2})
            assert scheduler.join_jobs(timeout=JOIN_S)
            assert scheduler.trials[added].status.is_end or self.pauses
            config = {"fate": "fine", "x": -1.0, "epochs": 2}
            assert scheduler.run_with_config(config) == len(scheduler.trials) - 1

    def test_no_trial_goes_on_beyond_max_t(self, tmp_path: Path) -> None:
        if not self.bounds:
            pytest.skip("it has no max_t")
        with self.search(tmp_path / "run", endless, points_to_evaluate=None, max_t=5) as scheduler:
            scheduler.run(num_trials=6)
            assert scheduler.join_jobs(timeout=JOIN_S)
            for trial, reports in scheduler.training_history.items():
                assert max(report["epoch"] for report in reports) <= 6
                status = scheduler.trials[trial].status
                assert status in (Status.STOPPED, Status.PAUSED)

    def test_the_same_seed_suggests_the_same(self, tmp_path: Path) -> None:
        if self.breeds:
            pytest.skip("what children come first is a matter of timing")
        histories = []
        for run in ("first", "second"):
            with self.search(tmp_path / run, points_to_evaluate=None) as scheduler:
                scheduler.run(num_trials=8)
                assert scheduler.join_jobs(timeout=JOIN_S)
                histories.append(scheduler.config_history)
        assert histories[0] == histories[1]


Decided = tuple[int, int, float, str]  # trial, number of the report, its time, the decision


class Recorder(Scheduler):
    """Goes before a rule, and keeps what that has decided at each report."""

    recorded: ClassVar[type[Scheduler]]

    def due_at(self, trial: Trial) -> Any:
        """When the rule alone would have to decide."""
        decides = self.recorded.on_report is not Scheduler.on_report
        return super().due_at(trial) if decides else None

    def on_report(self, trial: Trial, report: Report) -> Decision:
        """What the rule decides, which is recorded."""
        decision = super().on_report(trial, report)
        decided(self).append((trial.id, report.sequence, report.time, decision.word))
        return decision


def recording(make: type[Scheduler]) -> type[Scheduler]:
    """The same scheduler, with a record of its decisions; the log does not show the difference."""
    return type(make.__name__, (Recorder, make), {"recorded": make})


def decided(scheduler: Scheduler) -> list[Decided]:
    """The record of a scheduler that `recording` made."""
    record: list[Decided] = vars(scheduler).setdefault("_decided", [])
    return record


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
        if event.trial is None or event.kind == "deleted":  # checkpoints may go at any time
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
