"""Whoever is killed, whenever: nothing of a search stays behind, and the rest goes on."""

from __future__ import annotations

import os
import signal
import time

import psutil
import pytest

import distsearch as ag
from distsearch.core.words import Status

# A driver of its own whose trials write down each process that they are or start.
SEARCH = """
import os, subprocess, sys, time
import distsearch as ag

@ag.args(x=ag.Real(0.0, 1.0))
def train_fn(args, reporter):
    inside = subprocess.Popen(["sleep", "300"])
    outside = subprocess.Popen(["sleep", "300"], start_new_session=True)
    print("PIDS", os.getpid(), os.getppid(), inside.pid, outside.pid)
    reporter(epoch=1, accuracy=args.x)
    {train}

if __name__ == "__main__":
    scheduler = ag.scheduler.FIFOScheduler(
        train_fn, local=ag.Node("localhost", num_cpus=2), {options})
    scheduler.run(num_trials=6)
    {then}
"""


def script(then, train="time.sleep(300)", options=""):
    return SEARCH.format(then=then, train=train, options=options)


def running_pids(one, trials=2):
    """The processes of this many trials: each trial, the launcher, and two children of it."""
    return {pid for _ in range(trials) for pid in one.words_after("PIDS")}


@pytest.mark.parametrize("isolation", ["fresh", "reuse"])
def test_a_killed_driver_leaves_no_process_within_seconds(driver, left_after, isolation):
    one = driver(script("scheduler.join_jobs()", options=f"isolation={isolation!r}"))
    pids = running_pids(one)
    assert len(pids) == 7, "two trials with two children each, and one launcher"
    one.process.kill()
    assert left_after(pids) == []


def test_a_killed_driver_leaves_no_spawned_trial(driver, left_after):
    one = driver(script("scheduler.join_jobs()", options="start_method='spawn'"))
    pids = running_pids(one)
    one.process.kill()
    assert left_after(pids) == []


def test_a_killed_driver_leaves_no_trial_that_ignores_every_signal(driver, left_after):
    ignores = "import signal; [signal.signal(n, signal.SIG_IGN) for n in (1, 2, 15)]; " + (
        "time.sleep(300)"
    )
    one = driver(script("scheduler.join_jobs()", train=ignores))
    pids = running_pids(one)
    one.process.kill()
    assert left_after(pids) == []


def test_what_outlives_a_driver_that_was_killed_with_all_its_helpers_ends_when_it_starts_again(
    driver, left_after
):
    ends_if_again = "time.sleep(300 if loaded is None else 0)"
    text = script(
        "scheduler.join_jobs()",
        train=f"loaded = reporter.load(); reporter.save({{'a': 1}}); {ends_if_again}",
        options="checkpoint='kept', max_failures=9",
    )
    one = driver(text)
    pids = {int(pid) for pid in running_pids(one)}
    killed = psutil.Process(one.process.pid)
    helpers = [p for p in killed.children(recursive=True) if "launcher" in " ".join(p.cmdline())]
    for process in (killed, *helpers):
        process.suspend()
    for process in (*reversed(helpers), killed):
        process.kill()
    children = {process.pid for process in left_after(pids, timeout_s=0.5)}
    assert len(children) == 4, "nobody was left to end them"
    driver(text)
    assert left_after(children) == []


def test_a_killed_driver_keeps_what_was_reported_in_its_log(driver, tmp_path):
    from distsearch.core.store import read

    one = driver(
        script("scheduler.join_jobs()", train="time.sleep(300)", options="checkpoint='kept'")
    )
    running_pids(one)
    deadline = time.monotonic() + 10
    while len(list(read(tmp_path / "kept", "report"))) < 2:
        assert time.monotonic() < deadline, "the reports were never durable"
        time.sleep(0.05)  # another process writes the file
    one.process.kill()
    one.process.wait(10)
    kinds = [event.kind for event in read(tmp_path / "kept")]
    assert (kinds.count("launched"), kinds.count("started"), kinds.count("report")) == (2, 2, 2)


def test_ctrl_c_stops_the_running_trials_and_leaves_nothing(driver, left_after):
    one = driver(script("scheduler.join_jobs()"))
    pids = running_pids(one)
    started = time.monotonic()
    one.process.send_signal(signal.SIGINT)
    said = one.end()
    assert time.monotonic() - started < 10
    assert left_after(pids) == []
    assert "interrupted: stopping the running trials" in said
    assert "KeyboardInterrupt" in said
    assert one.process.returncode not in (0, None)


def test_ctrl_c_twice_ends_even_what_ignores_its_end(driver, left_after):
    ignores = "import signal; signal.signal(15, signal.SIG_IGN); time.sleep(300)"
    one = driver(script("scheduler.join_jobs()", train=ignores))
    pids = running_pids(one)
    one.process.send_signal(signal.SIGINT)
    one.words_after("interrupted:")
    started = time.monotonic()
    one.process.send_signal(signal.SIGINT)
    one.end()
    assert time.monotonic() - started < 9, "not as long as they may take to end"
    assert left_after(pids) == []


@pytest.mark.parametrize(
    ("then", "code"), [("pass", 0), ("raise SystemExit(3)", 3), ("raise ValueError", 1)]
)
def test_a_driver_that_ends_without_joining_leaves_nothing_and_says_so(
    driver, left_after, then, code
):
    one = driver(script("sys.stdin.readline(); " + then))
    pids = running_pids(one)
    started = time.monotonic()
    one.say("both trials have children")
    said = one.end()
    assert time.monotonic() - started < 60, "the trials would sleep for 300 s"
    assert one.process.returncode == code
    assert "closed while 2 trials ran: stopped" in said
    assert "Task was destroyed" not in said and "Exception ignored" not in said
    assert left_after(pids) == []


def test_a_driver_that_lost_its_terminal_still_cleans_up(driver, left_after):
    one = driver(script("scheduler.join_jobs()"))
    pids = running_pids(one)
    one.process.send_signal(signal.SIGHUP)
    one.process.wait(10)
    assert left_after(pids) == []


@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_a_killed_trial_is_recorded_and_its_neighbours_are_untouched(search, mailbox, number):
    @ag.args(x=ag.Real(0.0, 1.0), mailbox=mailbox.path)
    def train_fn(args, reporter):
        with open(args.mailbox, "w") as box:
            print(args.task_id, os.getpid(), file=box)
        time.sleep(300 if args.task_id == 0 else 0.3)
        reporter(accuracy=args.x)

    scheduler = search(train_fn, slots=3, max_failures=0)
    scheduler.run(num_trials=3)
    pids = dict(mailbox.take().split() for _ in range(3))
    os.kill(int(pids["0"]), number)
    assert scheduler.join_jobs(timeout=20) is True
    statuses = [trial.status for trial in scheduler.trials]
    assert statuses == [Status.KILLED, Status.FINISHED, Status.FINISHED]
    assert number.name in scheduler.trials[0].reason


def test_a_killed_launcher_takes_its_trials_along_and_they_run_again(
    search, mailbox, left_after, tmp_path
):
    @ag.args(x=ag.Real(0.0, 1.0), mailbox=mailbox.path, go=str(tmp_path / "go"))
    def train_fn(args, reporter):
        import subprocess

        child = subprocess.Popen(["sleep", "300"])
        with open(args.mailbox, "w") as box:
            print(os.getpid(), os.getppid(), child.pid, file=box)
        while not os.path.exists(args.go):
            time.sleep(0.01)
        reporter(accuracy=args.x)

    scheduler = search(train_fn, slots=2)
    scheduler.run(num_trials=3)
    first = [mailbox.take().split() for _ in range(2)]
    launcher = int(first[0][1])
    os.kill(launcher, signal.SIGKILL)
    again = [mailbox.take().split() for _ in range(2)]
    assert left_after([pid for pids in first for pid in pids]) == []
    assert all(int(pids[1]) != launcher for pids in again)
    (tmp_path / "go").touch()
    assert scheduler.join_jobs(timeout=20) is True
    assert [trial.status for trial in scheduler.trials] == [Status.FINISHED] * 3
    assert [trial.attempt for trial in scheduler.trials] == [2, 2, 1]


def test_a_trial_that_always_kills_the_launcher_is_given_up(search):
    @ag.args(x=ag.Choice(1, 2))
    def train_fn(args, reporter):
        if args.x == 1:
            os.kill(os.getppid(), signal.SIGKILL)
            time.sleep(60)
        reporter(accuracy=args.x)

    scheduler = search(train_fn, searcher="grid", slots=1, max_failures=2)
    scheduler.run()
    assert scheduler.join_jobs(timeout=40) is True
    assert [trial.status for trial in scheduler.trials] == [Status.NODE_LOST, Status.FINISHED]


def test_trials_that_kill_their_launchers_one_after_another_do_not_end_the_search(search):
    @ag.args(x=ag.Choice(*range(6)))
    def train_fn(args, reporter):
        if args.x in (1, 2, 4):
            os.kill(os.getppid(), signal.SIGKILL)
            time.sleep(60)
        reporter(accuracy=args.x)

    scheduler = search(train_fn, searcher="grid", slots=1, max_failures=2)
    scheduler.run()
    assert scheduler.join_jobs(timeout=60) is True
    lost, finished = Status.NODE_LOST, Status.FINISHED
    ends = [trial.status for trial in scheduler.trials]
    assert ends == [finished, lost, lost, finished, lost, finished]


def test_closing_leaves_no_process(search, mailbox, left_after):
    @ag.args(x=ag.Real(0.0, 1.0), mailbox=mailbox.path)
    def train_fn(args, reporter):
        import subprocess

        child = subprocess.Popen(["sleep", "300"], start_new_session=True)
        with open(args.mailbox, "w") as box:
            print(os.getpid(), os.getppid(), child.pid, file=box)
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(300)

    before = {process.pid for process in psutil.Process().children(recursive=True)}
    scheduler = search(train_fn, slots=2)
    scheduler.run(num_trials=2)
    pids = [pid for _ in range(2) for pid in mailbox.take().split()]
    started = time.monotonic()
    scheduler.close()
    assert time.monotonic() - started < 9, "not as long as they may take to end"
    assert left_after(pids, timeout_s=2.0) == []
    after = {process.pid for process in psutil.Process().children(recursive=True)}
    assert after <= before


FORKS = """
import os, sys, time
import distsearch as ag

@ag.args(x=ag.Real(0.0, 1.0), go="go")
def train_fn(args, reporter):
    reporter(accuracy=args.x)
    while not os.path.exists(args.go):
        time.sleep(0.01)

def search(name, go):
    return ag.scheduler.FIFOScheduler(
        train_fn, {"go": go}, local=ag.Node("localhost", num_cpus=1), verbose=0, checkpoint=name)

if __name__ == "__main__":
    with search("parents", "go") as own:
        own.run(num_trials=2)
        while not own.training_history:
            time.sleep(0.01)
        child = os.fork()
        if child == 0:
            with search("childs", "/") as other:
                other.run(num_trials=2)
                done = other.join_jobs(timeout=20)
                reports = len(ag.open("parents").training_history)
            os._exit(0 if done and reports == 1 else 3)
        print("CHILD", os.waitstatus_to_exitcode(os.waitpid(child, 0)[1]), flush=True)
        open("go", "w").close()
        own.join_jobs()
"""


BROKEN_DRIVER = """
import os, time
import psutil
import distsearch as ag

@ag.args(x=ag.Choice(*range(2)))
def train_fn(args, reporter):
    if args.x == 1:
        time.sleep(60)

def close_all(history, start_time):
    print("left", *[process.pid for process in psutil.Process().children(recursive=True)])
    os.closerange(3, 256)

class Closes(ag.scheduler.FIFOScheduler):
    def next_launch(self):
        self.close()

class Hangs(ag.scheduler.FIFOScheduler):
    def on_end(self, trial):
        print("hangs", flush=True)
        time.sleep(600)
"""


def test_a_callback_that_closes_all_descriptors_ends_the_search_with_what_it_did(
    driver, left_after
):
    program = driver(
        BROKEN_DRIVER
        + """
node = ag.Node("localhost", num_cpus=2)
with ag.scheduler.FIFOScheduler(
    train_fn, searcher="grid", local=node, training_history_callback=close_all,
    training_history_callback_delta_secs=0.5
) as scheduler:
    scheduler.run()
    scheduler.join_jobs()
"""
    )
    pids = program.words_after("left")
    said = program.end()
    assert "DistsearchError: the background thread of distsearch has ended" in said
    assert "os.closerange()" in said
    assert pids and not left_after(pids)


def test_a_rule_that_closes_its_own_search_is_told_that_it_cannot(driver):
    program = driver(
        BROKEN_DRIVER
        + """
with Closes(train_fn, local=ag.Node("localhost", num_cpus=2), num_trials=2) as scheduler:
    scheduler.run()
    scheduler.join_jobs()
"""
    )
    assert "RuntimeError: this cannot be called from a rule" in program.end()


def test_ctrl_c_twice_ends_a_search_whose_rule_hangs(driver):
    program = driver(
        BROKEN_DRIVER
        + """
with Hangs(train_fn, searcher="grid", local=ag.Node("localhost", num_cpus=2)) as scheduler:
    scheduler.run()
    scheduler.join_jobs()
"""
    )
    program.words_after("hangs")
    program.process.send_signal(signal.SIGINT)
    program.words_after("interrupted")
    program.process.send_signal(signal.SIGINT)
    assert "KeyboardInterrupt" in program.end(15)


def test_a_search_in_a_forked_child_does_not_wait_for_the_slots_of_its_parent(driver):
    one = driver(FORKS)
    assert one.words_after("CHILD") == ["0"]
    one.end()
    assert one.process.returncode == 0


SUSPENDED = """
import time
import distsearch as ag

class Asks(ag.scheduler.FIFOScheduler):
    def on_report(self, trial, report):
        return super().on_report(trial, report)

@ag.args(x=ag.Real(0.0, 1.0))
def train_fn(args, reporter):
    for epoch in range(1, 16):
        reporter(epoch=epoch, accuracy=args.x)
        time.sleep(0.1)
        print("EPOCH", epoch)

if __name__ == "__main__":
    options = {"local": ag.Node("localhost", num_cpus=4), "num_trials": 2}
    limits = {"report_timeout": 1.5, "trial_timeout": 4.0}
    kinds = Asks, ag.scheduler.FIFOScheduler  # trials wait for answers, or they do not
    searches = [kind(train_fn, checkpoint=kind.__name__, **options, **limits) for kind in kinds]
    for search in searches:
        search.run()
    for search in searches:
        search.join_jobs()
    print("ENDS", *(trial.status.value for search in searches for trial in search.trials))
"""


def test_a_driver_that_was_suspended_blames_no_trial_for_that(driver):
    one = driver(SUSPENDED)
    one.words_after("EPOCH")
    one.process.send_signal(signal.SIGSTOP)
    time.sleep(4.5)  # it is to be late for that long
    one.process.send_signal(signal.SIGCONT)
    assert one.words_after("ENDS") == ["finished"] * 4
