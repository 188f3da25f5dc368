"""What errors and lines show of texts that others wrote."""

from __future__ import annotations

import pickle
import unicodedata

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distsearch.errors import HostKeyError, NodeError, StoreLocked, printable, with_colours

EVIL = "\x1b]0;title\x07\x1b[2J\x1b[32mall is well\x1b[0m\x9b31m\u202e\r\x1b]52;c;cm0=\x07"


@given(st.text())
def test_a_printable_text_holds_no_control_or_format_character_but_ends_of_lines(text):
    kinds = {unicodedata.category(sign) for sign in printable(text) if sign not in "\n\t"}
    assert not kinds & {"Cc", "Cf", "Cs", "Zl", "Zp"}


def test_what_can_be_printed_stays_as_it_is():
    text = "node 'gpu1':\n\tZürich, 東京 \xa0 ✓ 👍"
    assert printable(text) == text and with_colours(text) == text


def test_of_a_long_text_the_middle_is_left_out_and_counted():
    assert printable("a" * 30 + "b" * 30, 20) == (
        "a" * 10 + "\n[40 characters left out]\n" + "b" * 10
    )


@pytest.mark.parametrize("kind", [NodeError, HostKeyError, StoreLocked])
def test_the_text_of_an_error_does_nothing_to_a_terminal(kind):
    error = pickle.loads(pickle.dumps(kind(EVIL)))
    assert "\x1b" not in str(error) and "\\x1b]0;title\\x07" in str(error)


def test_what_the_users_program_prints_keeps_its_colours_and_nothing_else():
    shown = with_colours(EVIL)
    assert "\x1b[32mall is well\x1b[0m" in shown
    rest = shown.replace("\x1b[32m", "").replace("\x1b[0m", "")
    assert not {"\x1b", "\x07", "\x9b", "\r", "\u202e"} & set(rest)
    family = "\U0001f468\u200d\U0001f469\u200d\U0001f467 می\u200cخواهم"  # joined, and kept apart
    assert with_colours(family) == family
