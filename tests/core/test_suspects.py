"""Nodes where trials fail that do not fail elsewhere."""

from __future__ import annotations

import asyncio

import pytest

from distsearch.core import suspects
from distsearch.core.suspects import Suspects
from distsearch.core.words import Status, Trial
from distsearch.resource.node import NodeFacts
from distsearch.resource.remote import Remote

IDS = [0, 1, 2]


class Watched:
    """Suspects, what they said, and how often they had slots filled again."""

    def __init__(self):
        self.nodes = [Remote(n, f"node{n}", f"fake://{n}", NodeFacts(1, (), 1)) for n in IDS]
        self.said, self.woken, self.count = [], 0, 0
        self.of = Suspects(self.said.append, self.wake)

    def wake(self):
        self.woken += 1

    def fail(self, node, times=1, reason="ImportError: x", trial=None, others=None):
        for _ in range(times):
            self.count += 1
            about = trial or Trial(self.count, {})
            rest = [one for one in self.nodes if one.remote_id != node]
            rest = rest if others is None else others
            self.of.failed(about, self.nodes[node], Status.FAILED, reason, rest)


@pytest.fixture
def story():
    def run(scene):
        async def bounded():
            watched = Watched()
            await asyncio.wait_for(scene(watched), 10)
            watched.of.close()

        asyncio.run(bounded())

    return run


def test_a_node_where_a_few_fail_alike_as_none_does_elsewhere_is_set_aside_and_named(story):
    async def scene(watched):
        watched.fail(0, 2)
        assert watched.of.avoided(None, IDS) == set()
        watched.fail(0)
        assert watched.of.avoided(None, IDS) == {0}
        (line,) = watched.said
        assert line.startswith("node node0 is set aside for 60 s: the last 3 trials there failed")
        assert "(failed: ImportError: x)" in line and line.endswith("node1, node2")

    story(scene)


@pytest.mark.parametrize("how", ["one did well", "they differ", "elsewhere too", "no other node"])
def test_a_node_is_not_to_blame_without_good_reason(story, how):
    async def scene(watched):
        watched.fail(0, 2)
        if how == "one did well":
            watched.of.did_well(watched.nodes[0])
        if how == "elsewhere too":
            watched.fail(1)
        reason = "KeyError: x" if how == "they differ" else "ImportError: y"
        watched.fail(0, reason=reason, others=[] if how == "no other node" else None)
        assert watched.of.avoided(None, IDS) == set() and watched.said == []

    story(scene)


def test_a_node_that_was_set_aside_is_used_again_once_others_fail_alike(story):
    async def scene(watched):
        watched.fail(0, 3)
        watched.fail(1)
        assert watched.of.avoided(None, IDS) == set() and watched.woken == 0
        await asyncio.sleep(0)
        assert watched.woken == 1
        assert watched.of.are_everywhere

    story(scene)


def test_it_is_tried_again_later_and_after_one_more_failure_set_aside_for_longer(
    story, monkeypatch
):
    monkeypatch.setattr(suspects, "AGAIN_AFTER_S", 0.05)

    async def scene(watched):
        watched.fail(0, 3)
        while not watched.woken:
            await asyncio.sleep(0.01)
        assert watched.of.avoided(None, IDS) == set()
        watched.fail(0)
        assert watched.of.avoided(None, IDS) == {0}
        assert "set aside for 0.1 s" in watched.said[1]
        while watched.woken < 2:
            await asyncio.sleep(0.01)
        watched.of.did_well(watched.nodes[0])
        watched.fail(0, 2)
        assert watched.of.avoided(None, IDS) == set()

    story(scene)


def test_a_trial_runs_again_elsewhere_unless_there_is_no_elsewhere(story):
    async def scene(watched):
        trial = Trial(7, {})
        watched.fail(0, trial=trial)
        assert watched.of.avoided(trial, IDS) == {0}
        assert watched.of.avoided(Trial(8, {}), IDS) == set()
        assert watched.of.avoided(trial, [0]) == set()

    story(scene)


def test_that_all_fail_is_no_verdict_while_only_one_of_two_nodes_fails(story):
    async def scene(watched):
        watched.fail(0)
        assert watched.of.are_everywhere  # there is no other yet
        watched.of.did_well(watched.nodes[1])
        assert not watched.of.are_everywhere

    story(scene)


def test_what_a_node_failed_with_once_does_not_excuse_another_for_ever(story):
    async def scene(watched):
        watched.fail(1)
        watched.fail(0, 3)
        assert watched.of.avoided(None, IDS) == set()
        for _ in range(suspects.MANY):
            watched.of.did_well(watched.nodes[1])
        watched.fail(0)
        assert watched.of.avoided(None, IDS) == {0}

    story(scene)


def test_a_bad_node_that_was_lost_and_is_back_is_set_aside_again(story):
    async def scene(watched):
        watched.fail(0, 3)
        watched.of.forget(watched.nodes[0])
        watched.fail(2, 3)  # it is back, under another number
        assert watched.of.avoided(None, [1, 2]) == {2}

    story(scene)
