"""What a search looks for, and whether another one can go on with it."""

from __future__ import annotations

import json

import pytest

from distsearch.core.description import LATER, changes, describe
from distsearch.core.objectives import Objectives
from distsearch.space import Dict, Real


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
