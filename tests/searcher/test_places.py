"""Configurations as rows and points."""

from __future__ import annotations

import math

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from distsearch.searcher.places import Places
from distsearch.space import Bool, Choice, Dict, Int, Real
from distsearch.testing.spaces import spaces

NESTED = Dict(net=Choice("small", Dict(width=Real(0, 1), deep=Bool())), lr=Real(0, 1))
seeds = st.integers(0, 2**32 - 1)


@given(spaces, seeds)
@settings(deadline=None, max_examples=30)
def test_a_row_is_its_configuration(space, seed):
    places, rng = Places(space), np.random.default_rng(seed)
    config = space.sample(rng)
    assert places.config(places.row(config)) == config


@given(spaces, seeds)
@settings(deadline=None, max_examples=30)
def test_rows_drawn_and_changed_are_those_of_configurations(space, seed):
    places, rng = Places(space), np.random.default_rng(seed)
    if not len(places):
        return
    drawn = places.draw(rng, 8)
    for row in [*drawn, *places.near(drawn, rng, 0.2, 0.5)]:
        config = places.config(row)
        assert space.validate(config) == config
        assert places.config(places.row(config)) == config
        assert (np.isnan(places.row(config)) == np.isnan(row)).all()


def test_what_is_not_active_makes_no_difference():
    places = Places(NESTED)
    points = places.points(np.array([places.row({"net": "small", "lr": lr}) for lr in (0.2, 0.2)]))
    assert (points[0] == points[1]).all()
    assert np.isnan(places.row({"net": "small", "lr": 0.2})).sum() == 2


def test_options_are_as_far_apart_as_the_ends_of_a_range():
    places = Places(Dict(kind=Choice(*"abc"), x=Real(0, 1)))
    rows = [places.row({"kind": kind, "x": x}) for kind, x in (("a", 0), ("b", 0), ("a", 1))]
    points = places.points(np.array(rows))
    assert places.groups.tolist() == [0, 0, 0, 1]
    assert math.isclose(np.linalg.norm(points[0] - points[1]), 1)
    assert math.isclose(np.linalg.norm(points[0] - points[2]), 1)


def test_integers_are_drawn_as_often_as_others():
    places = Places(Dict(n=Int(1, 5)))
    drawn = places.draw(np.random.default_rng(0), 5000)
    values = [places.config(row)["n"] for row in drawn]
    assert np.bincount(values)[1:].tolist() == [
        int(count) for count in np.unique(drawn, return_counts=True)[1]
    ]
    assert min(np.bincount(values)[1:]) > 900


def test_rows_near_others_change_something_but_not_much():
    places, rng = Places(Dict(**{f"x{n}": Real(0, 1) for n in range(10)})), np.random.default_rng(0)
    centres = np.full((200, 10), 0.5)
    near = places.near(centres, rng, 0.01, 0.2)
    changed = near != centres
    assert changed.any(axis=1).all()
    assert 0.15 < changed.mean() < 0.35
    assert np.abs(near - centres).max() < 0.06
