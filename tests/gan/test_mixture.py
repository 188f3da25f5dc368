"""Mixtures: exact shares, and weights that never become worse."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distsearch.gan import mixture

weights = st.lists(st.floats(0, 1), min_size=1, max_size=6).filter(lambda w: sum(w) > 0.01)


@given(weights, st.integers(0, 500))
def test_shares_are_whole_add_up_and_are_less_than_one_off(given_weights, count):
    own = np.array(given_weights) / sum(given_weights)
    found = mixture.shares(own, count)
    assert found.sum() == count
    assert (np.abs(found - own * count) < 1).all()


@given(weights, st.integers(0, 99), st.floats(0.001, 2))
def test_mutated_weights_are_weights(given_weights, seed, sigma):
    own = np.array(given_weights) / sum(given_weights)
    found = mixture.mutated(own, sigma, np.random.default_rng(seed))
    assert found.min() >= 0
    assert found.sum() == pytest.approx(1)


@pytest.mark.parametrize("seed", range(5))
def test_evolution_never_worsens_what_is_scored_on_fixed_examples(seed):
    rng = np.random.default_rng(seed)
    goal = rng.dirichlet(np.ones(4))
    scores = []

    def score(one):
        scores.append(float(np.abs(one - goal).sum()))
        return scores[-1]

    begin = mixture.uniform(4)
    _, best = mixture.evolve(begin, score, sigma=0.05, steps=200, rng=rng)
    assert best == min(scores) <= scores[0]
    assert best < 0.2 * scores[0], "and it gets near"


def test_a_mixture_takes_from_each_generator_what_is_its_share():
    features = [np.full((10, 2), n) for n in range(3)]
    mixed = mixture.mixed(features, [5, 0, 2])
    assert mixed[:, 0].tolist() == [0] * 5 + [2] * 2
