"""The queue: in order, and never a second attempt beside the first."""

from __future__ import annotations

import asyncio

import pytest

from distsearch.core.queue import Queue
from distsearch.core.words import Status, Trial

WAIT_S = 20.0


def trials(count):
    return [Trial(number, {}) for number in range(count)]


def drained(queue):
    return [trial.id for trial in iter(queue.pop, None)]


def test_trials_come_out_in_the_order_in_which_they_were_put_each_once():
    queue = Queue(on_ready=lambda: None)
    for trial in [*trials(3), *trials(3)]:
        queue.put(trial)
    assert len(queue) == 3 and queue.has_ready
    assert drained(queue) == [0, 1, 2]


def test_a_trial_whose_attempt_runs_comes_out_after_it_is_over():
    queue, (first, second) = Queue(on_ready=lambda: None), trials(2)
    queue.begins(first)
    queue.put(first)
    queue.put(second)
    assert first in queue and drained(queue) == [1]
    queue.ends(first)
    assert drained(queue) == [0]


def test_a_trial_that_ended_before_its_attempt_was_over_does_not_come_out():
    queue, (trial,) = Queue(on_ready=lambda: None), trials(1)
    queue.begins(trial)
    queue.put(trial)
    trial.status = Status.FAILED
    queue.ends(trial)
    assert len(queue) == 0 and queue.pop() is None


def test_a_trial_that_a_lost_node_may_still_run_comes_out_when_that_is_over_and_somebody_is_told():
    async def story():
        ready = asyncio.Event()
        queue, (trial,) = Queue(on_ready=ready.set), trials(1)
        queue.begins(trial)
        queue.ends(trial, 0.05)
        queue.put(trial)
        assert queue.pop() is None
        queue.clear()  # what Ctrl-C does forgets who waits, but not who may still run
        queue.put(trial)
        assert queue.pop() is None
        await asyncio.wait_for(ready.wait(), WAIT_S)
        assert queue.pop() is trial

    asyncio.run(story())


def test_a_second_attempt_beside_the_first_is_a_defect():
    queue, (trial,) = Queue(on_ready=lambda: None), trials(1)
    queue.begins(trial)
    with pytest.raises(AssertionError, match="trial 0 has an attempt already"):
        queue.begins(trial)
