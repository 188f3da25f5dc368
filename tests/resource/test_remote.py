"""Checkpoints that are fetched from a node which may go at any moment."""

from __future__ import annotations

import asyncio

import pytest

from distsearch.core import checkpoint
from distsearch.errors import NodeError
from distsearch.resource.cache import CheckpointCache
from distsearch.resource.node import NodeFacts
from distsearch.resource.remote import Remote


class Leaving(Remote):
    """A node that answers from a folder, and goes after so many answers."""

    def __init__(self, folder, answers):
        facts = NodeFacts(num_cpus=1, gpus=(), memory_bytes=10**9)
        super().__init__(1, "gpu1", "fake://gpu1", facts)
        self.cache = CheckpointCache(folder)
        self.answers = answers

    def send(self, message):
        pass

    async def use_cache(self, verb, *arguments):
        if not self.answers:
            self.on_gone("its power was cut")
            await asyncio.sleep(60)
        self.answers -= 1
        return getattr(self.cache, verb)(*arguments)

    async def close(self):
        return True


def saves_in(tmp_path):
    return tmp_path / "node" / "0" / "checkpoints"


def fetch(node, folder):
    asyncio.run(node.fetch_checkpoint(0, folder))


@pytest.mark.parametrize("answers", [0, 1, 2, 3])
def test_a_checkpoint_of_a_node_that_goes_meanwhile_is_not_there_and_the_last_one_is(
    tmp_path, answers
):
    checkpoint.save({"epoch": 1}, saves_in(tmp_path), 1)
    fetch(Leaving(tmp_path / "node", 10), tmp_path / "driver")
    checkpoint.save({"epoch": 2}, saves_in(tmp_path), 2)
    newest = Leaving(tmp_path / "node", answers)
    with pytest.raises(NodeError, match="its power was cut"):
        fetch(newest, tmp_path / "driver")
    assert len(checkpoint.checkpoints(tmp_path / "driver")) == 1
    assert checkpoint.load(tmp_path / "driver") == {"epoch": 1}


def test_what_broke_off_is_fetched_again(tmp_path):
    checkpoint.save({"epoch": 1}, saves_in(tmp_path), 1)
    with pytest.raises(NodeError):
        fetch(Leaving(tmp_path / "node", 2), tmp_path / "driver")
    fetch(Leaving(tmp_path / "node", 10), tmp_path / "driver")
    assert checkpoint.load(tmp_path / "driver") == {"epoch": 1}


def test_the_same_checkpoint_may_be_fetched_twice_at_once(tmp_path):
    checkpoint.save({"epoch": 1}, saves_in(tmp_path), 1)
    node = Leaving(tmp_path / "node", 100)

    async def twice():
        await asyncio.gather(*(node.fetch_checkpoint(0, tmp_path / "driver") for _ in range(2)))

    asyncio.run(twice())
    assert checkpoint.load(tmp_path / "driver") == {"epoch": 1}
    assert 100 - node.answers == 6, "newest, hold, two files, release; newest: it is there"
