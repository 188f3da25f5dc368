"""What a trial asks: exact names, sensible numbers."""

from __future__ import annotations

import math
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from distsearch.errors import ResourceError
from distsearch.resource.resource import Resource


def test_nothing_asked_is_one_cpu():
    assert Resource.parse(None) == Resource(num_cpus=1, num_gpus=0, memory_gb=None)


def test_a_mapping_is_read_and_a_resource_kept():
    resource = Resource(num_cpus=2, num_gpus=0.25, memory_gb=4)
    assert Resource.parse({"num_cpus": 2, "num_gpus": 0.25, "memory_gb": 4}) == resource
    assert Resource.parse(resource) is resource


@pytest.mark.parametrize("given_", [{"num_cpu": 2}, {"cpus": 1, "num_gpus": 1}, {3: 4}])
def test_unknown_names_are_refused_with_the_valid_ones(given_):
    with pytest.raises(ResourceError, match=r"num_cpus.*num_gpus.*memory_gb"):
        Resource.parse(given_)


@pytest.mark.parametrize("given_", [4, "num_cpus", [("num_cpus", 1)]])
def test_something_else_than_a_mapping_is_refused(given_):
    with pytest.raises(ResourceError, match="give a dict"):
        Resource.parse(given_)


@pytest.mark.parametrize(
    "wrong",
    [{"num_cpus": value} for value in (-1, 1.5, 2.0, True, "2", None, math.nan)]
    + [{"num_gpus": value} for value in (-1, 1.5, True, "1", None, math.nan, math.inf, 0.0001)]
    + [{"memory_gb": value} for value in (0, -1, math.inf, math.nan, "4", True)]
    + [{"num_cpus": 0}],
)
def test_wrong_numbers_are_refused_by_name(wrong):
    with pytest.raises(ResourceError, match=next(iter(wrong))):
        Resource(**wrong)


def test_a_trial_may_take_a_gpu_and_no_cpu():
    assert Resource(num_cpus=0, num_gpus=1).num_gpus == 1


def test_numbers_become_plain_ones():
    resource = Resource(num_cpus=np.int64(2), num_gpus=np.float32(1.0), memory_gb=np.float64(2))
    assert [type(value) for value in vars(resource).values()][:3] == [int, int, float]
    assert resource.memory_bytes == 2 * 10**9


@given(st.integers(1, 1000))
def test_a_share_written_as_a_float_is_exact(parts):
    assert Resource(num_gpus=1 / parts).gpu_share * parts == 1


def test_a_rounded_share_means_the_fraction():
    assert Resource(num_gpus=0.1667).gpu_share == Fraction(1, 6)
    assert Resource(num_gpus=2).gpu_share == 1
    assert Resource().gpu_share == 0


@pytest.mark.parametrize("ranks", [0, -1, 1.5, 2.0, True, "2", None])
def test_a_number_of_ranks_that_makes_no_sense_is_refused(ranks):
    with pytest.raises(ResourceError, match=r"world_size=.*give an integer of at least 1"):
        Resource(world_size=ranks)


def test_ranks_per_node_has_to_divide_the_world_size_and_is_told_what_does():
    with pytest.raises(
        ResourceError, match=r"ranks_per_node=3 .* world_size=4; give one of 1, 2, 4"
    ):
        Resource(world_size=4, ranks_per_node=3)
    with pytest.raises(ResourceError, match="ranks_per_node=0"):
        Resource(world_size=4, ranks_per_node=0)


def test_ranks_do_not_share_a_gpu_and_are_told_why():
    with pytest.raises(ResourceError, match="two ranks would share a GPU, which NCCL refuses"):
        Resource(num_gpus=0.5, world_size=2)


def test_a_misspelt_name_is_answered_with_the_nearest():
    with pytest.raises(ResourceError, match="did you mean 'world_size'"):
        Resource.parse({"worldsize": 2})
