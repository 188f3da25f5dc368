"""What checkpoints may take, and which go when it is too much."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distsearch.core.budget import Budget, Checkpoint, in_words, parse_bytes
from distsearch.errors import ResourceError


@pytest.mark.parametrize(
    ("given", "number"),
    [
        ("20GB", 20 * 10**9),
        ("1.5 MiB", 3 << 19),
        ("1g", 10**9),
        ("512", 512),
        (1e6, 10**6),
        (None, None),
    ],
)
def test_sizes_are_numbers_or_texts(given, number):
    assert parse_bytes(given) == number


@pytest.mark.parametrize("given", ["20 apples", "-1GB", "", 0, -5, float("inf"), True, []])
def test_what_is_no_size_is_refused_and_shown(given):
    with pytest.raises(ResourceError, match=r"max_bytes=.*give a number of bytes, '20GB', or None"):
        parse_bytes(given)


def test_sizes_are_said_in_words():
    assert [in_words(n) for n in (20 * 10**9, 1_500_000, 12)] == ["20 GB", "1.5 MB", "12 bytes"]


def full(*checkpoints, max_bytes=0):
    budget = Budget(max_bytes)
    for trial, number in checkpoints:
        budget.add(trial, str(number), 10)
    return budget


def victims(budget, needed=(), kept=()):
    found = budget.victims(lambda trial: trial in needed, lambda c: c in kept)
    return [(trial, int(name)) for trial, name in found]


def test_the_oldest_that_nobody_needs_go_first_and_only_as_many_as_must():
    budget = full((0, 1), (1, 1), (0, 2), (2, 1), max_bytes=25)
    assert victims(budget) == [(0, 1), (1, 1)]
    assert victims(budget, needed={0}) == [(1, 1), (2, 1)]


def test_of_what_is_needed_only_older_ones_go_and_only_then():
    budget = full((0, 1), (0, 2), (1, 1), max_bytes=5)
    assert victims(budget, needed={0, 1}) == [(0, 1)]
    assert victims(budget, needed={0}) == [(1, 1), (0, 1)]
    assert victims(budget, needed={0}, kept={Checkpoint(0, "1")}) == [(1, 1)]


def test_nothing_goes_that_fits_or_has_no_limit():
    assert victims(full((0, 1), max_bytes=10)) == victims(full((0, 1), max_bytes=None)) == []


steps = st.lists(
    st.tuples(st.integers(0, 4), st.integers(0, 9), st.integers(1, 50), st.booleans()), max_size=40
)


@given(steps, st.sets(st.integers(0, 4)), st.integers(0, 300))
def test_whatever_is_saved_the_newest_of_what_is_needed_stays(steps, needed, max_bytes):
    budget = Budget(max_bytes)
    for trial, number, size, is_removed in steps:
        budget.add(trial, str(number), size)
        if is_removed:
            budget.remove(Checkpoint(trial, str(number)))
    newest = {trial: budget.names(trial)[-1] for trial in budget.trials}
    for checkpoint in list(budget.victims(needed.__contains__, lambda _: False)):
        budget.remove(checkpoint)
    for trial in needed & newest.keys():
        assert budget.names(trial)[-1] == newest[trial]
    assert not budget.is_exceeded or all(
        trial in needed and len(budget.names(trial)) == 1 for trial in budget.trials
    )
