"""What a report may hold, and what of it counts as a number."""

from __future__ import annotations

import json
import math
import subprocess
import sys
from decimal import Decimal
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from distsearch.core.metrics import (
    MAX_REPORT_BYTES,
    from_json,
    is_one_number,
    number,
    report_json,
    to_json,
)
from distsearch.errors import ReportError

values = st.recursive(
    st.one_of(
        st.none(),
        st.booleans(),
        st.integers(),
        st.floats(),
        st.text(max_size=20),
        st.binary(max_size=20),
        st.floats(width=32).map(np.float32),
        st.integers(-(2**31), 2**31 - 1).map(np.int64),
        st.just(object()),
        st.just({1, 2}),
    ),
    lambda inner: st.one_of(
        st.lists(inner, max_size=3),
        st.tuples(inner, inner),
        st.dictionaries(
            st.one_of(st.text(max_size=5), st.integers(), st.none()), inner, max_size=3
        ),
    ),
    max_leaves=10,
)


def there_and_back(**metrics):
    return from_json(to_json(metrics))


@given(st.dictionaries(st.text(max_size=10), values, max_size=4))
@settings(deadline=None)
def test_whatever_is_reported_becomes_one_line_of_strict_json(metrics):
    text = to_json(metrics)
    assert "\n" not in text

    def refuse(word):
        raise AssertionError(f"{word} is not JSON")

    assert json.loads(text, parse_constant=refuse).keys() == {str(key) for key in metrics}


@given(st.dictionaries(st.text(max_size=10), st.one_of(st.integers(), st.floats()), max_size=4))
@settings(deadline=None)
def test_numbers_come_back_as_they_were(metrics):
    back = from_json(to_json(metrics))
    for name, value in metrics.items():
        assert type(back[name]) is type(value)
        assert back[name] == value or (math.isnan(back[name]) and math.isnan(value))


def test_numpy_scalars_and_0d_arrays_become_numbers():
    back = there_and_back(a=np.float32(0.5), b=np.int64(3), c=np.array(0.25), d=np.array([7]))
    assert back == {"a": 0.5, "b": 3, "c": 0.25, "d": 7}
    assert all(number(value) == value for value in back.values())


def test_0d_tensors_become_numbers():
    torch = pytest.importorskip("torch")
    half = torch.tensor(0.5, dtype=torch.bfloat16, requires_grad=True)
    assert there_and_back(a=half, b=torch.tensor([3])) == {"a": 0.5, "b": 3}


@pytest.mark.parametrize("value", [None, "0.9", True, [0.9], {"a": 1}, math.nan, 10**400])
def test_what_is_not_a_number_is_kept_but_never_compared(value):
    assert number(there_and_back(accuracy=value)["accuracy"]) is None


@pytest.mark.parametrize("text", ["NaN", "Infinity", "-Infinity", "'NaN", "''Infinity", "nan"])
def test_text_that_reads_like_infinity_or_nan_stays_text(text):
    back = there_and_back(accuracy=text, note=np.str_(text), loss=math.inf)
    assert back == {"accuracy": text, "note": text, "loss": math.inf}
    assert from_json(report_json(back)) == back  # as when a state is loaded
    assert number(back["accuracy"]) is None


def test_what_only_prints_as_nan_is_text():
    class Missing:
        def __repr__(self):
            return "NaN"

    assert there_and_back(accuracy=Missing()) == {"accuracy": "NaN"}


def test_infinity_is_a_number():
    assert number(there_and_back(loss=-math.inf)["loss"]) == -math.inf


def test_an_array_is_told_by_its_shape():
    assert there_and_back(image=np.zeros((3, 4)))["image"] == "ndarray of shape (3, 4)"


def test_a_circle_is_survived():
    circle: list = []
    circle.append(circle)
    assert "circle" in there_and_back(circle=circle)


def test_a_report_above_64_kb_is_refused_and_the_largest_part_named():
    with pytest.raises(ReportError, match=r"65536 bytes.*'weights' alone") as error:
        to_json({"accuracy": 0.5, "weights": "x" * MAX_REPORT_BYTES})
    assert "reporter.save" in str(error.value)


def test_a_report_of_just_64_kb_is_welcome():
    frame = len('{"a": ""}')
    assert len(to_json({"a": "x" * (MAX_REPORT_BYTES - frame)})) == MAX_REPORT_BYTES


def test_reporting_needs_neither_numpy_nor_torch():
    code = (
        "import sys; from distsearch.core.metrics import to_json; to_json({'a': object()});"
        "assert not {'numpy', 'torch'} & set(sys.modules)"
    )
    subprocess.run([sys.executable, "-c", code], check=True, timeout=60)


def test_text_under_names_of_secrets_is_left_out_and_nothing_else():
    metrics = {
        "api_key": "k",
        "GITHUB_TOKEN": "t",
        "nested": [{"db-password": "p", "user": "ada"}],
        "max_tokens": 512,
        "tokenizer": "bpe",
        "key": "value",
    }
    hidden = "(a secret)"
    assert json.loads(to_json(metrics)) == {
        **metrics,
        "api_key": hidden,
        "GITHUB_TOKEN": hidden,
        "nested": [{"db-password": hidden, "user": "ada"}],
    }
    assert metrics["api_key"] == "k"


class Broken:
    def __getattr__(self, name):
        raise RuntimeError(name)

    def __repr__(self):
        raise RuntimeError("no text")

    __str__ = __repr__


class BrokenDict(dict):
    def items(self):
        raise RuntimeError("no items")

    __iter__ = items


@pytest.mark.parametrize(
    "value",
    [Broken(), [Broken()], {"in": Broken()}, {Broken(): 1}, BrokenDict(a=1), 10**5000],
    ids=["object", "list", "dict", "key", "mapping", "huge number"],
)
def test_what_fails_when_it_is_looked_at_is_told_by_its_type_and_the_rest_is_kept(value):
    told = from_json(to_json({"accuracy": 0.5, "x": value}))
    assert told["accuracy"] == 0.5
    assert number(told["x"]) is None
    assert not is_one_number(value)


def test_keys_that_json_cannot_tell_apart_are_refused_by_name():
    for twins in ({1: "a", "1": "b"}, {None: 1, "null": 2}, {1.0: 1, "1.0": 2}):
        with pytest.raises(ReportError, match="give them names that differ"):
            to_json({"accuracy": 0.5, "x": [{"deep": twins}]})
    assert from_json(to_json({"x": {1: "a", "2": "b"}})) == {"x": {"1": "a", "2": "b"}}


def test_numbers_of_any_precision_count_as_numbers():
    for value in (np.longdouble(0.5), np.array(0.5, dtype=np.longdouble)):
        assert number(from_json(to_json({"accuracy": value}))["accuracy"]) == 0.5
    span = from_json(to_json({"span": np.timedelta64(3, "s")}))["span"]
    assert span == "datetime.timedelta(seconds=3)"
    whole = from_json(to_json({"epoch": np.uint64(7)}))["epoch"]
    assert (whole, type(whole)) == (7, int)


def test_numbers_of_decimal_and_fractions_count_as_numbers():
    metrics = from_json(to_json({"a": Decimal("0.5"), "b": Fraction(1, 4), "c": Decimal("NaN")}))
    assert (metrics["a"], metrics["b"]) == (0.5, 0.25)
    assert math.isnan(metrics["c"])
    assert number(from_json(to_json({"a": Fraction(10**400)}))["a"]) is None
