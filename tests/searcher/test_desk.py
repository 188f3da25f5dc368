"""What passes between a scheduler and its searcher."""

from __future__ import annotations

import math

import pytest

from distsearch.core.objectives import Objectives
from distsearch.core.words import Launch, Status, Trial
from distsearch.errors import OptionError
from distsearch.searcher import SEARCHERS, RandomSearcher, Searcher
from distsearch.searcher.desk import Desk
from distsearch.space import Choice, Dict, Real

SPACE = Dict(x=Real(0, 1), net=Choice("small", "large"))
PLAIN = Objectives.parse("accuracy", "max")


class Heard(Searcher):
    """Suggests a part of a configuration, and keeps what it hears."""

    def __init__(self, **options):
        super().__init__(SPACE, points_to_evaluate=[], **options)
        self.heard = []

    def suggest(self, trial_id, rng):
        return {"x": (trial_id + 1) / 16}

    def tell(self, trial_id, config, reward, *violations):
        self.heard.append((trial_id, dict(config), reward, *violations))

    def observe(self, trial_id, config, reward, time):
        self.heard.append((trial_id, reward, time))

    def may_need(self, trial_id):
        return trial_id == 3


class SlowlyHeard(Heard):
    slow = True


class HeardOfConstraints(Heard):
    constrained = True


@pytest.fixture
def desk():
    """Make a desk; it is closed after the test."""
    made = []

    def make(searcher, objectives=PLAIN, **options):
        options = {"seed": 1, "needed_soon": lambda: 4, "wake": lambda: None, **options}
        made.append(Desk(searcher, SPACE, objectives, **options))
        return made[-1]

    yield make
    for one in made:
        one.close()


def test_a_searcher_is_made_from_its_name_with_the_seed_and_options(desk):
    one = desk("grid", options={"points": 3}, points_to_evaluate=[{"x": 0.25}])
    assert one.searcher.seed == 1
    found = [one.next(trial_id).config for trial_id in range(3)]
    assert found[0] == {"x": 0.25, "net": "small"}
    assert {config["x"] for config in found[1:]} <= {0.0, 0.5, 1.0}
    assert one.described == {"searcher": "GridSearcher", "search_options": {"points": 3}}


def test_an_option_that_is_no_json_is_described_by_its_type(desk, monkeypatch):
    class Odd(RandomSearcher):
        def __init__(self, *args, prior, **options):
            super().__init__(*args, **options)

    monkeypatch.setitem(SEARCHERS, "odd", Odd)
    assert desk("odd", options={"prior": SPACE}).described["search_options"] == {"prior": "Dict"}


def test_an_option_that_the_searcher_does_not_have_is_refused(desk):
    with pytest.raises(OptionError, match="'random' has no argument 'population'; valid are: none"):
        desk("random", options={"population": 9})
    with pytest.raises(OptionError, match="'grid' has no argument 'point'; did you mean 'points'"):
        desk("grid", options={"point": 9})
    with pytest.raises(OptionError, match=r"'debug_log'; AutoGluon's is here .*leave it out"):
        desk("evolution", options={"debug_log": True})


@pytest.mark.parametrize("given", [{"options": {"points": 3}}, {"points_to_evaluate": []}])
def test_options_beside_a_searcher_that_is_made_already_are_refused(desk, given):
    with pytest.raises(OptionError, match=r"RandomSearcher\(\.\.\.\), not to the scheduler"):
        desk(RandomSearcher(SPACE), **given)


@pytest.mark.parametrize("name", ["rnd", None])
def test_a_searcher_that_is_not_there_is_refused_with_the_valid_names(desk, name):
    with pytest.raises(OptionError, match="give one of 'auto', 'random', 'grid'"):
        desk(name)


def test_a_searcher_that_cannot_learn_from_several_objectives_is_refused(desk):
    with pytest.raises(OptionError, match="Heard learns from one reward"):
        desk(Heard(), Objectives.parse(["a", "b"], "max"))


def test_a_suggestion_in_part_is_completed_and_remains_what_it_was_besides(desk):
    class Child(Heard):
        def suggest(self, trial_id, rng):
            return Launch(super().suggest(trial_id, rng), (7,), wait_for="checkpoint")

    whole = {"x": 1 / 16, "net": "small"}
    assert desk(Heard()).next(0) == Launch(whole)
    assert desk(Child()).next(0) == Launch(whole, (7,), wait_for="checkpoint")


@pytest.mark.parametrize("make", [Heard, SlowlyHeard])
def test_what_a_log_holds_in_part_or_whole_is_replayed(desk, make):
    one = desk(make())
    assert one.replay(0, {"x": 1 / 16}, told=0)
    assert one.replay(1, {"x": 2 / 16, "net": "small"}, told=0)
    assert not one.replay(2, {"x": 0.99}, told=0)


@pytest.mark.parametrize(("mode", "sign"), [("max", 1), ("min", -1)])
def test_the_searcher_hears_of_larger_rewards_as_better_and_of_failures_as_none(desk, mode, sign):
    one = desk(Heard(), Objectives.parse("loss", mode))
    one.tell_known([({"x": 0.5}, 0.25), ({"x": 0.6}, None)])
    one.tell(Trial(0, {"x": 0.1}, status=Status.FINISHED, best_reward=0.75))
    one.tell(Trial(1, {"x": 0.2}, status=Status.FAILED, best_reward=0.75))
    one.observe(Trial(2, {"x": 0.3}), 0.5, math.inf)
    assert one.searcher.heard == [
        (-1, {"x": 0.5}, sign * 0.25),
        (-2, {"x": 0.6}, None),
        (0, {"x": 0.1}, sign * 0.75),
        (1, {"x": 0.2}, None),
        (2, 0.5, math.inf),
    ]


def test_a_violated_constraint_is_a_failure_but_to_searchers_that_learn_from_it(desk):
    limited = Objectives.parse("accuracy", "max", "latency <= 20")
    trial = Trial(0, {"x": 0.1}, status=Status.FINISHED)
    trial.point = limited.point({"accuracy": 0.9, "latency": 21})
    heard = []
    for make in (Heard, HeardOfConstraints):
        one = desk(make(), limited)
        one.tell(trial)
        heard += one.searcher.heard
    assert heard == [(0, {"x": 0.1}, None), (0, {"x": 0.1}, 0.9, (1.0,))]


def test_the_searcher_is_asked_which_trials_it_may_need(desk):
    one = desk(Heard())
    assert [one.may_need(trial_id) for trial_id in (2, 3)] == [False, True]
