"""How large pieces are: about what a link carries in a second."""

from __future__ import annotations

import pytest

from distsearch.resource.pace import LARGEST_PIECE, SMALLEST_PIECE, Pace


def settled(bytes_per_s, latency_s=0.0, at_once=4):
    """The size of pieces after a while on such a link, and the longest that one has taken."""
    pace, longest = Pace(), 0.0
    for _ in range(60):
        size = pace.piece_bytes
        seconds = latency_s + at_once * size / bytes_per_s
        longest = max(longest, seconds)
        pace.note(size, seconds)
    return pace.piece_bytes, longest


def test_on_a_fast_link_pieces_are_large_also_if_it_is_long():
    assert settled(10**8) == (LARGEST_PIECE, pytest.approx(4 * LARGEST_PIECE / 10**8))
    assert settled(10**8, latency_s=0.3)[0] == LARGEST_PIECE


@pytest.mark.parametrize("bytes_per_s", [10_000, 140_000, 1_000_000])
def test_on_a_slow_link_none_takes_long(bytes_per_s):
    _, longest = settled(bytes_per_s)
    assert longest < 7  # three pings, after which a node is lost, are 15 s


def test_a_link_that_becomes_slow_gets_small_pieces_after_the_first_that_takes_long():
    pace = Pace(LARGEST_PIECE)
    pace.note(LARGEST_PIECE, 120)
    assert pace.piece_bytes < LARGEST_PIECE / 100
    small = pace.piece_bytes
    pace.note(LARGEST_PIECE, 240)  # cut before
    assert pace.piece_bytes == small


def test_pieces_that_are_smaller_anyway_do_not_make_the_others_larger():
    pace = Pace()
    pace.note(SMALLEST_PIECE - 1, 0.001)
    assert pace.piece_bytes == SMALLEST_PIECE
