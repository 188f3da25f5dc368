"""Where an experiment lives."""

from __future__ import annotations

import asyncio
import os
import threading

import pytest

import distsearch as ag
from distsearch.core import folder, store
from distsearch.core.store import Store
from distsearch.errors import PicklingError, StoreError, StoreLocked

ONE = ag.Node("localhost", num_cpus=1)


@pytest.fixture
def began(tmp_path, monkeypatch):
    """Begin an experiment in a folder, and leave it."""

    def begin(name, **searched):
        async def write():
            store = Store(tmp_path / name)
            store.append("experiment", body=searched)
            await store.flush()
            store.close()

        asyncio.run(write())
        return tmp_path / name

    monkeypatch.chdir(tmp_path)
    return begin


def test_a_new_experiment_has_a_folder_of_its_own_named_after_the_function(tmp_path, monkeypatch):
    monkeypatch.setenv("DISTSEARCH_RESULTS", str(tmp_path / "results"))
    one, *others = (folder.find(None, "<lambda>") for _ in range(1000))  # in one second or two
    assert len({one, *others}) == 1000
    assert one.parent == tmp_path / "results"
    assert one.name.startswith("_lambda_-")


def test_a_home_folder_is_expanded_in_the_argument_and_in_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("HOME", str(tmp_path))
    monkeypatch.setenv("DISTSEARCH_RESULTS", "~/results")
    assert folder.find("~/runs/digits", "f") == tmp_path / "runs" / "digits"
    assert folder.find(None, "f").parent == tmp_path / "results"


def test_a_named_folder_is_that_and_a_file_is_refused(began, tmp_path):
    assert folder.find("mine", "train_fn") == tmp_path / "mine"
    (tmp_path / "file").touch()
    with pytest.raises(StoreError, match="'file' is a file"):
        folder.find("file", "train_fn")


def searched_in(path, resume=None):
    """What a driver that takes a folder goes on with."""
    store = folder.take(path, resume)
    try:
        return folder.earlier_run(path)
    finally:
        store.close()


def test_an_earlier_run_is_taken_up_unless_a_fresh_start_is_wanted_which_deletes_nothing(began):
    mine = began("mine", seed=3)
    assert searched_in(mine.with_name("other")) is None
    assert searched_in(mine) == searched_in(mine, True) == {"seed": 3}
    assert searched_in(mine, False) is None
    began("mine", seed=4)
    assert searched_in(mine, False) is None
    archived = [searched_in(mine.with_name(f"mine.{n}")) for n in (1, 2)]
    assert archived == [{"seed": 3}, {"seed": 4}]


@pytest.mark.parametrize("resume", [None, True, False])
def test_a_folder_is_locked_before_it_is_looked_at(began, resume):
    mine = began("mine", seed=3)
    store = folder.take(mine, None)
    with pytest.raises(StoreLocked):
        folder.take(mine, resume)
    assert not mine.with_name("mine.1").exists()  # nothing was put aside
    store.close()


def test_a_driver_that_comes_while_another_prepares_is_refused_and_later_resumes(tmp_path):
    """Between looking at a folder and running in it lies what may take seconds: pickling."""
    met = []

    class Slow:
        def __reduce__(self):
            if not met:
                met.append("refused")
                with pytest.raises(StoreLocked, match=r"earlier scheduler.*close\(\)"):
                    make()
            return (int, ())

    @ag.args(x=ag.Real(0, 1), slow=Slow())
    def train_fn(args, reporter):
        reporter(accuracy=args.x)

    def make():
        return ag.scheduler.FIFOScheduler(
            train_fn, checkpoint=tmp_path / "mine", local=ONE, verbose=0
        )

    for before in (0, 1):
        with make() as scheduler:
            assert len(scheduler.trials) == before
            scheduler.run(num_trials=before + 1)
            assert scheduler.join_jobs(timeout=30)
    assert met == ["refused"]


def test_a_search_that_could_not_be_made_leaves_no_folder_and_no_lock(tmp_path):
    @ag.args(x=ag.Real(0, 1), lock=threading.Lock())
    def train_fn(args, reporter):
        reporter(accuracy=args.x)

    for _ in range(2):
        with pytest.raises(PicklingError):
            ag.scheduler.FIFOScheduler(train_fn, checkpoint=tmp_path / "mine", verbose=0)
        assert not (tmp_path / "mine").exists()


def test_the_storage_of_an_experiment_is_its_own_and_stays_when_it_is_resumed(tmp_path):
    mine, url = tmp_path / "mine", str(tmp_path / "shared")
    assert folder.storage_of(mine, None, None) is None
    first, other = (folder.storage_of(mine, url, None) for _ in range(2))
    assert first.url != other.url
    again = folder.storage_of(mine, url, {"storage": first.url})
    assert again.url == first.url
    for storage in (None, str(tmp_path / "elsewhere")):
        with pytest.raises(StoreError, match="give the same one"):
            folder.storage_of(mine, storage, {"storage": first.url})


@pytest.mark.parametrize("make", [os.mkfifo, os.mkdir])
def test_what_is_no_file_in_the_place_of_a_log_is_not_called_a_broken_disk(make, tmp_path):
    make(tmp_path / store.FILE)
    with pytest.raises(StoreError, match="is no file"):
        folder.take(tmp_path, None)


def test_a_current_folder_that_is_gone_is_said_to_be(tmp_path, monkeypatch):
    (tmp_path / "gone").mkdir()
    monkeypatch.chdir(tmp_path / "gone")
    (tmp_path / "gone").rmdir()
    with pytest.raises(StoreError, match="current folder was deleted"):
        folder.find(tmp_path / "exp", "train_fn")
