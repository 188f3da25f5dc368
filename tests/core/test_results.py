"""What can be read of a search from its folder alone: finished, running, or not there."""

from __future__ import annotations

import json
import os
import shutil
import sqlite3
import subprocess
import sys
import threading
import warnings
from pathlib import Path

import numpy
import pytest

import distsearch as ag
from distsearch.core import checkpoint, schema, store
from distsearch.core.ledger import Ledger
from distsearch.core.words import Launch, Status
from distsearch.errors import (
    CheckpointError,
    DistsearchError,
    MissingPackage,
    NothingReported,
    StoreError,
    StoreVersion,
)
from distsearch.scheduler import FIFOScheduler

ROOT = Path(__file__).resolve().parents[2]
WAIT_S = 30.0
OPTIONS = {"local": ag.Node("localhost", num_cpus=2), "verbose": 0, "seed": 1}


@ag.args(
    lr=ag.Real(0, 1),
    layers=ag.Int(1, 4),
    wide=ag.Bool(),
    net=ag.Choice("small", ag.Dict(depth=ag.Int(1, 3), bias=ag.Bool())),
    id=ag.Choice("a"),
    batch=64,
)
def train_fn(args, reporter):
    import numpy

    if args.lr == 0.5 and args.layers == 4:
        raise ValueError("too many layers")
    for epoch in range(3):
        reporter.save({"epoch": epoch + 1, "weights": numpy.full(4, args.lr)}, step=epoch + 1)
        reporter(epoch=epoch + 1, accuracy=args.lr * (epoch + 1), latency=args.layers, memory=2)


SMALL = {"layers": 2, "wide": False, "net": "small", "id": "a"}
DEEP = {**SMALL, "net": "dict", "net.dict.depth": 3, "net.dict.bias": True}


def configs(*rates):
    return [{"lr": rate, **SMALL} for rate in rates]


class Family(FIFOScheduler):
    """Each trial has the one before it as its parent."""

    def next_launch(self):
        launch = super().next_launch()
        last = len(self.trials) - 1
        return Launch(launch.config, parents=(last,) if last >= 0 else ())


def search(folder, *points, make=FIFOScheduler, function=train_fn, **options):
    """Run these configurations; the scheduler, which is closed."""
    options = {**OPTIONS, "points_to_evaluate": points, "checkpoint": folder, **options}
    with make(function, **options) as scheduler:
        scheduler.run(num_trials=len(points))
        scheduler.join_jobs()
    return scheduler


def files_of(folder):
    """Every file below a folder, with when it was changed, and what it is."""
    return {
        path: (path.stat().st_mtime_ns, path.read_bytes())
        for path in sorted(folder.rglob("*"))
        if path.is_file()
    }


@pytest.fixture(scope="module")
def finished(tmp_path_factory):
    """A scheduler, closed, and the record of its folder: 4 trials, parent to child; one failed."""
    folder = tmp_path_factory.mktemp("finished") / "search"
    points = [
        {"lr": 0.2, **SMALL},
        {"lr": 0.3, **DEEP},
        {"lr": 0.9, **SMALL, "layers": 1},
        {"lr": 0.5, **SMALL, "layers": 4},
    ]
    scheduler = search(folder, *points, make=Family)
    return scheduler, ag.open(folder)


# A finished search


def test_a_record_answers_what_the_scheduler_does(finished):
    scheduler, record = finished
    assert [repr(trial) for trial in record.trials] == [repr(trial) for trial in scheduler.trials]
    assert record.get_best_config() == scheduler.get_best_config() == record.best.config
    assert record.get_best_reward() == scheduler.get_best_reward() == pytest.approx(2.7)
    assert record.get_best_task_id() == scheduler.get_best_task_id() == record.best.id == 2
    assert record.training_history == scheduler.training_history
    assert record.config_history == scheduler.config_history
    assert record.get_training_curves() == scheduler.get_training_curves()
    assert record.get_pareto_front() == scheduler.get_pareto_front()
    assert record.lineage() == scheduler.lineage()
    assert record.num_finished_tasks == scheduler.num_finished_tasks == 4
    ledger = Ledger.of(scheduler.folder)
    assert list(map(repr, ledger.trials.values())) == list(map(repr, scheduler.trials))
    assert (ledger.counts, ledger.best.id) == (scheduler.ledger.counts, 2)


def test_the_metadata_of_a_record_is_json_and_lacks_only_what_a_trial_gets(finished):
    scheduler, record = finished
    mine, its = record.metadata, scheduler.metadata
    assert json.loads(json.dumps(mine)) == mine
    assert set(its) - set(mine) == {"num_cpus", "num_gpus"}
    assert abs(mine.pop("start_time") - its.pop("start_time")) < 60
    assert mine == {name: its[name] for name in mine}


def test_pictures_are_drawn_without_the_train_function(finished, tmp_path):
    _, record = finished
    record.get_training_curves(tmp_path / "curves.png")
    record.draw_lineage(tmp_path / "lineage.png")
    assert (tmp_path / "curves.png").stat().st_size > 1000
    assert (tmp_path / "lineage.png").stat().st_size > 1000
    with pytest.raises(DistsearchError, match="there is one objective, 'accuracy'"):
        record.draw_pareto_front(tmp_path / "front.png")


def test_a_record_loads_checkpoints_as_the_scheduler_does(finished):
    scheduler, record = finished
    assert record.load_checkpoint()["epoch"] == 3
    assert record.load_checkpoint()["weights"].tolist() == [0.9] * 4
    assert record.load_checkpoint(0)["weights"].tolist() == [0.2] * 4
    assert scheduler.load_checkpoint(0)["weights"].tolist() == [0.2] * 4
    with pytest.raises(NothingReported, match="there is no trial 99"):
        record.load_checkpoint(99)


def test_the_repr_of_a_record_says_in_one_line_how_the_search_stands(finished):
    scheduler, record = finished
    assert repr(record) == (
        f"<SearchRecord of train_fn in {scheduler.folder}: 4 trials (3 finished, 1 failed), "
        "the best accuracy=2.7 by trial 2>"
    )


def test_reading_a_finished_search_leaves_its_folder_as_it_was(finished):
    scheduler, _ = finished
    before = files_of(scheduler.folder)
    record = ag.open(scheduler.folder)
    record.training_history, record.lineage(), record.dataframe(), record.load_checkpoint()
    assert record.refresh() is False
    assert files_of(scheduler.folder) == before


def test_a_search_on_a_disk_that_cannot_be_written_is_read(finished, tmp_path):
    disk = tmp_path / "archive"
    disk.mkdir()
    mount = ["mount", "--bind", str(finished[0].folder), str(disk)]
    if os.geteuid() != 0 or subprocess.run(mount, capture_output=True, timeout=60).returncode:
        pytest.skip("mounting is not allowed here")
    try:
        again = ["mount", "-o", "remount,bind,ro", str(disk)]
        subprocess.run(again, check=True, timeout=60)
        record = ag.open(disk)
        assert len(record.trials) == 4 and record.training_history
        assert record.refresh() is False
    finally:
        subprocess.run(["umount", "-l", str(disk)], check=True, timeout=60)


def test_the_folder_may_be_text_relative_or_below_home(finished, monkeypatch):
    folder = finished[0].folder
    monkeypatch.setenv("HOME", str(folder.parent))
    monkeypatch.chdir(folder.parent)
    for same in (folder, str(folder), folder.name, f"~/{folder.name}"):
        assert ag.open(same).folder == folder


def test_several_objectives_have_a_front_and_no_best(tmp_path):
    several = {"reward_attr": ["accuracy", "latency"], "mode": ["max", "min"]}
    points = [
        {"lr": lr, **SMALL, "layers": layers} for lr, layers in ((0.4, 1), (0.9, 3), (0.3, 3))
    ]
    scheduler = search(tmp_path / "s", *points, constraints="memory <= 4", **several)
    record = ag.open(tmp_path / "s")
    assert record.get_pareto_front() == scheduler.get_pareto_front()
    assert [member.task_id for member in record.get_pareto_front()] == [1, 0]
    assert record.metadata["mode"] == ["max", "min"]
    assert "3 trials (3 finished), 2 in the Pareto front>" in repr(record)
    with pytest.raises(DistsearchError, match="no trial is the best"):
        record.best
    record.draw_pareto_front(tmp_path / "front.png")
    assert (tmp_path / "front.png").exists()
    table = record.dataframe()
    assert table["accuracy"].tolist() == pytest.approx([1.2, 2.7, 0.9])
    assert table["latency"].tolist() == [1, 3, 3]
    assert table["feasible"].tolist() == [True, True, True]
    assert "best" not in table


def test_a_search_that_was_told_results_beforehand_can_be_opened(tmp_path):
    known = [({"lr": 0.1, **SMALL}, 0.1)]
    search(tmp_path / "s", *configs(0.2), searcher="random", evaluated_points=known)
    assert len(Ledger.of(tmp_path / "s").trials) == 1  # the log begins with what was known
    assert ag.open(tmp_path / "s").get_best_reward() == pytest.approx(0.6)


# The table


def test_the_table_has_a_row_for_each_trial_with_sensible_types(finished):
    _, record = finished
    table = record.dataframe()
    assert list(table) == [
        *("id", "lr", "layers", "wide", "net", "config.id", "net.dict.depth", "net.dict.bias"),
        *("status", "attempt", "host", "best", "best_time", "seconds", "reason", "parents"),
        "is_final",
    ]
    types = {name: str(kind) for name, kind in table.dtypes.items()}
    whole = {"id", "layers", "attempt"}
    assert {name for name, kind in types.items() if kind == "int64"} == whole
    real = {"lr", "best", "best_time", "seconds"}
    assert {name for name, kind in types.items() if kind == "float64"} == real
    assert (types["wide"], types["net.dict.depth"]) == ("bool", "Int64")
    assert types["net.dict.bias"] == "boolean"
    assert table["id"].tolist() == [0, 1, 2, 3]
    assert table["status"].tolist() == ["finished", "finished", "finished", "failed"]
    assert table["host"].tolist() == ["localhost"] * 4
    assert table["parents"].tolist() == [(), (0,), (1,), (2,)]
    assert table["net.dict.depth"].isna().tolist() == [True, False, True, True]
    assert table.loc[1, "net.dict.depth"] == 3
    assert table["best"].isna().tolist() == [False, False, False, True]
    assert table["best"].idxmax() == record.best.id
    assert "too many layers" in table.loc[3, "reason"]
    assert (table["seconds"] > 0).all()


def test_the_table_of_a_search_without_trials_has_no_rows(tmp_path):
    with FIFOScheduler(train_fn, checkpoint=tmp_path / "s", **OPTIONS) as scheduler:
        table = scheduler.dataframe()
    assert len(table) == 0
    assert {"id", "status", "best", "parents"} <= set(table)


def test_without_pandas_the_table_says_how_to_get_it(finished, monkeypatch):
    monkeypatch.setitem(sys.modules, "pandas", None)
    with pytest.raises(MissingPackage, match="pip install pandas"):
        finished[1].dataframe()


# A running search


DRIVER = """
import sys
from pathlib import Path
import distsearch as ag

@ag.args(x=ag.Real(0, 1))
def slow(args, reporter):
    for epoch in range(1, 3):
        reporter.save({"epoch": epoch}, step=epoch)
        reporter(epoch=epoch, accuracy=args.x * epoch)
        with open(Path(GO, f"{args.task_id}-{epoch}")) as go:   # a named pipe: until it is written
            go.read()

GO = sys.argv[1]
options = {"local": ag.Node("localhost", num_cpus=1), "verbose": 0, "checkpoint": "search"}
points = [{"x": 0.5}, {"x": 1.0}]
with ag.scheduler.FIFOScheduler(slow, points_to_evaluate=points, **options) as scheduler:
    scheduler.run(num_trials=2)
    scheduler.join_jobs()
    print(scheduler.get_best_reward())
"""


@pytest.fixture
def running(tmp_path):
    """A driver in a process of its own, whose trials wait after each epoch; and its pipes."""
    pipes = tmp_path / "go"
    pipes.mkdir()
    for trial in range(2):
        for epoch in range(1, 3):
            os.mkfifo(pipes / f"{trial}-{epoch}")
    (tmp_path / "driver.py").write_text(DRIVER)
    process = subprocess.Popen(
        [sys.executable, "driver.py", str(pipes)],
        cwd=tmp_path,
        env={**os.environ, "PYTHONPATH": str(ROOT)},
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
    )
    yield process, pipes
    process.kill()
    process.wait(10)


def go_on(pipe):
    """Let a trial go on that waits, or will: returns once it does."""
    done = threading.Thread(target=pipe.write_text, args=("go",), daemon=True)
    done.start()
    done.join(WAIT_S)
    assert not done.is_alive(), f"no trial has come to {pipe.name}"


def test_a_search_is_followed_from_another_process_while_it_runs(tmp_path, running):
    process, pipes = running
    go_on(pipes / "0-1")
    go_on(pipes / "0-2")
    go_on(pipes / "1-1")  # by now all that came before it is in the log
    folder = tmp_path / "search"
    names = set(folder.iterdir())
    record = ag.open(folder)
    assert [trial.status for trial in record.trials] == [Status.FINISHED, Status.RUNNING]
    assert record.trials[0].best_reward == 1.0
    assert record.load_checkpoint(0) == {"epoch": 2}
    assert record.get_training_curves()[0] == [(1.0, 0.5), (2.0, 1.0)]
    assert "2 trials (1 running, 1 finished)" in repr(record)
    table = record.dataframe()
    assert table["seconds"].isna().tolist() == [False, True]
    assert set(folder.iterdir()) == names

    go_on(pipes / "1-2")
    said, _ = process.communicate(timeout=WAIT_S)
    assert (process.returncode, said) == (0, "2.0\n")
    assert record.refresh() is True
    assert record.refresh() is False
    assert [trial.status for trial in record.trials] == [Status.FINISHED] * 2
    assert (record.best.id, record.best.best_reward) == (1, 2.0)
    assert [repr(one) for one in record.trials] == [repr(one) for one in ag.open(folder).trials]


def test_a_record_follows_a_search_that_is_resumed(tmp_path):
    search(tmp_path / "s", *configs(0.2))
    record = ag.open(tmp_path / "s")
    began = record.metadata["start_time"]
    options = {**OPTIONS, "points_to_evaluate": configs(0.2), "checkpoint": tmp_path / "s"}
    with FIFOScheduler(train_fn, **options) as scheduler:
        scheduler.run(num_trials=1)
        scheduler.join_jobs()
        scheduler.add_job(configs(0.7)[0])
        scheduler.join_jobs()
        assert record.refresh() is True
        assert len(record.trials) == 2
        assert record.get_best_reward() == scheduler.get_best_reward() == pytest.approx(2.1)
    assert record.metadata["start_time"] > began


def test_a_record_of_a_search_that_was_started_anew_says_so(tmp_path):
    search(tmp_path / "s", *configs(0.2))
    record = ag.open(tmp_path / "s")
    search(tmp_path / "s", *configs(0.4), resume=False)
    with pytest.raises(StoreError, match="was started anew"):
        record.refresh()
    assert ag.open(tmp_path / "s").get_best_reward() == pytest.approx(1.2)
    assert ag.open(tmp_path / "s.1").get_best_reward() == pytest.approx(0.6)


def test_a_checkpoint_that_is_replaced_while_one_looks_for_it_is_not_taken_for_none(
    tmp_path, monkeypatch
):
    checkpoint.save({"step": 1}, tmp_path, 1, keep=1)
    seen = os.listdir

    def replaced(folder):
        names = seen(folder)
        monkeypatch.setattr(os, "listdir", seen)
        checkpoint.save({"step": 2}, tmp_path, 2, keep=1)
        return names

    monkeypatch.setattr(os, "listdir", replaced)
    assert checkpoint.load(tmp_path) == {"step": 2}


def test_checkpoints_of_a_trial_that_saves_and_deletes_meanwhile_are_never_called_damaged(tmp_path):
    over = threading.Event()
    state = {"weights": numpy.zeros(200_000)}
    checkpoint.save(state, tmp_path, 0, keep=1)

    def save():
        step = 0
        while not over.is_set():
            step += 1
            checkpoint.save({**state, "step": step}, tmp_path, step, keep=1)

    trial = threading.Thread(target=save)
    trial.start()
    loaded = []
    try:
        with warnings.catch_warnings():
            warnings.simplefilter("error")
            while len(loaded) < 40:
                try:
                    loaded.append(checkpoint.load(tmp_path))
                except CheckpointError as error:
                    assert "faster than they can be read" in str(error)
    finally:
        over.set()
        trial.join(WAIT_S)
    assert all(one is not None for one in loaded)


# Checkpoints in a storage


@pytest.mark.parametrize("kind", ["path", "url"])
def test_a_record_loads_checkpoints_from_a_storage_without_touching_the_folder(tmp_path, kind):
    shared = tmp_path / "shared"
    storage = shared if kind == "path" else f"file://{shared}"
    folder = tmp_path / "s"
    scheduler = search(folder, *configs(0.2, 0.8), storage=storage)
    before = files_of(folder)
    record = ag.open(folder)
    assert record.load_checkpoint()["weights"].tolist() == [0.8] * 4
    assert record.load_checkpoint(0)["epoch"] == 3
    assert files_of(folder) == before
    assert scheduler.load_checkpoint(0)["epoch"] == 3

    (own,) = shared.iterdir()
    newest = max((own / "0").iterdir(), key=lambda path: int(path.name.partition("-")[0]))
    (newest / "state.json").write_text("damaged")
    with pytest.warns(RuntimeWarning, match="is damaged") as said:
        assert record.load_checkpoint(0)["epoch"] == 2
    assert len(said) == 1


def test_a_storage_that_is_not_there_is_an_error_that_names_it(tmp_path):
    search(tmp_path / "s", *configs(0.2), storage=tmp_path / "shared")
    shutil.rmtree(tmp_path / "shared")
    with pytest.raises(CheckpointError, match=r"cannot find the storage .*/shared/"):
        ag.open(tmp_path / "s").load_checkpoint()


@ag.args(x=ag.Real(0, 1))
def saves_a_folder(args, reporter):
    path = Path("made")
    path.mkdir(exist_ok=True)
    (path / "weights.txt").write_text(str(args.x))
    reporter.save(path, step=1)
    reporter(epoch=1, accuracy=args.x)


def test_a_folder_from_a_storage_is_a_copy_outside_the_search(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    folder, storage = tmp_path / "s", tmp_path / "shared"
    search(folder, {"x": 0.5}, function=saves_a_folder, storage=storage)
    copy = ag.open(folder).load_checkpoint()
    assert (copy / "weights.txt").read_text() == "0.5"
    assert not {folder, storage} & set(copy.parents)


# What cannot be opened


def test_a_folder_without_a_search_says_what_was_looked_for_and_stays_as_it_is(tmp_path):
    with pytest.raises(StoreError, match=r"there is no folder .*/nowhere"):
        ag.open(tmp_path / "nowhere")
    with pytest.raises(StoreError, match=r"no events\.db in it, nor in the folders right below"):
        ag.open(tmp_path)
    assert list(tmp_path.iterdir()) == []
    (tmp_path / "file").write_text("")
    with pytest.raises(StoreError, match="file is a file"):
        ag.open(tmp_path / "file")


def test_the_folder_of_several_experiments_names_them(finished, tmp_path):
    for name in ("one", "two"):
        shutil.copytree(finished[0].folder, tmp_path / name)
    with pytest.raises(StoreError, match=r"open one of those right below it: one, two$"):
        ag.open(tmp_path)


def test_the_folder_of_a_run_that_keeps_its_experiment_inside_opens_that(finished):
    folder = finished[0].folder
    assert folder.name == "search" and ag.open(folder.parent).folder == folder


def test_a_search_that_has_only_just_begun_says_so(tmp_path):
    (tmp_path / store.FILE).touch()
    with pytest.raises(StoreError, match="has only just begun"):
        ag.open(tmp_path)


def test_a_file_that_is_no_log_is_an_error_that_names_it(tmp_path):
    (tmp_path / store.FILE).write_text("this is no database, it is a poem about one " * 20)
    with pytest.raises(StoreError, match=r"events\.db is damaged .file is not a database"):
        ag.open(tmp_path)


@pytest.mark.parametrize("use", ["opened", "resumed", "a warm start"])
def test_a_log_whose_end_is_missing_is_refused_by_whoever_uses_it(tmp_path, use):
    folder = tmp_path / "s"
    search(folder, *configs(0.2, 0.3))
    log = sqlite3.connect(folder / store.FILE)
    log.execute("delete from events where id = (select max(id) from events)")
    log.commit()
    log.close()
    with pytest.raises(StoreError, match="which had been written, are missing"):
        if use == "opened":
            ag.open(folder)
        elif use == "resumed":
            FIFOScheduler(train_fn, checkpoint=folder, **OPTIONS)
        else:
            FIFOScheduler(train_fn, warm_start=folder, checkpoint=tmp_path / "t", **OPTIONS)


def test_the_log_of_another_version_says_which_distsearch_reads_it(tmp_path, monkeypatch):
    search(tmp_path / "s", *configs(0.2))
    said = f"of version {store.VERSION}, which"
    monkeypatch.setattr(schema, "VERSION", store.VERSION + 1)
    with pytest.raises(StoreVersion, match=said):
        ag.open(tmp_path / "s")


def test_the_best_of_a_search_that_has_not_reported_says_why_there_is_none(tmp_path):
    FIFOScheduler(train_fn, checkpoint=tmp_path / "s", **OPTIONS).close()
    record = ag.open(tmp_path / "s")
    with pytest.raises(NothingReported, match="no trial has reported 'accuracy' yet"):
        record.best
    assert repr(record).endswith(": 0 trials>")
