"""What a search looks for, and whether another one can go on with it."""

from __future__ import annotations

import json

import pytest

from distsearch.core.description import LATER, changes, describe, notices
from distsearch.core.objectives import Objectives
from distsearch.space import Choice, Dict, Real


def described(**other):
    return describe(
        **{
            "function": "train_fn",
            "space": Dict(lr=Real(0, 1)),
            "searcher": {"searcher": "TPESearcher", "search_options": {"n_startup_trials": 3}},
            "scheduler": "HyperbandScheduler",
            "seed": 1,
            "objectives": Objectives.parse("accuracy", "max"),
            "time_attr": "epoch",
            "rule": {"max_t": 9, "rungs": (1, 3)},
            "storage": None,
            **other,
        }
    )


def test_it_comes_back_from_json_as_it_was():
    assert json.loads(json.dumps(described())) == described()
    assert changes(json.loads(json.dumps(described())), described()) == []


@pytest.mark.parametrize(
    ("other", "line"),
    [
        ({"space": Dict(lr=Real(0, 2))}, "lr.upper: 1.0 -> 2.0"),
        ({"time_attr": "step"}, "time_attr: 'epoch' -> 'step'"),
        ({"scheduler": "FIFOScheduler"}, "scheduler: 'HyperbandScheduler' -> 'FIFOScheduler'"),
        ({"objectives": Objectives.parse("accuracy", "min")}, "mode: 'max' -> 'min'"),
        ({"rule": {"max_t": 27, "rungs": (1, 3)}}, "max_t: 9 -> 27"),
        (
            {"searcher": {"searcher": "TPESearcher", "search_options": {}}},
            "n_startup_trials: 3 -> None",
        ),
    ],
)
def test_each_change_that_matters_is_a_line(other, line):
    assert line in changes(described(), described(**other))


def test_another_name_seed_or_storage_is_no_change():
    assert changes(described(), described(function="f", seed=2, storage="s3://b/x")) == []


def test_what_older_logs_lack_is_no_change():
    earlier = {name: value for name, value in described().items() if name not in LATER}
    assert changes(earlier, described()) == []


@pytest.mark.parametrize(
    ("before", "after", "line"),
    [
        (Dict(lr=Real(0, 1), log="a"), Dict(lr=Real(0, 1), log="b"), 'log.value: "a" -> "b"'),
        (Dict(lr=Real(0, 1)), Dict(lr=Real(0, 1), workers=4), "workers: added"),
        (Dict(workers=4, lr=Real(0, 1)), Dict(lr=Real(0, 1)), "workers: removed"),
        (
            Dict(net=Choice(Dict(width=Real(0, 1), data="/a"), "none")),
            Dict(net=Choice(Dict(width=Real(0, 1), data="/b"), "none")),
            '"/a" -> "/b"',
        ),
    ],
)
def test_another_constant_is_said_and_no_reason_not_to_go_on(before, after, line):
    earlier, now = described(space=before), described(space=after)
    assert changes(earlier, now) == []
    (said,) = notices(earlier, now)
    assert line in said


def test_what_was_constant_and_is_searched_now_is_a_change():
    constant, searched = Dict(lr=0.1, wd=Real(0, 1)), Dict(lr=Real(0, 1), wd=Real(0, 1))
    assert changes(described(space=constant), described(space=searched))
    assert changes(described(space=searched), described(space=constant))


def test_other_code_is_said_unless_the_log_does_not_know_or_another_python_wrote_it():
    earlier, now = described(code="3.11:a"), described(code="3.11:b")
    assert "the code of train_fn" in notices(earlier, now)[0]
    assert notices(earlier, earlier) == []
    assert notices(described(code="3.12:a"), now) == []
    del earlier["code"]
    assert notices(earlier, now) == []
