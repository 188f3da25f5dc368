"""The same command goes on with a search; what ended a trial decides whether it runs again."""

from __future__ import annotations

import os
import shutil
import signal
import time

import pytest

import distsearch as ag
from distsearch.core import store
from distsearch.core.words import Status
from distsearch.errors import OptionError, SearchFailed, StoreError
from distsearch.scheduler import FIFOScheduler, HyperbandScheduler

# Trials of ten epochs; each writes what it does into a file, and waits for `go` at epoch 5.
SEARCH = """
import os, sys, time
import distsearch as ag

@ag.args(x=ag.Real(0.0, 1.0))
def train_fn(args, reporter):
    first = (reporter.load() or {{"epoch": 0}})["epoch"] + 1
    for epoch in range(first, 11):
        with open("epochs.txt", "a") as file:
            print(args.task_id, epoch, file=file)
        {epoch}
        reporter.save({{"epoch": epoch}}, step=epoch)
        reporter(epoch=epoch, accuracy=args.x)
        print("AT", args.task_id, epoch, flush=True)
        while epoch == 5 and not os.path.exists("go"):
            time.sleep(0.01)

if __name__ == "__main__":
    scheduler = ag.scheduler.FIFOScheduler(
        train_fn, local=ag.Node("localhost", num_cpus=2), checkpoint="named", seed=3)
    scheduler.run(num_trials=4)
    scheduler.join_jobs()
    print("ALL", [t.status.value for t in scheduler.trials], [t.attempt for t in scheduler.trials])
    print("WHY", [t.reason for t in scheduler.trials])
    print("SHOWN", [[r["epoch"] for r in h] for h in scheduler.training_history.values()])
    scheduler.close()
"""


def reach(one, epoch, trials=2):
    """Wait until this many trials have reported an epoch."""
    for _ in range(trials):
        while one.words_after("AT")[1] != str(epoch):
            pass


def test_the_same_command_goes_on_after_a_kill_and_repeats_at_most_one_checkpoint(driver, tmp_path):
    script = SEARCH.format(epoch="")
    one = driver(script)
    reach(one, 5)
    one.process.kill()
    one.process.wait(10)
    configs = [event.body["config"] for event in store.read(tmp_path / "named", "launched")]
    (tmp_path / "go").touch()
    said = driver(script).end()
    assert "of 2 trials 0 have ended, 2 run again" in said
    assert "ALL ['finished', 'finished', 'finished', 'finished'] [2, 2, 1, 1]" in said
    assert f"SHOWN {[list(range(1, 11))] * 4}" in said
    trained = (tmp_path / "epochs.txt").read_text().split("\n")
    assert all(trained.count(f"{trial} {epoch}") == 1 for trial in range(4) for epoch in (1, 5, 10))
    launched = [event.body["config"] for event in store.read(tmp_path / "named", "launched")]
    assert launched[:2] == configs and len({str(config) for config in launched}) == 4


def test_a_finished_search_runs_nothing_again_and_a_larger_one_goes_on(search):
    @ag.args(x=ag.Real(0.0, 1.0))
    def train_fn(args, reporter):
        reporter(accuracy=args.x)

    def run(num_trials):
        with search(train_fn, checkpoint="named") as scheduler:
            scheduler.run(num_trials=num_trials)
            scheduler.join_jobs()
            return [(trial.config["x"], trial.attempt) for trial in scheduler.trials]

    first = run(3)
    assert run(3) == first
    assert run(5)[:3] == first and len(run(5)) == 5


def test_a_fresh_start_archives_what_was_there(search, tmp_path):
    @ag.args(x=ag.Real(0.0, 1.0))
    def train_fn(args, reporter):
        reporter(accuracy=args.x)

    for resume in (None, False):
        with search(train_fn, checkpoint="named", resume=resume) as scheduler:
            scheduler.run(num_trials=2)
            scheduler.join_jobs()
    for folder in ("named", "named.1"):
        assert len(list(store.read(tmp_path / folder, "ended"))) == 2


@pytest.mark.parametrize("instead", ["nothing", "a backup"])
def test_a_search_whose_log_is_deleted_or_replaced_while_it_runs_ends_and_says_so(
    search, mailbox, tmp_path, instead
):
    @ag.args(x=ag.Choice(1), mailbox=mailbox.path)
    def train_fn(args, reporter):
        reporter(epoch=1, accuracy=args.x)
        with open(args.mailbox, "w") as box:
            print("reported", file=box)
        while True:
            time.sleep(0.05)
            reporter(accuracy=args.x)

    folder = tmp_path / "mine"
    scheduler = search(train_fn, searcher="grid", checkpoint=folder)
    scheduler.run()
    mailbox.take()
    if instead == "a backup":
        shutil.copytree(folder, tmp_path / "backup")
    shutil.rmtree(folder, ignore_errors=True)
    if instead == "a backup":
        shutil.rmtree(folder, ignore_errors=True)  # (the trial may have written meanwhile)
        shutil.copytree(tmp_path / "backup", folder, dirs_exist_ok=True)
    with pytest.raises(StoreError, match="it was deleted, or replaced by another"):
        scheduler.join_jobs(timeout=20)
    started = time.monotonic()
    scheduler.close()
    assert time.monotonic() - started < 10


def test_a_changed_rule_is_refused_with_the_difference(search):
    @ag.args(x=ag.Real(0.0, 1.0))
    def train_fn(args, reporter):
        reporter(epoch=1, accuracy=args.x)

    options = {"scheduler": HyperbandScheduler, "checkpoint": "named"}
    with search(train_fn, max_t=9, **options) as scheduler:
        scheduler.run(num_trials=2)
        scheduler.join_jobs()
    with pytest.raises(StoreError, match="max_t: 9 -> 27") as error:
        search(train_fn, max_t=27, **options)
    assert "rungs: [[1, 3]] -> [[1, 3, 9]]" in str(error.value)


def test_at_a_prompt_or_in_a_notebook_nobody_is_told_to_start_the_kernel_again(driver, tmp_path):
    one = driver("import sys; sys.ps1 = '>>> '\n" + SEARCH.format(epoch=""))
    reach(one, 5)
    one.process.send_signal(signal.SIGINT)
    (tmp_path / "go").touch()
    said = one.end()
    assert "to go on with this search, run again what made its scheduler" in said
    assert "command" not in said


def test_other_constants_and_other_code_are_said_and_the_search_goes_on_with_them(search, capfd):
    def run(epochs, train, num_trials):
        decorated = ag.args(x=ag.Real(0.0, 1.0), epochs=epochs)(train)
        with search(decorated, checkpoint="named", verbose=2) as scheduler:
            scheduler.run(num_trials=num_trials)
            scheduler.join_jobs()
            return [len(reports) for reports in scheduler.training_history.values()]

    def train_fn(args, reporter):
        for epoch in range(args.epochs):
            reporter(epoch=epoch + 1, accuracy=args.x)

    def other(args, reporter):
        for epoch in range(2 * args.epochs):
            reporter(epoch=epoch + 1, accuracy=args.x)

    assert run(1, train_fn, 1) == [1]
    assert run(2, train_fn, 2) == [1, 2]
    said = capfd.readouterr().out
    assert "epochs.value: 1 -> 2" in said and "the code of" not in said
    assert run(2, other, 3) == [1, 2, 4]
    said = capfd.readouterr().out
    assert "the code of other, or of what it uses, is not what it was" in said


def test_a_trial_whose_process_is_killed_runs_again_from_its_checkpoint(search, capfd):
    @ag.args(x=ag.Real(0.0, 1.0))
    def train_fn(args, reporter):
        first = (reporter.load() or {"epoch": 0})["epoch"] + 1
        for epoch in range(first, 7):
            reporter.save({"epoch": epoch})
            reporter(epoch=epoch, accuracy=args.x)
            if epoch == 4 and first == 1:
                os.kill(os.getpid(), signal.SIGKILL)

    scheduler = search(train_fn, slots=1, verbose=2)
    scheduler.run(num_trials=1)
    assert scheduler.join_jobs(timeout=30) is True
    (trial,) = scheduler.trials
    assert (trial.status, trial.attempt) == (Status.FINISHED, 2)
    assert [report["epoch"] for report in scheduler.training_history[0]] == [1, 2, 3, 4, 5, 6]
    said = "trial 0 killed: killed by SIGKILL (perhaps the machine ran out of memory); "
    assert f"{said}it runs again (1 of 3)" in capfd.readouterr().out


def test_a_trial_that_is_killed_every_time_is_given_up_and_the_others_are_not(search):
    @ag.args(x=ag.Choice(1, 2))
    def train_fn(args, reporter):
        if args.x == 1:
            os.kill(os.getpid(), signal.SIGSEGV)
        reporter(accuracy=args.x)

    scheduler = search(train_fn, searcher="grid", slots=1, max_failures=2)
    scheduler.run()
    assert scheduler.join_jobs(timeout=30) is True
    first, second = scheduler.trials
    assert (first.status, first.attempt) == (Status.KILLED, 3)
    assert first.reason == "killed by SIGSEGV (the last of 3 attempts that ended so)"
    assert (second.status, second.attempt) == (Status.FINISHED, 1)


@pytest.mark.parametrize(
    ("fault", "status", "attempts"),
    [
        ("raise ValueError('mine')", Status.FAILED, 1),
        ("raise SystemExit(3)", Status.EXITED, 1),
        ("raise MemoryError", Status.OUT_OF_MEMORY, 3),
        ("import time; time.sleep(60)", Status.TIMED_OUT, 2),
    ],
)
def test_other_ends_are_retried_only_as_often_as_asked(search, fault, status, attempts):
    @ag.args(x=ag.Real(0.0, 1.0), fault=fault)
    def train_fn(args, reporter):
        exec(args.fault)

    scheduler = search(
        train_fn,
        slots=1,
        trial_timeout=1 if status is Status.TIMED_OUT else 60,
        retries={"out_of_memory": 2, "timed_out": 1},
    )
    scheduler.run(num_trials=1)
    assert scheduler.join_jobs(timeout=60) is True
    (trial,) = scheduler.trials
    assert (trial.status, trial.attempt) == (status, attempts)


def test_a_failure_that_is_retried_can_end_well(search, tmp_path):
    @ag.args(x=ag.Real(0.0, 1.0), been_here=str(tmp_path / "been_here"))
    def train_fn(args, reporter):
        if not os.path.exists(args.been_here):
            open(args.been_here, "w").close()
            raise OSError("the data server was away")
        reporter(accuracy=args.x)

    scheduler = search(train_fn, slots=1, retries={"failed": 1})
    scheduler.run(num_trials=1)
    assert scheduler.join_jobs(timeout=30) is True
    (trial,) = scheduler.trials
    assert (trial.status, trial.attempt, trial.error) == (Status.FINISHED, 2, "")


@pytest.mark.parametrize(
    ("retries", "text"),
    [
        ({"crashed": 1}, "'crashed' is none of failed, exited, killed"),
        ({"failed": "often"}, "retries['failed']='often'; give an integer"),
        (3, "retries=3; give a dict"),
    ],
)
def test_an_unknown_kind_of_failure_is_refused(search, retries, text):
    @ag.args(x=ag.Real(0.0, 1.0))
    def train_fn(args, reporter):
        reporter(accuracy=args.x)

    with pytest.raises(OptionError) as error:
        search(train_fn, retries=retries)
    assert text in str(error.value)


def test_failures_before_the_driver_died_still_count(driver, tmp_path):
    script = SEARCH.format(
        epoch="if args.task_id == 0 and epoch > 4: os.kill(os.getpid(), 9)"
    ).replace("seed=3", "seed=3, max_failures=2")
    one = driver(script)
    one.words_after("trial 0 killed:")
    one.words_after("trial 0 killed:")
    one.process.kill()
    one.process.wait(10)
    (tmp_path / "go").touch()
    said = driver(script).end()
    assert "ALL ['killed', 'finished', 'finished', 'finished']" in said, said
    kinds = [event.kind for event in store.read(tmp_path / "named", trial=0)]
    assert kinds.count("started") <= 4, "two retries, and one attempt that died with the driver"


@pytest.mark.parametrize(("number", "code"), [(signal.SIGINT, -2), (signal.SIGTERM, 143)])
def test_an_interrupted_trial_ends_at_its_next_checkpoint_and_goes_on_from_it(
    driver, tmp_path, left_after, number, code
):
    # Once epoch 5 is reported the search is interrupted; epoch 6 is saved a second later, and no
    # other one for long.
    wait = "time.sleep(0 if os.path.exists('again') else {6: 1, 7: 30}.get(epoch, 0))"
    script = SEARCH.format(epoch=wait)
    one = driver(script)
    reach(one, 5)
    one.process.send_signal(number)
    one.words_after("interrupted:")
    started = time.monotonic()
    (tmp_path / "go").touch()
    said = one.end()
    assert time.monotonic() - started < 25, "the epoch after that takes 30 s"
    assert one.process.returncode == code
    assert "the same command goes on with this search: " in said and "driver.py" in said
    saved = [event.body["step"] for event in store.read(tmp_path / "named", "saved")]
    assert sorted(saved)[-2:] == [6, 6], "each was let finish the epoch that it was in"
    (tmp_path / "again").touch()
    said = driver(script).end()
    assert f"SHOWN {[list(range(1, 11))] * 4}" in said
    trained = (tmp_path / "epochs.txt").read_text().splitlines()
    assert len(trained) == len(set(trained)) + trained.count("0 7") - 1 + trained.count("1 7") - 1


def test_a_trial_that_saves_no_checkpoint_is_not_waited_for(driver, left_after):
    script = SEARCH.format(epoch="").replace("reporter.save(", "dict(")
    one = driver(script)
    reach(one, 5)
    started = time.monotonic()
    one.process.send_signal(signal.SIGINT)
    one.end()
    assert time.monotonic() - started < 8


@ag.args(x=ag.Real(0.0, 1.0))
def train_once(args, reporter):
    reporter(epoch=1, accuracy=args.x)


def test_trials_of_the_users_own_do_not_count_for_num_trials(search):
    def run(*runs):
        with search(train_once, checkpoint="named", seed=1) as scheduler:
            for given, num_trials in runs:
                for x in given:
                    scheduler.add_job({"x": x})
                scheduler.run(num_trials=num_trials)
                assert scheduler.join_jobs(timeout=30)
            return len(scheduler.trials)

    assert run(((0.25, 0.75), 3)) == 5
    assert run(((), 5)) == 7
    assert run(((), 5), ((), 2)) == 9
    assert run(((), 5), ((), 2)) == 9, "the same program again has nothing left to do"


def test_a_search_that_had_reached_its_goal_launches_nothing_more(search):
    for _ in range(2):
        with search(train_once, checkpoint="named", seed=1, slots=1, max_reward=0.0) as scheduler:
            scheduler.run(num_trials=50)
            assert scheduler.join_jobs(timeout=30)
            launched = len(scheduler.trials)
    assert launched < 50
    with search(train_once, checkpoint="named", seed=1, slots=1, max_reward=0.0) as scheduler:
        assert len(scheduler.trials) == launched


def test_changed_options_of_the_searcher_are_refused_with_the_difference(search):
    options = {"searcher": "evolution", "checkpoint": "named"}
    with search(train_once, search_options={"population": 4, "sample": 2}, **options):
        pass
    with pytest.raises(StoreError, match="sample: 2 -> 3"):
        search(train_once, search_options={"population": 4, "sample": 3}, **options)


def test_the_circuit_breaker_stays_armed_until_something_has_worked(search):
    @ag.args(x=ag.Real(0.0, 1.0))
    def broken(args, reporter):
        raise ValueError("always")

    launched = []
    for _ in range(2):
        with search(broken, checkpoint="named", seed=1, slots=1) as scheduler:
            scheduler.run(num_trials=40)
            with pytest.raises(SearchFailed, match="all failed alike"):
                scheduler.join_jobs(timeout=30)
            launched.append(len(scheduler.trials))
    assert launched[1] < 15


class Undecided(FIFOScheduler):
    def due_at(self, trial):
        raise KeyError("no plan")


def test_an_error_in_due_at_ends_the_search_with_that_error(search):
    scheduler = search(train_once, Undecided)
    scheduler.run(num_trials=3)
    with pytest.raises(KeyError, match="no plan"):
        scheduler.join_jobs(timeout=30)


TWICE = """
import os, signal, sys, threading, time
import distsearch as ag

@ag.args(x=ag.Real(0.0, 1.0))
def train_fn(args, reporter):
    first = (reporter.load() or {"epoch": 0})["epoch"] + 1
    for epoch in range(first, 7):
        reporter.save({"epoch": epoch}, step=epoch)
        reporter(epoch=epoch, accuracy=args.x * epoch)
        time.sleep(0.25)

def interrupt_in_the_middle():
    while not any(t.reports >= 3 and t.status.value == "running" for t in scheduler.trials):
        time.sleep(0.01)
    os.kill(os.getpid(), signal.SIGINT)

if __name__ == "__main__":
    scheduler = ag.scheduler.PBTScheduler(
        train_fn, local=ag.Node("localhost", num_cpus=2), checkpoint="named", seed=3,
        max_t=6, population_size=4, perturbation_interval=2)
    if sys.argv[1:] != ["again"]:
        scheduler.run()
        threading.Thread(target=interrupt_in_the_middle, daemon=True).start()
        try:
            scheduler.join_jobs()
        except KeyboardInterrupt:
            print("CAUGHT", flush=True)
    scheduler.run()
    scheduler.join_jobs()
    left = [t.id for t in scheduler.trials if t.reason == "interrupted"]
    print("ALL", len(scheduler.trials), "LEFT", left, flush=True)
    scheduler.close()
"""


def test_a_search_that_is_interrupted_goes_on_in_the_same_process_and_in_a_later_one(driver):
    first = driver(TWICE).end()
    assert "CAUGHT" in first and "LEFT []" in first
    again = driver(TWICE).end()
    assert "LEFT []" in again and "cannot be resumed" not in again


@pytest.mark.parametrize(
    ("options", "error", "text"),
    [
        ({"retries": {"failed": -1}}, OptionError, "give 0 and more"),
        ({"max_failures": -2}, OptionError, "give 0 and more"),
        ({"checkpoint": "a_file"}, StoreError, "'a_file' is a file"),
        ({"scheduler": HyperbandScheduler, "max_t": float("nan")}, OptionError, "max_t=nan"),
        ({"scheduler": HyperbandScheduler, "max_t": -3}, OptionError, "max_t=-3"),
        ({"scheduler": HyperbandScheduler, "max_t": "9"}, OptionError, "max_t='9'"),
    ],
)
def test_numbers_that_make_no_sense_and_files_are_refused(search, tmp_path, options, error, text):
    (tmp_path / "a_file").touch()
    with pytest.raises(error) as raised:
        search(train_once, **options)
    assert text in str(raised.value)
