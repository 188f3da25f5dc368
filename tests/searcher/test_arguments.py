"""The arguments of searchers by name, AutoGluon's too."""

from __future__ import annotations

import pytest

from distsearch.errors import OptionError
from distsearch.searcher import SEARCHERS
from distsearch.searcher.arguments import ALIASES, names_taken, renamed, taken_out


def test_each_searcher_knows_its_options():
    assert SEARCHERS["random"].takes() == []
    assert SEARCHERS["grid"].takes() == ["points"]
    assert "mutation_probability" in SEARCHERS["evolution"].takes()
    for name in ("tpe", "gp", "cmaes", "nsga2", "qmc"):
        assert SEARCHERS[name].takes()
        assert "seed" not in SEARCHERS[name].takes()
    assert "multivariate" in SEARCHERS["tpe"].takes()


def test_the_names_that_a_class_takes_are_its_own_and_those_that_it_hands_on():
    class Base:
        def __init__(self, first, *, second=2):
            pass

    class HandsOn(Base):
        def __init__(self, *args, third, **options):
            pass

    class Closed(Base):
        def __init__(self, fourth):
            pass

    assert names_taken(HandsOn) == ["third", "first", "second"]
    assert names_taken(Closed) == ["fourth"]


@pytest.mark.parametrize(
    ("options", "seed", "points", "expected"),
    [
        (None, 3, None, ({}, 3, None)),
        ({"random_seed": 7, "sample": 5}, None, None, ({"sample": 5}, 7, None)),
        ({"seed": 7}, 7, None, ({}, 7, None)),
        ({"first_is_default": True}, None, None, ({}, None, [{}])),
        ({"first_is_default": False}, None, None, ({}, None, [])),
        ({"first_is_default": False}, None, [{"x": 1}], ({}, None, [{"x": 1}])),
        ({"points_to_evaluate": [{"x": 1}]}, None, None, ({}, None, [{"x": 1}])),
    ],
)
def test_what_belongs_to_the_scheduler_is_taken_out_of_the_options(options, seed, points, expected):
    assert taken_out(options, seed, points) == expected


def test_two_seeds_that_differ_are_refused():
    with pytest.raises(OptionError, match="random_seed=7 and seed=3 differ"):
        taken_out({"random_seed": 7}, 3, None)


def test_the_searchers_of_autogluon_have_their_successors():
    assert {SEARCHERS[name] for name in ALIASES.values()} == {SEARCHERS["gp"]}
    assert renamed({"num_init_random": 2}, SEARCHERS["gp"].takes()) == {"n_startup_trials": 2}
    assert renamed({"num_init_random": 2}, []) == {"num_init_random": 2}
