"""Pools of configurations."""

from __future__ import annotations

import tracemalloc

import numpy as np
import pytest

from distsearch.errors import SpaceError
from distsearch.searcher.linear import Linear
from distsearch.searcher.places import Places
from distsearch.searcher.pool import Pool
from distsearch.space import Bool, Choice, Dict, Int, Real

SPACE = Dict(op=Choice("conv", "pool", "skip"), depth=Int(2, 8, step=2), wide=Bool())
NESTED = Dict(net=Choice("small", Dict(width=Int(1, 4))), wide=Bool())


def configs(space, pool):
    places = Places(space)
    return [places.config(row) for row in pool.rows(np.arange(len(pool)))]


def test_a_row_has_the_number_of_each_option_and_the_steps_above_the_lowest_value():
    pool = Pool.of(SPACE, np.array([[1, 3, 0], [2, 0, 1]], dtype=np.uint8))
    assert configs(SPACE, pool) == [
        {"op": "pool", "depth": 8, "wide": False},
        {"op": "skip", "depth": 2, "wide": True},
    ]


def test_a_pool_of_a_conditional_space_says_minus_one_where_nothing_is_active():
    pool = Pool.of(NESTED, np.array([[0, -1, 1], [1, 2, 0]], dtype=np.int8))
    assert configs(NESTED, pool) == [
        {"net": "small", "wide": True},
        {"net": "dict", "net.dict.width": 3, "wide": False},
    ]


def test_a_file_an_array_and_a_generator_are_the_same_pool(tmp_path):
    codes = Places(SPACE).draw(np.random.default_rng(0), 9).astype(int)
    codes[:, 1] = np.arange(9) % 4
    codes = np.unique(codes, axis=0).astype(np.uint8)
    np.save(tmp_path / "pool.npy", codes)
    given = [codes, tmp_path / "pool.npy", str(tmp_path / "pool.npy"), map(tuple, codes.tolist())]
    found = [configs(SPACE, Pool.of(SPACE, one)) for one in given]
    assert found == [found[0]] * 4


def test_a_small_space_without_conditions_is_a_pool_of_its_own():
    pool = Pool.whole(SPACE, 100)
    assert len(pool) == len({str(one) for one in configs(SPACE, pool)}) == SPACE.size
    assert all(SPACE.validate(one) == one for one in configs(SPACE, pool))
    assert Pool.whole(SPACE, 20) is None
    assert Pool.whole(NESTED, 100) is None
    assert Pool.whole(Dict(x=Real(0, 1)), 100) is None


def test_a_pool_is_predicted_as_its_rows_are_to_the_last_bit():
    pool = Pool.whole(SPACE, 100)
    rows = pool.rows(np.arange(len(pool)))
    linear = Linear.fit(Places(SPACE), rows, rows[:, 1] - (rows[:, 0] == 2), ridge=0.1)
    assert pool.predict(linear, np.arange(len(pool))).tolist() == linear.predict(rows).tolist()


def test_rows_are_found_in_a_pool_and_others_are_left_out():
    pool = Pool.of(NESTED, np.array([[0, -1, 1], [1, 2, 0], [1, 3, 0]], dtype=np.int8))
    rows = Pool.of(NESTED, np.array([[1, 3, 0], [0, -1, 0], [0, -1, 1]])).rows(np.arange(3))
    assert pool.find(rows).tolist() == [2, 0]


@pytest.mark.parametrize(
    ("rows", "says"),
    [
        (np.zeros((0, 3), dtype=int), "no rows"),
        ([], "no rows"),
        (np.zeros((2, 4), dtype=int), r"shape \(2, 4\).*3 columns"),
        ([[0, 0, 0], [0, 0]], "2 codes, but the space has 3"),
        (np.zeros((2, 3)), "float64.*integers"),
        ([[0.5, 0, 0]], "integers"),
        (5, "pool=5; give a .npy file"),
        (np.array([[0, 0, 0], [0, 4, 0]]), "row 1 .* code 4 for 'depth'.* 0 to 3"),
        ([[0, 0, 0], [300, 0, 0]], "row 1 .* code 300 for 'op'"),
        (np.array([[0, -1, 0]]), "'depth' has the code -1 in row 0.* but it is"),
        (np.array([[0, 1, 0], [1, 1, 1], [0, 1, 0]]), "the same: 0 and 2"),
    ],
)
def test_a_pool_that_is_none_is_refused_with_the_row_that_is_wrong(rows, says):
    with pytest.raises(SpaceError, match=says):
        Pool.of(SPACE, rows)


def test_a_parameter_that_is_not_active_must_not_have_a_code():
    with pytest.raises(SpaceError, match=r"'net\.dict\.width' has the code 2 in row 0.*not active"):
        Pool.of(NESTED, np.array([[0, 2, 0]], dtype=np.int8))


def test_a_number_between_any_two_values_has_no_code():
    with pytest.raises(SpaceError, match="'x' is a Real with more; give it a step"):
        Pool.of(Dict(x=Real(0, 1)), np.zeros((1, 1), dtype=int))


def test_a_file_that_is_no_pool_is_refused_by_name(tmp_path):
    with pytest.raises(SpaceError, match="not there"):
        Pool.of(SPACE, tmp_path / "missing.npy")
    (tmp_path / "text.npy").write_text("no array")
    with pytest.raises(SpaceError, match=r"no file that numpy\.save has written") as said:
        Pool.of(SPACE, tmp_path / "text.npy")
    assert "allow_pickle" not in str(said.value)


def test_a_million_rows_take_little_more_than_their_codes(tmp_path):
    space = Dict(**{f"part{n}": Choice(*range(14)) for n in range(28)})
    codes = np.random.default_rng(0).integers(14, size=(10**6, 28), dtype=np.uint8)
    np.save(tmp_path / "pool.npy", codes)
    del codes
    tracemalloc.start()
    pool = Pool.of(space, tmp_path / "pool.npy")
    rows = pool.rows(np.arange(1000))
    linear = Linear.fit(Places(space), rows, rows[:, 0], ridge=0.1)
    found = pool.predict(linear, np.arange(len(pool)))
    most = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert len(found) == 10**6
    assert most < 150e6
