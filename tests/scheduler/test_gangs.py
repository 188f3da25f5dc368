"""Trials of several processes on this machine: they start, report, stop, fail and go on as one."""

from __future__ import annotations

import json
import os
import time

import pytest
from distributed import Client, LocalCluster

import distsearch as ag
from distsearch.core.store import read
from distsearch.core.words import Status, Stop
from distsearch.errors import OptionError, ResourceError, SpaceError
from distsearch.scheduler import FIFOScheduler

PAIR = {"num_cpus": 1, "world_size": 2}


def events(scheduler, kind):
    return [event for event in read(scheduler.folder) if event.kind == kind]


def written(scheduler, name, ranks=2, trial=0):
    """What each rank of a trial has written as JSON into a file of this name and its number."""
    folder = scheduler.folder / "trials" / str(trial)
    return [json.loads((folder / f"{name}{rank}").read_text()) for rank in range(ranks)]


class StopsAt(FIFOScheduler):
    """Stops each trial at its second report."""

    def on_report(self, trial, report):
        return Stop("enough") if report.time >= 2 else super().on_report(trial, report)


@ag.args()
def tells_who_it_is(args, reporter):
    print("hello from", args.rank)
    print("and goodbye")
    variables = {name: os.environ.get(name) for name in NAMES}
    (reporter.folder / f"who{args.rank}").write_text(
        json.dumps({"args": {name: args[name] for name in RANKS}, "env": variables})
    )
    reporter(epoch=1, accuracy=args.rank + 0.5)


RANKS = ("rank", "local_rank", "world_size")
NAMES = (
    *("MASTER_ADDR", "MASTER_PORT", "RANK", "LOCAL_RANK", "WORLD_SIZE", "LOCAL_WORLD_SIZE"),
    *("GROUP_RANK", "GROUP_WORLD_SIZE", "TORCHELASTIC_RUN_ID", "TORCHELASTIC_RESTART_COUNT"),
    *("OMP_NUM_THREADS", "CUDA_VISIBLE_DEVICES"),
)


def test_every_rank_gets_what_torchrun_gives_and_rank_0_reports(search, capfd):
    scheduler = search(tells_who_it_is, resource=PAIR, num_trials=1, verbose=2)
    scheduler.run()
    scheduler.join_jobs()
    (trial,) = scheduler.trials
    assert trial.status is Status.FINISHED and trial.best_reward == 0.5 and trial.reports == 1
    assert trial.hosts == ("localhost", "localhost")
    ranks = written(scheduler, "who")
    for rank, told in enumerate(ranks):
        assert told["args"] == {"rank": rank, "local_rank": rank, "world_size": 2}
        port = told["env"].pop("MASTER_PORT")
        assert 1024 < int(port) < 65536 and port == ranks[0]["env"].get("MASTER_PORT", port)
        assert told["env"] == {
            "MASTER_ADDR": "127.0.0.1",
            "RANK": str(rank),
            "LOCAL_RANK": str(rank),
            "WORLD_SIZE": "2",
            "LOCAL_WORLD_SIZE": "2",
            "GROUP_RANK": "0",
            "GROUP_WORLD_SIZE": "1",
            "TORCHELASTIC_RUN_ID": "trial-0",
            "TORCHELASTIC_RESTART_COUNT": "0",
            "OMP_NUM_THREADS": "1",
            "CUDA_VISIBLE_DEVICES": "",
        }
    (started,) = events(scheduler, "started")
    assert [place["rank"] for place in started.body["places"]] == [0, 1]
    printed = capfd.readouterr().out
    assert "[ rank 0 ] : hello from 0" in printed and "[ rank 1 ] : hello from 1" in printed


def test_a_trial_of_one_process_is_rank_0_of_1_and_sees_no_variables(search):
    scheduler = search(tells_who_it_is, num_trials=1)
    scheduler.run()
    scheduler.join_jobs()
    (told,) = written(scheduler, "who", ranks=1)
    assert told["args"] == {"rank": 0, "local_rank": 0, "world_size": 1}
    assert not any(told["env"][name] for name in NAMES[:10])


@ag.args(x=ag.Real(0, 1))
def reports_everywhere(args, reporter):
    import time

    epoch = 0
    (reporter.folder / f"here{args.rank}").touch()
    while len(list(reporter.folder.glob("here*"))) < args.world_size:
        time.sleep(0.005)  # a rank that has not begun when another is stopped has nothing to say
    try:
        for epoch in range(1, 6):
            reporter(epoch=epoch, accuracy=epoch / 10)
    finally:
        (reporter.folder / f"last{args.rank}").write_text(json.dumps(epoch))


def test_a_stop_is_raised_on_every_rank_at_the_same_report(search):
    scheduler = search(reports_everywhere, StopsAt, resource=PAIR, num_trials=2)
    scheduler.run()
    scheduler.join_jobs()
    for trial in scheduler.trials:
        assert trial.status is Status.STOPPED and trial.reports == 2
        assert written(scheduler, "last", trial=trial.id) == [2, 2]


@ag.args()
def reports_on_rank_0(args, reporter):
    if args.rank == 0:
        reporter(epoch=1, accuracy=0.5)
        reporter(epoch=2, accuracy=0.5)
    while True:
        import time

        time.sleep(0.05)


def test_a_function_that_reports_on_rank_0_only_is_stopped_too(search):
    scheduler = search(reports_on_rank_0, StopsAt, resource=PAIR, num_trials=1)
    scheduler.run()
    scheduler.join_jobs()
    (trial,) = scheduler.trials
    assert trial.status is Status.STOPPED and "enough" in trial.reason


@ag.args(dies=1)
def one_rank_dies(args, reporter):
    """Ranks in step: each writes a file for every epoch, and waits for those of the others."""
    import os
    import signal
    import time

    state = reporter.load()
    first = 0 if state is None else state["epoch"]
    life = os.environ["TORCHELASTIC_RESTART_COUNT"]
    (reporter.folder / f"begins{life}-{args.rank}").write_text(json.dumps(first))
    for epoch in range(first + 1, 5):
        if epoch == 3 and life == "0" and args.rank == args.dies:
            while args.rank and not (reporter.folder / "epoch0-3-0").exists():
                time.sleep(0.005)  # rank 0 has saved epoch 2, and said so
            os.kill(os.getpid(), signal.SIGKILL)
        (reporter.folder / f"epoch{life}-{epoch}-{args.rank}").write_text("")
        while len(list(reporter.folder.glob(f"epoch{life}-{epoch}-*"))) < args.world_size:
            time.sleep(0.005)
        reporter(epoch=epoch, accuracy=epoch / 10)
        reporter.save({"epoch": epoch}, step=epoch)


@pytest.mark.parametrize("dies", [0, 1])
def test_a_rank_that_is_killed_ends_all_and_all_go_on_from_one_checkpoint(search, dies):
    one_rank_dies.update(dies=dies)
    scheduler = search(one_rank_dies, resource=PAIR, num_trials=1)
    scheduler.run()
    scheduler.join_jobs()
    (trial,) = scheduler.trials
    assert trial.status is Status.FINISHED and trial.attempt == 2
    assert written(scheduler, "begins0-") == [0, 0]
    assert written(scheduler, "begins1-") == [2, 2]
    (lost,) = events(scheduler, "lost")
    assert lost.body["status"] == "killed"
    assert lost.body["reason"].startswith(f"rank {dies}: killed by SIGKILL")
    reported = [event.body["epoch"] for event in events(scheduler, "report")]
    assert reported == [1, 2, 3, 4]


@ag.args()
def rank_1_raises(args, reporter):
    import time

    if args.rank == 1:
        raise ValueError("no such layer")
    while True:
        time.sleep(0.05)


def test_an_error_of_one_rank_is_that_of_the_trial(search):
    scheduler = search(rank_1_raises, resource=PAIR, num_trials=1)
    scheduler.run()
    scheduler.join_jobs()
    (trial,) = scheduler.trials
    assert trial.status is Status.FAILED and trial.reason == "rank 1: ValueError: no such layer"
    assert "rank_1_raises" in trial.error


@ag.args()
def rank_1_takes_too_much(args, reporter):
    import time

    blocks = []
    while True:
        if args.rank == 1:
            blocks.append(bytearray(b"x" * (20 << 20)))
        time.sleep(0.02)


def test_a_rank_that_runs_out_of_memory_ends_all_and_is_named(search):
    resource = {**PAIR, "memory_gb": 0.2}
    scheduler = search(rank_1_takes_too_much, resource=resource, num_trials=1)
    scheduler.run()
    assert scheduler.join_jobs(timeout=60)
    (trial,) = scheduler.trials
    assert trial.status is Status.OUT_OF_MEMORY and trial.reason.startswith("rank 1: ")


@ag.args()
def rank_0_returns_first(args, reporter):
    for epoch in range(1, 3 if args.rank == 0 else 6):
        reporter(epoch=epoch, accuracy=0.5)
    (reporter.folder / f"done{args.rank}").write_text("true")


class Asks(FIFOScheduler):
    def on_report(self, trial, report):
        return super().on_report(trial, report)


def test_nobody_waits_for_decisions_when_rank_0_has_returned(search):
    scheduler = search(rank_0_returns_first, Asks, resource=PAIR, num_trials=1)
    scheduler.run()
    scheduler.join_jobs()
    assert scheduler.trials[0].status is Status.FINISHED
    assert written(scheduler, "done") == [True, True]


@ag.args()
def rank_1_hangs(args, reporter):
    import time

    reporter(epoch=1, accuracy=0.5)
    while args.rank == 1:
        time.sleep(0.05)


def test_a_rank_that_goes_on_after_rank_0_is_hung_after_report_timeout(search):
    scheduler = search(rank_1_hangs, resource=PAIR, num_trials=1, report_timeout=1.5)
    scheduler.run()
    scheduler.join_jobs()
    (trial,) = scheduler.trials
    assert trial.status is Status.HUNG and "after rank 0" in trial.reason


@ag.args()
def uses_memory(args, reporter):
    block = bytearray(60 << 20 if args.rank == 1 else 30 << 20)
    for at in range(0, len(block), 4096):
        block[at] = 1
    reporter(accuracy=0.5)


def test_memory_and_cpu_seconds_are_those_of_all_ranks(search):
    scheduler = search(uses_memory, resource=PAIR, num_trials=1)
    scheduler.run()
    scheduler.join_jobs()
    (ended,) = events(scheduler, "ended")
    assert ended.body["max_rss_bytes"] > 90 << 20
    assert ended.body["cpu_s"] > 0


@ag.args(x=ag.Real(0, 1))
def does_nothing(args, reporter):
    reporter(accuracy=0.5)


def test_many_gangs_leave_no_idle_processes(search):
    scheduler = search(does_nothing, resource=PAIR, num_trials=25)
    scheduler.run()
    scheduler.join_jobs()
    assert len(scheduler.trials) == 25
    assert {trial.status for trial in scheduler.trials} == {Status.FINISHED}
    (remote,) = scheduler.manager.remotes.values()
    assert len(remote.agent.supervisor.processes._all) <= 2
    assert not remote.agent._meetings._points


@pytest.mark.parametrize(
    ("options", "error", "words"),
    [
        ({"resource": {"world_size": 5}}, ResourceError, "room for 4: localhost has 4 CPUs"),
        ({"resource": {"world_size": 0}}, ResourceError, "world_size=0"),
        ({"resource": PAIR, "isolation": "reuse"}, OptionError, "leave isolation='fresh'"),
    ],
)
def test_what_no_gang_can_be_is_refused_and_nothing_is_left_of_it(
    search, options, error, words, tmp_path
):
    there = tmp_path / "mine"
    there.mkdir()
    (there / "notes.txt").touch()
    for folder in (tmp_path / "runs" / "new", there):
        with pytest.raises(error, match=words):
            search(does_nothing, checkpoint=folder, **options)
    assert [path.name for path in tmp_path.rglob("*")] == ["mine", "notes.txt"]


@ag.args(rank=ag.Int(1, 4))
def has_a_rank_of_its_own(args, reporter):
    reporter(accuracy=args.rank / 10)


def test_an_argument_called_rank_stays_the_users_in_a_trial_of_one_process(search):
    scheduler = search(has_a_rank_of_its_own, num_trials=2)
    scheduler.run()
    scheduler.join_jobs()
    assert all(trial.best_reward == trial.config["rank"] / 10 for trial in scheduler.trials)
    with pytest.raises(SpaceError, match="'rank' is an argument of has_a_rank_of_its_own"):
        search(has_a_rank_of_its_own, resource=PAIR)


def written_for_torchrun(args, reporter):
    import os

    import torch
    import torch.distributed as dist

    dist.init_process_group("gloo")
    total = torch.tensor([float(os.environ["RANK"]) + 1])
    dist.all_reduce(total)
    if dist.get_rank() == 0:
        reporter(epoch=1, accuracy=total.item())
    dist.destroy_process_group()


def dies_in_a_collective(args, reporter):
    import os

    import torch
    import torch.distributed as dist

    from distsearch.train import process_group

    with process_group() as device:
        state = reporter.load()
        for epoch in range(1 if state is None else state["epoch"] + 1, 4):
            if epoch == 2 and state is None and args.rank == 1:
                os._exit(9)
            total = torch.ones(1, device=device)
            dist.all_reduce(total)
            reporter(epoch=epoch, accuracy=total.item())
            reporter.save({"epoch": epoch}, step=epoch)
            dist.barrier()


def finds_its_port_taken(args, reporter):
    """In its first life rank 0 finds that somebody listens where its ranks are to meet."""
    import os
    import socket

    if args.rank == 0 and os.environ["TORCHELASTIC_RESTART_COUNT"] == "0":
        somebody = socket.socket()
        somebody.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        somebody.bind((os.environ["MASTER_ADDR"], int(os.environ["MASTER_PORT"])))
        somebody.listen()
    written_for_torchrun(args, reporter)


@ag.args(kind=ag.Choice("a script", "one dies", "the port is taken"))
def uses_torch(args, reporter):
    kinds = {
        "a script": written_for_torchrun,
        "one dies": dies_in_a_collective,
        "the port is taken": finds_its_port_taken,
    }
    kinds[args.kind](args, reporter)


@pytest.fixture(scope="module")
def with_torch(tmp_path_factory):
    """A search whose trials have joined a process group, each its own way."""
    pytest.importorskip("torch")
    with FIFOScheduler(
        uses_torch,
        searcher="grid",
        resource={**PAIR, "ranks_per_node": 2},
        num_trials=3,
        max_failures=0,
        retries={"exited": 1},
        checkpoint=tmp_path_factory.mktemp("with_torch") / "search",
        local=ag.Node("localhost", num_cpus=4),
        verbose=0,
    ) as scheduler:
        scheduler.run()
        scheduler.join_jobs()
    return {trial.config["kind"]: trial for trial in scheduler.trials}, scheduler


def test_a_script_for_torchrun_runs_unchanged_as_a_train_function(with_torch):
    trials, _ = with_torch
    assert trials["a script"].best_reward == 3.0


def test_the_rank_that_died_is_to_blame_and_not_those_that_missed_it(with_torch):
    trials, scheduler = with_torch
    trial = trials["one dies"]
    assert trial.status is Status.FINISHED and trial.attempt == 2
    (lost,) = [event for event in events(scheduler, "lost") if event.trial == trial.id]
    assert lost.body["status"] == "exited" and lost.body["reason"].startswith("rank 1:")
    reports = [event.body for event in events(scheduler, "report") if event.trial == trial.id]
    assert [report["epoch"] for report in reports] == [1, 2, 3]


def test_a_port_that_is_taken_meanwhile_is_another_attempt_and_no_failure(with_torch):
    trials, scheduler = with_torch
    trial = trials["the port is taken"]
    assert trial.status is Status.FINISHED and trial.attempt == 2 and trial.best_reward == 3.0
    assert not any(trial.failures.values())
    (lost,) = [event for event in events(scheduler, "lost") if event.trial == trial.id]
    assert "EADDRINUSE" in lost.body["reason"]


GANGS = """
import os, time
import distsearch as ag

@ag.args(x=ag.Real(0.0, 1.0))
def train_fn(args, reporter):
    state = reporter.load() or {"epoch": 0}
    for epoch in range(state["epoch"] + 1, 4):
        if epoch == 3 and os.path.exists("first"):
            with open("MAILBOX", "w") as mailbox:
                print(os.getpid(), file=mailbox)
            time.sleep(300)
        reporter(epoch=epoch, accuracy=args.x)
        reporter.save({"epoch": epoch}, step=epoch)
    with open(f"ended{args.task_id}-{args.rank}", "a") as file:
        file.write("x")

if __name__ == "__main__":
    scheduler = ag.scheduler.FIFOScheduler(
        train_fn, local=ag.Node("localhost", num_cpus=4), resource={"world_size": 2},
        checkpoint="kept", num_trials=3)
    scheduler.run()
    scheduler.join_jobs()
    scheduler.close()
    print("OVER")
"""


def test_gangs_go_on_when_their_driver_was_killed_and_each_rank_ends_once(
    driver, mailbox, left_after, tmp_path
):
    (tmp_path / "first").touch()
    script = GANGS.replace("MAILBOX", mailbox.path)
    one = driver(script)
    ranks = {mailbox.take() for _ in range(4)}
    deadline = time.monotonic() + 30
    while sum(event.body["step"] == 2 for event in read(tmp_path / "kept", "saved")) < 2:
        assert time.monotonic() < deadline, "the checkpoints were never durable"
        time.sleep(0.05)  # another process writes the file
    one.process.kill()
    assert left_after(ranks) == []
    (tmp_path / "first").unlink()
    driver(script).words_after("OVER")
    log = list(read(tmp_path / "kept"))
    ended = [event.body["status"] for event in log if event.kind == "ended"]
    assert ended == ["finished"] * 3
    for trial in range(3):
        reports = [e.body["epoch"] for e in log if e.kind == "report" and e.trial == trial]
        assert reports == [1, 2, 3]
        for rank in (0, 1):
            assert (tmp_path / f"ended{trial}-{rank}").read_text() == "x"


@ag.args(x=ag.Real(0, 1))
def tells_of_its_groups(args, reporter):
    reporter(accuracy=args.rank + 0.5, groups=int(os.environ["GROUP_WORLD_SIZE"]))


def test_gangs_run_on_the_workers_of_a_cluster_of_the_users(search):
    with (
        LocalCluster(
            n_workers=2, threads_per_worker=1, processes=False, dashboard_address="127.0.0.1:0"
        ) as local,
        Client(local, set_as_default=False) as client,
    ):
        resource = {**PAIR, "ranks_per_node": 1}
        scheduler = search(
            tells_of_its_groups, local=False, client=client, resource=resource, num_trials=2
        )
        scheduler.run()
        assert scheduler.join_jobs(timeout=60)
        assert [trial.status for trial in scheduler.trials] == [Status.FINISHED] * 2
        scheduler.close()
    reports = [event.body for event in events(scheduler, "report")]
    assert [(report["accuracy"], report["groups"]) for report in reports] == [(0.5, 2)] * 2
