"""Rules that stop, pause and copy trials: whoever is killed, they decide as if nobody had been."""

from __future__ import annotations

import collections
import math
import os
import signal
import sys
import time
from pathlib import Path

import psutil
import pytest

import distsearch as ag
from distsearch.core import store
from distsearch.core.words import Status
from distsearch.scheduler import (
    Continue,
    FIFOScheduler,
    HyperbandScheduler,
    Launch,
    PBTScheduler,
    Wait,
)
from tests.hosts import Hosts

RULES = {
    "promotion": (HyperbandScheduler, {"type": "promotion", "max_t": 27}),
    "stopping": (HyperbandScheduler, {"type": "stopping", "max_t": 27}),
    "synchronous": (HyperbandScheduler, {"type": "synchronous", "max_t": 27}),
    "pbt": (PBTScheduler, {"population_size": 6, "max_t": 27, "perturbation_interval": 3}),
}
# A driver of its own, which is to be killed amid the search.
DRIVER = """
import sys
sys.path.insert(0, {tests!r})
import distsearch as ag
from tests.scheduler.test_kill_rules import RULES, steady

if __name__ == "__main__":
    scheduler, options = RULES[{rule!r}]
    with scheduler(steady, local=ag.Node("localhost", num_cpus=3), checkpoint="search", seed=3,
                   resume={resume}, **options) as scheduler:
        scheduler.run(num_trials=40)
        print("RUNNING", flush=True)
        scheduler.join_jobs()
"""


@ag.args(x=ag.Real(0, 1), epochs=27)
def steady(args, reporter):
    """Better with a larger x at every epoch; goes on from its checkpoint."""
    state = reporter.load() or {"epoch": 0}
    for epoch in range(state["epoch"] + 1, args.epochs + 1):
        reporter.save({"epoch": epoch}, step=epoch)
        reporter(epoch=epoch, accuracy=args.x * (1 - 0.5 / epoch))


def start_driver(driver, rule, resume=False):
    root = str(Path(__file__).parents[2])
    one = driver(DRIVER.format(tests=root, rule=rule, resume=resume))
    one.words_after("RUNNING")
    return one


def wait_for_reports(folder, count):
    """Until the log of another process holds so many reports."""
    deadline = time.monotonic() + 30
    while sum(1 for _ in store.read(folder, "report")) < count:
        assert time.monotonic() < deadline, "the driver does not get on"
        time.sleep(0.01)


def events_by_trial(folder, kind):
    found = collections.defaultdict(list)
    for event in store.read(folder, kind):
        found[event.trial].append(event)
    return found


def assert_each_trial_ended_once(scheduler):
    for trial in scheduler.trials:
        assert trial.status in (Status.FINISHED, Status.STOPPED, Status.PAUSED), trial
    assert all(len(ends) == 1 for ends in events_by_trial(scheduler.folder, "ended").values())


def assert_no_epoch_is_missing_or_twice(scheduler):
    for trial_id, reports in events_by_trial(scheduler.folder, "report").items():
        epochs = [report.body["epoch"] for report in reports]
        first = epochs[0]
        assert epochs == list(range(first, first + len(epochs))), f"trial {trial_id}: {epochs}"
        assert first == 1 or scheduler.trials[trial_id].parents


def assert_rungs_agree_with_the_log(scheduler):
    """Each trial is in each rung that it has reported at, once, with its reward; last if failed."""
    reports = events_by_trial(scheduler.folder, "report")
    failed = {trial.id for trial in scheduler.trials if trial.status.is_failure}
    for rungs in scheduler.brackets:
        for rung in rungs.rungs:
            expected = {
                trial: -math.inf if trial in failed else report.body["accuracy"]
                for trial, all_ in reports.items()
                for report in all_
                if report.body["epoch"] == rung.level and scheduler._rungs_of(trial) is rungs
            }
            assert rung.rewards == expected
            assert len(rung) == len(expected)


def state_of(scheduler):
    """What the rule knows and would do next."""
    state = {"trials": [(t.id, t.status, t.attempt, t.best_reward) for t in scheduler.trials]}
    if isinstance(scheduler, HyperbandScheduler):
        state["rungs"] = [[rung.rewards for rung in rungs.rungs] for rungs in scheduler.brackets]
        state["promoted"] = list(scheduler._promoted)
    else:
        state["members"] = (scheduler._living, scheduler._interval, scheduler._turns)
    state["next"] = scheduler.searcher.ask(len(scheduler.trials))
    return state


def resumed(folder, rule):
    scheduler, options = RULES[rule]
    return scheduler(
        steady,
        local=ag.Node("localhost", num_cpus=3),
        checkpoint=folder,
        resume=True,
        verbose=0,
        **options,
    )


@pytest.mark.parametrize("rule", RULES)
def test_a_search_whose_driver_is_killed_twice_goes_on_as_if_it_had_not_been(
    driver, tmp_path, rule
):
    for reports, resume in ((40, False), (90, True)):
        one = start_driver(driver, rule, resume)
        wait_for_reports(tmp_path / "search", reports)
        one.process.kill()
        one.process.wait(10)
    with resumed(tmp_path / "search", rule) as scheduler:
        scheduler.run(num_trials=40)
        assert scheduler.join_jobs(timeout=60)
        assert_each_trial_ended_once(scheduler)
        assert_no_epoch_is_missing_or_twice(scheduler)
        if rule != "pbt":
            assert len(scheduler.trials) == 40
            assert_rungs_agree_with_the_log(scheduler)
    with resumed(tmp_path / "search", rule) as replayed:
        assert state_of(replayed) == state_of(scheduler)


def test_ctrl_c_during_promotion_pauses_nothing_for_ever(driver, tmp_path):
    one = start_driver(driver, "promotion")
    wait_for_reports(tmp_path / "search", 60)
    one.process.send_signal(signal.SIGINT)
    assert "KeyboardInterrupt" in one.end()
    with resumed(tmp_path / "search", "promotion") as scheduler:
        scheduler.run(num_trials=40)
        assert scheduler.join_jobs(timeout=60)
        assert len(scheduler.trials) == 40
        assert_each_trial_ended_once(scheduler)
        assert_no_epoch_is_missing_or_twice(scheduler)
        assert_rungs_agree_with_the_log(scheduler)
        assert max(map(len, scheduler.training_history.values())) == 27


@ag.args(x=ag.Real(0, 1), epochs=81)
def trivial(args, reporter):
    state = reporter.load() or {"epoch": 0}
    for epoch in range(state["epoch"] + 1, args.epochs + 1):
        reporter.save({"epoch": epoch}, step=epoch)
        reporter(epoch=epoch, accuracy=args.x * (1 - 0.5 / epoch))


def node_process_of(name):
    """The process of the node whose environment has this name."""
    for process in psutil.process_iter():
        try:
            if "node_process" in " ".join(process.cmdline()) and (
                process.environ().get("TEST_NODE") == name
            ):
                return process
        except (psutil.NoSuchProcess, psutil.AccessDenied):
            continue
    raise AssertionError(f"no process of the node {name}")


def test_200_configurations_by_promotion_survive_the_death_of_a_node_in_their_middle(tmp_path):
    with Hosts() as hosts:
        nodes = [
            ag.Node(
                "127.0.0.1",
                port=hosts.start(env={"TEST_NODE": name}).port,
                python=sys.executable,
                num_cpus=2,
            )
            for name in ("doomed", "survivor")
        ]
        with HyperbandScheduler(
            trivial,
            # Each is paused at first, and the best go on as more that are worse come after them.
            points_to_evaluate=[{"x": 1 - number / 200} for number in range(200)],
            type="promotion",
            grace_period=1,
            dist_ip_addrs=nodes,
            ssh_config=[hosts.config],
            local=False,
            seed=1,
            verbose=0,
            checkpoint=tmp_path / "search",
        ) as scheduler:
            scheduler.run(num_trials=200)
            wait_for_reports(tmp_path / "search", 100)
            assert len(scheduler.trials) < 200, "it is not the middle any more"
            paused_there = {t.id for t in scheduler.trials if t.status is Status.PAUSED}
            node_process_of("doomed").kill()
            assert scheduler.join_jobs(timeout=100)
            assert len(scheduler.trials) == 200
            assert_each_trial_ended_once(scheduler)
            assert_rungs_agree_with_the_log(scheduler)
            # What a dead node had trained beyond the driver's copy is trained again, shown once.
            histories = scheduler.training_history.values()
            assert all([r["epoch"] for r in h] == list(range(1, len(h) + 1)) for h in histories)
            assert max(map(len, histories)) == 81
    lost = list(store.read(tmp_path / "search", "lost"))
    at_once = [event.body.get("is_over", True) for event in lost]
    assert all(at_once), "it waited for the lease of a dead node"
    (gone,) = [event for event in store.read(tmp_path / "search", "node") if "went" in event.body]
    went_on = {
        event.trial
        for event in store.read(tmp_path / "search", "started")
        if event.id > gone.id and event.attempt > 1
    }
    assert went_on & paused_there, "no paused trial went on after the node had died"


def test_a_trial_that_is_killed_after_it_was_resumed_fails_alone(search, tmp_path):
    @ag.args(x=ag.Real(0, 1), epochs=9)
    def train_fn(args, reporter):
        state = reporter.load() or {"epoch": 0}
        for epoch in range(state["epoch"] + 1, args.epochs + 1):
            if state["epoch"] == 1 and epoch == 3:
                os.kill(os.getpid(), signal.SIGKILL)
            reporter.save({"epoch": epoch}, step=epoch)
            reporter(epoch=epoch, accuracy=args.x * (1 - 0.5 / epoch))

    scheduler = search(
        train_fn, HyperbandScheduler, type="promotion", seed=2, num_trials=18, max_failures=0
    )
    scheduler.run()
    assert scheduler.join_jobs(timeout=60)
    killed = [trial for trial in scheduler.trials if trial.status is Status.KILLED]
    assert killed, "no paused trial was resumed"
    assert all(trial.attempt == 2 and "SIGKILL" in trial.reason for trial in killed)
    assert_no_epoch_is_missing_or_twice(scheduler)
    assert_rungs_agree_with_the_log(scheduler)
    others = {trial.status for trial in scheduler.trials if trial not in killed}
    assert others <= {Status.PAUSED, Status.FINISHED}


class Hears(FIFOScheduler):
    """Remembers which reports it has heard."""

    def __init__(self, *args, **options):
        self.heard = []
        super().__init__(*args, **options)

    def on_report(self, trial, report):
        self.heard.append((trial.id, report.sequence))
        return Continue()


def test_a_rule_hears_of_the_reports_that_come_while_the_search_ends_as_a_replay_does(
    search, tmp_path
):
    first = search(steady, Hears, max_reward=0.3, seed=1, checkpoint=tmp_path / "run")
    first.run()
    assert first.join_jobs(timeout=60)
    first.close()
    reports = list(store.read(tmp_path / "run", "report"))
    assert first.heard == [(report.trial, report.seq) for report in reports]
    again = search(steady, Hears, max_reward=0.3, checkpoint=tmp_path / "run", resume=True)
    assert again.heard == first.heard


class Copies(FIFOScheduler):
    """One trial, and when it has ended another from its last checkpoint."""

    def next_launch(self):
        if not self.experiment.ledger.trials:
            return super().next_launch()
        if len(self.experiment.ledger.trials) > 1:
            return None
        return Launch({"x": 0.5}, parents=(0,)) if self.num_finished_tasks else Wait()


def test_a_child_whose_parent_had_trained_to_the_end_is_no_failure(search):
    scheduler = search(steady, Copies)
    scheduler.run(num_trials=2)
    assert scheduler.join_jobs(timeout=60)
    parent, child = scheduler.trials
    assert (parent.status, child.status) == (Status.FINISHED, Status.STOPPED)
    assert child.reason == "what it started from had no epoch left"


@ag.args(x=ag.Real(0, 1), epochs=9, go="")
def waits_for_go(args, reporter):
    while args.task_id and not os.path.exists(args.go):
        time.sleep(0.01)
    for epoch in range(1, args.epochs + 1):
        reporter(epoch=epoch, accuracy=float(args.task_id))


def test_synchronous_brackets_have_the_same_trials_after_a_second_run_and_a_resume(
    search, tmp_path
):
    options = {
        "type": "synchronous",
        "brackets": 2,
        "max_reward": 1.0,
        "checkpoint": tmp_path / "run",
        "args": {"go": str(tmp_path / "go")},
        "slots": 2,
        "seed": 1,
    }
    first = search(waits_for_go, HyperbandScheduler, **options)
    # The bracket is closed when trial 0 pauses, as no third one is to come; then trial 1 is so good
    # that the search ends, and none has gone on to tell of it.
    first.run(num_trials=2)
    deadline = time.monotonic() + 30
    while first.trials[0].status is not Status.PAUSED:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    (tmp_path / "go").touch()
    assert first.join_jobs(timeout=60)
    first.run(num_trials=2)
    assert first.join_jobs(timeout=60)
    first.close()
    brackets = [first._rungs_of(trial.id).levels for trial in first.trials]
    assert brackets[:3] == [(1, 3), (1, 3), (3,)], "the second run has a bracket of its own"
    again = search(waits_for_go, HyperbandScheduler, **options, resume=True)
    assert [again._rungs_of(trial.id).levels for trial in again.trials] == brackets
