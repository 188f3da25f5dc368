"""What is known before a search starts."""

from __future__ import annotations

import asyncio

import numpy as np
import pytest

from distsearch.core.objectives import Objectives
from distsearch.core.store import Store
from distsearch.errors import OptionError, SpaceError, StoreError
from distsearch.searcher.warm import collect
from distsearch.space import Choice, Dict, Int, Real

SPACE = Dict(x=Real(0, 1), n=Int(1, 9))


def known(evaluated=None, folders=None, space=SPACE, mode="max"):
    return collect(space, evaluated, folders, Objectives.parse("accuracy", mode))


@pytest.fixture
def experiment(tmp_path):
    """Write the log of a search: {trial: (configuration, rewards, status)}."""

    def write(trials, name="earlier"):
        async def fill():
            store = Store(tmp_path / name)
            for trial, (config, rewards, status) in trials.items():
                body = {"config": config, "given": False, "is_final": False}
                store.append("launched", trial, body=body)
                for number, reward in enumerate(rewards):
                    store.append("report", trial, 1, number, {"accuracy": reward})
                if status is not None:
                    store.append("ended", trial, 1, body={"status": status, "reason": ""})
            await store.flush()
            store.close()

        asyncio.run(fill())
        return tmp_path / name

    return write


def test_given_results_are_validated_and_nan_is_a_failure():
    points = known([({"x": 0.5}, 0.7), ({"x": 1, "n": 2}, float("nan"))]).points
    assert points == [({"x": 0.5, "n": 5}, 0.7), ({"x": 1.0, "n": 2}, None)]


def test_numbers_of_numpy_are_rewards_too():
    points = known([({"x": 0.5}, np.float32(0.5)), ({"x": 1}, np.int64(2))]).points
    assert [reward for _, reward in points] == [0.5, 2.0]
    objectives = Objectives.parse("accuracy", "max", "latency <= 20")
    point = {"accuracy": np.float32(0.5), "latency": np.int64(7)}
    assert collect(SPACE, [({}, point)], None, objectives).points[0][1] == {
        "accuracy": 0.5,
        "latency": 7.0,
    }


@pytest.mark.parametrize("text", ["0.9", "Infinity", [0.9], True])
def test_a_reward_that_is_no_number_is_refused_and_not_taken_for_a_failure(text):
    with pytest.raises(OptionError, match=r"is no number but of type .*give a number, or None"):
        known([({"x": 0.5}, text)])
    with pytest.raises(OptionError, match="is no number"):
        constrained = Objectives.parse("accuracy", "max", "latency <= 20")
        collect(SPACE, [({}, {"accuracy": text, "latency": 7})], None, constrained)


@pytest.mark.parametrize("wrong", [[({"x": 7}, 0.5)], [{"x": 0.5}], [0.5]])
def test_given_results_that_make_no_sense_are_refused(wrong):
    with pytest.raises((SpaceError, OptionError)):
        known(wrong)


@pytest.mark.parametrize(("mode", "best"), [("max", 0.9), ("min", 0.2)])
def test_of_an_experiment_the_best_rewards_and_the_failures_count(experiment, mode, best):
    folder = experiment(
        {
            0: ({"x": 0.1, "n": 1}, [0.2, 0.9, 0.5], "finished"),
            1: ({"x": 0.2, "n": 1}, [0.4], "failed"),
            2: ({"x": 0.3, "n": 1}, [0.4], None),  # killed in its middle
            3: ({"x": 0.4, "n": 1}, [], None),
        }
    )
    assert known(folders=folder, mode=mode).points == [
        ({"x": 0.1, "n": 1}, best),
        ({"x": 0.2, "n": 1}, None),
        ({"x": 0.3, "n": 1}, 0.4),
    ]


def test_configurations_that_do_not_fit_are_left_out_with_a_line_that_says_why(experiment):
    folder = experiment(
        {
            0: ({"x": 0.1, "n": 1}, [0.2], "finished"),
            1: ({"x": 0.1, "n": 8}, [0.3], "finished"),
            2: ({"x": 0.2, "n": 9}, [0.4], "finished"),
        }
    )
    found = known(folders=[folder], space=Dict(x=Real(0, 1), n=Int(1, 4), new=Choice("a", "b")))
    assert found.points == [({"x": 0.1, "n": 1, "new": "a"}, 0.2)]
    (line,) = found.left_out
    assert "2 of 3 configurations do not fit" in line
    assert "n must be an integer from 1 to 4, but got 8" in line


def test_several_experiments_and_given_results_add_up(experiment):
    folders = [
        experiment({0: ({"x": x, "n": 1}, [x], "finished")}, name)
        for name, x in (("a", 0.1), ("b", 0.2))
    ]
    assert [reward for _, reward in known([({}, 0.5)], folders).points] == [0.5, 0.1, 0.2]


def test_a_folder_without_an_experiment_or_without_this_reward_is_refused(experiment, tmp_path):
    with pytest.raises(StoreError, match="no experiment"):
        known(folders=tmp_path)
    folder = experiment({0: ({"x": 0.1, "n": 1}, ["high"], "finished")})
    with pytest.raises(StoreError, match="'accuracy'"):
        known(folders=str(folder))
