"""Parts of a data set are disjoint, and depend on the seed alone; images change as was asked."""

from __future__ import annotations

import pytest

from distsearch.data import (
    facts_of,
    halves,
    permutation,
    shard,
    split,
)
from distsearch.errors import OptionError

torch = pytest.importorskip("torch")
augment = pytest.importorskip("distsearch.data.augment")


def test_halves_are_disjoint_equally_long_and_the_same_for_the_same_seed():
    one, other = halves(101, seed=3)
    assert len(one) == len(other) == 50
    assert len({*one.tolist(), *other.tolist()}) == 100
    assert torch.equal(one, halves(101, seed=3)[0])
    assert not torch.equal(one, halves(101, seed=4)[0])


def test_parts_have_the_fractions_that_were_asked_for():
    parts = split(10, (0.5, 0.3, 0.2), seed=0)
    assert [len(part) for part in parts] == [5, 3, 2]
    assert sorted(torch.cat(parts).tolist()) == list(range(10))
    with pytest.raises(OptionError, match=r"\(0.9, 0.2\)"):
        split(10, (0.9, 0.2), seed=0)


def test_the_shards_of_all_ranks_are_disjoint_and_of_one_length():
    shards = [shard(permutation(11, 1, 2), rank, 3) for rank in range(3)]
    assert [len(part) for part in shards] == [3, 3, 3]
    assert len(set(torch.cat(shards).tolist())) == 9


def test_standard_pixels_have_mean_0_and_deviation_1():
    images = torch.randint(0, 256, (50, 3, 6, 6), dtype=torch.uint8)
    images[:, 2] = 7  # without any contrast
    floats = augment.Standard(images)(images)
    assert torch.allclose(floats.mean((0, 2, 3)), torch.zeros(3), atol=1e-4)
    assert torch.allclose(floats[:, :2].std((0, 2, 3)), torch.ones(2), atol=1e-2)


def test_a_crop_moves_an_image_by_at_most_its_padding():
    image = torch.zeros(200, 1, 9, 9)
    image[:, :, 4, 4] = 1
    moved = augment.Augmentation(crop=2)(image, torch.Generator().manual_seed(0))
    _, _, rows, columns = moved.nonzero(as_tuple=True)
    assert len(rows) == 200
    assert {*rows.tolist()} == {*columns.tolist()} == {2, 3, 4, 5, 6}


def test_half_of_the_images_are_flipped():
    image = torch.arange(4.0).expand(400, 1, 4, 4)
    turned = (
        augment.Augmentation(flip=True)(image, torch.Generator().manual_seed(0))[:, 0, 0, 0] == 3
    )
    assert 150 < turned.sum() < 250


def test_cutout_takes_a_square_and_less_of_it_at_the_edge():
    cut = (
        augment.Augmentation(cutout=4)(torch.ones(300, 2, 8, 8), torch.Generator().manual_seed(0))
        == 0
    )
    holes = cut[:, 0].sum((1, 2))
    assert torch.equal(cut[:, 0], cut[:, 1])
    assert holes.max() == 16
    assert holes.min() == 4  # around a corner pixel


def test_digits_are_not_flipped():
    assert augment.usual(facts_of("digits")) == augment.Augmentation()
