"""Grid search."""

from __future__ import annotations

import pytest

from distsearch.searcher import GridSearcher
from distsearch.space import Bool, Choice, Dict, Int, Real


def all_of(searcher):
    found = []
    while (config := searcher.ask(len(found))) is not None:
        found.append(config)
    return found


def test_every_combination_comes_once_in_order():
    space = Dict(net=Choice("a", "b"), depth=Int(1, 2))
    assert all_of(GridSearcher(space)) == [
        {"net": net, "depth": depth} for net in ("a", "b") for depth in (1, 2)
    ]


def test_a_range_has_as_many_values_as_points_ends_included():
    rates = [config["lr"] for config in all_of(GridSearcher(Dict(lr=Real(0, 1)), points=3))]
    assert rates == [0, 0.5, 1]
    rates = [c["lr"] for c in all_of(GridSearcher(Dict(lr=Real(1e-4, 1, log=True))))]
    assert rates == pytest.approx([1e-4, 1e-3, 1e-2, 1e-1, 1])


def test_a_large_range_of_integers_has_as_many_values_as_points():
    widths = [c["width"] for c in all_of(GridSearcher(Dict(width=Int(1, 1001)), points=5))]
    assert widths == [1, 251, 501, 751, 1001]


def test_only_the_branch_that_is_chosen_is_listed():
    space = Dict(net=Choice("none", Dict(dropout=Bool())))
    assert all_of(GridSearcher(space)) == [
        {"net": "none"},
        {"net": "dict", "net.dict.dropout": False},
        {"net": "dict", "net.dict.dropout": True},
    ]


def test_no_default_comes_first_unless_it_is_given():
    space = Dict(n=Int(1, 3))
    assert [c["n"] for c in all_of(GridSearcher(space))] == [1, 2, 3]
    given = GridSearcher(space, points_to_evaluate=[{}])
    assert [c["n"] for c in all_of(given)] == [2, 1, 3]


def test_a_given_point_off_the_grid_is_added_to_it():
    searcher = GridSearcher(Dict(x=Real(0, 1)), points=2, points_to_evaluate=[{"x": 0.3}])
    assert [c["x"] for c in all_of(searcher)] == [0.3, 0, 1]


def test_a_huge_grid_is_not_made_before_it_is_asked_for():
    space = Dict(**{f"x{n}": Real(0, 1) for n in range(40)})
    assert GridSearcher(space, points=10).ask(0) == dict.fromkeys(space.default, 0.0)
