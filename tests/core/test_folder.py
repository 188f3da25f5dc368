"""Where an experiment lives."""

from __future__ import annotations

import asyncio

import pytest

from distsearch.core import folder
from distsearch.core.store import Store
from distsearch.errors import StoreError


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
    one, other = (folder.find(None, "<lambda>") for _ in range(2))
    assert one != other
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


def test_an_earlier_run_is_taken_up_unless_a_fresh_start_is_wanted_which_deletes_nothing(began):
    mine = began("mine", seed=3)
    assert folder.earlier_run(mine.with_name("other"), None) is None
    assert folder.earlier_run(mine, None) == folder.earlier_run(mine, True) == {"seed": 3}
    assert folder.earlier_run(mine, False) is None
    assert not mine.exists()
    began("mine", seed=4)
    assert folder.earlier_run(mine, False) is None
    archived = [folder.earlier_run(mine.with_name(f"mine.{n}"), None) for n in (1, 2)]
    assert archived == [{"seed": 3}, {"seed": 4}]


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
