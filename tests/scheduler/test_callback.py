"""The user's callback: one call at a time, and nothing waits for one that hangs."""

from __future__ import annotations

import threading

import pytest

from distsearch.scheduler import callback as callback_module
from distsearch.scheduler.callback import Callback

WAIT_S = 20.0


@pytest.fixture
def said():
    return []


def made(function, said, period_s=0.0):
    return Callback(
        function, period_s=period_s, read=lambda: {0: []}, start_time=5.0, say=said.append
    )


def test_one_that_hangs_is_not_called_again_and_the_end_does_not_wait_for_it_for_ever(
    said, monkeypatch
):
    monkeypatch.setattr(callback_module, "LAST_CALL_S", 0.2)
    calls, release = [], threading.Event()

    def hangs(history, start_time):
        calls.append((history, start_time))
        release.wait(WAIT_S)

    one = made(hangs, said)
    for _ in range(20):
        one.call_if_due()
    one.call_at_the_end()
    release.set()
    assert calls == [({0: []}, 5.0)]
    assert said == [
        "training_history_callback has not returned for 0.2 s: the search is over without it"
    ]


@pytest.mark.parametrize(
    "error", [KeyError("logger"), SystemExit(3), KeyboardInterrupt()], ids=repr
)
def test_one_that_fails_is_told_and_called_again(said, error):
    def fails(history, start_time):
        raise error

    one = made(fails, said)
    one.call_at_the_end()
    one.call_at_the_end()
    assert said == [f"training_history_callback failed: {error!r}"] * 2


def test_one_whose_error_has_no_text_is_told_too(said):
    class Mute(Exception):
        def __repr__(self):
            raise RuntimeError

    def fails(history, start_time):
        raise Mute

    made(fails, said).call_at_the_end()
    assert said == [
        "training_history_callback failed: Mute (whose text could not be made: RuntimeError)"
    ]


def test_between_two_calls_is_a_period_but_for_the_last(said):
    calls = []
    one = made(lambda history, start_time: calls.append(history), said, period_s=1000.0)
    one._called_at = callback_module.time.monotonic() - 1001
    one.call_if_due()
    one.call_if_due()
    one.call_at_the_end()
    assert len(calls) == 2
    made(None, said).call_at_the_end()  # without a callback nothing happens
