"""Children start after their parents' weights are committed, and nothing waits for ever."""

from __future__ import annotations

import hashlib
import os
import signal
import sqlite3
import time

import numpy as np
import pytest

import distsearch as ag
from distsearch.core import store
from distsearch.core.words import Status
from distsearch.errors import LineageError, OptionError
from distsearch.scheduler import FIFOScheduler, Launch, Pause
from distsearch.searcher import Searcher

JOIN_S = 60


class Family(Searcher):
    """Suggests for each trial the parents that `parents_of` names; all with the same options."""

    parents_of = {}
    wait_for = "end"
    slow = False

    def suggest(self, trial_id, rng):
        parents = self.parents_of.get(trial_id, ())
        return Launch({**self.space.default}, parents, wait_for=self.wait_for)


def family(train_fn, parents_of, **options):
    kind = type("Family", (Family,), {"parents_of": parents_of, **options})
    return kind(train_fn.space, points_to_evaluate=[])


def one_father(children):
    return dict.fromkeys(range(1, children + 1), (0,))


def kinds_of(scheduler, *kinds):
    """(kind, trial) of the events in the log, in their order."""
    return [(event.kind, event.trial) for event in store.read(scheduler.folder, *kinds)]


def committed_before_started(scheduler):
    """Every child's start comes after the end of its parents in the log, which all have saved."""
    ended, saved = set(), set()
    for kind, trial in kinds_of(scheduler, "saved", "ended", "started"):
        if kind == "started":
            for parent in scheduler.trials[trial].parents:
                assert parent in ended and parent in saved
        else:
            (ended if kind == "ended" else saved).add(trial)


@ag.args(size=100)
def same_bytes(args, reporter):
    """The father writes random bytes; his children read them; all report the digest."""
    if reporter.parents:
        data = reporter.load(parent=reporter.parents[0])["data"]
        assert np.array_equal(reporter.load()["data"], data)
    else:
        data = np.frombuffer(os.urandom(1024 * args.size), np.uint8)
        time.sleep(0.2)
        reporter.save({"data": data})
    reporter(accuracy=1.0, digest=hashlib.sha256(data.tobytes()).hexdigest())


@pytest.mark.parametrize("slow", [False, True])
def test_nine_children_start_after_their_father_and_read_his_bytes(search, slow):
    searcher = family(same_bytes, one_father(9), slow=slow)
    scheduler = search(same_bytes, slots=3, searcher=searcher)
    scheduler.run(num_trials=10)
    assert scheduler.join_jobs(timeout=JOIN_S)
    assert [trial.status for trial in scheduler.trials] == [Status.FINISHED] * 10
    digests = {reports[0]["digest"] for reports in scheduler.training_history.values()}
    assert len(digests) == 1
    committed_before_started(scheduler)
    waited = kinds_of(scheduler, "launched", "ended").index(("ended", 0))
    assert waited > 1, "no child waited: the father had ended before they were launched"
    if not slow:
        assert waited == 10, "all nine waited, none of them in a slot"


class FatherLast(FIFOScheduler):
    """Pauses the father once, so that his children wait; then others run, and he goes on last."""

    def next_resume(self):
        enough = self.num_finished_tasks >= 3
        paused = self.experiment.ledger.trials[0].status is Status.PAUSED
        return 0 if enough and paused else None

    def on_report(self, trial, report):
        return Pause() if report.metrics.get("pause") else super().on_report(trial, report)


@ag.args(x=1)
def pauses_unsaved(args, reporter):
    if args.task_id == 0:
        if not os.path.exists("been_here"):
            open("been_here", "w").close()
            reporter(accuracy=0.0, pause=True)
        reporter.save({"data": 7})
    elif reporter.parents:
        assert reporter.load() == {"data": 7}
    reporter(accuracy=1.0)


def test_on_one_slot_eight_waiting_children_leave_the_slot_to_others(search):
    searcher = family(pauses_unsaved, one_father(8))
    scheduler = search(pauses_unsaved, FatherLast, slots=1, searcher=searcher)
    scheduler.run(num_trials=12)
    assert scheduler.join_jobs(timeout=JOIN_S)
    assert [trial.status for trial in scheduler.trials] == [Status.FINISHED] * 12
    starts = [trial for _, trial in kinds_of(scheduler, "started")]
    assert starts == [0, 9, 10, 11, 0, *range(1, 9)]
    committed_before_started(scheduler)


def test_a_parent_that_is_paused_and_never_goes_on_holds_up_nobody(search):
    class NeverGoesOn(FatherLast):
        def next_resume(self):
            return None

    searcher = family(pauses_unsaved, {1: (0,), 2: (1,)})
    scheduler = search(
        pauses_unsaved, NeverGoesOn, slots=1, searcher=searcher, on_parent_failure="fail"
    )
    scheduler.run(num_trials=3)
    assert scheduler.join_jobs(timeout=JOIN_S)
    assert [t.status for t in scheduler.trials] == [Status.PAUSED, Status.FAILED, Status.FAILED]
    assert scheduler.trials[1].reason == "its parent 0 is paused and has no checkpoint"
    assert scheduler.trials[2].reason.startswith("its parent 1 failed: its parent 0 is paused")


@ag.args(mailbox="", fatal=1)
def father_dies(args, reporter):
    """Trial 1, child of 0 and father of the rest, saves and waits to be killed `fatal` times."""
    state = reporter.load() or {"names": []}
    if args.task_id == 1:
        with open(args.mailbox, "a+") as log:
            print(os.getpid(), file=log, flush=True)
            log.seek(0)
            attempts = len(log.read().split())
        reporter.save({"names": [*state["names"], "half"]})
        reporter(accuracy=0.1)
        while attempts <= args.fatal:
            time.sleep(0.01)
    reporter.save({"names": [*state["names"], args.task_id]})
    reporter(accuracy=1.0, inherited=state["names"])


def kill_when_it_runs(path, times, folder):
    """SIGKILL to each of so many attempts of trial 1, once it has reported."""
    deadline = time.monotonic() + JOIN_S
    for number in range(times):
        while True:
            assert time.monotonic() < deadline
            time.sleep(0.01)
            pids = path.read_text().split() if path.exists() else []
            told = [e for e in store.read(folder, "report", trial=1) if e.attempt == number + 1]
            if len(pids) > number and told:
                break
        os.kill(int(pids[number]), signal.SIGKILL)


@pytest.mark.parametrize("slots", [1, 3])
@pytest.mark.parametrize("policy", ["nearest_ancestor", "scratch", "fail", "retry"])
def test_a_father_who_is_killed_gets_what_the_policy_says(search, tmp_path, policy, slots):
    pids = tmp_path / "pids"
    scheduler = search(
        father_dies,
        slots=slots,
        searcher=family(father_dies, {1: (0,), 2: (1,), 3: (1, 0)}),
        args={"mailbox": str(pids)},
        on_parent_failure=policy,
        max_failures=2,
        retries={"killed": 0},
    )
    scheduler.run(num_trials=4)
    kill_when_it_runs(pids, 1, scheduler.folder)
    assert scheduler.join_jobs(timeout=JOIN_S)
    statuses = [trial.status.value for trial in scheduler.trials]
    inherited = {
        trial: reports[-1]["inherited"]
        for trial, reports in scheduler.training_history.items()
        if trial in (2, 3)
    }
    lineage = scheduler.lineage()
    rows = (
        sqlite3.connect(scheduler.folder / "events.db")
        .execute("select trial, parent, inherited, policy from lineage order by 1, 2")
        .fetchall()
    )
    expected = {
        "nearest_ancestor": (["killed", "finished", "finished"], {2: [0], 3: [0]}, (0,), (0, 0)),
        "scratch": (["killed", "finished", "finished"], {2: [], 3: [0]}, (None,), (None, 0)),
        "fail": (["killed", "failed", "failed"], {}, (), ()),
        "retry": (["finished"] * 3, {2: [0, "half", 1], 3: [0, "half", 1]}, (1,), (1, 0)),
    }[policy]
    assert statuses == ["finished", *expected[0]]
    assert inherited == expected[1]
    assert (lineage[2].inherited, lineage[3].inherited) == expected[2:]
    assert [(row[0], row[1]) for row in rows] == [(1, 0), (2, 1), (3, 0), (3, 1)]
    assert {row[3] for row in rows[1:]} == {
        policy if policy in ("nearest_ancestor", "scratch") else None
    }
    assert [row[2] for row in rows][1:2] == (list(expected[2]) or [None])
    if policy == "fail":
        assert scheduler.trials[2].reason.startswith("its parent 1 killed: killed by SIGKILL")
    if policy == "retry":
        assert kinds_of(scheduler, "again") == [("again", 1)]
        assert scheduler.trials[1].attempt == 2


def test_a_parent_that_dies_every_time_is_given_up_and_its_children_fail(search, tmp_path):
    pids = tmp_path / "pids"
    scheduler = search(
        father_dies,
        slots=2,
        searcher=family(father_dies, {2: (1,), 3: (2,)}),
        args={"mailbox": str(pids), "fatal": 9},
        on_parent_failure="retry",
        max_failures=2,
        retries={"killed": 0},
    )
    scheduler.run(num_trials=4)
    kill_when_it_runs(pids, 3, scheduler.folder)
    assert scheduler.join_jobs(timeout=JOIN_S)
    statuses = [trial.status.value for trial in scheduler.trials]
    assert statuses == ["finished", "killed", "failed", "failed"]
    assert scheduler.trials[1].attempt == 3


@ag.args(x=1)
def saves_nothing(args, reporter):
    assert reporter.load() is None
    assert [reporter.load(parent=parent) for parent in reporter.parents] in ([], [None])
    reporter(accuracy=1.0)


@pytest.mark.parametrize(
    ("policy", "status"),
    [("nearest_ancestor", "finished"), ("scratch", "finished"), ("fail", "failed")],
)
def test_a_parent_that_ends_without_a_checkpoint_is_not_waited_for(search, capfd, policy, status):
    searcher = family(saves_nothing, one_father(4))
    scheduler = search(
        saves_nothing, slots=2, searcher=searcher, on_parent_failure=policy, verbose=2
    )
    scheduler.run(num_trials=5)
    assert scheduler.join_jobs(timeout=JOIN_S)
    assert [trial.status.value for trial in scheduler.trials] == ["finished", *[status] * 4]
    said = capfd.readouterr().out
    told = said.count("its parent 0 is finished and has no checkpoint")
    assert told == 1 if policy != "fail" else told >= 1, "not once for every child"


@ag.args(mailbox="", go="")
def trains_on(args, reporter):
    """Trial 0 saves and goes on until a file is there."""
    if reporter.parents:
        epoch = reporter.load(parent=0)["epoch"]
        with open(args.mailbox, "w") as mailbox:
            print("child", epoch, file=mailbox)
        while not os.path.exists(args.go):
            time.sleep(0.01)
        assert reporter.load(parent=0)["epoch"] == epoch, "it is the same at every call"
        reporter(accuracy=1.0)
        return
    epoch = 0
    while not os.path.exists(args.go) or epoch < 3:
        epoch += 1
        reporter.save({"epoch": epoch})
        reporter(epoch=epoch, accuracy=0.5)
        time.sleep(0.05)


def test_a_child_that_waits_for_a_checkpoint_starts_while_its_parent_trains_on(
    search, mailbox, tmp_path
):
    go = tmp_path / "go"
    scheduler = search(
        trains_on,
        slots=2,
        searcher=family(trains_on, {1: (0,)}, wait_for="checkpoint"),
        args={"mailbox": mailbox.path, "go": str(go)},
    )
    scheduler.run(num_trials=2)
    who, epoch = mailbox.take().split()
    assert (who, scheduler.trials[0].status) == ("child", Status.RUNNING)
    deadline = time.monotonic() + JOIN_S
    while len(scheduler.training_history[0]) < int(epoch) + 3:
        assert time.monotonic() < deadline
        time.sleep(0.01)
    go.touch()
    assert scheduler.join_jobs(timeout=JOIN_S)
    assert [trial.status for trial in scheduler.trials] == [Status.FINISHED] * 2


@pytest.mark.parametrize("parents", [(7,), (1,), (-1,), ("a",), 0])
@pytest.mark.parametrize("slow", [False, True])
def test_a_parent_that_is_no_earlier_trial_ends_the_search_with_its_name(search, parents, slow):
    searcher = family(same_bytes, {1: parents}, slow=slow)
    scheduler = search(same_bytes, slots=1, searcher=searcher)
    scheduler.run(num_trials=3)
    with pytest.raises(LineageError) as error:
        scheduler.join_jobs(timeout=JOIN_S)
    assert repr(parents[0] if isinstance(parents, tuple) else parents) in str(error.value)


def test_other_words_for_waiting_and_policies_are_refused(search):
    with pytest.raises(LineageError, match="'end' or 'checkpoint'"):
        Launch({}, (0,), wait_for="later")
    with pytest.raises(OptionError, match="'nearest_ancestor', 'scratch', 'fail', 'retry'"):
        search(same_bytes, on_parent_failure="pray")


def test_a_parent_that_is_not_one_cannot_be_loaded(search):
    @ag.args(x=1)
    def train_fn(args, reporter):
        reporter.load(parent=5)

    scheduler = search(train_fn, slots=1)
    scheduler.run(num_trials=1)
    assert scheduler.join_jobs(timeout=JOIN_S)
    text = "LineageError: load(parent=5), but the parents of this trial are ()"
    assert scheduler.trials[0].reason == text


def test_a_rule_that_names_a_dead_parent_for_ever_ends_with_its_time(search):
    @ag.args(x=ag.Real(0, 1))
    def train_fn(args, reporter):
        reporter(accuracy=args.x)

    searcher = family(train_fn, dict.fromkeys(range(1, 10000), (0,)))
    scheduler = search(train_fn, slots=1, searcher=searcher, on_parent_failure="fail")
    scheduler.run(time_out=2)
    assert scheduler.join_jobs(timeout=JOIN_S)
    assert scheduler.trials[0].status is Status.FINISHED
    assert 1 < len(scheduler.trials) < 200
    assert {trial.status.is_end for trial in scheduler.trials} == {True}


def test_the_end_of_the_time_ends_children_that_wait(search):
    @ag.args(x=ag.Real(0, 1))
    def train_fn(args, reporter):
        time.sleep(300)

    searcher = family(train_fn, one_father(9999))
    scheduler = search(train_fn, slots=2, searcher=searcher)
    scheduler.run(time_out=1)
    assert scheduler.join_jobs(timeout=JOIN_S)
    assert {trial.status for trial in scheduler.trials} == {Status.STOPPED}
    assert len(scheduler.trials) < 1000, "the searcher is not asked for children without end"


RESUMES = """
import os, time
import distsearch as ag
from distsearch.scheduler import Launch
from distsearch.searcher import Searcher

class Family(Searcher):
    def suggest(self, trial_id, rng):
        return Launch({"x": float(trial_id)}, (0,) if trial_id else ())

@ag.args(x=ag.Real(0.0, 99.0))
def train_fn(args, reporter):
    with open("starts.txt", "a") as file:
        print(args.task_id, file=file)
    if args.task_id == 0:
        print("AT father", flush=True)
        while not os.path.exists("go"):
            time.sleep(0.01)
        reporter.save({"bytes": 7})
    else:
        assert reporter.load() == {"bytes": 7}
        if args.task_id == 2:
            print("AT child", flush=True)
            while not os.path.exists("go on"):
                time.sleep(0.01)
    reporter(accuracy=args.x)

if __name__ == "__main__":
    scheduler = ag.scheduler.FIFOScheduler(
        train_fn, searcher=Family(train_fn.space, points_to_evaluate=[]), seed=3,
        local=ag.Node("localhost", num_cpus=2), checkpoint="named")
    scheduler.run(num_trials=5)
    scheduler.join_jobs()
    print("ALL", [t.status.value for t in scheduler.trials], [t.attempt for t in scheduler.trials])
    print("LINEAGE", {t: (d.parents, d.inherited) for t, d in scheduler.lineage().items()})
    scheduler.close()
"""


def test_a_resumed_search_knows_who_waits_and_trains_nothing_again(driver, tmp_path):
    one = driver(RESUMES)
    one.words_after("AT father")
    while len(list(store.read(tmp_path / "named", "launched"))) < 5:
        time.sleep(0.01)
    one.process.kill()
    one.process.wait(10)
    (tmp_path / "go").touch()
    one = driver(RESUMES)
    one.words_after("AT child")
    one.process.kill()
    one.process.wait(10)
    (tmp_path / "go on").touch()
    for _ in range(2):  # and once more when all has ended
        said = driver(RESUMES).end()
        assert f"ALL {['finished'] * 5}" in said
        assert f"LINEAGE { {0: ((), ()), **dict.fromkeys(range(1, 5), ((0,), (0,)))} }" in said
    starts = (tmp_path / "starts.txt").read_text().split()
    assert starts.count("0") == 2, "he had not ended when the driver was killed for the first time"
    assert starts.count("2") == 2
    assert starts.count("3") + starts.count("4") <= 3 and starts.count("1") <= 2


def test_evolution_with_inheritance_names_the_mutated_parent(search, tmp_path):
    @ag.args(a=ag.Choice(*range(9)), b=ag.Choice(*range(9)))
    def train_fn(args, reporter):
        state = reporter.load() or {"line": []}
        reporter.save({"line": [*state["line"], args.task_id]})
        reporter(accuracy=args.a + args.b, line=state["line"])

    options = {
        "searcher": "evolution",
        "search_options": {"population": 4, "sample": 2, "inherit": True},
        "seed": 1,
        "checkpoint": tmp_path / "run",
    }
    scheduler = search(train_fn, slots=2, **options)
    scheduler.run(num_trials=20)
    assert scheduler.join_jobs(timeout=JOIN_S)
    lineage, history = scheduler.lineage(), scheduler.training_history
    assert [trial for trial, of in lineage.items() if not of.parents] == [0, 1, 2, 3]
    for trial, of in lineage.items():
        assert all(parent < trial for parent in of.parents), "it is acyclic"
        assert of.inherited == of.parents
        for parent in of.parents:
            assert history[trial][0]["line"] == [*history[parent][0]["line"], parent]
            assert of.generation == lineage[parent].generation + 1
            mine, theirs = of.config, lineage[parent].config
            assert sum(mine[name] != theirs[name] for name in mine) >= 1
    committed_before_started(scheduler)
    scheduler.close()
    again = search(train_fn, slots=2, **options)
    again.run(num_trials=20)
    assert again.join_jobs(timeout=JOIN_S)
    assert again.lineage() == lineage
    assert [trial.attempt for trial in again.trials] == [1] * 20, "nothing was trained again"
    again.run(num_trials=4)
    assert again.join_jobs(timeout=JOIN_S)
    assert all(of.inherited == of.parents != () for of in [*again.lineage().values()][20:])
    scheduler.draw_lineage(tmp_path / "lineage.png")
    assert (tmp_path / "lineage.png").read_bytes().startswith(b"\x89PNG")


def test_who_waits_for_a_father_that_waits_himself_starts_after_him(search):
    searcher = family(same_bytes, {1: (0,), 2: (1,), 3: (2, 0)})

    @ag.args(size=1)
    def saves(args, reporter):
        line = [reporter.load(parent=parent)["id"] for parent in reporter.parents]
        assert line == list(reporter.parents)
        reporter.save({"id": args.task_id})
        reporter(accuracy=1.0)

    scheduler = search(saves, slots=4, searcher=searcher)
    scheduler.run(num_trials=4)
    assert scheduler.join_jobs(timeout=JOIN_S)
    assert [trial.status for trial in scheduler.trials] == [Status.FINISHED] * 4
    committed_before_started(scheduler)
    assert [of.generation for of in scheduler.lineage().values()] == [0, 1, 2, 3]
