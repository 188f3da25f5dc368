"""A search that runs does what it is asked, says so in its log, and goes on from there."""

from __future__ import annotations

import os
import sys
import threading

import pytest

import distsearch as ag
from distsearch.core import live, requests, steering, store
from distsearch.core.ledger import Ledger
from distsearch.core.snapshot import snapshot_of
from distsearch.core.steering import TOO_LATE
from distsearch.core.summary import status_of
from distsearch.core.words import Status
from distsearch.errors import NoDriver, TrialFailed
from distsearch.scheduler import HyperbandScheduler
from tests.hosts import Hosts


@ag.args(x=ag.Real(0.0, 1.0), epochs=2, gate="")
def waits(args, reporter):
    """Reports once, then waits until its gate is there, once for each trial."""
    import os
    import time

    reporter(epoch=1, accuracy=args.x)
    while not os.path.exists(args.gate):
        time.sleep(0.01)
    reporter(epoch=2, accuracy=args.x)


@pytest.fixture(autouse=True)
def looks_often(monkeypatch):
    monkeypatch.setattr(steering, "EVERY_S", 0.05)


def asks(folder, kind, **what):
    answer = requests.answer_of(folder, requests.ask(folder, kind, **what))
    assert answer is not None, f"nobody answered {kind}"
    return answer


def until(condition, what):
    """Wait for something that comes within a moment."""
    tick = threading.Event()
    for _ in range(1000):
        if condition():
            return
        tick.wait(0.02)
    raise AssertionError(f"not within 20 s: {what}")


def test_a_running_search_does_what_it_is_asked_and_logs_who_asked_and_what_came_of_it(
    search, tmp_path
):
    gate = tmp_path / "gate"
    scheduler = search(
        waits, args={"gate": str(gate)}, slots=2, checkpoint="named", num_trials=4, seed=1
    )
    folder = scheduler.folder
    scheduler.run()
    until(lambda: len(scheduler.training_history) == 2, "two trials have reported")
    assert asks(folder, "stop_trial", trial=0, by="a test").said == "trial 0 is stopped"
    assert asks(folder, "pause_trial", trial=1).is_done
    until(lambda: len(scheduler.trials) == 4, "two others have been launched")
    assert asks(folder, "add_config", config={"x": 0.75}).said == "it is trial 4"
    refused = asks(folder, "add_config", config={"y": 0.75})
    assert not refused.is_done and "there is no parameter 'y'" in refused.said
    for kind in ("stop_trial", "pause_trial"):
        assert "it has ended: stopped" in asks(folder, kind, trial=0).said
    assert "paused by request already" in asks(folder, "pause_trial", trial=1).said
    assert "there is no trial 99" in asks(folder, "go_on", trial=99).said
    assert "without localhost no node" in asks(folder, "drain_node", node="localhost").said
    until(lambda: live.read(folder)["running"].keys() == {"2", "3"}, "others have their slots")
    now = live.read(folder)
    assert (now["held"], now["queue"]) == ([1], [4])
    assert now["waits"] == {"for": "1 CPU", "trial": 4, "fences": ["localhost"], "parked": False}
    assert [node["trials"] for node in now["nodes"]] == [[2, 3]]
    assert asks(folder, "go_on", trial=1).is_done
    gate.touch()
    assert scheduler.join_jobs(30)
    trials = scheduler.trials
    assert [trial.status for trial in trials] == [Status.STOPPED, *[Status.FINISHED] * 4]
    assert trials[0].reason.startswith("by ") and trials[0].reason.endswith("(a test)")
    assert trials[1].story == "launched, started, held, lost, let_go, started, ended"
    assert trials[4].is_given and trials[4].config["x"] == 0.75
    logged = list(store.read(folder, "request"))
    assert [event.body["kind"] for event in logged][:2] == ["stop_trial", "pause_trial"]
    assert logged[0].body["what"] == {"trial": 0} and "(a test)" in logged[0].body["by"]
    assert os.listdir(folder / "requests") == []
    scheduler.close()
    assert live.read(folder) is None and not (folder / live.FILE).exists()


def test_a_search_that_is_stopped_by_request_ends_in_order(search, tmp_path):
    scheduler = search(waits, args={"gate": str(tmp_path / "gate")}, checkpoint="named")
    scheduler.run(num_trials=8)
    until(lambda: len(scheduler.training_history) == 4, "four trials have reported")
    assert asks(scheduler.folder, "pause_trial", trial=2).is_done
    until(lambda: scheduler.trials[2].status is Status.WAITING, "it is paused")
    stopped = asks(scheduler.folder, "stop_search")
    assert scheduler.join_jobs(30)
    assert {trial.status for trial in scheduler.trials} == {Status.STOPPED}
    assert stopped.said == f"nothing more is launched, {len(scheduler.trials)} trials stopped"
    assert all("stopped by " in trial.reason for trial in scheduler.trials)
    assert "has ended" in asks(scheduler.folder, "stop_search").said


DRIVER = """
import os, time
import distsearch as ag

@ag.args(x=ag.Real(0.0, 1.0))
def train_fn(args, reporter):
    start = (reporter.load() or {"epoch": 0})["epoch"]
    for epoch in range(start + 1, 10):
        reporter.save({"epoch": epoch}, step=epoch)
        reporter(epoch=epoch, accuracy=args.x * epoch)
        time.sleep(0.05)
        while epoch == 2 and args.task_id < 2 and not os.path.exists(f"go-{args.task_id}"):
            time.sleep(0.01)
        while epoch == 2 and not os.path.exists("all-go"):
            time.sleep(0.01)

if __name__ == "__main__":
    scheduler = ag.scheduler.HyperbandScheduler(
        train_fn, local=ag.Node("localhost", num_cpus=3), checkpoint="named", seed=3, max_t=9,
        type="promotion", grace_period=5, verbose=0)
    print("UP", flush=True)
    scheduler.run(num_trials=5)
    scheduler.join_jobs()
    scheduler.close()
"""


def test_a_search_that_was_steered_and_killed_goes_on_as_it_was_asked(driver, tmp_path):
    """What was stopped stays so, what was added is kept, and what was paused waits for `go-on`."""
    one, folder = driver(DRIVER), tmp_path / "named"
    (tmp_path / "all-go").touch()
    one.words_after("UP")
    until(lambda: len(list(store.read(folder, "report", trial=1))) == 2, "trial 1 has reported")
    assert "newest checkpoint" in asks(folder, "pause_trial", trial=1).said
    (tmp_path / "go-1").touch()
    until(lambda: list(store.read(folder, "lost")), "trial 1 is paused")
    assert asks(folder, "add_config", config={"x": 0.5}).is_done
    assert asks(folder, "stop_trial", trial=0).is_done
    one.process.kill()
    one.process.wait(10)
    requests_left = folder / "requests" / "01790000000000000000-0123abcd.json"
    requests_left.write_text('{"kind": "stop_search", "by": "somebody who came too late"}')
    assert live.read(folder) is None
    before = Ledger.of(folder)
    assert before.trials[1].status is Status.WAITING
    assert before.trials[1].reason.startswith("paused by ")
    (tmp_path / "go-0").touch()
    two = driver(DRIVER)
    two.words_after("UP")
    until(lambda: only_open(folder, Status.WAITING) == [1], "trial 1 is left")
    until(lambda: (live.read(folder) or {}).get("held") == [1], "its driver waits for `go-on`")
    assert asks(folder, "go_on", trial=1).is_done
    two.end()
    after = Ledger.of(folder)
    after.check()
    assert after.trials[0].status is Status.STOPPED and after.trials[0].attempt == 1
    assert after.trials[1].status in (Status.FINISHED, Status.PAUSED)
    assert after.trials[1].attempt > 1
    assert any(trial.is_given and trial.config["x"] == 0.5 for trial in after.trials.values())
    assert len(after.trials) == 6
    assert [event.body["said"] for event in store.read(folder, "request")][-2] == TOO_LATE
    assert os.listdir(folder / "requests") == []


def only_open(folder, status):
    """The trials that have not ended or paused by the rule, if all have this status."""
    there = [one for one in Ledger.of(folder).open.values() if one.status is not Status.PAUSED]
    return [one.id for one in there] if {one.status for one in there} == {status} else None


def test_a_search_that_is_paused_starts_nothing_until_it_is_let_go_whoever_runs_it(
    driver, tmp_path
):
    """Its trials, which save checkpoints, wait; those of another driver, too."""
    one, folder = driver(DRIVER), tmp_path / "named"
    one.words_after("UP")
    until(lambda: len(list(store.read(folder, "report"))) == 6, "three trials are at epoch 2")
    said = asks(folder, "pause_search").said
    assert said.endswith("3 trials to pause after the next checkpoint, 0 to go on to the end")
    for name in ("go-0", "go-1", "all-go"):
        (tmp_path / name).touch()
    until(lambda: len(list(store.read(folder, "lost"))) == 3, "three have given up their slots")
    assert "paused already" in asks(folder, "pause_search").said
    one.process.kill()
    one.process.wait(10)
    two = driver(DRIVER)
    two.words_after("UP")
    until(lambda: live.read(folder) is not None, "another driver has it")
    assert asks(folder, "add_config", config={"x": 0.5}).is_done
    until(lambda: live.read(folder)["queue"] == [0, 1, 2, 3], "four trials wait")
    assert live.read(folder)["paused"] and live.read(folder)["running"] == {}
    assert asks(folder, "search_goes_on").is_done
    two.end()
    after = Ledger.of(folder)
    after.check()
    assert len(after.trials) == 6 and not after.paused_by
    assert all(trial.attempt >= 2 for trial in list(after.trials.values())[:3])
    assert {one.status for one in after.trials.values()} <= {Status.FINISHED, Status.PAUSED}


@pytest.fixture
def paused_search(search, tmp_path):
    """A search by Hyperband of a type, made anew or again; some of its first four trials pause."""
    (tmp_path / "gate").touch()

    def make(kind):
        return search(
            waits,
            HyperbandScheduler,
            slots=2,
            args={"gate": str(tmp_path / "gate")},
            checkpoint="named",
            max_t=2,
            type=kind,
            grace_period=1,
            seed=1,
        )

    return make


def test_a_trial_that_the_rule_has_paused_can_be_stopped_or_let_go_on(paused_search):
    scheduler = paused_search("promotion")
    scheduler.run(num_trials=4)
    assert scheduler.join_jobs(30)
    folder, trials = scheduler.folder, scheduler.trials
    stopped, goes_on = [trial for trial in trials if trial.status is Status.PAUSED][:2]
    assert asks(folder, "stop_trial", trial=stopped.id).is_done
    assert stopped.status is Status.STOPPED and stopped.has_result
    assert asks(folder, "go_on", trial=goes_on.id).is_done
    assert scheduler.join_jobs(30)
    assert goes_on.status is Status.FINISHED and goes_on.attempt == 2
    assert goes_on.story == "launched, started, decided, paused, let_go, started, ended"
    before = [trial.status for trial in scheduler.trials]
    scheduler.run(num_trials=4)
    assert scheduler.join_jobs(30)
    assert [trial.status for trial in scheduler.trials][:4].count(Status.STOPPED) == 1
    assert before.count(Status.FINISHED) < len(scheduler.trials)
    live_state = [(t.id, t.status, t.story) for t in scheduler.trials]
    scheduler.close()
    assert [(t.id, t.status, t.story) for t in paused_search("promotion").trials] == live_state


def test_a_rung_that_is_decided_once_and_for_all_lets_nobody_go_on_by_request(paused_search):
    scheduler = paused_search("synchronous")
    scheduler.run(num_trials=4)
    assert scheduler.join_jobs(30)
    loser = next(trial for trial in scheduler.trials if trial.status is Status.PAUSED)
    said = asks(scheduler.folder, "go_on", trial=loser.id)
    assert not said.is_done and "once and for all" in said.said
    assert loser.status is Status.PAUSED


@ag.args(x=ag.Real(0.0, 1.0), epochs=2, gate="")
def saves_and_waits(args, reporter):
    import os
    import time

    for epoch in range((reporter.load() or {"epoch": 0})["epoch"] + 1, 3):
        reporter.save({"epoch": epoch}, step=epoch)
        reporter(epoch=epoch, accuracy=args.x)
        while not os.path.exists(args.gate):
            time.sleep(0.01)


def test_a_trial_that_is_just_pausing_can_be_stopped_at_once(search, tmp_path):
    """It has 30 s for its next checkpoint, which never comes; `until` waits for less."""
    args = {"gate": str(tmp_path / "gate")}
    scheduler = search(saves_and_waits, args=args, slots=1, checkpoint="named", num_trials=1)
    scheduler.run()
    until(lambda: list(store.read(scheduler.folder, "report")), "it trains")
    assert asks(scheduler.folder, "pause_trial", trial=0).is_done
    record = ag.open(scheduler.folder)
    assert status_of(record.ledger, record.trials[0]) == "pausing"
    assert asks(scheduler.folder, "stop_trial", trial=0).is_done
    until(lambda: scheduler.trials[0].status is Status.STOPPED, "it has stopped")


def test_what_may_go_on_is_asked_while_no_driver_runs_and_the_next_one_does_it(paused_search):
    scheduler = paused_search("promotion")
    scheduler.run(num_trials=4)
    assert scheduler.join_jobs(30)
    scheduler.close()
    paused = next(one.id for one in scheduler.trials if one.status is Status.PAUSED)
    with pytest.raises(NoDriver):
        requests.ask(scheduler.folder, "stop_trial", trial=paused, may_wait=True)
    asked = requests.ask(scheduler.folder, "go_on", trial=paused, may_wait=True)
    again = paused_search("promotion")
    assert requests.answer_of(again.folder, asked).is_done
    again.run(num_trials=4)
    assert again.join_jobs(30)
    assert again.trials[paused].status is Status.FINISHED


def test_run_with_config_ends_when_its_search_was_paused_and_is_closed(search, tmp_path):
    scheduler = search(saves_and_waits, args={"gate": str(tmp_path / "gate")}, checkpoint="named")

    def pause_and_close():
        until(lambda: list(store.read(scheduler.folder, "report")), "it trains")
        asks(scheduler.folder, "pause_search")
        scheduler.close()

    thread = threading.Thread(target=pause_and_close)
    thread.start()
    with pytest.raises(TrialFailed, match="trial 0 waiting"):
        scheduler.run_with_config({"x": 0.5})
    thread.join(30)


def test_what_shows_a_search_counts_only_the_time_in_which_it_was_searched(search, tmp_path):
    gate = tmp_path / "gate"
    gate.touch()
    for _ in range(2):  # the second time nothing is left to do
        scheduler = search(
            waits, args={"gate": str(gate)}, slots=2, checkpoint="named", num_trials=4, seed=1
        )
        scheduler.run()
        assert scheduler.join_jobs(30)
        scheduler.close()
        record = ag.open(scheduler.folder)
        shown = snapshot_of(record, None)
        assert shown.trials_per_minute == pytest.approx(240 / record.worked_s)
        assert shown.elapsed_s == record.worked_s > 0.02 and shown.note == "no driver runs it"


def test_a_machine_that_the_search_did_not_know_is_added_and_runs_trials(search, tmp_path):
    """As `distsearch nodes DIR add HOST` asks for it."""
    gate = tmp_path / "gate"
    with Hosts() as hosts:
        host = hosts.start()
        scheduler = search(
            waits,
            slots=1,
            args={"gate": str(gate)},
            ssh_config=[hosts.config],
            checkpoint="named",
            num_trials=3,
        )
        scheduler.run()
        until(lambda: len(scheduler.training_history) == 1, "the only slot is taken")
        nodes = tmp_path / "more.toml"
        nodes.write_text(
            f'[more]\nhost = "127.0.0.1"\nport = {host.port}\n'
            f'python = "{sys.executable}"\nnum_cpus = 1\n'
        )
        number = requests.ask(scheduler.folder, "add_node", node=str(nodes))
        answer = requests.answer_of(scheduler.folder, number, within_s=60)
        assert answer.is_done and answer.said == f"127.0.0.1:{host.port} is up"
        until(lambda: len(scheduler.training_history) == 2, "a trial runs there")
        gate.touch()
        assert scheduler.join_jobs(60)
        assert "127.0.0.1" in {trial.host for trial in scheduler.trials}
        scheduler.close()


def test_pausing_is_nothing_that_the_rule_of_a_search_hears_of(search, tmp_path):
    """Whom it has paused itself it may let go on, a trial that was paused by request not."""
    gate = tmp_path / "gate"
    scheduler = search(
        waits,
        HyperbandScheduler,
        slots=2,
        args={"gate": str(gate)},
        checkpoint="named",
        max_t=2,
        type="promotion",
        grace_period=1,
    )
    scheduler.run(num_trials=2)
    until(lambda: Status.PAUSED in {t.status for t in scheduler.trials}, "the rule pauses one")
    paused = next(trial for trial in scheduler.trials if trial.status is Status.PAUSED)
    said = asks(scheduler.folder, "pause_trial", trial=paused.id).said
    assert "the rule has paused it" in said
    others = [trial for trial in scheduler.trials if trial.status is not Status.PAUSED]
    for other in others:
        assert "is not paused: it is" in asks(scheduler.folder, "go_on", trial=other.id).said


def test_a_node_that_is_to_go_goes_when_its_trials_have_ended_unless_it_is_added_again(
    search, tmp_path
):
    gate = tmp_path / "gate"
    with Hosts() as hosts:
        host = hosts.start()
        node = f"127.0.0.1:{host.port}"
        scheduler = search(
            waits,
            slots=1,
            dist_ip_addrs=ag.Node("127.0.0.1", port=host.port, python=sys.executable, num_cpus=1),
            args={"gate": str(gate)},
            ssh_config=[hosts.config],
            num_trials=6,
        )
        folder = scheduler.folder
        scheduler.run()
        until(lambda: len(scheduler.training_history) == 2, "both nodes have a trial")
        assert (
            asks(folder, "add_node", node=node).said == f"{node} is a node of this search already"
        )
        assert asks(folder, "drain_node", node=node).is_done
        assert "no node could run a trial" in asks(folder, "drain_node", node="localhost").said
        assert asks(folder, "add_node", node=node).said == f"{node} stays"
        said = asks(folder, "drain_node", node="localhost").said
        assert said == "localhost gets no more trials, and goes when its 1 have ended"
        until(lambda: len(scheduler.fleet.remotes) == 2, "both are there while a trial runs")
        until(lambda: live.read(folder)["nodes"][0]["state"] == "draining", "it says so")
        gate.touch()
        assert scheduler.join_jobs(60)
        until(lambda: len(scheduler.fleet.remotes) == 1, "the drained node is gone")
        assert {trial.host for trial in scheduler.trials[2:]} == {"127.0.0.1"}
        assert [trial.status.value for trial in scheduler.trials] == ["finished"] * 6
        assert "is none of the nodes" in asks(folder, "drain_node", node="elsewhere").said
        scheduler.close()


def test_a_machine_that_has_no_thread_left_for_a_moment_does_not_make_the_search_deaf(
    search, tmp_path, monkeypatch
):
    look, shortages = steering.Steering._look, iter([RuntimeError("can't start new thread")])

    def looks_or_cannot(self, state):
        for error in shortages:
            raise error
        return look(self, state)

    monkeypatch.setattr(steering.Steering, "_look", looks_or_cannot)
    scheduler = search(waits, args={"gate": str(tmp_path / "none")}, num_trials=1)
    scheduler.run()
    until(lambda: scheduler.training_history, "the trial has reported")
    assert asks(scheduler.folder, "stop_trial", trial=0).is_done
    assert scheduler.join_jobs(timeout=20)
