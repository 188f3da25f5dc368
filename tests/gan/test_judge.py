"""The judge: the Frechet distance, a classifier that is right, and scores that mean something."""

from __future__ import annotations

import numpy as np
import pytest
import torch

from distsearch.gan import judge as judges
from distsearch.gan.examples import Examples, load, scaled
from distsearch.gan.judge import Judge, frechet


def test_the_frechet_distance_is_that_of_normal_distributions():
    one, two = np.eye(3), np.diag([4.0, 9.0, 1.0])
    assert frechet(np.zeros(3), one, np.zeros(3), two) == pytest.approx(1 + 4 + 0)
    assert frechet(np.zeros(3), two, np.ones(3), two) == pytest.approx(3)
    rng = np.random.default_rng(0)
    a, b = rng.normal(size=(500, 4)), rng.normal(size=(500, 4)) @ rng.normal(size=(4, 4))
    roots = np.linalg.eigvals(np.cov(a, rowvar=False) @ np.cov(b, rowvar=False))
    expected = np.square(a.mean(0) - b.mean(0)).sum() - 2 * np.sqrt(roots).sum().real
    expected += np.trace(np.cov(a, rowvar=False)) + np.trace(np.cov(b, rowvar=False))
    ours = frechet(a.mean(0), np.cov(a, rowvar=False), b.mean(0), np.cov(b, rowvar=False))
    assert ours == pytest.approx(expected)


@pytest.fixture(scope="module")
def digits():
    examples = load("digits")
    return examples, Judge.trained(examples)


def test_the_judge_of_digits_is_right_and_knows_the_real_from_noise(digits):
    examples, judge = digits
    assert judge.accuracy > 0.94
    real = judge.score(judge.features(examples.test))
    noise = judge.score(judge.features(torch.rand(1000, 1, 8, 8) * 2 - 1))
    threes = judge.score(judge.features(examples.train[examples.train_labels == 3]))
    assert real.fid < 3 < 50 < noise.fid
    assert real.tvd < 0.05 and threes.tvd == pytest.approx(0.9, abs=0.03)
    assert real.inception_score > 8 and threes.inception_score < 1.5


def test_a_judge_comes_back_from_its_file_as_it_was(digits, tmp_path):
    examples, judge = digits
    judge.save(tmp_path / "judge")
    again = Judge.read(tmp_path / "judge")
    assert again.score(again.features(examples.test)) == judge.score(judge.features(examples.test))
    assert (again.accuracy, again.classes) == (judge.accuracy, judge.classes)


def test_examples_come_back_from_their_file_as_they_were(digits, tmp_path):
    examples, _ = digits
    examples.save(tmp_path / "examples")
    again = Examples.read(tmp_path / "examples")
    assert torch.equal(again.train, examples.train)
    assert torch.equal(again.test_labels, examples.test_labels)
    assert (again.name, again.classes) == ("digits", tuple("0123456789"))
    assert scaled(again.train).amin() == -1 and scaled(again.train).amax() == 1


def test_points_are_judged_by_their_nearest_mode():
    examples = load("circular")
    judge = Judge.trained(examples)
    assert judge.accuracy > 0.99
    one_mode = examples.train[examples.train_labels == 0]
    assert judge.score(judge.features(one_mode)).tvd == pytest.approx(7 / 8, abs=0.02)
    assert judge.score(judge.features(examples.test)).fid < 0.01


def test_images_without_classes_are_judged_by_how_they_are_turned(digits, monkeypatch):
    examples, _ = digits
    nowhere = [torch.full_like(one, -1) for one in (examples.train_labels, examples.test_labels)]
    unlabelled = Examples("photos", (), examples.train, nowhere[0], examples.test, nowhere[1])
    judge = Judge.trained(unlabelled)
    assert judge.accuracy > 0.6
    scores = judge.score(judge.features(examples.test))
    noise = judge.score(judge.features(torch.rand(1000, 1, 8, 8) * 2 - 1))
    assert (scores.tvd, scores.inception_score) == (None, None)
    assert 10 * scores.fid < noise.fid


def test_a_judge_of_small_images_is_trained_in_one_thread(monkeypatch):
    """Several mostly wait for each other: ten times as long on a machine that is busy."""
    seen, train = [], judges._trained
    monkeypatch.setattr(
        judges, "_trained", lambda *given: (seen.append(torch.get_num_threads()), train(*given))[1]
    )
    monkeypatch.setattr(judges, "STEPS", 1)
    before = torch.get_num_threads()
    torch.set_num_threads(2)
    try:
        Judge.trained(load("digits"))
        assert (seen, torch.get_num_threads()) == ([1], 2)
    finally:
        torch.set_num_threads(before)
