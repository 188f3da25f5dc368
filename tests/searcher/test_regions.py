"""The tree of regions."""

from __future__ import annotations

import math

import numpy as np
import pytest

from distsearch.searcher.linear import Linear
from distsearch.searcher.places import Places
from distsearch.searcher.regions import Region, grow, upper_bound, with_worst
from distsearch.space import Choice, Dict

NAN = math.nan


class Above:
    """A split at a value of the first column."""

    def __init__(self, value):
        self.value = value

    def is_good(self, rows):
        return rows[:, 0] > self.value


def at_the_mean(rows, scores):
    return Above(rows[:, 0].mean())


def line(count):
    return (np.arange(count) / count)[:, None]


def grown(count=16, height=2, least=1, scores=None, splitter=at_the_mean):
    rows = line(count)
    scores = rows[:, 0] if scores is None else scores
    return grow(rows, scores, splitter, height=height, least=least)


def test_a_tree_has_at_most_as_many_splits_on_a_path_as_its_height():
    for height, regions in ((0, 1), (1, 3), (2, 7)):
        assert len(grown(height=height).regions) == regions


def test_with_too_few_results_for_its_height_a_tree_is_lower():
    assert len(grown(16, height=8, least=4).leaves) == 4
    assert len(grown(7, height=8, least=4).regions) == 1


def test_a_region_in_which_all_is_the_same_stays_whole():
    assert len(grown(scores=np.zeros(16)).regions) == 1


def test_every_row_lies_in_the_one_leaf_whose_inequalities_it_meets():
    tree = grown()
    rows = np.random.default_rng(0).random((50, 1))
    found = tree.leaves_of(rows)
    for leaf in tree.leaves:
        assert (leaf.contains(rows) == (found == leaf.number)).all()
    assert set(found) == {0, 1, 2, 3}


def test_what_failed_is_the_worst_of_each_region():
    seen = {}

    def splitter(rows, scores):
        seen[len(rows)] = scores
        return Above(rows[:, 0].mean())

    scores = np.array([3.0, 4, 1, 2, 7, 8, -math.inf, 6])
    grown(8, scores=scores, splitter=splitter)
    assert seen[8].tolist() == [3, 4, 1, 2, 7, 8, 1, 6]
    assert seen[4].tolist() in ([3, 4, 1, 2], [7, 8, 6, 6])
    assert with_worst(np.array([-math.inf])).tolist() == [0.0]


def test_results_and_running_trials_are_counted_up_to_the_root():
    tree = grown(height=1)
    leaves = tree.leaves_of(np.array([[0.1], [0.2], [0.9], [0.8]]))
    tree.count(leaves, np.array([1.0, NAN, 5.0, 2.0]))
    good, bad = tree.root.parts
    assert (good.visits, good.results, good.mean) == (2, 2, 3.5)
    assert (bad.visits, bad.results, bad.mean) == (2, 1, 1.0)
    assert (tree.root.visits, tree.root.results, tree.root.total) == (4, 3, 8.0)


def test_a_failed_trial_counts_in_its_leaf_as_the_worst_there():
    tree = grown(height=1)
    leaves = tree.leaves_of(np.array([[0.9], [0.8], [0.1]]))
    tree.count(leaves, np.array([5.0, -math.inf, 1.0]))
    assert tree.root.parts[0].mean == 5.0
    assert tree.root.parts[0].results == 2


def test_the_bound_of_a_region_worked_by_hand():
    root = Region(visits=20)
    part = Region(parent=root, visits=5, results=5, total=2.0)
    assert upper_bound(part, 0.1) == pytest.approx(0.4 + 0.2 * math.sqrt(2 * math.log(20) / 5))
    assert upper_bound(Region(parent=root), 0.1) == math.inf


def test_the_path_leads_to_the_better_leaf_and_trials_under_way_send_others_elsewhere():
    tree = grown(height=1)
    rng = np.random.default_rng(0)
    rows = np.array([[0.9], [0.1]])
    tree.count(tree.leaves_of(rows), np.array([1.0, 0.5]))
    good, bad = tree.root.parts
    assert tree.choose(0.1, rng) is good
    crowded = np.concatenate([rows, np.full((30, 1), 0.9)])
    tree.count(tree.leaves_of(crowded), np.array([1.0, 0.5, *[NAN] * 30]))
    assert tree.choose(0.5, rng) is bad


def test_where_nobody_has_been_is_looked_first_and_equals_are_chosen_at_random():
    tree = grown(height=1)
    good, bad = tree.root.parts
    tree.count(np.array([good.number]), np.array([1.0]))
    assert tree.choose(0.1, np.random.default_rng(0)) is bad
    tree.count(np.array([good.number, bad.number]), np.array([1.0, 1.0]))
    chosen = {tree.choose(0.1, np.random.default_rng(seed)).number for seed in range(20)}
    assert chosen == {good.number, bad.number}


def test_leaves_of_which_nothing_is_left_are_passed_over_until_none_remains():
    tree = grown()
    tree.count(tree.leaves_of(line(16)), line(16)[:, 0])
    closed, rng = [], np.random.default_rng(0)
    while (leaf := tree.choose(0.1, rng, closed)) is not None:
        assert leaf not in closed
        closed.append(leaf)
    assert len(closed) == 4


def test_a_linear_split_is_where_it_predicts_the_mean_and_learns_from_both_sides():
    """The published regressors never left their start, so that almost all samples were good."""
    space = Dict(**{f"op{n}": Choice(*"abc") for n in range(6)})
    places = Places(space)
    rows = places.draw(np.random.default_rng(0), 400)
    scores = (rows == 1).sum(axis=1) - (rows == 2).sum(axis=1).astype(float)
    split = Linear.fit(places, rows, scores, ridge=0.15)
    good = split.is_good(rows)
    assert 0.3 < good.mean() < 0.7
    assert scores[good].min() > scores[~good].max() - 1e-9
    assert np.corrcoef(split.predict(rows), scores)[0, 1] > 0.999


def test_predictions_are_the_same_to_the_last_bit_however_many_rows_there_are():
    space = Dict(**{f"op{n}": Choice(*"abcde") for n in range(9)})
    places = Places(space)
    rows = places.draw(np.random.default_rng(0), 300)
    split = Linear.fit(places, rows[:40], rows[:40].sum(axis=1), ridge=0.15)
    whole = split.predict(rows)
    assert whole.tolist() == [split.predict(row[None])[0] for row in rows]
