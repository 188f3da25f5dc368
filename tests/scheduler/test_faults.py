"""What trials do wrong, and what the old scheduler did wrong: each ends in a status, in time.

The numbers are those of the list "What was wrong, and must hold here" of the interface's page.
Faults of nodes over SSH (5) have their own tests.
"""

from __future__ import annotations

import importlib.util
import json
import math
import os
import re
import socket
import sys
import threading
import time
from pathlib import Path

import psutil
import pytest

import distsearch as ag
from distsearch import Node
from distsearch.core.reporter import Reporter, StopTrial
from distsearch.core.store import read
from distsearch.core.words import Continue, Status, Stop
from distsearch.errors import NodeError, PicklingError, ResourceError, SearchFailed
from distsearch.scheduler import FIFOScheduler

needs_torch = pytest.mark.skipif(
    importlib.util.find_spec("torch") is None, reason="torch is not installed"
)


# 1. Every end of a trial becomes a status, within a bound


def zoo_of_trials():
    """What each animal of the zoo does, by name; the functions run in trials only."""
    import ctypes
    import signal
    import subprocess
    import sys

    import numpy as np

    class NoException(BaseException):
        pass

    def raises(reporter):
        raise ValueError("boom")

    def raises_no_exception(reporter):
        raise NoException("above Exception")

    def recurses(reporter):
        recurses(reporter)

    def exits_0(reporter):
        reporter(accuracy=0.5)
        sys.exit()

    def exits_3(reporter):
        sys.exit(3)

    def exits_with_text(reporter):
        sys.exit("no such file")

    def leaves(reporter):
        os._exit(7)

    def leaves_0(reporter):
        reporter(accuracy=0.5)
        os._exit(0)

    def segfaults(reporter):
        ctypes.string_at(0)

    def aborts(reporter):
        os.abort()

    def kills_its_group(reporter):
        os.killpg(0, signal.SIGKILL)

    def is_hit_by_a_signal_without_a_name(reporter):
        os.kill(os.getpid(), signal.SIGRTMIN + 6)
        time.sleep(60)

    def exits_with_a_number_that_no_system_holds(reporter):
        sys.exit(10**30)

    def eats_memory(reporter):
        eaten = []
        while True:
            eaten.append(bytearray(os.urandom(1)) * 30_000_000)
            time.sleep(0.02)

    def child_eats_memory(reporter):
        code = "import time; x = [b'x' * 300_000_000]; time.sleep(60)"
        subprocess.run([sys.executable, "-c", code], check=True)

    def memory_error(reporter):
        raise MemoryError

    def gpu_memory_error(reporter):
        import torch

        raise torch.OutOfMemoryError("CUDA out of memory. Tried to allocate 2.00 GiB")

    def sleeps(reporter):
        time.sleep(300)

    def ignores_term(reporter):
        signal.signal(signal.SIGTERM, signal.SIG_IGN)
        time.sleep(300)

    def swallows_everything(reporter):
        while True:
            try:
                reporter(accuracy=0.1)
                time.sleep(0.05)
            except BaseException:
                pass

    def swallows_exceptions(reporter):
        while True:
            try:
                reporter(accuracy=0.1)
                time.sleep(0.05)
            except Exception:
                pass

    def prints_50_mb(reporter):
        for _ in range(50):
            sys.stdout.write("x" * 999_999 + "\n")
        reporter(accuracy=0.5)

    def closes_its_output(reporter):
        sys.stdout.close()
        sys.stderr.close()
        os.close(1)
        os.close(2)
        reporter(accuracy=0.5)

    def prints_through_a_tee(reporter):
        class Tee:
            def __init__(self, stream):
                self.write = stream.write

        sys.stdout = sys.__stdout__ = Tee(sys.stdout)
        print("printed")
        reporter(accuracy=0.5)

    def has_no_stderr(reporter):
        sys.stderr = sys.__stderr__ = None
        reporter(accuracy=0.5)

    def detaches_its_output(reporter):
        import io

        sys.stdout = io.TextIOWrapper(sys.stdout.detach(), encoding="utf-8")
        reporter(accuracy=0.5)

    def output_fails_to_flush(reporter):
        class Broken:
            def flush(self):
                raise RuntimeError("broken")

        sys.stdout = sys.stderr = Broken()
        reporter(accuracy=0.5)

    def exits_with_text_and_no_stderr(reporter):
        sys.stderr = None
        sys.exit("no such file")

    def threads_go_on(reporter):
        def go_on():
            time.sleep(0.2)
            reporter(accuracy=0.5)

        threading.Thread(target=go_on).start()

    def daemon_goes_on(reporter):
        threading.Thread(target=time.sleep, args=(300,), daemon=True).start()
        reporter(accuracy=0.5)

    def reports_from_threads(reporter):
        def many():
            for _ in range(50):
                reporter(accuracy=0.5, thread=threading.get_ident())

        threads = [threading.Thread(target=many) for _ in range(4)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()

    def reports_nan(reporter):
        reporter(accuracy=math.nan)

    def reports_inf(reporter):
        reporter(accuracy=-math.inf)
        reporter(accuracy=0.25)

    def reports_none(reporter):
        reporter(accuracy=None)

    def reports_text(reporter):
        reporter(accuracy="very good")

    def reports_something_else(reporter):
        reporter(loss=0.5, lr=1)

    def reports_nothing(reporter):
        return "0.5"

    def reports_numpy(reporter):
        reporter(accuracy=np.float32(0.25), steps=np.int64(3), flag=np.bool_(True))

    def reports_a_0d_array(reporter):
        reporter(accuracy=np.array(0.25))

    def reports_an_array(reporter):
        reporter(accuracy=0.5, weights=np.zeros((30, 40)), thing=object(), deep=[{"a": {1, 2}}])

    def reports_a_huge_integer(reporter):
        reporter(accuracy=0.5, count=10**400)

    def reports_10_mb(reporter):
        reporter(accuracy=0.5, picture="x" * 10_000_000)

    def survives_10_mb(reporter):
        try:
            reporter(accuracy=0.5, picture="x" * 10_000_000)
        except ValueError:
            reporter(accuracy=0.125)

    def returns_what_cannot_travel(reporter):
        reporter(accuracy=0.5)
        return threading.Lock()

    def uses_all_files(reporter):
        files = []
        while True:
            files.append(os.open("/dev/null", os.O_RDONLY))

    def removes_its_folder(reporter):
        import shutil

        shutil.rmtree(reporter.folder)
        reporter(accuracy=0.5)

    return {name: value for name, value in locals().items() if callable(value)}


ZOO = {
    # name: status, what the reason says, best reward
    "raises": (Status.FAILED, "ValueError: boom", None),
    "raises_no_exception": (Status.FAILED, "NoException: above Exception", None),
    "recurses": (Status.FAILED, "RecursionError", None),
    "exits_0": (Status.FINISHED, "", 0.5),
    "exits_3": (Status.EXITED, r"sys.exit\(3\)", None),
    "exits_with_text": (Status.EXITED, r"sys.exit\(1\)", None),
    "leaves": (Status.EXITED, "exit code 7", None),
    "leaves_0": (Status.EXITED, "exit code 0 without returning", 0.5),
    "segfaults": (Status.KILLED, "SIGSEGV", None),
    "aborts": (Status.KILLED, "SIGABRT", None),
    "kills_its_group": (Status.KILLED, "SIGKILL", None),
    "is_hit_by_a_signal_without_a_name": (Status.KILLED, "^killed by signal [0-9]+ ", None),
    "exits_with_a_number_that_no_system_holds": (Status.EXITED, r"sys.exit\(10{30}\)", None),
    "memory_error": (Status.OUT_OF_MEMORY, "MemoryError", None),
    "gpu_memory_error": (Status.OUT_OF_MEMORY, "CUDA out of memory", None),
    "prints_50_mb": (Status.FINISHED, "", 0.5),
    "closes_its_output": (Status.FINISHED, "", 0.5),
    "prints_through_a_tee": (Status.FINISHED, "", 0.5),
    "has_no_stderr": (Status.FINISHED, "", 0.5),
    "detaches_its_output": (Status.FINISHED, "", 0.5),
    "output_fails_to_flush": (Status.FINISHED, "", 0.5),
    "exits_with_text_and_no_stderr": (Status.EXITED, r"sys.exit\(1\)", None),
    "threads_go_on": (Status.FINISHED, "", 0.5),
    "daemon_goes_on": (Status.FINISHED, "", 0.5),
    "reports_from_threads": (Status.FINISHED, "", 0.5),
    "reports_nan": (Status.NO_METRIC, "accuracy was never a number.*nan", None),
    "reports_inf": (Status.FINISHED, "", 0.25),
    "reports_none": (Status.NO_METRIC, "accuracy was never a number.*None", None),
    "reports_text": (Status.NO_METRIC, "accuracy was never a number.*'very good'", None),
    "reports_something_else": (Status.NO_METRIC, "'accuracy'.* had loss, lr", None),
    "reports_nothing": (
        Status.NO_METRIC,
        r"not call reporter\(..., accuracy=.*no number",
        None,
    ),
    "reports_numpy": (Status.FINISHED, "", 0.25),
    "reports_a_0d_array": (Status.FINISHED, "", 0.25),
    "reports_an_array": (Status.FINISHED, "", 0.5),
    "reports_a_huge_integer": (Status.FINISHED, "", 0.5),
    "reports_10_mb": (Status.FAILED, "at most 65536 bytes.*'picture' alone 1000", None),
    "survives_10_mb": (Status.FINISHED, "", 0.125),
    "returns_what_cannot_travel": (Status.FINISHED, "", 0.5),
    "uses_all_files": (Status.FAILED, "OSError.*Too many open files", None),
    "removes_its_folder": (Status.FINISHED, "", 0.5),
}
LIMIT_S = 3
ENDLESS = {
    "sleeps": (Status.TIMED_OUT, "ran longer than trial_timeout=3 s", None),
    "ignores_term": (Status.TIMED_OUT, "ran longer than trial_timeout=3 s", None),
    "swallows_everything": (Status.TIMED_OUT, "trial_timeout=3 s", 0.1),
    "swallows_exceptions": (Status.TIMED_OUT, "trial_timeout=3 s", 0.1),
}


@ag.args(animal=ag.Choice(*ZOO))
def zoo(args, reporter):
    return zoo_of_trials()[args.animal](reporter)


@ag.args(animal=ag.Choice(*ENDLESS))
def endless_zoo(args, reporter):
    return zoo_of_trials()[args.animal](reporter)


@pytest.fixture(scope="module")
def endless(tmp_path_factory):
    """The animals that do not end by themselves: a search that goes on beside the first tests."""
    with FIFOScheduler(
        endless_zoo,
        searcher="grid",
        local=Node("localhost", num_cpus=4),
        checkpoint=tmp_path_factory.mktemp("endless"),
        trial_timeout=LIMIT_S,
        verbose=0,
    ) as scheduler:
        scheduler.run()
        yield scheduler


@pytest.fixture(scope="module")
def ended_zoo(endless, tmp_path_factory):
    """All other animals at once in one search that is over; how each ended."""
    scheduler = FIFOScheduler(
        zoo,
        searcher="grid",
        resource={"num_cpus": 1},
        local=Node("localhost", num_cpus=8),
        checkpoint=tmp_path_factory.mktemp("zoo"),
        verbose=0,
    )
    with scheduler:
        scheduler.run()
        assert scheduler.join_jobs(timeout=60) is True, "a trial never ended"
    yield scheduler, {trial.config["animal"]: trial for trial in scheduler.trials}


def assert_ended_as(trial, status, reason, best):
    assert (trial.status, trial.best_reward) == (status, best), trial.reason
    assert re.search(reason, trial.reason), trial.reason


@pytest.mark.parametrize("animal", ZOO)
def test_1_every_trial_ends_in_a_status_with_its_reason(ended_zoo, animal):
    _, trials = ended_zoo
    assert_ended_as(trials[animal], *ZOO[animal])


@ag.args(animal=ag.Choice("eats_memory", "child_eats_memory"))
def hungry(args, reporter):
    return zoo_of_trials()[args.animal](reporter)


def test_1_a_trial_or_child_that_eats_more_than_its_memory_is_ended(search):
    scheduler = search(hungry, searcher="grid", resource={"num_cpus": 1, "memory_gb": 0.2})
    scheduler.run()
    assert scheduler.join_jobs(timeout=90) is True
    for trial in scheduler.trials:
        assert trial.status is Status.OUT_OF_MEMORY
        assert "more than memory_gb=0.2" in trial.reason


def test_1_reports_from_threads_all_arrive_in_order(ended_zoo):
    scheduler, trials = ended_zoo
    number = trials["reports_from_threads"].id
    assert len(scheduler.training_history[number]) == 200
    sequence = [event.seq for event in read(scheduler.folder, "report", trial=number)]
    assert sequence == list(range(1, 201))


def test_1_what_is_no_number_is_kept_but_not_compared(ended_zoo):
    scheduler, trials = ended_zoo
    history = scheduler.training_history
    array = history[trials["reports_an_array"].id][0]
    assert "(30, 40)" in array["weights"] and "object" in array["thing"]
    numpy = history[trials["reports_numpy"].id][0]
    assert (numpy["accuracy"], numpy["steps"], numpy["flag"]) == (0.25, 3, True)
    assert history[trials["reports_text"].id][0]["accuracy"] == "very good"


def test_1_a_failed_trial_keeps_its_traceback_up_to_the_users_line(ended_zoo):
    _, trials = ended_zoo
    error = trials["raises"].error
    assert error.startswith("Traceback")
    assert 'raise ValueError("boom")' in error and error.rstrip().endswith("ValueError: boom")
    assert "trial_process" not in error, "only what the user wrote is shown"


def test_1_all_the_output_of_a_trial_is_kept_in_its_folder(ended_zoo):
    scheduler, trials = ended_zoo
    output = scheduler.folder / "trials" / str(trials["prints_50_mb"].id) / "output.txt"
    assert output.stat().st_size >= 50_000_000


def test_1_fifty_megabytes_of_output_do_not_flood_the_terminal(search, capfd):
    @ag.args(x=1)
    def train_fn(args, reporter):
        for _ in range(500):
            print("y" * 99_999)
        print("the last line")
        reporter(accuracy=1)

    scheduler = search(train_fn, verbose=2, num_trials=1)
    scheduler.run()
    assert scheduler.join_jobs(timeout=30) is True
    scheduler.close()
    shown = capfd.readouterr().out
    assert "bytes of output left out here" in shown
    assert len(shown) < 5_000_000


@pytest.mark.parametrize("alone", [True, False])
def test_1_nothing_that_a_trial_started_outlives_it(search, mailbox, left_after, alone):
    """Forked and started children, also in sessions of their own; alone on the node or not."""

    @ag.args(
        kind=ag.Choice("started", "forked", "own session", "daemonised", "nested"),
        mailbox=mailbox.path,
    )
    def leaves_children(args, reporter):
        import subprocess

        reporter(accuracy=1)
        heard, told = os.pipe()  # a child that writes into the mailbox itself says when it has
        if args.kind == "started":
            pid = subprocess.Popen(["sleep", "300"]).pid
        elif args.kind == "own session":
            pid = subprocess.Popen(["sleep", "300"], start_new_session=True).pid
        elif args.kind == "nested":
            command = f"sleep 300 & echo $! > {args.mailbox}; echo >&{told}; wait"
            subprocess.Popen(["sh", "-c", command], start_new_session=True, pass_fds=[told])
        elif (pid := os.fork()) == 0:
            if args.kind == "daemonised":
                os.setsid()
                if os.fork():
                    os._exit(0)
            with open(args.mailbox, "w") as box:
                print(os.getpid(), file=box)
            os.write(told, b"told")
            time.sleep(300)
            os._exit(0)
        if args.kind in ("started", "own session"):
            with open(args.mailbox, "w") as box:
                print(pid, file=box)
        else:
            os.read(heard, 4)

    scheduler = search(leaves_children, searcher="grid", slots=1 if alone else 5)
    scheduler.run()
    pids = [mailbox.take() for _ in range(5)]
    assert scheduler.join_jobs(timeout=30) is True
    assert {trial.status for trial in scheduler.trials} == {Status.FINISHED}
    assert left_after(pids) == []


def test_1_twelve_trials_that_fail_at_once_all_end(search, mailbox, tmp_path):
    @ag.args(how=ag.Choice("ok", *range(12)), mailbox=mailbox.path, go=str(tmp_path / "go"))
    def train_fn(args, reporter):
        reporter(accuracy=1)
        if args.how == "ok":
            return
        with open(args.mailbox, "w") as box:
            print(args.how, file=box)
        while not os.path.exists(args.go):
            time.sleep(0.005)
        if args.how % 3 == 0:
            os._exit(1)
        if args.how % 3 == 1:
            raise RuntimeError("all at once")
        os.kill(os.getpid(), 11)

    scheduler = search(train_fn, searcher="grid", slots=13)
    scheduler.run()
    assert {int(mailbox.take()) for _ in range(12)} == set(range(12))
    (tmp_path / "go").touch()
    assert scheduler.join_jobs(timeout=20) is True
    statuses = [trial.status for trial in scheduler.trials]
    assert statuses == [Status.FINISHED, *([Status.EXITED, Status.FAILED, Status.KILLED] * 4)]


def test_1_trials_for_which_there_are_no_file_descriptors_wait_until_there_are(driver):
    one = driver("""
import resource, time
import distsearch as ag

@ag.args(x=ag.Real(0.0, 1.0))
def train_fn(args, reporter):
    reporter(accuracy=args.x)
    time.sleep(1)

if __name__ == "__main__":
    resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
    node = ag.Node("localhost", num_cpus=40)
    with ag.scheduler.FIFOScheduler(train_fn, local=node, verbose=1) as scheduler:
        scheduler.run(num_trials=40)
        print("JOINED", scheduler.join_jobs(timeout=60))
        print("ENDED", *{trial.status.value for trial in scheduler.trials})
        print("FAILURES", sum(sum(trial.failures.values()) for trial in scheduler.trials))
        scheduler.run_with_config({"x": 0.5})
        print("AFTERWARDS", scheduler.trials[-1].status.value)
""")
    assert one.words_after("JOINED") == ["True"]
    assert one.words_after("ENDED") == ["finished"]
    assert one.words_after("FAILURES") == ["0"]
    assert "localhost cannot run trials: " in one.output
    assert "Too many open files: allow more open files (`ulimit -n`), or close" in one.output
    assert one.words_after("AFTERWARDS") == ["finished"]
    one.end()


def test_1_a_driver_that_has_no_descriptor_left_goes_on_when_it_has(driver):
    one = driver("""
import contextlib, os, resource
import distsearch as ag

@ag.args(x=ag.Real(0.0, 1.0))
def train_fn(args, reporter):
    reporter(accuracy=args.x)

if __name__ == "__main__":
    with ag.scheduler.FIFOScheduler(train_fn, verbose=1) as scheduler:
        scheduler.run(num_trials=1)
        scheduler.join_jobs(timeout=20)
        resource.setrlimit(resource.RLIMIT_NOFILE, (64, 64))
        held = []
        with contextlib.suppress(OSError):
            while True:
                held.append(os.open("/dev/null", os.O_RDONLY))
        scheduler.run(num_trials=3)
        print(f"JOINED {scheduler.join_jobs(timeout=0.5)}")
        for descriptor in held:
            os.close(descriptor)
        print(f"AFTERWARDS {scheduler.join_jobs(timeout=20)} {len(scheduler.trials)}")
""")
    assert one.words_after("JOINED") == ["False"]
    assert one.words_after("AFTERWARDS") == ["True", "4"]
    one.end()


def test_1_a_machine_on_which_no_thread_can_be_started_searches_without_progress_and_callback(
    search, monkeypatch, capsys
):
    @ag.args(x=ag.Real(0.0, 1.0))
    def train_fn(args, reporter):
        reporter(accuracy=args.x)

    calls = []
    scheduler = search(
        train_fn,
        verbose=1,
        training_history_callback=lambda history, start_time: calls.append(history),
    )
    start = threading.Thread.start

    def refuse(thread):
        if thread.name in ("distsearch-progress", "distsearch-callback"):
            raise RuntimeError("can't start new thread")
        start(thread)

    monkeypatch.setattr(threading.Thread, "start", refuse)
    scheduler.run(num_trials=3)
    assert scheduler.join_jobs(timeout=20)
    assert [trial.status for trial in scheduler.trials] == [Status.FINISHED] * 3
    scheduler.close()
    said = capsys.readouterr().out
    assert "progress is not shown: can't start new thread (see `ulimit -u`)" in said
    assert "training_history_callback is not called now: can't start new thread" in said
    assert not calls


def test_1_a_trial_may_use_pools_and_pickle_of_what_the_script_defines(driver):
    """Worker processes find it too, however they start, and though the script has no guard."""
    one = driver("""
import enum, multiprocessing, pickle
from concurrent.futures import ProcessPoolExecutor, ThreadPoolExecutor
from dataclasses import dataclass
import distsearch as ag

class Net:
    pass

class Kind(enum.Enum):
    SMALL = 1

@dataclass
class Size:
    width: int

FACTOR = 1

def square(x):
    return FACTOR * x * x

def fresh(_):
    return Net()

def same(x):
    return x

def tell(queue):
    queue.put(Net())

@ag.args(
    method=ag.Choice("fork", "spawn", "forkserver"), kind=ag.Choice(Kind.SMALL), size=Size(3)
)
def train_fn(args, reporter):
    import __main__

    assert type(pickle.loads(pickle.dumps(Net()))) is Net
    assert __main__.__file__ == args.script and __main__.square is square
    __main__.FACTOR = 2
    assert square(1) == 2
    __main__.FACTOR = 1
    executor = ThreadPoolExecutor()  # never shut down, as in many scripts
    executor.submit(square, 3).result()
    context = multiprocessing.get_context(args.method)
    with context.Pool(2) as pool:  # ends its processes with SIGTERM
        total = sum(pool.map(square, [1, 2, 3]))
        assert pool.map(same, [args.kind, args.size]) == [args.kind, args.size]
    with ProcessPoolExecutor(1, mp_context=context) as executor:
        assert type(executor.submit(fresh, 1).result()) is Net
    queue = context.Queue()
    process = context.Process(target=tell, args=(queue,))
    process.start()
    assert type(queue.get()) is Net
    process.join()
    reporter(accuracy=total)

train_fn.register_args(script=__file__)
with ag.scheduler.FIFOScheduler(train_fn, trial_timeout=25, searcher="grid") as scheduler:
    scheduler.run()
    scheduler.join_jobs(timeout=40)
    for trial in scheduler.trials:
        print("TRIAL", trial.status.value, trial.best_reward, trial.config["method"], trial.reason)
""")
    for method in ("fork", "spawn", "forkserver"):
        assert one.words_after("TRIAL") == ["finished", "14.0", method]
    assert "Traceback" not in one.end()


def test_1_what_a_script_sets_up_for_the_whole_program_holds_in_its_trials(driver, tmp_path):
    one = driver("""
import logging, multiprocessing, sys, warnings
import distsearch as ag
from distsearch.core.travel import pack

class Shouting(logging.Formatter):
    def format(self, record):
        return super().format(record).upper()

logging.basicConfig(level=logging.INFO, format="root %(name)s: %(message)s")
log = logging.getLogger("mine")
to_file = logging.FileHandler("mine.log", encoding="utf-8")
to_file.setLevel(logging.ERROR)
log.addHandler(to_file)
shown = logging.StreamHandler(sys.stdout)
shown.setFormatter(Shouting("own: %(message)s"))
other = logging.getLogger("mine.other")
other.setLevel(logging.DEBUG)
other.addHandler(shown)
other.propagate = False
logging.getLogger("mine.silent").disabled = True
warnings.filterwarnings("ignore", message="an old.*")
sys.argv[1:] = ["--word", "given"]

@ag.args(a=ag.Real(0, 1))
def train_fn(args, reporter):
    log.debug("too fine")
    log.info("an info")
    log.error("an error ä")
    other.debug("details")
    logging.getLogger("mine.silent").error("never seen")
    warnings.warn("an old way")
    warnings.warn("a new way")
    reporter(
        accuracy=1, argv=sys.argv[1:], start_method=multiprocessing.get_start_method(),
        limit=sys.getrecursionlimit(),
    )

if __name__ == "__main__":
    multiprocessing.set_start_method("spawn")
    sys.setrecursionlimit(3210)
    for isolation in ("fresh", "reuse"):
        with ag.scheduler.FIFOScheduler(train_fn, isolation=isolation) as scheduler:
            scheduler.run(num_trials=2)
            scheduler.join_jobs(timeout=25)
            report = scheduler.training_history[1][0]
            print("TRIAL", scheduler.trials[1].status.value, report["argv"], report["limit"],
                  report["start_method"])
""")
    for _ in range(2):
        assert one.words_after("TRIAL") == ["finished", "['--word',", "'given']", "3210", "spawn"]
    said = one.end().splitlines()
    assert said.count("root mine: an info") == 4
    assert said.count("OWN: DETAILS") == 4
    assert not [line for line in said if "never" in line or "too fine" in line or "old way" in line]
    assert len([line for line in said if "UserWarning: a new way" in line]) >= 2
    assert (tmp_path / "mine.log").read_text("utf-8").splitlines() == ["an error ä"] * 4


@pytest.mark.parametrize("start_method", ["fork", "spawn"])
def test_1_where_warnings_are_errors_a_trial_gives_none_of_its_own(
    search, monkeypatch, start_method
):
    monkeypatch.setenv("PYTHONWARNINGS", "error")

    @ag.args(x=ag.Real(0.0, 1.0))
    def train_fn(args, reporter):
        reporter.save({"x": args.x})
        reporter(accuracy=args.x)
        print("all is well")

    scheduler = search(train_fn, start_method=start_method)
    scheduler.run(num_trials=1)
    assert scheduler.join_jobs(timeout=25) is True
    (trial,) = scheduler.trials
    output = scheduler.folder / "trials" / str(trial.id) / "output.txt"
    assert output.read_text() == "all is well\n"


def test_1_files_of_the_current_folder_with_names_of_pythons_do_no_harm(driver, tmp_path):
    """The script lies elsewhere, so that plain Python would not look at them either."""
    (tmp_path / "here").mkdir()
    for name in ("json", "select", "socket", "queue", "numpy"):
        (tmp_path / "here" / f"{name}.py").write_text("raise ImportError('a file of mine')\n")
    (tmp_path / "mine.py").write_text("WORD = 'mine'\n")
    one = driver("""
import os, pathlib, sys
import distsearch as ag

@ag.args(x=1)
def train_fn(args, reporter):
    import mine
    import numpy
    reporter(accuracy=1, word=mine.WORD, path=os.environ.get("PYTHONPATH") == args.path)

if __name__ == "__main__":
    os.chdir("here")
    sys.path.insert(0, pathlib.Path("no text"))
    train_fn.register_args(path=os.environ.get("PYTHONPATH"))
    for method in ("fork", "spawn"):
        with ag.scheduler.FIFOScheduler(train_fn, verbose=0, start_method=method) as scheduler:
            scheduler.run(num_trials=1)
            scheduler.join_jobs(timeout=25)
            trial, report = scheduler.trials[0], scheduler.training_history[0][0]
            print("TRIAL", trial.status.value, report["word"], report["path"], trial.reason)
""")
    assert one.words_after("TRIAL") == ["finished", "mine", "True"]
    assert one.words_after("TRIAL") == ["finished", "mine", "True"]


def test_1_a_program_without_descriptors_for_a_search_is_told_and_can_search_later(driver):
    program = driver("""\
import os, resource
from distsearch.errors import DistsearchError
import distsearch as ag

@ag.args(x=ag.Real(0.0, 1.0))
def train_fn(args, reporter):
    reporter(accuracy=args.x)

free = os.dup(0)
os.close(free)
_, most = resource.getrlimit(resource.RLIMIT_NOFILE)
for limit in range(free + 1, free + 12):
    resource.setrlimit(resource.RLIMIT_NOFILE, (limit, most))
    try:
        ag.scheduler.FIFOScheduler(train_fn, checkpoint="mine", verbose=0).close()
    except DistsearchError as error:
        assert "ulimit -n" in str(error), error
        print("refused", flush=True)
print("done", flush=True)
resource.setrlimit(resource.RLIMIT_NOFILE, (most, most))
ag.scheduler.FIFOScheduler(train_fn, checkpoint="mine", verbose=0).close()
""")
    program.words_after("refused")
    program.words_after("done")
    assert "Traceback" not in program.end()
    assert program.process.returncode == 0


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_1_what_is_no_file_in_the_place_of_a_file_is_said_to_be(search, tmp_path, make):
    folder = tmp_path / "mine"
    folder.mkdir()
    make(folder / "launcher.log")

    @ag.args(x=ag.Real(0.0, 1.0))
    def train_fn(args, reporter):
        reporter(accuracy=args.x)

    with pytest.raises(NodeError, match="it is no file, but a folder, a pipe or a device"):
        search(train_fn, checkpoint=folder)


def test_1_a_process_that_a_trial_forks_cannot_report_for_it(search):
    """Its reports would carry numbers of their own, and displace those of the trial."""

    @ag.args(x=ag.Real(0.0, 1.0))
    def train_fn(args, reporter):
        child = os.fork()
        if child == 0:
            try:
                reporter(accuracy=0.9)
            except ag.errors.ReportError:
                os._exit(7)
            os._exit(0)
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        reporter(accuracy=0.1, code=code)

    scheduler = search(train_fn)
    scheduler.run(num_trials=1)
    assert scheduler.join_jobs(timeout=20) is True
    assert [(r["accuracy"], r["code"]) for r in scheduler.training_history[0]] == [(0.1, 7)]


@pytest.mark.parametrize("isolation", ["fresh", "reuse"])
def test_1_however_a_forked_process_ends_it_does_not_end_its_trial(search, capfd, isolation):
    @ag.args(how=ag.Choice("return", "sys.exit", "raise", "grandchild"))
    def train_fn(args, reporter):
        child = os.fork()
        if child == 0:
            if args.how == "sys.exit":
                sys.exit(3)
            if args.how == "raise":
                raise RuntimeError("only in the child")
            if args.how == "grandchild" and os.fork() == 0:
                sys.exit(5)
            return "the child's"
        code = os.waitstatus_to_exitcode(os.waitpid(child, 0)[1])
        for epoch in range(1, 4):
            reporter(epoch=epoch, accuracy=epoch, code=code)
        return "the trial's"

    scheduler = search(train_fn, searcher="grid", isolation=isolation, slots=1, verbose=2)
    scheduler.run()
    assert scheduler.join_jobs(timeout=30) is True
    assert {trial.status for trial in scheduler.trials} == {Status.FINISHED}
    history = scheduler.training_history
    assert [[r["code"] for r in history[trial.id]] for trial in scheduler.trials] == [
        [code] * 3 for code in (0, 3, 1, 0)
    ]
    said = capfd.readouterr().out
    assert said.count("RuntimeError: only in the child") == 1
    assert "raise RuntimeError" in said


@pytest.mark.parametrize("another", [RuntimeError, SystemExit])
def test_1_an_error_whose_text_cannot_be_made_is_a_failure_like_others(search, another):
    class Mute(Exception):
        def __str__(self):
            raise another

    @ag.args(x=ag.Real(0.0, 1.0))
    def train_fn(args, reporter):
        raise Mute

    scheduler = search(train_fn)
    scheduler.run(num_trials=1)
    assert scheduler.join_jobs(timeout=20) is True
    trial = scheduler.trials[0]
    assert trial.status is Status.FAILED
    assert "Mute" in trial.reason
    assert "raise Mute" in trial.error


def test_1_errors_that_are_causes_of_each_other_are_a_failure_like_others(search):
    @ag.args(x=ag.Real(0.0, 1.0))
    def train_fn(args, reporter):
        one, other = ValueError("one"), ValueError("other")
        one.__cause__, other.__cause__ = other, one
        raise one

    scheduler = search(train_fn)
    scheduler.run(num_trials=1)
    assert scheduler.join_jobs(timeout=20) is True
    assert scheduler.trials[0].reason == "ValueError: one"


def test_1_a_time_limit_for_all_sockets_of_a_program_is_none_for_its_trials(driver):
    program = driver("""\
import socket, time
socket.setdefaulttimeout(0.2)
import distsearch as ag

@ag.args(x=ag.Choice(*range(4)))
def train_fn(args, reporter):
    for epoch in range(1, 3):
        time.sleep(0.05)
        reporter(epoch=epoch, accuracy=args.x)

class Slow(ag.scheduler.FIFOScheduler):
    def due_at(self, trial):
        return "every"

    def on_report(self, trial, report):
        time.sleep(0.3)
        return super().on_report(trial, report)

node = ag.Node("localhost", num_cpus=2)
with Slow(train_fn, searcher="grid", local=node, verbose=0) as scheduler:
    scheduler.run()
    print("joined", scheduler.join_jobs(timeout=20))
    print("ended", *[trial.status.value for trial in scheduler.trials])
""")
    assert program.words_after("joined") == ["True"]
    assert program.words_after("ended") == ["finished"] * 4
    program.end()


def test_1_a_thread_that_outlives_its_trial_reports_nothing_for_the_next(search):
    """With reused processes they share one; each trial reports its own number only."""

    @ag.args(x=ag.Choice(0, 1, 2))
    def train_fn(args, reporter):
        def late():
            time.sleep(0.1)
            reporter(accuracy=args.x + 100)

        threading.excepthook = lambda _: None
        reporter(accuracy=args.x)
        threading.Thread(target=late, daemon=True).start()
        time.sleep(0.3 if args.x else 0)

    scheduler = search(train_fn, searcher="grid", isolation="reuse", slots=1)
    scheduler.run()
    assert scheduler.join_jobs(timeout=20) is True
    history = scheduler.training_history
    assert {task: [r["accuracy"] for r in reports] for task, reports in history.items()} == {
        0: [0],
        1: [1, 101],
        2: [2, 102],
    }


def test_1_a_stop_is_not_swallowed_by_except_exception(search):
    @ag.args(x=ag.Choice(1, 2, 3))
    def train_fn(args, reporter):
        for epoch in range(1000):
            try:
                reporter(epoch=epoch + 1, accuracy=0.1)
            except Exception:
                reporter(epoch=-1, accuracy=-1)
            time.sleep(0.001)

    class AtThree(FIFOScheduler):
        def on_report(self, trial, report):
            return Stop() if report.time >= 3 else Continue()

    scheduler = search(train_fn, scheduler=AtThree)
    scheduler.run()
    assert scheduler.join_jobs(timeout=30) is True
    assert [(t.status, t.reports) for t in scheduler.trials] == [(Status.STOPPED, 3)] * 3


def test_1_a_rung_between_two_epochs_is_decided_at_the_next_report():
    """Epochs 2, 4, 9 with rungs at 1, 3, 9 and 27: each rung that was reached asks once."""
    ours, theirs = socket.socketpair()
    theirs.settimeout(10)
    reporter = Reporter(theirs, folder=Path("unused"), due=[1, 3, 9, 27])
    asked = []

    def answer():
        for line in ours.makefile():
            _, _, due, body = line.split(" ", 3)
            if due == "1":
                asked.append(json.loads(body)["epoch"])
                ours.sendall(b"continue\n" if len(asked) < 4 else b"stop\n")

    threading.Thread(target=answer, daemon=True).start()
    for epoch in (2, 2.5, 4, 9, 10):
        reporter(epoch=epoch, accuracy=0.5)
    with pytest.raises(StopTrial):
        reporter(epoch=30, accuracy=0.5)
    assert asked == [2, 4, 9, 30]
    theirs.close()


def test_1_a_rule_sees_the_epochs_that_a_trial_skips_to(search):
    @ag.args(x=ag.Choice(1, 2))
    def train_fn(args, reporter):
        for epoch in (2, 4, 9):
            reporter(epoch=epoch, accuracy=0.1)

    seen = []

    class Watching(FIFOScheduler):
        def on_report(self, trial, report):
            seen.append((trial.id, report.time))
            return Continue()

    scheduler = search(train_fn, scheduler=Watching)
    scheduler.run()
    assert scheduler.join_jobs(timeout=20) is True
    assert sorted(seen) == [(trial, epoch) for trial in (0, 1) for epoch in (2, 4, 9)]


@pytest.mark.parametrize(
    ("request_", "says"),
    [
        ({"num_cpus": 5}, "num_cpus=5"),
        ({"num_gpus": 1}, "num_gpus=1"),
        ({"memory_gb": 100}, "memory_gb=100"),
    ],
)
def test_1_an_impossible_request_is_refused_at_once_with_what_the_nodes_have(
    search, request_, says
):
    with pytest.raises(ResourceError, match=rf"{says}.* localhost has 4 CPUs, 0 GPUs, 8\.0 GB"):
        search(zoo, resource=request_, local=Node("localhost", num_cpus=4, num_gpus=0, memory_gb=8))


def test_1_a_silent_trial_is_hung_after_report_timeout_and_a_talking_one_is_not(search):
    @ag.args(talks=ag.Bool())
    def train_fn(args, reporter):
        for epoch in range(25):
            if args.talks or epoch == 0:
                reporter(epoch=epoch + 1, accuracy=0.5)
            time.sleep(0.1)

    scheduler = search(train_fn, searcher="grid", report_timeout=2)
    scheduler.run()
    assert scheduler.join_jobs(timeout=20) is True
    ends = {trial.config["talks"]: trial for trial in scheduler.trials}
    assert ends[True].status is Status.FINISHED
    assert ends[False].status is Status.HUNG
    assert "no report for report_timeout=2 s" in ends[False].reason
    assert ends[False].best_reward == 0.5


def test_1_what_ignores_its_end_is_killed_after_ten_seconds_of_grace(endless):
    """The last of these tests, as the search has had the time of the others for it."""
    assert endless.join_jobs(timeout=60) is True, "a trial never ended"
    trials = {trial.config["animal"]: trial for trial in endless.trials}
    for animal, expected in ENDLESS.items():
        assert_ended_as(trials[animal], *expected)
    for animal in ("ignores_term", "swallows_everything"):
        assert LIMIT_S + 10 <= trials[animal].seconds < LIMIT_S + 25
    assert len(endless.training_history[trials["swallows_everything"].id]) < 200
    assert trials["sleeps"].seconds < LIMIT_S + 8, "one that heeds its end needs no grace"


# 2. Time limits are kept


def test_2_time_out_ends_running_and_waiting_trials_and_join_jobs_is_one_total(search, mailbox):
    @ag.args(x=ag.Real(0.0, 1.0), mailbox=mailbox.path)
    def train_fn(args, reporter):
        with open(args.mailbox, "w") as box:
            print(args.task_id, file=box)
        for epoch in range(1000):
            reporter(epoch=epoch + 1, accuracy=args.x)
            time.sleep(0.05)

    scheduler = search(train_fn)
    started = time.monotonic()
    scheduler.run(num_trials=50, time_out=3)
    for _ in range(4):
        mailbox.take()
    assert scheduler.join_jobs(timeout=0.1) is False
    assert scheduler.join_jobs(timeout=30) is True
    assert 3 <= time.monotonic() - started < 15
    assert [trial.status for trial in scheduler.trials] == [Status.STOPPED] * 4


# 3. Launches are fast, waiting is cheap


def test_3_many_short_trials_start_without_a_cap_on_their_rate(search):
    @ag.args(x=ag.Real(0.0, 1.0))
    def train_fn(args, reporter):
        reporter(accuracy=args.x)

    scheduler = search(train_fn, slots=2)
    scheduler.run(num_trials=2)
    scheduler.join_jobs()
    started = time.monotonic()
    scheduler.run(num_trials=60)
    scheduler.join_jobs()
    assert 60 / (time.monotonic() - started) > 5, "three times what it once was capped at"


def test_3_a_search_that_waits_for_its_trials_burns_no_cpu(search, mailbox):
    @ag.args(x=ag.Real(0.0, 1.0), mailbox=mailbox.path)
    def train_fn(args, reporter):
        with open(args.mailbox, "w") as box:
            print(os.getpid(), os.getppid(), file=box)
        time.sleep(60)

    scheduler = search(train_fn, verbose=2)
    scheduler.run(num_trials=20)
    pids = {int(pid) for _ in range(4) for pid in mailbox.take().split()}

    def cpu_seconds():
        others = [psutil.Process(pid).cpu_times() for pid in pids]
        return time.process_time() + sum(times.user + times.system for times in others)

    before = cpu_seconds()
    assert scheduler.join_jobs(timeout=1.5) is False
    assert cpu_seconds() - before < 0.15


# 4. Slots: fair, pinned, and as many as there are


def test_4_a_large_request_is_not_starved_by_small_ones(search):
    @ag.args(x=ag.Real(0.0, 1.0))
    def train_fn(args, reporter):
        started = time.monotonic()
        time.sleep(0.05)
        reporter(accuracy=1, started=started)

    def first_start(scheduler):
        return min(reports[0]["started"] for reports in scheduler.training_history.values())

    node = Node("localhost", num_cpus=4, memory_gb=6.5432)
    small = search(train_fn, local=node)
    large = search(train_fn, local=node, resource={"num_cpus": 4})
    small.run(num_trials=60)
    large.run(num_trials=1)
    assert large.join_jobs(timeout=20) is True
    assert small.num_finished_tasks < 40, "it had its turn in the order of request"
    assert small.join_jobs(timeout=20) is True
    after = [r[0]["started"] for r in small.training_history.values()]
    assert max(after) > first_start(large)


def test_4_only_the_cpus_of_ones_affinity_are_used(driver):
    one = driver("""
import os
os.sched_setaffinity(0, {min(os.sched_getaffinity(0))})
import distsearch as ag

@ag.args(x=1)
def train_fn(args, reporter):
    reporter(accuracy=1)

if __name__ == "__main__":
    with ag.scheduler.FIFOScheduler(train_fn) as scheduler:
        print("SLOTS", repr(scheduler).split("NodeResourceManager(")[1])
""")
    assert one.words_after("SLOTS")[0] == "1"
    one.end()


@needs_torch
@pytest.mark.parametrize("start_method", ["fork", "spawn"])
def test_4_thread_counts_follow_num_cpus(search, start_method):
    @ag.args(x=1)
    def train_fn(args, reporter):
        import numpy as np
        import torch
        from threadpoolctl import threadpool_info

        np.ones((8, 8)) @ np.ones((8, 8))
        reporter(
            accuracy=1,
            environment=[os.environ[f"{name}_NUM_THREADS"] for name in ("OMP", "MKL")],
            torch=torch.get_num_threads(),
            pools=[pool["num_threads"] for pool in threadpool_info()],
        )

    for num_cpus in (2, 1) if start_method == "fork" else (1,):
        scheduler = search(
            train_fn, resource={"num_cpus": num_cpus}, start_method=start_method, num_trials=1
        )
        scheduler.run()
        assert scheduler.join_jobs(timeout=60) is True
        report = scheduler.training_history[0][0]
        assert report["environment"] == [str(num_cpus)] * 2
        assert report["torch"] == num_cpus
        assert report["pools"] and max(report["pools"]) == num_cpus


@ag.args(x=ag.Real(0.0, 1.0))
def shows_its_gpus(args, reporter):
    start = time.monotonic()
    time.sleep(0.15)
    reporter(
        accuracy=1,
        visible=os.environ["CUDA_VISIBLE_DEVICES"],
        ids=args.gpu_ids,
        num_gpus=args.num_gpus,
        span=[start, time.monotonic()],
    )


@pytest.fixture
def two_gpus(monkeypatch):
    """A node of two GPUs that are declared, whatever this machine has; nothing touches them."""
    monkeypatch.setenv("CUDA_VISIBLE_DEVICES", "")
    return Node("localhost", num_cpus=8, num_gpus=2)


def gpu_reports(search, node, **options):
    scheduler = search(shows_its_gpus, local=node, **options)
    scheduler.run(num_trials=8)
    assert scheduler.join_jobs(timeout=30) is True
    return [reports[0] for reports in scheduler.training_history.values()]


def most_at_once(reports):
    spans = [report["span"] for report in reports]
    return max(sum(a <= start < b for a, b in spans) for start, _ in spans)


@pytest.mark.parametrize("start_method", ["fork", "spawn"])
def test_4_each_trial_sees_just_its_own_gpu(search, two_gpus, start_method):
    reports = gpu_reports(search, two_gpus, resource={"num_gpus": 1}, start_method=start_method)
    assert {report["visible"] for report in reports} == {"0", "1"}
    assert all(report["ids"] == [report["visible"]] for report in reports)
    for gpu in ("0", "1"):
        assert most_at_once([r for r in reports if r["visible"] == gpu]) == 1


def test_4_a_trial_without_gpus_sees_none(search, two_gpus):
    assert {report["visible"] for report in gpu_reports(search, two_gpus)} == {""}


def test_4_two_gpus_are_seen_together(search, two_gpus):
    reports = gpu_reports(search, two_gpus, resource={"num_gpus": 2})
    assert {report["visible"] for report in reports} == {"0,1"}
    assert most_at_once(reports) == 1


def test_4_a_gpu_is_shared_by_as_many_trials_as_its_shares_allow(search, two_gpus):
    reports = gpu_reports(search, two_gpus, resource={"num_gpus": 0.5})
    assert {report["visible"] for report in reports} == {"0", "1"}
    assert {report["num_gpus"] for report in reports} == {0.5}
    for gpu in ("0", "1"):
        assert most_at_once([r for r in reports if r["visible"] == gpu]) <= 2
    assert most_at_once(reports) >= 3, "both GPUs are shared at the same time"


def test_4_gpus_are_pinned_before_a_framework_is_loaded(search, two_gpus, tmp_path):
    """A module that looks at its environment once, when it is imported, as CUDA does."""
    (tmp_path / "framework.py").write_text("import os\nSEEN = os.environ['CUDA_VISIBLE_DEVICES']")

    @ag.args(x=ag.Choice(1, 2, 3, 4))
    def train_fn(args, reporter):
        import framework

        time.sleep(0.05)
        reporter(accuracy=1, seen=framework.SEEN, given=args.gpu_ids)

    scheduler = search(train_fn, resource={"num_gpus": 1}, local=two_gpus)
    scheduler.upload_files("framework.py")
    scheduler.run()
    assert scheduler.join_jobs(timeout=20) is True
    reports = [reports[0] for reports in scheduler.training_history.values()]
    assert all([report["seen"]] == report["given"] for report in reports)
    assert {report["seen"] for report in reports} == {"0", "1"}


# 6. Uploads


def test_6_uploaded_files_and_modules_are_where_trials_look(search, tmp_path):
    (tmp_path / "data.txt").write_text("0.75")
    (tmp_path / "helper.py").write_text("def double(x):\n    return 2 * x\n")
    (tmp_path / "images" / "small").mkdir(parents=True)
    (tmp_path / "images" / "small" / "1.txt").write_text("one")

    @ag.args(x=ag.Choice(1, 2))
    def train_fn(args, reporter):
        import helper

        with open("data.txt") as data, open("images/small/1.txt") as image:
            reporter(accuracy=helper.double(float(data.read())), image=image.read())

    scheduler = search(train_fn)
    scheduler.upload_files(["data.txt", "images", "helper.py"])
    (tmp_path / "data.txt").unlink()  # not found here by chance
    scheduler.run()
    assert scheduler.join_jobs(timeout=20) is True
    assert [trial.best_reward for trial in scheduler.trials] == [1.5, 1.5], scheduler.trials[0]
    assert scheduler.training_history[0][0]["image"] == "one"


# 7. One rule says what is best


@pytest.mark.parametrize(("mode", "best"), [("max", 0.9), ("min", 0.1)])
def test_7_the_best_is_not_the_last_report_and_nan_never_wins(search, mode, best):
    @ag.args(order=ag.Choice(1, -1))
    def train_fn(args, reporter):
        for accuracy in (math.nan, 0.3, 0.9, 0.1, math.nan)[:: args.order]:
            reporter(accuracy=accuracy)

    scheduler = search(train_fn, mode=mode)
    scheduler.run()
    scheduler.join_jobs()
    assert [trial.best_reward for trial in scheduler.trials] == [best, best]
    assert (scheduler.get_best_reward(), scheduler.get_best_task_id()) == (best, 0)


# 8. Failures are seen


def test_8_identical_failures_are_shown_once_and_counted(search, capfd):
    @ag.args(n=ag.Choice(*range(20)))
    def train_fn(args, reporter):
        reporter(accuracy=1)
        if args.n:
            raise RuntimeError(f"no such file: part {args.n}")

    scheduler = search(train_fn, searcher="grid", slots=1, verbose=2)
    scheduler.run()
    scheduler.join_jobs()
    scheduler.close()
    shown = capfd.readouterr().out
    assert shown.count("Traceback") == 1
    assert "trial 1 failed: RuntimeError: no such file: part 1" in shown
    assert "16 trials failed as trial 1 did" in shown
    assert shown.count("failed as trial 1 did") == 4, "at 2, 4, 8 and 16, not at each"
    assert all(f"part {t.id}" in t.error for t in scheduler.trials[1:]), "each keeps its own"


def test_8_the_search_ends_when_the_first_trials_all_fail_alike(search):
    @ag.args(x=ag.Real(0.0, 1.0))
    def train_fn(args, reporter):
        raise FileNotFoundError(f"no data for {args.x}")

    scheduler = search(train_fn, slots=2)
    scheduler.run(num_trials=1000)
    with pytest.raises(SearchFailed, match=r"(?s)first 5 trials .*no data for.*in train_fn"):
        scheduler.join_jobs(timeout=20)
    assert 5 <= len(scheduler.trials) <= 8
    assert all(trial.status.is_end for trial in scheduler.trials)


@pytest.mark.parametrize(
    "code",
    ["os._exit(1)", "os.kill(os.getpid(), 11)", "sys.exit(2)", "import no_such_module"],
)
def test_8_the_search_ends_whatever_it_is_that_all_trials_do_wrong(search, code):
    @ag.args(x=ag.Real(0.0, 1.0))
    def train_fn(args, reporter):
        import os
        import sys

        exec(code, {"os": os, "sys": sys})

    scheduler = search(train_fn)
    scheduler.run(num_trials=1000)
    with pytest.raises(SearchFailed):
        scheduler.join_jobs(timeout=20)
    assert len(scheduler.trials) < 20


def test_8_a_missing_reward_ends_the_search_and_names_what_was_reported(search):
    @ag.args(x=ag.Real(0.0, 1.0))
    def train_fn(args, reporter):
        reporter(epoch=1, acc=args.x)

    scheduler = search(train_fn)
    scheduler.run(num_trials=1000)
    with pytest.raises(SearchFailed, match=r"reward_attr='accuracy'.*the last one had acc, epoch"):
        scheduler.join_jobs(timeout=20)


def test_8_failures_that_differ_do_not_end_the_search(search):
    @ag.args(n=ag.Choice(*range(12)))
    def train_fn(args, reporter):
        if args.n % 2:
            raise RuntimeError("odd")
        raise ValueError("even")

    scheduler = search(train_fn, searcher="grid", slots=1)
    scheduler.run()
    assert scheduler.join_jobs(timeout=20) is True
    assert {trial.status for trial in scheduler.trials} == {Status.FAILED}
    assert scheduler.num_finished_tasks == 12


def test_8_trials_that_were_stopped_early_show_that_not_all_fail(search):
    class StopFirst(FIFOScheduler):
        def on_report(self, trial, report):
            return Stop()

    @ag.args(n=ag.Choice(*range(8)))
    def train_fn(args, reporter):
        if args.n == 0:
            reporter(accuracy=0.5)
        raise RuntimeError("later")

    scheduler = search(train_fn, scheduler=StopFirst, searcher="grid", slots=1)
    scheduler.run()
    assert scheduler.join_jobs(timeout=20) is True
    assert [t.status for t in scheduler.trials] == [Status.STOPPED, *[Status.FAILED] * 7]


def test_8_a_search_that_failed_can_be_run_again(search, tmp_path):
    @ag.args(x=ag.Real(0.0, 1.0), mended=str(tmp_path / "mended"))
    def train_fn(args, reporter):
        reporter(accuracy=os.stat(args.mended).st_size)

    scheduler = search(train_fn)
    scheduler.run(num_trials=20)
    with pytest.raises(SearchFailed, match="FileNotFoundError"):
        scheduler.join_jobs(timeout=20)
    (tmp_path / "mended").write_text("data")
    scheduler.run(num_trials=3)
    assert scheduler.join_jobs(timeout=20) is True
    assert scheduler.get_best_reward() == 4


@pytest.mark.parametrize("depth", ["closure", "global"])
def test_8_what_cannot_be_pickled_is_refused_with_its_path(search, depth):
    state = {"inner": [1, threading.Lock()]}

    @ag.args(x=ag.Real(0.0, 1.0))
    def closure(args, reporter):
        reporter(accuracy=len(state))

    @ag.args(x=ag.Real(0.0, 1.0))
    def uses_a_global(args, reporter):
        reporter(accuracy=len(UNTRAVELLED.parts))

    function, path = {
        "closure": (closure, r"closure\.state\['inner'\]\[1\]"),
        "global": (uses_a_global, r"uses_a_global\.UNTRAVELLED\.parts\['lock'\]"),
    }[depth]
    with pytest.raises(PicklingError, match=rf"{path}.*lock"):
        search(function)


class Untravelled:
    def __init__(self):
        self.parts = {"lock": threading.Lock()}


UNTRAVELLED = Untravelled()


def test_8_a_constant_that_cannot_be_pickled_is_refused_with_its_name(search):
    @ag.args(x=ag.Real(0.0, 1.0), guard=threading.Lock())
    def train_fn(args, reporter):
        reporter(accuracy=1)

    with pytest.raises(PicklingError, match="guard"):
        search(train_fn)


# 10. Where forking is unsafe


@needs_torch
def test_10_a_forked_trial_finds_cuda_untouched(search):
    """The launcher has imported torch; had it started CUDA too, no fork could use it."""

    @ag.args(x=1)
    def train_fn(args, reporter):
        import sys

        loaded = "torch" in sys.modules
        import torch

        bad_fork = torch.cuda._is_in_bad_fork()
        reporter(accuracy=1, loaded=loaded, touched=torch.cuda.is_initialized() or bad_fork)

    scheduler = search(train_fn, num_trials=1)
    scheduler.run()
    assert scheduler.join_jobs(timeout=60) is True
    report = scheduler.training_history[0][0]
    assert (report["loaded"], report["touched"]) == (True, False)


def test_10_spawned_trials_end_in_the_same_statuses(search, left_after):
    @ag.args(how=ag.Choice("returns", "raises", "leaves", "segfaults", "sleeps", "child"))
    def train_fn(args, reporter):
        import subprocess

        reporter(accuracy=0.5, pid=os.getpid())
        if args.how == "raises":
            raise ValueError("boom")
        if args.how == "leaves":
            os._exit(3)
        if args.how == "segfaults":
            os.kill(os.getpid(), 11)
        if args.how == "sleeps":
            time.sleep(300)
        if args.how == "child":
            child = subprocess.Popen(["sleep", "300"])
            reporter(accuracy=0.5, pid=child.pid)

    ways = ("returns", "raises", "leaves", "segfaults", "child")
    points = [{"how": how} for how in ways]
    scheduler = search(train_fn, points_to_evaluate=points, start_method="spawn", slots=5)
    hurried = search(
        train_fn, points_to_evaluate=[{"how": "sleeps"}], start_method="spawn", trial_timeout=2
    )
    hurried.run(num_trials=1)
    scheduler.run(num_trials=5)
    assert scheduler.join_jobs(timeout=60) is True
    assert {trial.config["how"]: trial.status for trial in scheduler.trials} == {
        "returns": Status.FINISHED,
        "raises": Status.FAILED,
        "leaves": Status.EXITED,
        "segfaults": Status.KILLED,
        "child": Status.FINISHED,
    }
    assert hurried.join_jobs(timeout=60) is True
    assert [trial.status for trial in hurried.trials] == [Status.TIMED_OUT]
    history = scheduler.training_history.values()
    assert left_after([report["pid"] for reports in history for report in reports]) == []


def test_pools_by_fork_end_in_trials_however_soon_they_are_ended(search):
    """Each is told to end at once, perhaps before its processes have begun."""

    @ag.args(x=ag.Real(0.0, 1.0))
    def train_fn(args, reporter):
        import multiprocessing

        for _ in range(6):
            with multiprocessing.get_context("fork").Pool(2):
                pass
        reporter(accuracy=args.x)

    scheduler = search(train_fn, trial_timeout=40)
    scheduler.run(num_trials=4)
    assert scheduler.join_jobs(timeout=100)
    assert {trial.status for trial in scheduler.trials} == {Status.FINISHED}
