"""The searcher that is taken when the user leaves it open."""

from __future__ import annotations

import pytest

import distsearch as ag
from distsearch.core import store
from distsearch.errors import OptionError
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


@ag.args(x=ag.Real(0.0, 1.0))
def train_fn(args, reporter):
    reporter(accuracy=args.x)


def searched(folder, capfd, **options):
    """Which searcher a search with 'auto' took, what it said of it, and what is in its log."""
    node = ag.Node("localhost", num_cpus=1)
    scheduler = ag.scheduler.FIFOScheduler(
        train_fn, searcher="auto", checkpoint=folder, local=node, seed=1, **options
    )
    with scheduler:
        scheduler.run(num_trials=2)
        assert scheduler.join_jobs(timeout=60)
        (first, *_) = store.read(folder, "experiment")
        said = capfd.readouterr().out
        return type(scheduler.searcher).__name__, said, first.body["searcher_because"]


def test_auto_says_what_it_takes_and_a_resumed_search_goes_on_with_it(tmp_path, capfd):
    name, said, logged = searched(tmp_path / "run", capfd)
    assert name == "MFGPSearcher"
    assert f"searcher='auto': MFGPSearcher, as {logged}" in said
    name, said, _ = searched(tmp_path / "run", capfd, num_trials=20_000)
    assert name == "MFGPSearcher" and "has begun with it" in said


def test_auto_takes_no_options_of_one_searcher(tmp_path):
    with pytest.raises(OptionError, match="searcher='auto' chooses it; name it"):
        ag.scheduler.FIFOScheduler(
            train_fn, searcher="auto", search_options={"population": 5}, checkpoint=tmp_path / "run"
        )
