"""Checkpoints in a storage: what is particular to some; what all have in common is in their kit."""

from __future__ import annotations

import os
import subprocess
import sys
import textwrap
import threading

import fsspec
import numpy as np
import pytest

from distsearch.core import checkpoint
from distsearch.core import storage as storage_module
from distsearch.core.storage import MARK, Shelf, Storage, checked_url, without_known_secrets
from distsearch.errors import CheckpointError, MissingPackage, OptionError
from tests.bucket import FakeBucket


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(storage_module, "PAUSES_S", (0.01, 0.02))
    FakeBucket.old_listings.clear()


@pytest.fixture(params=["folder", "bucket"])
def storage(request, tmp_path):
    path = tmp_path / "shared"
    storage = Storage(str(path) if request.param == "folder" else f"fakebucket://{path}")
    storage.begin()
    return storage


@pytest.fixture
def shelf(storage, tmp_path):
    """Shelves of trials on nodes, each with a disk of its own."""

    def make(trial=0, attempt=1, own=(), parents=None, node="a"):
        disk = tmp_path / node / "trials"
        return Shelf(storage.url, node, disk, trial, attempt, own, parents)

    return make


def names(storage, trial=0):
    root = storage._root
    folder = os.path.join(root, str(trial))
    return sorted(os.listdir(folder)) if os.path.isdir(folder) else []


def test_attempts_give_no_name_twice_although_neither_sees_the_other(shelf):
    given = [shelf(attempt=attempt, node=str(attempt)) for attempt in (1, 2)]
    saved = [one.save({}, 5)[0].name for one in given for _ in range(2)]
    assert len(set(saved)) == 4
    assert saved == sorted(saved, key=lambda name: int(name.partition("-")[0]))


def test_what_is_seen_only_after_a_while_is_waited_for(shelf, storage, monkeypatch):
    monkeypatch.setattr(storage_module, "PAUSES_S", (0.05,) * 100)
    name = shelf().save({"epoch": 1}, 1)[0].name
    manifest = os.path.join(storage._root, "0", name, "manifest.json")
    os.rename(manifest, manifest + ".hidden")
    seen = threading.Timer(0.3, os.rename, (manifest + ".hidden", manifest))
    seen.start()
    assert shelf(own=[name], node="b").load() == {"epoch": 1}
    seen.join(30)


def test_a_node_that_has_a_copy_does_not_fetch_it_again(tmp_path, monkeypatch):
    storage = Storage(f"fakebucket://{tmp_path}/shared")
    storage.begin()
    shelf = Shelf(storage.url, "a", tmp_path / "a", 0, 1)
    name = shelf.save({"w": np.ones(5)}, 1)[0].name
    fetched = []
    get_file = FakeBucket.get_file
    monkeypatch.setattr(
        FakeBucket, "get_file", lambda *a, **k: (fetched.append(a[1]), get_file(*a, **k))[1]
    )
    for node, expected in (("a", 0), ("b", 2), ("b", 2)):
        child = Shelf(storage.url, node, tmp_path / node, 1, 1, parents={0: [name]})
        assert child.load()["w"].sum() == 5
        assert len(fetched) == expected, f"on node {node}"


def test_a_copy_that_was_damaged_on_the_node_is_not_trusted(tmp_path):
    storage = Storage(f"fakebucket://{tmp_path}/shared")
    storage.begin()
    path, _ = Shelf(storage.url, "a", tmp_path / "a", 0, 1).save({"w": np.ones(5)}, 1)
    (path / "numpy.safetensors").write_bytes(b"broken")
    with pytest.warns(RuntimeWarning, match="not what was written"):
        assert Shelf(storage.url, "a", tmp_path / "a", 0, 2, own=[path.name]).load() is None


def test_what_is_deleted_is_not_looked_for_and_what_is_new_is_found(storage, shelf):
    writer = shelf()
    names = [writer.save({"epoch": epoch}, epoch)[0].name for epoch in range(1, 4)]
    storage.delete(0, names[0])
    storage.names(0)  # a bucket shows this listing from now on
    names.append(writer.save({"epoch": 4}, 4)[0].name)
    reader = shelf(node="b", own=names[::-1])
    reader.leave_out_deleted()
    assert reader.load() == {"epoch": 4}
    for name in names[1:]:
        storage.delete(0, name)
    with pytest.warns(RuntimeWarning) as said:
        assert reader.load() is None
    assert [names[0] in str(one.message) for one in said] == [False] * 3


@pytest.mark.parametrize("scheme", ["", "fakebucket://"])
def test_a_node_without_the_storage_names_itself_the_url_and_the_cause(tmp_path, scheme):
    url = f"{scheme}{tmp_path}/not-mounted"
    for use in (lambda s: s.save({}, 1), lambda s: s.load()):
        with pytest.raises(CheckpointError) as error:
            use(Shelf(url, "gpu7", tmp_path / "node", 0, 1, own=["1000001-step-1"]))
        assert f"node gpu7 cannot find the storage {url}" in str(error.value)
        assert f"no {MARK}: it is not mounted there" in str(error.value)
    assert not (tmp_path / "not-mounted").exists(), "it wrote below an empty mount point"


def test_a_storage_that_fails_says_who_where_and_why_but_no_secret(tmp_path, monkeypatch):
    monkeypatch.setenv("FAKE_SECRET_ACCESS_KEY", "hunter2hunter2")
    storage = Storage(f"fakebucket://{tmp_path}/shared")
    storage.begin()
    shelf = Shelf(storage.url, "gpu7", tmp_path / "node", 0, 1)
    shelf.save({"epoch": 1}, 1)

    def refuse(*arguments, **options):
        raise PermissionError("denied for hunter2hunter2")

    monkeypatch.setattr(FakeBucket, "put_file", refuse)
    with pytest.raises(CheckpointError, match=r"gpu7 cannot write to .*denied for \*\*\*") as error:
        shelf.save({"epoch": 2}, 2)
    assert error.value.__cause__ is None, "the traceback would show the secret"
    assert "the previous one is still there" in str(error.value)
    assert shelf.load() == {"epoch": 1}
    monkeypatch.setattr(FakeBucket, "cat_file", refuse)
    with pytest.raises(CheckpointError, match="gpu7 cannot read from"):
        shelf.load()


def test_secrets_of_fsspecs_own_settings_are_hidden_too(monkeypatch):
    monkeypatch.setitem(fsspec.config.conf, "s3", {"secret": "abcdefgh12345", "region": "eu"})
    assert without_known_secrets("got abcdefgh12345 in eu") == "got *** in eu"


def test_a_full_disk_leaves_the_previous_one_and_no_bytes(shelf, storage, monkeypatch):
    saver = shelf()
    saver.save({"epoch": 1}, 1)

    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(checkpoint, "write_durably", full)
    monkeypatch.setattr(FakeBucket, "pipe_file", full)
    before = names(storage)
    with pytest.raises(CheckpointError, match=r"step 2 could not be written.*No space left"):
        saver.save({"epoch": 2}, 2)
    assert saver.load() == {"epoch": 1}
    assert names(storage) == before


def test_a_kill_between_the_manifest_and_the_files_leaves_no_checkpoint(tmp_path):
    code = """
        import os, signal, sys
        from pathlib import Path
        from distsearch.core import storage as module
        from distsearch.core.storage import Shelf, Storage
        storage = Storage(sys.argv[1])
        storage.begin()
        path, _ = Shelf(storage.url, "a", Path(sys.argv[2]), 0, 1).save({"epoch": 1}, 1)
        rm_file = type(storage._files).rm_file
        def kill_after_the_first(self, path):
            rm_file(self, path)
            os.kill(os.getpid(), signal.SIGKILL)
        type(storage._files).rm_file = kill_after_the_first
        storage.delete(0, path.name)
    """
    url = str(tmp_path / "shared")
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code), url, tmp_path / "a"], timeout=60
    )
    assert done.returncode == -9
    storage = Storage(url)
    (left,) = names(storage)
    with pytest.raises(FileNotFoundError):
        storage.manifest(0, left)
    storage.delete_unknown({0: 1}, {})
    assert names(storage) == []


@pytest.mark.parametrize(
    ("given", "error", "text"),
    [
        ("s3://me:hunter2@bucket/x", OptionError, "holds a password"),
        ("nonsense://bucket", OptionError, "nonsense"),
        ("", OptionError, "give a path or a URL"),
        (3, OptionError, "give a path or a URL"),
        ("gdrive://x", MissingPackage, "on every node too"),
    ],
)
def test_what_can_be_no_storage_is_refused_at_once(given, error, text):
    with pytest.raises(error, match=text) as refused:
        checked_url(given)
    assert "hunter2" not in str(refused.value)


def test_a_path_becomes_absolute(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert checked_url("runs") == str(tmp_path / "runs")
    assert checked_url("file:///mnt/nfs/") == "file:///mnt/nfs"
