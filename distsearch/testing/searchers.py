"""What holds for every searcher, over randomly nested spaces."""

from __future__ import annotations

import json
import math
from collections.abc import Callable
from typing import Any, ClassVar

import numpy as np
import pytest
from hypothesis import HealthCheck, assume, example, given, settings
from hypothesis import strategies as st

from ..errors import SpaceError
from ..searcher import Searcher
from ..searcher.base import config_of
from ..space import Bool, Choice, Dict, Int, Real, Space
from .spaces import spaces

seeds = st.integers(0, 2**32 - 1)
steady = settings(
    deadline=None,
    max_examples=10,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.differing_executors],
)
FINITE = Dict(a=Choice("x", "y", Dict(deep=Bool())), b=Int(1, 3), c=Bool(), fixed=7)
MIXED = Dict(
    lr=Real(1e-4, 1e-1, log=True),
    net=Choice("small", Dict(width=Int(1, 64))),
    wd=Bool(),
    batch=Int(16, 128, log=True, step=16),
)


# Few examples of a recursive strategy are large: half of these have a continuous part for sure.
large = st.builds(lambda one, two: Dict(one=one, x=Real(0.0, 1.0), two=two), spaces, spaces)
any_space = st.one_of(large, spaces)


def key(config: Any) -> str:
    """A configuration that can be compared."""
    return json.dumps(config, sort_keys=True)


def reward_of(config: Any) -> float:
    """Some reward that depends on nothing but the configuration."""
    return len(key(config)) % 17 + sum(ord(letter) for letter in key(config)) % 100 / 100


def ask(searcher: Searcher, trial_id: int) -> Any:
    """The configuration that it suggests, with or without parents; None if there is none."""
    suggested = searcher.ask(trial_id)
    return None if suggested is None else config_of(suggested)


REPEATED = "a configuration came again; if your searcher is to do so, say `repeats = True`"


class SearcherKit:
    """What holds for every searcher; derive a test class of your own from it.

        class TestMySearcher(SearcherKit):
            make = MySearcher

    No trial runs: searchers are asked and told, in all orders that a search may come to, over
    spaces that are drawn by hypothesis. A second or two in all, unless the searcher is slow.

    `make(space, seed=..., points_to_evaluate=...)` makes the searcher; with options of its own it
    is `staticmethod(partial(MySearcher, population=4))`.
    `learns`: whether what it was told may change what it suggests.
    `repeats`: whether it may suggest a configuration again, and so never ends in a finite space.
    """

    make: ClassVar[Callable[..., Searcher]]
    learns: ClassVar[bool] = False
    repeats: ClassVar[bool] = False

    def ask_all(self, searcher: Searcher, count: int) -> list[Any]:
        """So many suggestions, each told its reward at once."""
        found = []
        for trial_id in range(count):
            config = ask(searcher, trial_id)
            if config is None:
                break
            found.append(config)
            searcher.tell(trial_id, config, reward_of(config))
        return found

    def is_exhaustive(self) -> bool:
        """Whether the searcher lists the space instead of drawing from it."""
        return False

    @given(any_space, seeds)
    @example(MIXED, 0)
    @example(FINITE, 0)
    @steady
    def test_every_suggestion_is_inside_the_space(self, space: Space, seed: int) -> None:
        for config in self.ask_all(self.make(space, seed=seed), 12):
            assert space.validate(config) == config
            assert json.loads(key(config)) == json.loads(key(dict(config)))
            space.build(config)

    @given(any_space, seeds)
    @example(MIXED, 0)
    @example(FINITE, 0)
    @steady
    def test_the_given_points_come_first_in_their_order(self, space: Space, seed: int) -> None:
        points = [space.sample(np.random.default_rng(seed + n)) for n in range(3)]
        searcher = self.make(space, seed=seed, points_to_evaluate=points)
        assert [ask(searcher, n) for n in range(3)] == points

    def test_points_may_be_given_in_part(self) -> None:
        searcher = self.make(MIXED, seed=0, points_to_evaluate=[{"lr": 0.01}, {"net": "dict"}])
        assert ask(searcher, 0) == {**MIXED.default, "lr": 0.01}
        assert ask(searcher, 1) == MIXED.validate({"net": "dict"})

    def test_a_given_point_outside_the_space_is_refused_at_once(self) -> None:
        with pytest.raises(SpaceError, match="lr"):
            self.make(MIXED, seed=0, points_to_evaluate=[{"lr": 7}])
        with pytest.raises(SpaceError, match="no parameter 'lrr'"):
            self.make(MIXED, seed=0, points_to_evaluate=[{"lrr": 0.01}])

    @given(any_space, seeds)
    @example(MIXED, 0)
    @example(FINITE, 0)
    @steady
    def test_the_same_seed_and_results_give_the_same_suggestions(
        self, space: Space, seed: int
    ) -> None:
        first = self.ask_all(self.make(space, seed=seed), 10)
        assert self.ask_all(self.make(space, seed=seed), 10) == first

    def test_another_seed_gives_other_suggestions_or_the_searcher_is_exhaustive(self) -> None:
        runs = [self.ask_all(self.make(MIXED, seed=seed), 20) for seed in range(3)]
        firsts = {key(run) for run in runs}
        assert len(firsts) == 3 or self.is_exhaustive()

    @given(spaces, seeds)
    @example(Int(0, 39), 0)
    @steady
    def test_a_finite_space_is_suggested_once_each_and_then_nothing(
        self, space: Space, seed: int
    ) -> None:
        if self.repeats:
            pytest.skip("it may suggest a configuration again")
        assume(space.size <= 40)
        searcher = self.make(space, seed=seed, points_to_evaluate=[])
        found = self.ask_all(searcher, 60)
        assert len(found) == len(set(map(key, found))), REPEATED
        assert len(found) == space.size
        assert ask(searcher, len(found) + 1) is None
        assert ask(searcher, len(found) + 2) is None

    def test_given_points_of_a_finite_space_are_not_suggested_again(self) -> None:
        if self.repeats:
            pytest.skip("it may suggest a configuration again")
        points = [{"b": 3}, {"a": "y", "c": True}]
        found = self.ask_all(self.make(FINITE, seed=1, points_to_evaluate=points), 100)
        assert len(found) == len(set(map(key, found))), REPEATED
        assert len(found) == FINITE.size

    @given(seeds, st.permutations(range(8)))
    @steady
    def test_the_order_in_which_results_arrive_changes_nothing_unless_it_learns(
        self, seed: int, order: list[int]
    ) -> None:
        searchers = self.make(MIXED, seed=seed), self.make(MIXED, seed=seed)
        asked = [[ask(searcher, n) for n in range(8)] for searcher in searchers]
        assert asked[0] == asked[1]  # 8 outstanding: nothing is told yet
        for number in range(8):
            searchers[0].tell(number, asked[0][number], reward_of(asked[0][number]))
        for number in order:
            searchers[1].tell(number, asked[1][number], reward_of(asked[1][number]))
        if not self.learns:
            assert [ask(searchers[0], n) for n in range(8, 12)] == [
                ask(searchers[1], n) for n in range(8, 12)
            ]

    @given(seeds, st.lists(st.sampled_from(["ask", "tell", "fail"]), max_size=40))
    @steady
    def test_a_replay_of_asks_and_tells_leads_to_the_same_next_suggestion(
        self, seed: int, happenings: list[str]
    ) -> None:
        searcher = self.make(MIXED, seed=seed)
        log: list[tuple[Any, ...]] = []
        open_trials: list[tuple[int, Any]] = []
        for what in happenings:
            if what == "ask":
                trial_id = sum(1 for event in log if event[0] == "ask")
                config = ask(searcher, trial_id)
                if config is None:
                    continue
                log.append(("ask", trial_id, config))
                open_trials.append((trial_id, config))
            elif open_trials:
                trial_id, config = open_trials.pop(len(log) % len(open_trials))
                reward = reward_of(config) if what == "tell" else None
                searcher.tell(trial_id, config, reward)
                log.append(("tell", trial_id, json.loads(key(config)), reward))
        replayed = self.make(MIXED, seed=seed)
        for event in log:
            if event[0] == "ask":
                assert ask(replayed, event[1]) == event[2]
            else:
                replayed.tell(*event[1:])
        next_id = sum(1 for event in log if event[0] == "ask")
        assert [ask(replayed, next_id + n) for n in range(3)] == [
            ask(searcher, next_id + n) for n in range(3)
        ]

    @given(seeds, st.lists(st.integers(0, 3), min_size=24, max_size=24))
    @example(0, [int(trial in (13, 18, 20, 21)) for trial in range(24)])
    @steady
    def test_a_replay_with_rewards_at_rungs_leads_to_the_same_next_suggestion(
        self, seed: int, reached: list[int]
    ) -> None:
        """Each trial reaches so many rungs; the last one is a whole training."""
        searcher, replayed = self.make(MIXED, seed=seed), self.make(MIXED, seed=seed)
        for trial_id, rungs in enumerate(reached):
            config = ask(searcher, trial_id)
            assert replayed.replay(trial_id, json.loads(key(config)))
            for time in (1, 3, math.inf)[:rungs]:
                for one in (searcher, replayed):
                    one.observe(trial_id, config, reward_of(config) + min(time, 9), time)
                    one.tell(trial_id, config, reward_of(config) + min(time, 9))
        asked = [ask(searcher, 24 + number) for number in range(3)]
        assert asked == [ask(replayed, 24 + number) for number in range(3)]
        assert all(MIXED.validate(config) == config for config in asked)

    @pytest.mark.parametrize("reward", [None, math.nan, -math.inf, math.inf, 1e300, 0.0])
    def test_it_survives_whatever_becomes_of_its_trials(self, reward: float | None) -> None:
        searcher = self.make(MIXED, seed=3)
        for trial_id in range(20):
            config = ask(searcher, trial_id)
            assert MIXED.validate(config) == config
            searcher.tell(trial_id, config, reward)

    def test_16_outstanding_trials_are_suggested_without_waiting_and_are_not_all_one(self) -> None:
        searcher = self.make(MIXED, seed=5)
        asked = [ask(searcher, trial_id) for trial_id in range(16)]
        assert None not in asked
        assert len(set(map(key, asked))) >= 12
        for trial_id in range(16):
            searcher.tell(trial_id, asked[trial_id], reward_of(asked[trial_id]))
        asked += [ask(searcher, trial_id) for trial_id in range(16, 32)]
        assert len(set(map(key, asked))) >= 24

    @given(seeds)
    @steady
    def test_what_became_of_others_may_be_told_before_the_first_suggestion(self, seed: int) -> None:
        searcher, again = (self.make(MIXED, seed=seed, points_to_evaluate=[{}]) for _ in range(2))
        for number in range(12):
            config = MIXED.sample(np.random.default_rng(number))
            for one in (searcher, again):
                one.tell(-1 - number, config, reward_of(config) if number % 3 else None)
        assert ask(searcher, 0) == ask(again, 0) == MIXED.default
        asked = [ask(searcher, number) for number in range(1, 8)]
        assert asked == [ask(again, number) for number in range(1, 8)]
        assert all(MIXED.validate(config) == config for config in asked)

    def test_a_paused_trial_may_be_told_again_with_more(self) -> None:
        searcher = self.make(MIXED, seed=7)
        for trial_id in range(20):
            config = ask(searcher, trial_id)
            assert MIXED.validate(config) == config
            for reward in (0.1, None if trial_id % 5 == 4 else 0.2 + trial_id):
                searcher.tell(trial_id, json.loads(key(config)), reward)

    @given(seeds)
    @steady
    def test_resuming_takes_note_of_what_was_suggested_and_goes_on_from_there(
        self, seed: int
    ) -> None:
        searcher = self.make(MIXED, seed=seed)
        log: list[tuple[Any, ...]] = []
        for trial_id in range(14):
            log.append((trial_id, ask(searcher, trial_id)))
            if trial_id % 2:
                told = log[trial_id // 2]
                log[trial_id // 2] = (*told, reward_of(told[1]))
                searcher.tell(*log[trial_id // 2])
        resumed = self.make(MIXED, seed=seed)
        for trial_id in range(14):
            assert resumed.replay(trial_id, json.loads(key(log[trial_id][1])))
            if trial_id % 2:
                resumed.tell(*log[trial_id // 2])
        assert [ask(resumed, 14), ask(resumed, 15)] == [ask(searcher, 14), ask(searcher, 15)]

    def test_trials_of_the_user_that_it_did_not_suggest_are_survived(self) -> None:
        searcher = self.make(MIXED, seed=5)
        searcher.tell(0, MIXED.default, 0.5)
        assert MIXED.validate(ask(searcher, 1)) is not None

    def test_what_it_suggested_may_be_changed_by_its_user(self) -> None:
        searcher, untouched = self.make(FINITE, seed=2), self.make(FINITE, seed=2)
        for trial_id in range(5):
            config, expected = ask(searcher, trial_id), ask(untouched, trial_id)
            assert config == expected
            dict(config).clear()
            if isinstance(config, dict):
                config.clear()
        assert FINITE.default  # a space is not changed through what it gave


def rewards_of(config: Any) -> tuple[float, float]:
    """Two rewards that are at odds."""
    return reward_of(config), -len(key(config)) - reward_of(config) % 1


class SeveralObjectivesKit:
    """What holds besides for searchers that learn from several objectives.

        class TestMySearcherOfSeveral(SeveralObjectivesKit):
            make = MySearcher

    `make` as in `SearcherKit`. `suggestions`: how many a test asks for, fewer for slow searchers.
    """

    make: ClassVar[Callable[..., Searcher]]
    suggestions: ClassVar[int] = 14

    def made(self, seed: int, constraints: int = 0, space: Space = MIXED) -> Searcher:
        """A searcher that knows of two objectives, and so many constraints."""
        searcher = self.make(space, seed=seed)
        searcher.aim(2, constraints)
        return searcher

    def tell(self, searcher: Searcher, trial_id: int, config: Any, constraints: int = 0) -> None:
        """Tell two rewards, and by how much each constraint is violated."""
        config = json.loads(key(config))
        violations = tuple(reward_of(config) - 9 - n for n in range(constraints))
        more = (violations,) if violations and searcher.constrained else ()
        searcher.tell(trial_id, config, rewards_of(config), *more)

    def test_the_same_seed_and_results_give_the_same_suggestions(self) -> None:
        for constraints in (0, 2):
            runs = []
            for _ in range(2):
                searcher = self.made(4, constraints)
                found: list[Any] = []
                for trial_id in range(self.suggestions):
                    found.append(ask(searcher, trial_id))
                    assert MIXED.validate(found[-1]) == found[-1]
                    self.tell(searcher, trial_id, found[-1], constraints)
                runs.append(found)
            assert runs[0] == runs[1]
            assert len(set(map(key, runs[0]))) >= 0.75 * self.suggestions

    @pytest.mark.parametrize("constraints", [0, 1])
    def test_resuming_takes_note_of_what_was_suggested_and_goes_on_from_there(
        self, constraints: int
    ) -> None:
        searcher = self.made(6, constraints)
        configs: list[Any] = []
        for trial_id in range(self.suggestions):
            configs.append(ask(searcher, trial_id))
            if trial_id % 2:
                self.tell(searcher, trial_id // 2, configs[trial_id // 2], constraints)
        resumed = self.made(6, constraints)
        for trial_id in range(self.suggestions):
            assert resumed.replay(trial_id, json.loads(key(configs[trial_id])))
            if trial_id % 2:
                self.tell(resumed, trial_id // 2, configs[trial_id // 2], constraints)
        after = [self.suggestions, self.suggestions + 1]
        assert [ask(resumed, n) for n in after] == [ask(searcher, n) for n in after]

    def test_several_rewards_are_told_again_when_a_paused_trial_ends_and_failures_too(self) -> None:
        searcher = self.made(7, constraints=1)
        for trial_id in range(self.suggestions):
            config = ask(searcher, trial_id)
            assert MIXED.validate(config) == config
            self.tell(searcher, trial_id, config, constraints=1)
            if trial_id % 3 == 1:
                self.tell(searcher, trial_id, config, constraints=1)
            if trial_id % 3 == 2:
                searcher.tell(trial_id, config, None)

    @pytest.mark.parametrize("rewards", [(0.0, 0.0), (1e300, -1e300), (1e-300, 5.0), None])
    def test_it_survives_whatever_becomes_of_its_trials(
        self, rewards: tuple[float, float] | None
    ) -> None:
        searcher = self.made(3)
        for trial_id in range(self.suggestions):
            config = ask(searcher, trial_id)
            assert MIXED.validate(config) == config
            searcher.tell(trial_id, config, rewards)

    def test_a_finite_space_is_suggested_once_each_and_then_nothing(self) -> None:
        space = Dict(a=Choice("x", Dict(deep=Bool())), b=Int(1, 3))
        searcher = self.made(1, space=space)
        found: list[Any] = []
        while (config := ask(searcher, len(found))) is not None:
            found.append(config)
            self.tell(searcher, len(found) - 1, config)
        assert len(found) == len(set(map(key, found))) == space.size
