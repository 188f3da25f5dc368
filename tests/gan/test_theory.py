"""The smallest GAN: its value, its distance to the truth, and who arrives."""

from __future__ import annotations

import math

import pytest
import torch

from distsearch.gan import theory


def test_the_value_of_the_game_is_that_of_the_probabilities():
    whole = torch.tensor([[-99.0, 0.0, 0.0, 99.0]])
    assert theory.value(torch.tensor([[1.0, 1.0]]), whole).item() == pytest.approx(1)
    right = torch.tensor([[0.0, 0.0, 0.0, 99.0]])  # half of the truth is there
    made = (1 + math.erf(3 / math.sqrt(2))) / 2
    assert theory.value(torch.tensor([[3.0, 3.0]]), right).item() == pytest.approx(1.5 - made)


def test_the_distance_is_0_at_the_truth_in_either_order_and_1_far_away():
    found = theory.total_variation(
        torch.tensor([[-2.0, 2.0], [2.0, -2.0], [6.0, 6.0], [-2.0, -2.0]])
    )
    assert found[:2].tolist() == pytest.approx([0, 0], abs=1e-5)
    assert found[2] > 0.9
    assert 0.4 < found[3] < 0.5, "one of two modes is missing"


def test_gradients_collapse_from_many_starts_and_larger_populations_arrive_from_more():
    ways = {way.name: way for way in theory.WAYS}
    gradient = theory.follow(ways["gradient steps, alternating"], side=6, repeats=2)
    few = theory.follow(ways["(1, 4) coevolution, alternating"], side=6, repeats=2)
    many = theory.follow(ways["(10, 20) coevolution, alternating"], side=6, repeats=2)
    assert gradient.success.shape == (6, 6)
    assert gradient.distance[0, 0] > 0.4, "both means begin left of the truth, and stay together"
    assert many.success.mean() > max(few.success.mean(), gradient.success.mean())
    assert many.success.min() > 0, "wherever it begins"
