"""LaNAS behind ask and tell."""

from __future__ import annotations

import math
import threading

import numpy as np
import pytest

import distsearch as ag
from distsearch.errors import OptionError, SpaceError, StoreError
from distsearch.scheduler import FIFOScheduler, HyperbandScheduler
from distsearch.searcher import LaNASSearcher, RandomSearcher
from distsearch.searcher.random import key
from distsearch.space import Choice, Dict, Real

CELLS = Dict(**{f"op{n}": Choice("none", "skip", "conv", "pool") for n in range(6)})  # 4,096
WIDE = Dict(**{f"op{n}": Choice(*"abcdefgh") for n in range(12)})  # 8 ** 12


def accuracy(config):
    """Convolutions help, the more the deeper, and nothing at all spoils it."""
    values = list(config.values())
    found = sum((n + 1) * (value in ("conv", "c")) for n, value in enumerate(values))
    return found - 3 * values.count("none") - 3 * values.count("a")


BEST = accuracy({f"op{n}": "conv" for n in range(6)})


def lanas(space=CELLS, **options):
    return LaNASSearcher(space, **{"points_to_evaluate": [], "seed": 1, "first": 30, **options})


class Noted(LaNASSearcher):
    """One that notes the leaf of the latest suggestion."""

    def suggest_in(self, leaf, rng):
        self.leaf = leaf
        return super().suggest_in(leaf, rng)


def told(searcher, count, start=0, reward=accuracy):
    """Let it suggest and hear so many times; the configurations."""
    found = []
    for number in range(start, start + count):
        config = searcher.ask(number)
        searcher.tell(number, config, reward(config))
        found.append(config)
    return found


def evaluations_to_the_best(searcher, most=1000):
    for number in range(most):
        config = searcher.ask(number)
        if accuracy(config) == BEST:
            return number + 1
        searcher.tell(number, config, accuracy(config))
    return most


def test_it_finds_the_best_of_a_space_in_a_small_part_of_the_evaluations_of_random_search():
    found = [evaluations_to_the_best(lanas(seed=seed)) for seed in range(3)]
    random = [
        evaluations_to_the_best(RandomSearcher(CELLS, seed=seed, points_to_evaluate=[]))
        for seed in range(3)
    ]
    assert max(found) < 120
    assert np.median(random) > 800


def test_the_papers_uniform_draw_from_the_chosen_leaf_finds_it_too():
    assert max(evaluations_to_the_best(lanas(seed=seed, drawn=1)) for seed in range(2)) < 300


def test_without_a_pool_it_draws_from_the_space_by_rejection():
    searcher = lanas(WIDE)
    assert searcher.pool is None
    begin = np.mean([accuracy(one) for one in told(searcher, 30)])
    later = [accuracy(one) for one in told(searcher, 90, 30)]
    assert np.mean(later[-20:]) > begin + 25


def test_every_suggestion_lies_in_the_leaf_that_was_chosen():
    for space in (CELLS, WIDE):
        searcher = Noted(space, points_to_evaluate=[], seed=1, first=30)
        told(searcher, 60)
        for number in range(60, 70):
            config = searcher.ask(number)
            row = searcher.places.row(config)[None]
            assert searcher.leaf.contains(row).all()


def test_suggestions_side_by_side_are_spread_by_those_that_run():
    searcher = Noted(CELLS, points_to_evaluate=[], seed=1, first=30, exploration=5.0)
    told(searcher, 60)
    leaves = set()
    for number in range(60, 124):
        searcher.ask(number)
        leaves.add(searcher.leaf.number)
    assert len(leaves) > 2


def test_from_a_pool_nothing_else_is_suggested_and_each_once_until_it_is_used_up():
    codes = np.unique(np.random.default_rng(0).integers(4, size=(80, 6)), axis=0).astype(np.uint8)
    searcher = LaNASSearcher(CELLS, pool=codes, first=10, seed=3)
    found = told(searcher, len(codes))
    names = CELLS.parameters["op0"].choices
    assert sorted([names.index(v) for v in one.values()] for one in found) == codes.tolist()
    assert searcher.ask(len(codes)) is None


def test_a_leaf_that_is_used_up_costs_nothing_more_with_hundreds_under_way():
    searcher = lanas(first=20)
    told(searcher, 60)
    asked = [searcher.ask(number) for number in range(60, 460)]
    assert len({key(one) for one in asked}) == 400


def test_a_large_pool_is_searched_without_looking_through_all_of_it_each_time(tmp_path):
    codes = np.random.default_rng(0).integers(8, size=(150_000, 12), dtype=np.uint8)
    np.save(tmp_path / "pool.npy", np.unique(codes, axis=0))
    options = {"pool": str(tmp_path / "pool.npy"), "first": 30, "seed": 1}
    searcher, again = LaNASSearcher(WIDE, **options), LaNASSearcher(WIDE, **options)
    found = told(searcher, 90)
    assert np.mean([accuracy(one) for one in found[-20:]]) > 20
    assert told(again, 90) == found


def test_failed_trials_are_the_worst_of_their_region_and_it_leaves_it():
    def fails_with_pool(config):
        return None if config["op5"] == "pool" else accuracy(config)

    found = told(lanas(), 120, reward=fails_with_pool)
    assert sum(one["op5"] == "pool" for one in found[:30]) > 2
    assert sum(one["op5"] == "pool" for one in found[-30:]) <= 2


@pytest.mark.parametrize("reward", [None, math.nan, math.inf, -math.inf])
def test_a_search_in_which_all_fails_goes_on_at_random(reward):
    found = told(lanas(), 60, reward=lambda config: reward)
    assert len({key(one) for one in found}) == 60


def test_it_learns_from_what_trials_reach_at_rungs():
    searcher = lanas(first=20)
    for number in range(40):
        config = searcher.ask(number)
        searcher.observe(number, config, accuracy(config) - 100, 1)
        searcher.tell(number, config, accuracy(config) - 100)
    assert np.mean([accuracy(searcher.ask(number)) for number in range(40, 50)]) > 5


def under_way(count, running):
    """The order of a search with so many at once: (is it a result?, number of the trial)."""
    rng = np.random.default_rng(0)
    asked, open_, order = 0, [], []
    while asked < count:
        while len(open_) < running:
            order.append((False, asked))
            open_.append(asked)
            asked += 1
        order.append((True, open_.pop(rng.integers(running))))
    return order


@pytest.mark.parametrize("running", [2, 16])
def test_a_search_with_several_under_way_is_replayed_bit_for_bit_from_anywhere(running):
    options = {"first": 12, "rebuild_every": 6, "points_to_evaluate": [{}]}
    searcher, asked = lanas(**options), {}
    order = under_way(90, running)
    for is_result, number in order:
        if is_result:
            searcher.tell(number, asked[number], accuracy(asked[number]))
        else:
            asked[number] = searcher.ask(number)
    for cut in range(20, len(order), 23):
        resumed = lanas(**options)
        for place, (is_result, number) in enumerate(order):
            if is_result:
                resumed.tell(number, asked[number], accuracy(asked[number]))
            elif place < cut:
                assert resumed.replay(number, asked[number])
            else:
                assert resumed.ask(number) == asked[number]
        assert resumed.overview() == searcher.overview()


def test_suggestions_go_on_from_the_tree_before_while_one_grows():
    class Held(LaNASSearcher):
        def split(self, rows, scores):
            assert may_grow.wait(60)
            return super().split(rows, scores)

    may_grow, asked, known = threading.Event(), [], 0
    searcher = Held(CELLS, points_to_evaluate=[], first=30, rebuild_every=10, seed=1)

    def hear(count):
        nonlocal known
        for number in range(known, known + count):
            searcher.tell(number, asked[number], accuracy(asked[number]))
        known += count

    def ask(count):
        for number in range(len(asked), len(asked) + count):
            asked.append(searcher.ask(number))

    ask(46)
    hear(15)  # half of the first trials; the others run
    ask(2)
    assert searcher.overview() == []
    ask(1)  # the last of an eighth of the 31 that are under way
    may_grow.set()
    ask(1)
    assert len(searcher.overview()) > 1
    may_grow.clear()
    ask(7)
    hear(10)
    before = [one.depth for one in searcher.overview()]
    ask(3)
    assert [one.depth for one in searcher.overview()] == before
    ask(1)  # the last of an eighth of those that are under way
    may_grow.set()
    ask(1)
    assert [one.depth for one in searcher.overview()] != before


def test_an_error_while_a_tree_grows_is_raised_by_the_suggestion_that_needs_it():
    class Broken(LaNASSearcher):
        def split(self, rows, scores):
            raise ValueError("it does not split")

    searcher = Broken(CELLS, points_to_evaluate=[], first=20)
    told(searcher, 21)
    with pytest.raises(ValueError, match="it does not split"):
        searcher.ask(21)


def test_the_overview_tells_each_region_its_trials_and_the_path_of_the_highest_bounds():
    searcher = lanas()
    assert searcher.overview() == []
    told(searcher, 70)
    searcher.ask(70)
    regions = searcher.overview()
    root, chosen = regions[0], [one for one in regions if one.is_chosen]
    assert (root.depth, root.side, root.trials, root.running) == (0, None, 70, 1)
    assert [one.depth for one in chosen] == list(range(len(chosen)))
    assert chosen[-1].is_leaf
    good, bad = regions[1], next(one for one in regions if one.depth == 1 and one.side is False)
    assert good.side and good.mean > root.mean > bad.mean
    assert good.trials + bad.trials == 70


def test_fewer_results_than_the_tree_is_high_make_a_lower_tree():
    searcher = lanas(first=5, height=8, least=2)
    told(searcher, 6)
    assert max(one.depth for one in searcher.overview()) <= 2
    assert CELLS.validate(searcher.ask(6))


@pytest.mark.parametrize(
    ("options", "says"),
    [
        ({"first": 1}, "first=1, but it must be 2 or more"),
        ({"rebuild_every": 0}, "rebuild_every=0"),
        ({"height": -1}, "height=-1"),
        ({"least": 0}, "least=0"),
        ({"exploration": -0.1}, r"exploration=-0\.1"),
        ({"exploration": math.nan}, "exploration=nan"),
        ({"drawn": 0}, "drawn=0"),
        ({"ridge": 0}, "ridge=0"),
    ],
)
def test_settings_that_make_no_sense_are_refused(options, says):
    with pytest.raises(OptionError, match=says):
        lanas(**options)


def test_a_wrong_pool_is_refused_before_the_search_begins():
    with pytest.raises(SpaceError, match="no rows"):
        lanas(pool=np.zeros((0, 6), dtype=int))


# In a search


@ag.args(**CELLS)
def train_fn(args, reporter):
    ops = {name: args[name] for name in sorted(args)}
    for epoch in (1, 2, 3):
        reporter(epoch=epoch, accuracy=accuracy(ops) * epoch)


def test_a_search_is_resumed_with_the_pool_that_its_options_name(tmp_path):
    np.save(tmp_path / "pool.npy", np.unique(np.indices((4,) * 6).reshape(6, -1).T % 3, axis=0))
    node = ag.Node("localhost", num_cpus=2)
    for number in (14, 30):
        with FIFOScheduler(
            train_fn,
            searcher="lanas",
            search_options={"pool": str(tmp_path / "pool.npy"), "first": 8, "rebuild_every": 4},
            checkpoint=str(tmp_path / "run"),
            local=node,
            verbose=0,
        ) as scheduler:
            scheduler.run(num_trials=number)
            assert scheduler.join_jobs(timeout=60)
            configs = [trial.config for trial in scheduler.trials]
    assert len({key(config) for config in configs}) == 30
    assert all("pool" not in config.values() for config in configs)


def test_a_search_goes_on_with_the_same_pool_in_whatever_form_and_with_no_other(tmp_path):
    codes = np.unique(np.random.default_rng(0).integers(4, size=(40, 6)), axis=0)
    np.save(tmp_path / "pool.npy", codes.astype(np.uint8))

    def search(pool):
        options = {"searcher": "lanas", "search_options": {"pool": pool}, "num_trials": 1}
        return FIFOScheduler(train_fn, checkpoint=str(tmp_path / "run"), verbose=0, **options)

    with search(codes) as scheduler:
        scheduler.run()
        assert scheduler.join_jobs(timeout=60)
    search(str(tmp_path / "pool.npy")).close()
    with pytest.raises(StoreError, match=r"pool: '40 rows, .* -> '40 rows, "):
        search(codes[::-1])


def test_under_promotion_hopeless_trials_are_not_trained_whole(tmp_path):
    with HyperbandScheduler(
        train_fn,
        searcher="lanas",
        search_options={"first": 8, "rebuild_every": 4},
        type="promotion",
        max_t=3,
        grace_period=1,
        checkpoint=str(tmp_path / "run"),
        local=ag.Node("localhost", num_cpus=2),
        verbose=0,
    ) as scheduler:
        scheduler.run(num_trials=24)
        assert scheduler.join_jobs(timeout=60)
        epochs = [trial.reports for trial in scheduler.trials]
    assert scheduler.get_best_reward() > 0
    assert sum(epochs) < 60


def test_no_slot_waits_for_a_tree_that_grows(tmp_path):
    """Neither the search's thread nor the one that suggests grows a tree."""
    threads = set()

    class Watched(LaNASSearcher):
        def split(self, rows, scores):
            threads.add(threading.current_thread().name)
            return super().split(rows, scores)

    searcher = Watched(train_fn.space, first=8, rebuild_every=4)
    with FIFOScheduler(
        train_fn, searcher=searcher, local=ag.Node("localhost", num_cpus=2), verbose=0
    ) as scheduler:
        scheduler.run(num_trials=20)
        assert scheduler.join_jobs(timeout=60)
    assert threads == {"distsearch-tree"}


def test_a_continuous_parameter_beside_the_cells_is_drawn_too():
    space = Dict(lr=Real(1e-4, 1e-1, log=True), op=Choice("conv", "pool"))
    searcher = LaNASSearcher(space, first=10, seed=2)

    def reward(config):
        return math.log10(config["lr"]) + (config["op"] == "conv")

    found = told(searcher, 60, reward=reward)
    assert np.mean([reward(one) for one in found[-10:]]) > -1.5
