"""The searcher that is taken when the user leaves it open."""

from __future__ import annotations

from distsearch.searcher import SEARCHERS
from distsearch.searcher.auto import choose
from distsearch.space import Bool, Choice, Dict, Int, Real

NUMBERS = Dict(lr=Real(1e-4, 1e-1, log=True), width=Int(1, 10**6))
MIXED = Dict(lr=Real(0, 1), net=Choice("small", Dict(deep=Bool())))
CHOICES = Dict(**{f"edge{n}": Choice(*"abcde") for n in range(6)})


def test_a_model_is_taken_wherever_there_is_something_to_learn():
    for space in (NUMBERS, MIXED, CHOICES):
        for rule in ("FIFOScheduler", "HyperbandScheduler", "PASHAScheduler"):
            assert choose(space, rule=rule, num_trials=100)[0] == "mfgp"
            assert choose(space, rule=rule)[0] == "mfgp"


def test_a_space_that_is_tried_whole_needs_no_model():
    name, why = choose(Dict(a=Int(1, 4), b=Bool()), num_trials=8)
    assert name == "random" and "all 8 configurations" in why
    assert choose(Dict(a=Int(1, 4), b=Bool()), num_trials=7)[0] == "mfgp"


def test_several_objectives_and_very_many_trials_are_for_evolution():
    assert choose(NUMBERS, objectives=2)[0] == "evolution"
    assert choose(NUMBERS, num_trials=20_000)[0] == "evolution"


def test_a_rule_that_changes_configurations_itself_starts_from_random_ones():
    assert choose(NUMBERS, rule="PBTScheduler", num_trials=16)[0] == "random"


def test_the_reason_is_one_line_and_says_what_is_particular():
    name, why = choose(MIXED, rule="HyperbandScheduler", max_t=81)
    assert name in SEARCHERS
    assert "\n" not in why and "up to 81" in why and "choices and numbers" in why
    assert "up to" not in choose(MIXED)[1]
