"""Checkpoints between a node and the driver: in pieces, whole or not there, sent only once."""

from __future__ import annotations

import asyncio
import os
import subprocess
import sys
import textwrap

import pytest

from distsearch.errors import NodeError
from distsearch.resource import cache as cache_module
from distsearch.resource import pace as pace_module
from distsearch.resource.cache import MANIFEST, CheckpointCache, delete
from distsearch.resource.node import NodeFacts
from distsearch.resource.pace import Pace
from distsearch.resource.remote import Remote

NAME = "1000002-step-2"
WAIT_S = 20


class NearNode(Remote):
    """A node without a network in between; `asked` is what the driver wanted of it."""

    def __init__(self, folder):
        super().__init__(1, "near", "fake://1", NodeFacts(num_cpus=1, gpus=(), memory_bytes=1))
        self.cache = CheckpointCache(folder)
        self.asked = []
        self.before = lambda verb: None
        self.pace = Pace(1000)

    async def use_cache(self, verb, *arguments):
        self.asked.append(verb)
        self.before(verb)
        return await asyncio.to_thread(getattr(self.cache, verb), *arguments)


@pytest.fixture
def node(tmp_path, monkeypatch):
    monkeypatch.setattr(pace_module, "LARGEST_PIECE", 1000)
    return NearNode(tmp_path / "node")


def make(folder, name=NAME, size=2500):
    """Something that looks like a checkpoint."""
    target = folder / name
    (target / "files").mkdir(parents=True)
    (target / "files" / "weights.bin").write_bytes(os.urandom(size))
    (target / "empty").touch()
    (target / MANIFEST).write_text(f'{{"of": "{name}", "weights": "{os.urandom(8).hex()}"}}')
    return target


def content(folder):
    return {
        path.relative_to(folder).as_posix(): path.read_bytes()
        for path in folder.rglob("*")
        if path.is_file()
    }


def run(work):
    return asyncio.run(asyncio.wait_for(work, WAIT_S))


@pytest.mark.parametrize("size", [0, 1, 1000, 2500, 9000])
def test_a_checkpoint_gets_to_a_node_and_back_whole(tmp_path, node, size):
    made = make(tmp_path / "made", size=size)
    assert run(node.put_checkpoint(3, made)) == sum(map(len, content(made).values()))
    assert content(node.cache.folder(3) / NAME) == content(made)
    assert run(node.fetch_checkpoint(3, tmp_path / "back")) == tmp_path / "back" / NAME
    assert content(tmp_path / "back" / NAME) == content(made)


def test_what_a_node_has_is_not_sent_again_but_another_of_that_name_is(tmp_path, node):
    made = make(tmp_path / "made")
    run(node.put_checkpoint(3, made))
    node.asked.clear()
    assert run(node.put_checkpoint(3, made)) == 0
    assert node.asked == ["has"]
    other = make(tmp_path / "other")
    assert run(node.put_checkpoint(3, other)) > 2500
    assert content(node.cache.folder(3) / NAME) == content(other)


def test_a_manifest_of_many_files_goes_in_pieces_and_commits_with_the_last(tmp_path, node):
    made = make(tmp_path / "made", size=10)
    (made / MANIFEST).write_text("x" * 4500)
    seen = []
    node.before = lambda verb: seen.append(node.cache.newest(3))
    run(node.put_checkpoint(3, made))
    assert len(seen) > 6 and set(seen) == {None}
    assert content(node.cache.folder(3) / NAME) == content(made)
    run(node.fetch_checkpoint(3, tmp_path / "back"))
    assert content(tmp_path / "back" / NAME) == content(made)


def test_what_a_broken_copy_has_left_of_a_longer_manifest_is_not_in_the_new_one(tmp_path, node):
    made = make(tmp_path / "made")
    node.cache.write(3, NAME, cache_module.UNFINISHED_MANIFEST, 0, b"x" * 2000)
    run(node.put_checkpoint(3, made))
    assert content(node.cache.folder(3) / NAME) == content(made)


def test_a_copy_on_a_disk_without_links_takes_as_many_calls_as_it_needs(
    tmp_path, node, monkeypatch
):
    """Each of them has an answer in time, however large the checkpoint is."""

    def no_links(*paths):
        raise OSError(95, "Operation not supported")

    monkeypatch.setattr(cache_module.os, "link", no_links)
    monkeypatch.setattr(cache_module, "COPY_S", 0)
    monkeypatch.setattr(cache_module, "BLOCK_BYTES", 1000)
    made = make(node.cache.folder(3), size=9500)
    run(node.fetch_checkpoint(3, tmp_path / "back"))
    assert content(tmp_path / "back" / NAME) == content(made)
    assert node.asked.count("hold") > 10


def test_of_two_children_at_once_only_one_has_it_sent(tmp_path, node):
    made = make(tmp_path / "made")

    async def both():
        return await asyncio.gather(*(node.put_checkpoint(3, made) for _ in range(2)))

    sent = asyncio.run(both())
    assert sorted(sent)[0] == 0 < sorted(sent)[1]


def test_what_the_driver_has_is_not_fetched_again(tmp_path, node):
    make(node.cache.folder(3))
    run(node.fetch_checkpoint(3, tmp_path / "back"))
    node.asked.clear()
    run(node.fetch_checkpoint(3, tmp_path / "back"))
    assert node.asked == ["newest"]


def test_two_that_want_it_at_once_have_it_fetched_once(tmp_path, node):
    made = make(node.cache.folder(3), size=9000)

    async def both():
        return await asyncio.gather(*(node.fetch_checkpoint(3, tmp_path / "b") for _ in range(2)))

    assert asyncio.run(both()) == [tmp_path / "b" / NAME] * 2
    assert node.asked.count("hold") == 1
    assert content(tmp_path / "b" / NAME) == content(made)


def test_the_newest_is_the_one_with_the_largest_number_not_the_last_by_letters(node, tmp_path):
    for name in ("9000001-step-1", "10000001-step-1", "2-step-8"):
        make(node.cache.folder(3), name)
    assert run(node.fetch_checkpoint(3, tmp_path / "back")).name == "10000001-step-1"


def test_a_trial_that_deletes_it_meanwhile_does_not_disturb_the_copy(tmp_path, node):
    made = make(node.cache.folder(3))
    before = content(made)
    node.before = lambda verb: delete(made) if verb == "read" else None
    run(node.fetch_checkpoint(3, tmp_path / "back"))
    assert content(tmp_path / "back" / NAME) == before
    assert list((node.cache.folder(3).parent / "held/checkpoints").iterdir()) == []


def test_one_that_is_replaced_before_it_is_held_gives_way_to_the_newer_one(tmp_path, node):
    old = make(node.cache.folder(3), "1000001-step-1")

    def replace(verb):
        if verb == "hold" and old.exists():
            make(node.cache.folder(3), NAME)
            delete(old)

    node.before = replace
    assert run(node.fetch_checkpoint(3, tmp_path / "back")).name == NAME


def test_a_copy_that_breaks_off_leaves_nothing_that_looks_whole(tmp_path, node):
    made = make(node.cache.folder(3), size=9000)

    def break_off(verb):
        if verb == "read" and node.asked.count("read") > 5:
            raise OSError("the disk is broken")

    node.before = break_off
    with pytest.raises(NodeError, match="near: the disk is broken"):
        run(node.fetch_checkpoint(3, tmp_path / "back"))
    assert not (tmp_path / "back" / NAME).exists()
    node.before = lambda verb: None
    run(node.fetch_checkpoint(3, tmp_path / "back"))
    assert content(tmp_path / "back" / NAME) == content(made)


def test_a_full_disk_of_a_node_is_an_error_and_no_checkpoint(tmp_path, node, monkeypatch):
    def full(*arguments):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(cache_module.os, "pwrite", full)
    with pytest.raises(NodeError, match="No space left"):
        run(node.put_checkpoint(3, make(tmp_path / "made")))
    assert node.cache.newest(3) is None


def test_when_the_node_goes_a_copy_ends_at_once(tmp_path, node):
    made = make(tmp_path / "made")

    async def scene():
        asked = asyncio.Event()

        async def never(verb, *arguments):
            asked.set()
            await asyncio.Event().wait()

        node.use_cache = never
        putting = asyncio.create_task(node.put_checkpoint(3, made))
        await asked.wait()
        node.on_gone("cut")
        with pytest.raises(NodeError, match="the node is gone: cut"):
            await putting
        with pytest.raises(NodeError, match="the node is gone: cut"):
            await node.fetch_checkpoint(3, tmp_path / "back")

    run(scene())


def test_a_disk_that_fills_up_in_the_middle_of_a_piece_is_told(tmp_path):
    code = """
        import resource
        from pathlib import Path
        from distsearch.resource.cache import write_piece

        resource.setrlimit(resource.RLIMIT_FSIZE, (1000, 1000))
        try:
            write_piece(Path("w"), 0, bytes(3000))
        except OSError as error:
            print("told", error.strerror)
    """
    done = subprocess.run(
        [sys.executable, "-c", textwrap.dedent(code)],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.stdout == "told File too large\n", done.stderr


def test_dropping_one_takes_its_manifest_first(tmp_path, node, monkeypatch):
    made = make(node.cache.folder(3))
    gone = []
    rmtree = cache_module.shutil.rmtree
    monkeypatch.setattr(
        cache_module.shutil,
        "rmtree",
        lambda path, **options: (gone.append((path / MANIFEST).exists()), rmtree(path, **options)),
    )
    run(node.delete_checkpoint(3, NAME))
    assert gone == [False]
    assert not made.exists()


@pytest.mark.parametrize("name", ["../../../etc", "/etc", "a/../../b"])
def test_nothing_outside_the_checkpoints_is_touched(tmp_path, node, name):
    with pytest.raises(NodeError, match="not below the checkpoints"):
        run(node._ask("delete", 3, name))
    with pytest.raises(NodeError, match="not below the checkpoints"):
        run(node._ask("write", 3, NAME, f"../{name}/../../../../x", 0, b"x"))
    node.cache.newest = lambda trial: name
    with pytest.raises((NodeError, ValueError), match="not below the checkpoints"):
        run(node.fetch_checkpoint(3, tmp_path / "back"))
