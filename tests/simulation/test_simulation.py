"""Nothing is lost, run twice or left behind, in any of many searches to which much happens.

A seed that fails is shown with its story and the command that tells it again. More seeds:
`make simulate`, with SEEDS=10000.
"""

from __future__ import annotations

import os
import subprocess
import sys

import pytest

from distsearch.testing.world import SeedFailed, play

from .faults import FAULTS, SHOWN_BY, WEATHER, planted

SEEDS = 100
CHUNK = 10
FOUND_IN = 150  # seeds, in which a planted fault has to show


@pytest.mark.parametrize("first", range(0, SEEDS, CHUNK))
def test_every_guarantee_holds_whatever_happens(first):
    for seed in range(first, first + CHUNK):
        play(seed)


@pytest.mark.parametrize("ranks", [1, 2, 3, 4])
def test_trials_of_every_size_end_once_on_four_nodes_whatever_happens(ranks):
    four = {"ranks": ranks, "trials": 8, "cpus_of_nodes": (2, 2, 2, 2), "blows": 9}
    for seed in range(2):
        play(seed, {**four, "rule": "fifo"})


STORIES = """
from distsearch.testing.world import play
for seed in (7, 318):
    print(*play(seed).world.trace, sep="\\n")
"""


def test_a_seed_is_one_story_in_each_process_down_to_the_last_message():
    """However the process orders its sets."""
    processes = [
        subprocess.Popen(
            [sys.executable, "-c", STORIES],
            env={**os.environ, "PYTHONHASHSEED": order},
            stdout=subprocess.PIPE,
        )
        for order in ("0", "1")
    ]
    once, again = (process.communicate(timeout=60)[0] for process in processes)
    assert once == again
    assert len(once.splitlines()) > 100


@pytest.mark.parametrize("fault", FAULTS)
def test_the_simulation_finds_a_planted_fault(fault):
    with planted(fault), pytest.raises(SeedFailed, match="replay it: python"):
        for seed in (SHOWN_BY.get(fault, 0), *range(FOUND_IN)):
            play(seed, WEATHER.get(fault))
