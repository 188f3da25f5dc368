"""`distsearch lanas` from the shell."""

from __future__ import annotations

import contextlib
import csv
import json
import subprocess
import sys
import time

import numpy as np
import psutil
import pytest
from click.testing import CliRunner

import distsearch as ag
from distsearch.cli.lanas import group
from distsearch.errors import DistsearchError, OptionError, SpaceError, StoreError
from distsearch.nas.pc_darts.runs import run_test

SMALL = ["--channels", "4", "--layers", "3", "--epochs", "1"]
PARTS = ("train", "test")


def lanas(*arguments):
    done = CliRunner().invoke(group, [str(one) for one in arguments])
    if isinstance(done.exception, DistsearchError):
        raise done.exception
    assert done.exit_code == 0, done.output
    return done.output


@pytest.fixture(scope="module")
def searched(tmp_path_factory):
    """The folder of a search of four cells among a pool of six."""
    pytest.importorskip("torch")
    folder = tmp_path_factory.mktemp("lanas")
    rng = np.random.default_rng(0)
    pixels = {f"x_{part}": rng.integers(256, size=(150, 8, 8), dtype=np.uint8) for part in PARTS}
    np.savez(folder / "few.npz", **pixels, **{f"y_{part}": np.arange(150) % 3 for part in PARTS})
    given = ["--data", folder / "few.npz"]
    lanas("pool", "--size", 6, "--out", folder / "pool.npy")
    given += ["--pool", folder / "pool.npy", "--first", 2, *SMALL, "--out", folder / "run"]
    return folder, lanas("search", "--trials", 4, *given)


def test_cells_that_promotion_has_paused_are_ranked_too(searched):
    folder, _ = searched
    given = ["--data", folder / "few.npz", "--pool", folder / "pool.npy", "--first", 2, *SMALL[:4]]
    given += ["--epochs", 3, "--rule", "promotion", "--out", folder / "promoted"]
    said = lanas("search", "--trials", 4, *given)
    assert "are random" not in said
    statuses = [trial.status.value for trial in ag.open(folder / "promoted").trials]
    assert "paused" in statuses
    assert len(json.loads((folder / "promoted/results.json").read_text())) == 4
    assert lanas("results", folder / "promoted") in said


def test_a_search_prints_the_ranked_table_and_writes_it(searched):
    folder, said = searched
    record = ag.open(folder / "run")
    assert [trial.attempt for trial in record.trials] == [1] * 4
    rows = json.loads((folder / "run/results.json").read_text())
    assert [row["rank"] for row in rows] == [1, 2, 3, 4]
    accuracies = [row["accuracy"] for row in rows]
    assert accuracies == sorted(accuracies, reverse=True)
    assert f"   1 {rows[0]['trial']:6}" in said
    with open(folder / "run/results.csv", newline="") as file:
        table = list(csv.DictReader(file))
    assert [int(row["trial"]) for row in table] == [row["trial"] for row in rows]
    assert table[0]["operations.3"] == rows[0]["operations"][3]


def test_the_results_come_best_first_or_last_and_only_as_many_as_asked(searched):
    folder, _ = searched

    def ranks(*options):
        rows = lanas("results", folder / "run", *options).splitlines()[1:-1]
        return [int(row.split()[0]) for row in rows]

    assert ranks() == [1, 2, 3, 4]
    assert ranks("--worst-first", "--top", 2) == [2, 1]
    assert len(json.loads(lanas("results", folder / "run", "--json"))) == 4


def test_a_search_whose_driver_and_then_whose_node_was_killed_ends_with_the_same_results(
    searched, tmp_path
):
    """Of the first two cells, which are random: what a tree suggests depends on who ends first."""
    folder, _ = searched
    command = [sys.executable, "-m", "distsearch.cli", "lanas", "search", "--trials", "2"]
    command += ["--data", str(folder / "few.npz"), "--pool", str(folder / "pool.npy")]
    command += ["--first", "2", *SMALL, "--out", str(tmp_path)]
    log = tmp_path.with_suffix(".txt")

    def start():
        with open(log, "a") as said:
            return subprocess.Popen(command, stdout=said, stderr=said)

    def wait_until_a_cell_is_trained(driver):
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and driver.poll() is None:
            with contextlib.suppress(StoreError):  # nothing is logged yet
                if any(one.status.value == "running" for one in ag.open(tmp_path).trials):
                    return
            time.sleep(0.05)
        raise AssertionError(log.read_text())

    with start() as driver:
        wait_until_a_cell_is_trained(driver)
        driver.kill()
    with start() as driver:
        wait_until_a_cell_is_trained(driver)
        for process in psutil.Process(driver.pid).children(recursive=True):
            process.kill()
        assert driver.wait(60) == 0, log.read_text()
    trials = ag.open(tmp_path).trials
    assert [trial.status.value for trial in trials] == ["finished"] * 2
    assert max(trial.attempt for trial in trials) > 1

    def results(folder):
        rows = json.loads((folder / "results.json").read_text())
        return {row["trial"]: (row["accuracy"], row["operations"], row["inputs"]) for row in rows}

    whole = results(folder / "run")
    assert results(tmp_path) == {trial: whole[trial] for trial in (0, 1)}


def test_no_trial_of_a_search_has_looked_at_the_test_part(searched):
    folder, _ = searched
    histories = ag.open(folder / "run").training_history
    assert all("test_accuracy" not in report for one in histories.values() for report in one)


def test_the_tree_of_a_search_is_drawn_from_its_folder(searched):
    folder, _ = searched
    lanas("results", folder / "run", "--tree", folder / "tree.png")
    assert (folder / "tree.png").stat().st_size > 2000


def test_the_cell_of_a_rank_is_trained_anew_and_tested_at_the_end(searched):
    folder, _ = searched
    said = lanas("retrain", folder / "run", "--top", 2, *SMALL)
    assert "rank 2 (trial" in said and "of the test part" in said
    assert (folder / "run/retrain-2/events.db").exists()


def test_a_folder_is_gone_on_with_as_it_was_begun_alone(searched):
    folder, _ = searched
    given = ["--data", folder / "few.npz", "--pool", folder / "pool.npy", "--first", 2]
    with pytest.raises(OptionError, match=r"would be trained with epochs=2 \(it was 1\)"):
        lanas("search", "--trials", 4, *given, *SMALL[:4], "--epochs", 2, "--out", folder / "run")
    with pytest.raises(StoreError, match="folder of `distsearch lanas`, not of"):
        run_test(folder / "run")


@pytest.mark.parametrize("rank", [0, 5])
def test_a_rank_that_does_not_exist_is_refused(searched, rank):
    folder, _ = searched
    with pytest.raises(OptionError, match=f"no rank {rank}: 4 cells .*give 1 to 4"):
        lanas("retrain", folder / "run", "--top", rank)


def test_the_folder_of_another_search_or_of_none_is_refused(tmp_path):
    @ag.args(x=ag.Real(0, 1))
    def other(args, reporter):
        reporter(epoch=1, accuracy=args.x)

    with ag.scheduler.FIFOScheduler(other, num_trials=1, checkpoint=tmp_path, verbose=0) as one:
        one.run()
        one.join_jobs()
    with pytest.raises(StoreError, match="is no search of cells"):
        lanas("results", tmp_path)
    with pytest.raises(StoreError, match="no folder"):
        lanas("results", tmp_path / "missing")


def test_a_pool_of_another_space_is_refused_before_anything_is_trained(tmp_path):
    np.save(tmp_path / "pool.npy", np.zeros((3, 6), dtype=np.uint8))
    with pytest.raises(SpaceError, match="28 columns"):
        lanas("search", "--pool", tmp_path / "pool.npy", "--out", tmp_path / "run")


@pytest.mark.parametrize(
    ("command", "says"),
    [
        (["search", "--trials", "0", "--out", "run"], "range x>=1"),
        (["search", "--epochs", "0", "--out", "run"], "range x>=1"),
        (["pool", "--size", "0", "--out", "pool.npy"], "range x>=1"),
        (["pool", "--out", "pool.txt"], "ends in .npy"),
        (["bench", "--seeds", "0"], "range x>=1"),
        (["bench", "--out", "curves.foo"], "--out='curves.foo'"),
    ],
)
def test_what_makes_no_sense_is_refused(command, says, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = CliRunner().invoke(group, command)
    assert done.exit_code != 0 and says in f"{done.output}{done.exception}"
    assert list(tmp_path.iterdir()) == []


def test_the_bench_prints_a_line_for_each_searcher_and_draws_the_curves(tmp_path):
    rows = [f"{a},{b},{c},{a + 2 * b - c}" for a in range(5) for b in range(5) for c in range(5)]
    (tmp_path / "mine.csv").write_text("a,b,c,accuracy\n" + "\n".join(rows))
    table, picture = str(tmp_path / "mine.csv"), tmp_path / "mine.png"
    said = lanas("bench", "--table", table, "--seeds", 2, "--evaluations", 60, "--out", picture)
    assert [line.split()[0] for line in said.splitlines()[2:5]] == ["lanas", "evolution", "random"]
    assert picture.stat().st_size > 5000
