"""Random search."""

from __future__ import annotations

import math

import numpy as np
import pytest

from distsearch.searcher import RandomSearcher, Searcher
from distsearch.space import Bool, Choice, Dict, Int, Real

WIDE = Dict(lr=Real(1e-4, 1e-1, log=True), width=Int(1, 4), net=Choice("a", "b"))


def test_the_default_configuration_comes_first_unless_told_otherwise():
    assert RandomSearcher(WIDE).ask(0) == WIDE.default
    assert RandomSearcher(WIDE, points_to_evaluate=[]).ask(0) != WIDE.default


def test_the_suggestion_for_a_trial_depends_on_its_number_not_on_what_was_asked_before():
    first, second = (RandomSearcher(WIDE, seed=3, points_to_evaluate=[]) for _ in range(2))
    forwards = {number: first.ask(number) for number in range(10)}
    backwards = {number: second.ask(number) for number in reversed(range(10))}
    assert forwards == backwards


def test_draws_are_spread_evenly_on_the_log_scale():
    searcher = RandomSearcher(WIDE, seed=0, points_to_evaluate=[])
    configs = [searcher.ask(number) for number in range(2000)]
    decades = np.histogram([math.log10(c["lr"]) for c in configs], bins=3, range=(-4, -1))[0]
    widths = np.bincount([c["width"] for c in configs], minlength=5)[1:]
    assert (abs(decades - 667) < 100).all()  # more than 4 standard deviations
    assert (abs(widths - 500) < 80).all()


@pytest.mark.parametrize("size", [2, 300, 5000])
def test_the_last_of_a_finite_space_are_found_too(size):
    space = Dict(n=Int(1, size))
    searcher = RandomSearcher(space, seed=1)
    searcher._seen.update(f'{{"n": {n}}}' for n in range(1, size + 1) if n not in (1, size))
    searcher._first.clear()
    assert {searcher.ask(7)["n"], searcher.ask(8)["n"]} == {1, size}
    assert searcher.ask(9) is None


def test_a_space_without_parameters_has_one_configuration():
    searcher = RandomSearcher(Dict(epochs=3))
    assert (searcher.ask(0), searcher.ask(1)) == ({}, None)


def test_a_continuous_space_never_ends_and_nothing_is_kept_of_it():
    searcher = RandomSearcher(Dict(x=Real(0, 1)), seed=0)
    assert all(searcher.ask(number) is not None for number in range(5000))
    assert searcher._seen is None


def test_rare_branches_are_reached():
    space = Dict(x=Choice(*range(20), Dict(y=Bool())))
    searcher = RandomSearcher(space, seed=0)
    found = [searcher.ask(number) for number in range(22)]
    assert {"x": "dict", "x.dict.y": True} in found
    assert {"x": "dict", "x.dict.y": False} in found


def test_a_searcher_without_suggest_says_what_it_lacks():
    class Empty(Searcher):
        pass

    searcher = Empty(WIDE, points_to_evaluate=[])
    with pytest.raises(NotImplementedError, match=r"Empty needs a method suggest"):
        searcher.ask(0)
