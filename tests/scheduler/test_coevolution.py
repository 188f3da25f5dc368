"""Coevolution: the graph, the rule by hand, and small real populations that are disturbed."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import time

import numpy as np
import pytest

import distsearch as ag
from distsearch.core import store
from distsearch.core.words import Launch, Status, Wait
from distsearch.errors import OptionError
from distsearch.scheduler import CoevolutionScheduler
from distsearch.scheduler.coevolution import graph_of, torus
from tests.core.test_store import full_disk
from tests.hosts import Hosts

JOIN_S = 60


def test_the_neighbours_on_a_torus_are_above_below_right_and_left():
    assert torus(3, 3)[1] == (7, 4, 2, 0)
    assert torus(3, 3)[4] == (1, 7, 5, 3)
    assert torus(2, 2) == ((2, 1), (3, 0), (0, 3), (1, 2))
    assert torus(5, 1) == ((1, 4), (2, 0), (3, 1), (4, 2), (0, 3))
    wide = torus(3, 5)
    assert len(wide) == 15
    assert wide[0] == (12, 3, 1, 2), "the row below is three cells further"
    assert wide[7] == (4, 10, 8, 6)
    for neighbours in (torus(3, 5), torus(2, 2), torus(4, 1)):
        for cell, others in enumerate(neighbours):
            assert all(cell in neighbours[other] for other in others), "on both sides"


@pytest.mark.parametrize(
    ("cells", "says"),
    [
        ("1x1", "population of 1"),
        ("0x3", "population of 0"),
        ((1, 1), "two cells at least"),
        ("three", "as in '3x5'"),
        ((2, 2, 2), "a width and a height"),
        ({0: [1], 2: [0]}, "without a gap"),
        ({0: [1], 1: [5]}, "cell 1 cannot have the neighbour 5"),
        ({0: [0], 1: [0]}, "cell 0 cannot have the neighbour 0"),
    ],
)
def test_what_is_no_population_is_refused(cells, says):
    with pytest.raises(OptionError, match=says):
        graph_of(cells)


@ag.args(lr=ag.Choice(*range(9)), cell=0, generation=0, folder="", size=1)
def evolves(args, reporter):
    """Its genome tells which generations of which cells it comes from."""
    genomes = [reporter.load(parent) for parent in reporter.parents]
    own = next((one for one in genomes if one["cell"] == args.cell), None)
    if args.folder and args.cell == 1 and args.generation == 3:
        pids = os.path.join(args.folder, "pids")
        with open(pids, "a+") as file:
            print(os.getpid(), file=file, flush=True)
            file.seek(0)
            is_first = len(file.read().split()) == 1
        if is_first:
            time.sleep(JOIN_S)
    line = [*(own["line"] if own else []), args.generation]
    genome = np.full(args.size, args.cell, dtype=np.uint8)
    reporter.save({"cell": args.cell, "line": line, "genome": genome})
    reporter(
        accuracy=sum(len(one["line"]) for one in genomes),
        line=line,
        cells=[one["cell"] for one in genomes],
        pid=os.getpid(),
    )


def checkpoints_of(folder):
    return [path.parent for path in folder.glob("trials/*/checkpoints/*-step-*/manifest.json")]


def test_a_population_trains_all_its_generations_from_its_neighbours(search):
    scheduler = search(evolves, CoevolutionScheduler, cells="3x3", generations=4, seed=1)
    scheduler.run()
    assert scheduler.join_jobs(timeout=JOIN_S)
    assert [trial.status for trial in scheduler.trials] == [Status.FINISHED] * 36
    newest = {}  # of each cell, as the log goes: the last trial that has finished
    for event in store.read(scheduler.folder, "launched", "ended"):
        trial = scheduler.trials[event.trial]
        cell, generation = trial.config["cell"], trial.config["generation"]
        if event.kind == "ended":
            newest[cell] = trial
            continue
        parents = [newest[one] for one in (cell, *torus(3, 3)[cell]) if one in newest]
        assert trial.parents == tuple(parent.id for parent in parents)
        (report,) = scheduler.training_history[trial.id]
        assert report["line"] == list(range(1, generation + 1)), "each follows the one before"
        assert report["cells"] == [parent.config["cell"] for parent in parents]
    for cell in range(9):
        configs = {t.config["lr"] for t in scheduler.trials if t.config["cell"] == cell}
        assert len(configs) == 1, "a cell keeps its configuration"
    assert any(len(trial.parents) == 5 for trial in scheduler.trials), "of all its neighbours"
    processes = {reports[0]["pid"] for reports in scheduler.training_history.values()}
    assert len(processes) <= 4, "a process is used again and again"
    left = checkpoints_of(scheduler.folder)
    assert 9 <= len(left) <= 10, "the newest of each cell, and that of the best"
    assert not list(scheduler.folder.glob("trials/*/parents/*"))


def test_cells_that_share_slots_take_turns_and_that_is_said(search, capfd):
    scheduler = search(
        evolves, CoevolutionScheduler, slots=1, cells="2x1", generations=2, verbose=1
    )
    scheduler.run()
    assert scheduler.join_jobs(timeout=JOIN_S)
    assert "2 cells share 1 slots: they take turns" in capfd.readouterr().out
    assert [trial.config["cell"] for trial in scheduler.trials] == [0, 1, 0, 1]


@pytest.fixture
def rule(search):
    """A population of four on a ring that does not run; its trials end by hand."""
    scheduler = search(evolves, CoevolutionScheduler, cells="4x1", generations=5, seed=1)

    def launch(node="a"):
        launched = scheduler.next_launch_on(node)
        if not isinstance(launched, Launch):
            return launched
        trials = scheduler.ledger.trials
        trials[len(trials)] = ag.scheduler.Trial(
            len(trials), launched.config, launched.parents, bracket=launched.bracket
        )
        trials[len(trials) - 1].hosts = (node,)
        return trials[len(trials) - 1]

    def end(trial, status=Status.FINISHED):
        trial.status, trial.saved_step = status, 1
        scheduler.on_end(trial)

    scheduler.launch, scheduler.end = launch, end
    return scheduler


def test_nobody_waits_for_a_neighbour_that_is_slow(rule):
    first = [rule.launch() for _ in range(4)]
    assert isinstance(rule.launch(), Wait), "all cells are busy"
    rule.end(first[1])
    second = rule.launch()
    assert (second.bracket, second.parents) == (1, (1,)), "its neighbours have not published"
    rule.end(second)
    rule.end(first[0])
    third = rule.launch()
    assert (third.bracket, third.parents) == (0, (0, second.id)), "the newest of cell 1"


def test_a_free_slot_goes_to_the_cell_that_is_warm_there_unless_others_are_far_behind(rule):
    trials = [rule.launch(node) for node in "abab"]
    for trial in trials:
        rule.end(trial)
    assert rule.launch("b").bracket == 1
    assert rule.launch("b").bracket == 3
    one = rule.launch("a")
    assert one.bracket == 0
    rule.end(one)
    again = rule.launch("a")
    assert again.bracket == 2
    rule.end(again)
    for _ in range(2):  # the cells of b are still at their second generation
        rule.end(rule.launch("a"))
    busy = [cell.open for cell in rule.cells]
    rule.end(rule.ledger.trials[busy[1]])
    assert rule.launch("a").bracket == 1, "cold here, but it was behind"


def test_a_cell_that_fails_goes_on_from_its_last_good_generation_until_three_in_a_row(rule):
    for trial in [rule.launch() for _ in range(4)]:
        rule.end(trial)
    good = rule.launch()
    assert good.bracket == 0
    rule.end(good)
    others = [rule.launch() for _ in range(3)]
    for number in range(3):
        again = rule.launch()
        assert (again.bracket, again.parents[0], again.config["generation"]) == (0, good.id, 3)
        rule.end(again, Status.FAILED)
        assert rule.cells[0].has_failed is (number == 2)
    assert isinstance(rule.launch(), Wait), "cell 0 has ended"
    rule.end(others[0])
    assert good.id in rule.launch().parents, "the others go on with what it had published"
    assert rule.planned == 2 + 3 + 3 * 5


def test_a_cell_argument_that_is_to_be_searched_is_refused():
    @ag.args(cell=ag.Int(0, 3))
    def train_fn(args, reporter):
        pass

    with pytest.raises(OptionError, match="cell= of train_fn is set by the scheduler"):
        CoevolutionScheduler(train_fn, verbose=0)


def test_generations_below_one_are_refused():
    with pytest.raises(OptionError, match="generations=0"):
        CoevolutionScheduler(evolves, generations=0, verbose=0)


@ag.args(cell=0, generation=0)
def one_raises(args, reporter):
    if args.cell == 2 and args.generation == 2:
        raise FloatingPointError("the loss is nan")
    reporter.save({"cell": args.cell})
    reporter(accuracy=1.0)


def test_a_cell_that_has_failed_leaves_the_others_to_go_on_and_says_so(search, capfd):
    scheduler = search(
        one_raises, CoevolutionScheduler, slots=2, cells="2x2", generations=4, verbose=1
    )
    scheduler.run()
    assert scheduler.join_jobs(timeout=JOIN_S)
    ends = [(t.config["cell"], t.status.value) for t in scheduler.trials]
    assert ends.count((2, "failed")) == 3
    assert [ends.count((cell, "finished")) for cell in range(4)] == [4, 4, 1, 4]
    said = capfd.readouterr().out
    line = "cell 2: generation 2 failed: FloatingPointError: the loss is nan; it goes on from"
    assert f"{line} generation 1 (1 of 3 in a row)" in said
    assert "the last of 3 in a row: the others go on with its generation 1" in said


def kill_one_that_waits(folder):
    """SIGKILL to the process in the third generation of cell 1."""
    pids = folder / "pids"
    deadline = time.monotonic() + JOIN_S
    while not (pids.exists() and pids.read_text().endswith("\n")):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    os.kill(int(pids.read_text().split()[0]), signal.SIGKILL)


def test_a_cell_whose_process_is_killed_goes_on_from_its_last_generation(search, tmp_path):
    scheduler = search(
        evolves,
        CoevolutionScheduler,
        cells="2x2",
        generations=6,
        args={"folder": str(tmp_path)},
    )
    scheduler.run()
    kill_one_that_waits(tmp_path)
    assert scheduler.join_jobs(timeout=JOIN_S)
    assert [trial.status for trial in scheduler.trials] == [Status.FINISHED] * 24
    lines = [reports[-1]["line"] for reports in scheduler.training_history.values()]
    assert lines.count(list(range(1, 7))) == 4
    (again,) = [trial for trial in scheduler.trials if trial.attempt == 2]
    assert (again.config["cell"], again.config["generation"]) == (1, 3)


def wait_until(is_so):
    deadline = time.monotonic() + JOIN_S
    while not is_so():
        assert time.monotonic() < deadline
        time.sleep(0.01)


def test_on_a_disk_that_fills_up_nothing_that_was_published_is_lost(tmp_path):
    folder = tmp_path / "disk"
    with (
        full_disk(folder, 8 << 20) as more,
        CoevolutionScheduler(
            evolves,
            args={"size": 200_000},
            cells="2x2",
            generations=30,
            local=ag.Node("localhost", num_cpus=2),
            checkpoint=folder / "search",
            verbose=0,
        ) as scheduler,
    ):
        scheduler.run()
        wait_until(lambda: all(cell.finished for cell in scheduler.cells))
        with contextlib.suppress(OSError), open(folder / "ballast", "wb", buffering=0) as ballast:
            while True:
                ballast.write(bytes(4096))
        wait_until(lambda: is_said_to_be_full(scheduler))
        assert not all(cell.generation == 30 for cell in scheduler.cells), "it was full before"
        more(64 << 20)
        assert scheduler.join_jobs(timeout=JOIN_S)
        assert [cell.generation for cell in scheduler.cells] == [30] * 4
        lines = [reports[-1]["line"] for reports in scheduler.training_history.values() if reports]
        assert lines.count(list(range(1, 31))) == 4, "each generation follows the one before"


def is_said_to_be_full(scheduler):
    """Whether the log cannot grow, or, while it still can, a trial could not save."""
    reasons = [trial.reason for trial in scheduler.trials]
    return scheduler.progress.snapshot().note or any("disk is full" in why for why in reasons)


DRIVER = """
import os, time
import distsearch as ag

@ag.args(lr=ag.Choice(*range(9)), cell=0, generation=0)
def train_fn(args, reporter):
    genomes = [reporter.load(parent) for parent in reporter.parents]
    own = next((one for one in genomes if one["cell"] == args.cell), {"line": []})
    if args.generation == 4 and args.cell == 0 and not os.path.exists("go"):
        print("AT four", flush=True)
        time.sleep(60)
    line = [*own["line"], args.generation]
    reporter.save({"cell": args.cell, "line": line})
    reporter(accuracy=1.0, line=line)

if __name__ == "__main__":
    with ag.scheduler.CoevolutionScheduler(
        train_fn, cells="2x2", generations=8, seed=3, local=ag.Node("localhost", num_cpus=2),
        checkpoint="named",
    ) as scheduler:
        scheduler.run()
        scheduler.join_jobs()
        print("ALL", [t.status.value for t in scheduler.trials].count("finished"))
        lines = [reports[-1]["line"] for reports in scheduler.training_history.values()]
        print("WHOLE", lines.count(list(range(1, 9))))
"""


def test_a_population_whose_driver_was_killed_goes_on_with_the_same_command(driver, tmp_path):
    one = driver(DRIVER)
    one.words_after("AT four")
    deadline = time.monotonic() + JOIN_S
    while len(list(store.read(tmp_path / "named", "ended"))) < 20:  # the others go on meanwhile
        assert time.monotonic() < deadline
        time.sleep(0.01)
    one.process.kill()
    one.process.wait(10)
    (tmp_path / "go").touch()
    before = {e.trial for e in store.read(tmp_path / "named", "ended")}
    said = driver(DRIVER).end()
    assert "ALL 32" in said
    assert "WHOLE 4" in said
    started = [e.trial for e in store.read(tmp_path / "named", "started") if e.trial in before]
    assert len(started) == len(set(started)), "nothing that had ended was trained again"


def test_on_two_nodes_cells_stay_and_what_neighbours_read_is_sent_when_it_is_saved(tmp_path):
    with Hosts() as hosts:
        config, text = hosts.folder / "named_hosts", ""
        for name in ("east", "west"):
            text += f"Host {name}\n    HostName 127.0.0.1\n    Port {hosts.start().port}\n"
        config.write_text(f"{text}Host *\n{hosts.config.read_text()}")
        with CoevolutionScheduler(
            evolves,
            args={"size": 300_000},
            cells="2x2",
            generations=6,
            dist_ip_addrs=[ag.Node(n, python=sys.executable, num_cpus=2) for n in ("east", "west")],
            ssh_config=[config],
            local=False,
            verbose=0,
            checkpoint=tmp_path / "search",
        ) as scheduler:
            sent = set()
            send = scheduler.experiment.keeper._send
            scheduler.experiment.keeper._send = lambda *what: (sent.add(what), send(*what))[1]
            scheduler.run()
            assert scheduler.join_jobs(timeout=JOIN_S)
            trials = scheduler.trials
            assert [trial.status for trial in trials] == [Status.FINISHED] * 24
            first_at_its_end = next(t.id for t in trials if t.config["generation"] == 6)
            for cell in range(4):
                hosts_of_cell = {
                    t.host for t in trials[:first_at_its_end] if t.config["cell"] == cell
                }
                assert len(hosts_of_cell) == 1, "a cell stays where it is warm"
            assert {trial.host for trial in trials} == {"east", "west"}
            assert len(sent) >= 12, "sent when it was saved, and not when a child has started"
            homes = {trial.id: trial.host for trial in trials}
            assert all(homes[saved.trial] != remote.host for saved, remote in sent)
            assert len(checkpoints_of(tmp_path / "search")) <= 5
            on_nodes = [*hosts.folder.glob("**/trials/*/checkpoints/*/manifest.json")]
            assert len(on_nodes) <= 2 * 3 * 4
