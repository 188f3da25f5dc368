"""What holds for every storage of checkpoints: a folder that all nodes see, or an fsspec URL."""

from __future__ import annotations

import contextlib
import json
import uuid
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Any, ClassVar, Protocol

import numpy as np
import pytest

from ..core.storage import Shelf, Storage
from ..errors import CheckpointError
from ..resource.cache import MANIFEST

ARRAYS = "numpy.safetensors"  # the file of a checkpoint in which its arrays are


class MakeShelf(Protocol):
    """Makes the shelf of a trial, on one of several nodes that have a disk each."""

    def __call__(
        self,
        trial: int = 0,
        *,
        attempt: int = 1,
        node: str = "a",
        own: Sequence[str] = (),
        parents: Mapping[int, Sequence[str]] | None = None,
    ) -> Shelf:
        """The shelf of an attempt; `own` and `parents` are what the log knows."""


class StorageKit:
    """What holds for every storage; derive a test class of your own from it.

        class TestOurBucket(StorageKit):
            place = "s3://bucket/tests"

    Checkpoints are written there as trials on several nodes do it, are damaged, and deleted. Each
    test has a new folder under `place`, and removes it. Half a minute in all: what is missing is
    waited for, as it may have been written elsewhere a moment ago.

    `place`: a path, or any fsspec URL. What it needs, such as credentials, is found as in a search:
    in the environment, or in fsspec's configuration.
    """

    place: ClassVar[str]

    @pytest.fixture
    def storage(self) -> Iterator[Storage]:
        """An empty part of the storage, as each experiment has one."""
        storage = Storage(f"{self.place}/test-{uuid.uuid4().hex}")
        storage.begin()
        yield storage
        with contextlib.suppress(FileNotFoundError):
            storage._files.rm(storage._root, recursive=True)

    @pytest.fixture
    def shelf(self, storage: Storage, tmp_path: Path) -> MakeShelf:
        """Makes shelves of that storage."""

        def make(
            trial: int = 0,
            *,
            attempt: int = 1,
            node: str = "a",
            own: Sequence[str] = (),
            parents: Mapping[int, Sequence[str]] | None = None,
        ) -> Shelf:
            disk = tmp_path / node / "trials"
            return Shelf(storage.url, node, disk, trial, attempt, own, parents)

        return make

    def where(self, storage: Storage, name: str, file: str = MANIFEST) -> str:
        """Where a file of a checkpoint of trial 0 is, as fsspec names it."""
        return f"{storage._path(0, name)}/{file}"

    def is_there(self, storage: Storage, name: str) -> bool:
        """Whether anything of a checkpoint of trial 0 is there."""
        files = (MANIFEST, "state.json", ARRAYS)
        return any(storage._files.exists(self.where(storage, name, file)) for file in files)

    def test_what_one_node_saves_another_loads_by_its_name(self, shelf: MakeShelf) -> None:
        weights = np.random.default_rng(0).random(300_000)
        path, size = shelf().save({"w": weights, "epoch": 1}, 1)
        assert size > weights.nbytes
        again = shelf(attempt=2, own=[path.name], node="b").load()
        assert again["epoch"] == 1 and np.array_equal(again["w"], weights)

    def test_a_trial_that_has_saved_nothing_and_has_no_parents_loads_none(
        self, shelf: MakeShelf
    ) -> None:
        assert shelf().load() is None

    def test_a_child_starts_from_the_newest_of_its_first_parent_that_has_one(
        self, shelf: MakeShelf
    ) -> None:
        first = shelf(3)
        old, new = (first.save({"epoch": epoch}, epoch)[0].name for epoch in (1, 2))
        child = shelf(7, parents={2: [], 3: [new, old]}, node="b")
        assert child.load() == {"epoch": 2}
        child.save({"epoch": 3}, 3)
        assert child.load() == {"epoch": 3}

    def test_a_saved_folder_comes_back_as_the_trials_own(
        self, shelf: MakeShelf, tmp_path: Path
    ) -> None:
        model = tmp_path / "model"
        (model / "layers").mkdir(parents=True)
        (model / "layers" / "a.txt").write_text("hello")
        name = shelf().save(model, 1)[0].name
        loaded = shelf(1, parents={0: [name]}, node="b").load()
        (loaded / "layers" / "a.txt").write_text("mine")
        other = shelf(2, parents={0: [name]}, node="b").load()
        assert (other / "layers" / "a.txt").read_text() == "hello"

    @pytest.mark.parametrize("harm", ["damage", "delete", "manifest"])
    def test_a_damaged_one_falls_back_to_the_one_before_with_a_warning(
        self, shelf: MakeShelf, storage: Storage, harm: str
    ) -> None:
        saver, files = shelf(), storage._files
        old, new = (saver.save({"epoch": n, "w": np.ones(4)}, n)[0].name for n in (1, 2))
        path = self.where(storage, new, MANIFEST if harm == "manifest" else ARRAYS)
        if harm == "damage":
            files.pipe_file(path, files.cat_file(path)[:-1] + b"!")
        else:
            files.rm_file(path)
        with pytest.warns(RuntimeWarning, match=f"{new} of trial 0 in .*damaged.*the one before"):
            assert shelf(attempt=2, own=[new, old], node="b").load()["epoch"] == 1

    def test_without_its_manifest_a_checkpoint_is_not_there(
        self, shelf: MakeShelf, storage: Storage
    ) -> None:
        name = shelf().save({"epoch": 1}, 1)[0].name
        storage._files.rm_file(self.where(storage, name))
        with pytest.warns(RuntimeWarning, match="damaged"):
            assert shelf(own=[name], node="b").load() is None

    def test_a_manifest_that_names_files_elsewhere_is_refused(
        self, shelf: MakeShelf, storage: Storage
    ) -> None:
        name = shelf().save({"epoch": 1}, 1)[0].name
        path = self.where(storage, name)
        manifest: dict[str, Any] = json.loads(storage._files.cat_file(path))
        manifest["files"]["../../evil"] = {"bytes": 1, "sha256": ""}
        storage._files.pipe_file(path, json.dumps(manifest).encode())
        with pytest.warns(RuntimeWarning, match=r"names '../../evil'"):
            assert shelf(own=[name], node="b").load() is None

    def test_deleting_one_leaves_nothing_of_it_and_all_of_the_others(
        self, shelf: MakeShelf, storage: Storage
    ) -> None:
        saver = shelf()
        first, second = (saver.save({"w": np.full(3, n)}, n)[0].name for n in (1, 2))
        storage.delete(0, first)
        storage.delete(0, first)  # a second time it is no error
        assert not self.is_there(storage, first)
        assert shelf(attempt=2, own=[second], node="b").load()["w"].tolist() == [2, 2, 2]

    def test_sweeping_leaves_what_is_known_and_what_later_attempts_write(
        self, shelf: MakeShelf, storage: Storage
    ) -> None:
        first, second = shelf(), shelf(attempt=2)
        lost, known = (first.save({}, step)[0].name for step in (1, 2))
        new = second.save({}, 3)[0].name
        storage.delete_unknown({0: 1}, {0: [known]})
        assert [self.is_there(storage, name) for name in (lost, known, new)] == [False, True, True]

    def test_a_place_without_the_mark_is_refused_by_the_node_that_sees_it(
        self, storage: Storage, tmp_path: Path
    ) -> None:
        url = f"{storage.url}/not-mounted"
        shelf = Shelf(url, "gpu7", tmp_path, 0, 1)
        with pytest.raises(CheckpointError, match=r"gpu7 cannot find the storage .*not mounted"):
            shelf.save({}, 1)
        assert not storage._files.exists(f"{storage._root}/not-mounted"), "it wrote there"
