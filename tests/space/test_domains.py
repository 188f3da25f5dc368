"""Real, Int, Bool and Choice, one by one."""

from __future__ import annotations

import enum
import json
import math
import subprocess
import sys

import numpy as np
import pytest

from distsearch.errors import SpaceError
from distsearch.space import Bool, Categorical, Choice, Dict, Int, List, Real


def default(space):
    return Dict(x=space).default["x"]


def values(space, points=5):
    return [config["x"] for config in Dict(x=space).grid(points)]


def test_defaults_are_midpoints_geometric_ones_on_a_log_scale():
    assert default(Real(0, 3)) == 1.5
    assert default(Real(1e-4, 1e-2, log=True)) == pytest.approx(1e-3)
    assert default(Int(1, 9)) == 5
    assert default(Int(1, 100, log=True)) == 10
    assert default(Choice("b", "a")) == "b"
    assert default(Bool()) is False


def test_an_explicit_default_is_taken_and_checked():
    assert default(Real(0, 1, default=1)) == 1.0
    assert default(Int(1, 9, np.int64(2))) == 2
    with pytest.raises(SpaceError, match=r"the default must be .* from 0.0 to 1.0, but got 2"):
        Real(0, 1, default=2)
    with pytest.raises(SpaceError, match=r"must be an integer from 1 to 9, but got 2.5"):
        Int(1, 9, default=2.5)


@pytest.mark.parametrize(
    ("make", "said"),
    [
        (lambda: Real(2, 1), "got 2.0 and 1.0"),
        (lambda: Real(0, math.nan), "got nan"),
        (lambda: Real(-math.inf, 0), "got -inf"),
        (lambda: Real(0, 10**400), "finite number, got 1000"),
        (lambda: Real(-1.7e308, 1.7e308), "too wide"),
        (lambda: Real("0", 1), "got '0'"),
        (lambda: Real(False, 1), "got False"),
        (lambda: Real(0, 1, log=True), "log=True needs lower > 0, but got 0.0"),
        (lambda: Real(1, 2, log="yes"), "got 'yes'"),
        (lambda: Int(-1, 1, log=True), "log=True needs lower > 0, but got -1"),
        (lambda: Int(2, 1), "got 2 and 1"),
        (lambda: Int(False, True), "got False"),
        (lambda: Int(0, 2.0), "got 2.0"),
        (lambda: Int(0, 2**60), "got 1152921504606846976"),
        (lambda: Choice(), "got none"),
        (lambda: Choice(1, "a", 1), "got 1 again"),
        (lambda: Choice(0.5, math.nan), "NaN"),
        (lambda: Dict(lr=Real), r"the class Real; make a space of it: Real\(\)"),
    ],
)
def test_what_makes_no_sense_is_refused_with_what_was_got(make, said):
    with pytest.raises(SpaceError, match=said):
        make()


def test_a_range_of_one_value_is_fine():
    for space in (Real(2, 2), Real(2, 2, log=True), Int(2, 2), Int(2, 2, log=True)):
        assert values(space) == [2]
        assert space.size == 1
        assert space.decode(space.encode(space.default)) == {"": 2}


def test_numbers_are_taken_from_numpy_and_come_out_plain():
    space = Dict(lr=Real(np.float32(0), np.int8(1)), n=Int(np.int16(1), 9), c=Choice(np.int64(3)))
    config = space.validate({"lr": np.float64(0.5), "n": np.uint8(4), "c": np.int32(3)})
    assert [type(value) for value in config.values()] == [float, int, int]
    assert type(space.validate({"lr": 1})["lr"]) is float
    assert all(type(v) in (int, float) for v in space.sample(np.random.default_rng(0)).values())


@pytest.mark.parametrize("value", [-0.1, 1.1, math.nan, math.inf, True, "0.5", None, [0.5]])
def test_a_real_refuses_other_types_and_what_is_out_of_bounds(value):
    with pytest.raises(SpaceError, match=r"lr must be a finite number from 0.0 to 1.0, but got"):
        Dict(lr=Real(0, 1)).validate({"lr": value})


@pytest.mark.parametrize("value", [0, 10, 2.0, True, "2", None])
def test_an_int_refuses_other_types_and_what_is_out_of_bounds(value):
    with pytest.raises(SpaceError, match=r"n must be an integer from 1 to 9, but got"):
        Dict(n=Int(1, 9)).validate({"n": value})


def test_both_ends_of_an_int_come_as_often_as_the_middle():
    rng = np.random.default_rng(0)
    drawn = [Int(1, 4).sample(rng)[""] for _ in range(4000)]
    assert np.bincount(drawn)[1:] == pytest.approx([1000] * 4, rel=0.15)


def test_a_log_scale_draws_as_often_from_every_decade():
    rng = np.random.default_rng(0)
    for space in (Real(1e-4, 1e-1, log=True), Int(1, 1000, log=True)):
        low, high = math.log10(space.lower), math.log10(space.upper)
        drawn = [math.log10(space.sample(rng)[""]) for _ in range(3000)]
        assert np.mean(np.array(drawn) < (low + high) / 2) == pytest.approx(0.5, abs=0.08)


def test_the_largest_integers_keep_their_coordinate_apart():
    for space in (Int(-(2**40), 2**40), Int(1, 2**40, log=True)):
        for value in (2**40, 2**40 - 1, 2**40 - 2, 1, 2):
            assert space.decode(space.encode({"": value})) == {"": value}


def test_ticks_are_even_on_the_scale_with_both_ends():
    assert values(Real(0, 1)) == [0, 0.25, 0.5, 0.75, 1]
    assert values(Real(1e-4, 1, log=True)) == pytest.approx([1e-4, 1e-3, 1e-2, 1e-1, 1])
    assert values(Int(1, 3)) == [1, 2, 3]
    assert values(Int(0, 100)) == [0, 25, 50, 75, 100]
    assert values(Int(1, 10_000, log=True)) == [1, 10, 100, 1000, 10_000]
    assert values(Real(0, 1, default=0.2), points=1) == [0.2]


@pytest.mark.parametrize("points", [0, -1, 2.0, True])
def test_a_grid_needs_a_whole_number_of_points(points):
    with pytest.raises(SpaceError, match="points must be an integer from 1 on"):
        Real(0, 1).grid(points)


def test_a_bool_is_a_choice_of_real_bools():
    space = Dict(x=Bool())
    assert isinstance(Bool(), Choice)
    assert [config["x"] for config in space.grid()] == [False, True]
    assert type(space.sample(np.random.default_rng(0))["x"]) is bool
    assert space.validate({"x": np.bool_(True)})["x"] is True
    with pytest.raises(SpaceError, match=r"must be one of False, True, but got 1 \(int\)"):
        space.validate({"x": 1})


def test_categorical_is_choice():
    assert Categorical is Choice


def test_one_and_true_and_one_point_zero_stay_apart():
    space = Dict(x=Choice(1, True, 1.0, "1", None))
    for value in (1, True, 1.0, "1", None):
        built = space.build(space.decode(space.encode({"x": value}))).x
        assert type(built) is type(value)
        assert built == value
    assert Choice(1) != Choice(True)


def test_a_choice_of_a_space_gives_a_value_of_it_never_the_space():
    space = Dict(x=Choice(Real(0, 1), "none"))
    assert space.validate({"x.real": 0.3}) == {"x": "real", "x.real": 0.3}
    assert space.build({"x": "real", "x.real": 0.3}).x == 0.3
    assert space.build({"x": "none"}).x == "none"
    assert space.size == math.inf
    assert space.dimension == 3


def test_labels_are_names_and_kept_apart_by_numbers():
    class Color(enum.Enum):
        RED = 1

    def swish(x):
        return x

    space = Choice(
        "real", Real(0, 1), Int(1, 2), Bool(), Choice(1), List(Int(1, 2)), {"a": Int(1, 2)},
        Int(3, 4), swish, Color, Color.RED, (3, 3), math.inf, object(), {"b", "a"},
    )  # fmt: skip
    assert space.choices == (
        "real", "real#2", "int", "bool", "choice", "list", "dict",
        "int#2", "swish", "Color", "<Color.RED: 1>", "(3, 3)", "inf", "<object object>",
        "{'a', 'b'}",
    )  # fmt: skip
    json.dumps(space.describe(), allow_nan=False)


def test_an_option_without_a_json_value_may_be_given_by_itself():
    marker = object()
    space = Dict(kernel=Choice((1, 1), (3, 3), marker, math.inf, [1]))
    assert space.validate({"kernel": (3, 3)}) == {"kernel": "(3, 3)"}
    assert space.build({"kernel": "(3, 3)"}).kernel == (3, 3)
    assert space.build({"kernel": marker}).kernel is marker
    assert space.build({"kernel": float("inf")}).kernel == math.inf
    assert space.build({"kernel": [1]}).kernel == [1]
    with pytest.raises(SpaceError, match=r"kernel must be one of '\(1, 1\)'"):
        space.validate({"kernel": (5, 5)})


def test_the_parameters_of_an_option_not_chosen_are_refused_with_the_reason():
    space = Dict(x=Choice(Real(0, 1), Int(1, 2)))
    with pytest.raises(SpaceError, match=r"'x.int' is not active, because x is 'real'"):
        space.validate({"x": "real", "x.int": 1})


def test_inactive_coordinates_are_fixed_and_ignored():
    space = Dict(x=Choice("none", Real(0, 1)))
    vector = space.encode({"x": "none"})
    assert vector.tolist() == [1, 0, 0.5]
    vector[2] = 0.9
    assert space.decode(vector) == {"x": "none"}


def test_decode_clips_and_refuses_another_shape_and_nan():
    space = Dict(x=Real(0, 1), y=Int(1, 3))
    assert space.decode([1.2, -0.3]) == {"x": 1.0, "y": 1}
    for vector in ([0.5], [[0.5, 0.5]], [0.5, math.nan]):
        with pytest.raises(SpaceError, match="decode needs 2 numbers without NaN"):
            space.decode(vector)


def test_reprs_can_be_evaluated():
    space = Dict(
        a=Real(1e-4, 0.1, log=True), b=Int(1, 9, default=2), c=Choice("x", None, List(Bool(), 3))
    )
    assert repr(space) == (
        "Dict(a=Real(0.0001, 0.1, log=True), b=Int(1, 9, default=2), "
        "c=Choice('x', None, List(Bool(), 3)))"
    )
    assert eval(repr(space)) == space


def test_importing_spaces_loads_nothing_heavy():
    code = (
        "import sys, distsearch.space; "
        "print({'distributed', 'asyncssh', 'matplotlib', 'torch', 'pandas'} & set(sys.modules))"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=60
    )
    assert done.stdout.strip() == "set()"


SIZES = [16, 32, 64]


class Color(enum.Enum):
    RED = "red"
    BLUE = "blue"


@pytest.mark.parametrize(
    ("several", "spelled"),
    [
        (SIZES, r"Choice\(16, 32, 64\), or, if that one is meant, Choice\(List\(16, 32, 64\)\)"),
        (tuple(SIZES), r"Choice\(16, 32, 64\)"),
        (np.array(SIZES), r"Choice\(16, 32, 64\)"),
        ({16: "a", 32: "b"}.keys(), r"Choice\(16, 32\)"),
        ({16}, r"Choice\(16\)"),
        (range(16, 129, 8), r"Choice\(\*values\)"),
        ((size for size in SIZES), r"Choice\(\*values\)"),
        (Color, r"Choice\(<Color.RED: 'red'>, <Color.BLUE: 'blue'>\)"),
        ({"sgd": 0.3, "adam": 0.7}, r"Choice\('sgd', 'adam'\), or, .* Choice\(Dict\("),
        ([Real(0, 1), "none"], r"Choice\(Real\(0.0, 1.0\), 'none'\)"),
        ([[3, 3]], r"Choice\(List\(3, 3\)\)"),
    ],
)
def test_several_values_in_place_of_the_options_are_refused_with_the_spelling(several, spelled):
    with pytest.raises(SpaceError, match=f"write {spelled}"):
        Choice(several)


def test_a_list_can_be_an_option_beside_others_and_as_a_list_space_the_only_one():
    assert Choice([1, 1], [3, 3]).build({"": [3, 3]}) == [3, 3]
    assert Choice(List(3, 3)).build({}) == [3, 3]
    assert Choice({"width": Int(1, 3)}).build({}) == {"width": 2}
    assert Choice(np.array(3)).size == Choice("relu").size == 1


@pytest.mark.parametrize(
    ("space", "expected"),
    [
        (Int(16, 128, step=16), [16, 32, 48, 64, 80, 96, 112, 128]),
        (Int(1, 101, log=True, step=50), [1, 51, 101]),
        (Real(0, 1, step=0.1), [0.0, 0.1, 0.2, 0.3, 0.4, 0.5, 0.6, 0.7, 0.8, 0.9, 1.0]),
        (Real(0.1, 0.5, log=True, step=0.1), [0.1, 0.2, 0.3, 0.4, 0.5]),
        (Real(-1, -0.5, step=0.5), [-1.0, -0.5]),
        (Int(3, 3, step=2), [3]),
    ],
)
def test_a_range_with_steps_has_these_values_in_order_on_one_coordinate(space, expected):
    assert values(space, points=20) == expected
    assert (space.size, Dict(x=space).dimension) == (len(expected), 1)
    units = [space.to_unit(value) for value in expected]
    assert units == sorted(set(units))
    assert [space.from_unit(np.array([unit])) for unit in units] == expected
    rng = np.random.default_rng(0)
    assert {space.draw(rng) for _ in range(2000)} == set(expected)
    assert default(space) in expected
    assert eval(repr(space)) == space


def test_steps_are_uniform_or_on_a_log_scale_denser_at_the_lower_end():
    rng = np.random.default_rng(0)
    drawn = [Int(10, 100, step=10).draw(rng) for _ in range(4000)]
    assert all(300 < drawn.count(value) < 500 for value in range(10, 101, 10))
    drawn = [Int(10, 100, log=True, step=10).draw(rng) for _ in range(4000)]
    assert drawn.count(10) > 2 * drawn.count(30) > 2 * drawn.count(90)


def test_numbers_that_are_meant_for_a_step_are_that_and_others_are_refused():
    space = Dict(x=Real(0, 1, step=0.1), n=Int(16, 128, default=32, step=16))
    assert space.validate({"x": 0.1 + 0.2}) == {"x": 0.3, "n": 32}
    with pytest.raises(SpaceError, match=r"n must be .* 128 in steps of 16, but got 20"):
        space.validate({"n": 20})
    with pytest.raises(SpaceError, match=r"the default must be .* in steps of 0.1, but got 0.25"):
        Real(0, 1, 0.25, step=0.1)
    assert space.describe()["items"]["n"]["step"] == 16
    assert "step" not in Int(1, 3).describe() and "step" not in Real(1, 3).describe()
    assert Int(1, 3, step=1) == Int(1, 3)


@pytest.mark.parametrize(
    ("make", "says"),
    [
        (lambda: Int(1, 100, step=10), "give upper=91 or upper=101"),
        (lambda: Real(0, 1, step=0.3), "give upper=0.9 or upper=1.2"),
        (lambda: Int(1, 9, step=0.5), "step of Int must be an integer above 0"),
        (lambda: Real(0, 1, step=0), "step of Real must be a finite number above 0, but got 0"),
        (lambda: Real(0, 1, step=math.nan), "step of Real must be"),
        (lambda: Real(0, 1, step=1e-30), "too small for its range"),
    ],
)
def test_a_step_that_makes_no_sense_is_refused_with_what_is_right(make, says):
    with pytest.raises(SpaceError, match=says):
        make()
