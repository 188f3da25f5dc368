"""The accounting of one node."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from distsearch.errors import ResourceError
from distsearch.resource.node import NodeFacts
from distsearch.resource.resource import Resource
from distsearch.resource.slots import NodeResourceManager


def node(cpus=8, gpus=0, memory_gb=64):
    names = tuple(str(index) for index in range(gpus))
    return NodeResourceManager(NodeFacts(cpus, names, memory_gb * 10**9))


def test_it_shows_its_slots():
    assert repr(node(8, 2)) == "NodeResourceManager(8 CPUs, 2 GPUs)"


def test_cpus_are_taken_and_given_back():
    slots = node(cpus=4)
    allocation = slots.allocate(Resource(num_cpus=3))
    assert (allocation.cpus, allocation.gpus, allocation.memory_bytes) == (3, (), None)
    assert slots.used == (3, 0)
    assert not slots.free(Resource(num_cpus=2))
    assert slots.fits(Resource(num_cpus=4))
    slots.release(allocation)
    assert slots.free(Resource(num_cpus=4))


def test_what_is_not_free_is_refused_and_takes_nothing():
    slots = node(cpus=4, gpus=1)
    slots.allocate(Resource(num_cpus=3))
    with pytest.raises(ResourceError, match="not free"):
        slots.allocate(Resource(num_cpus=2, num_gpus=1))
    assert slots.used == (3, 0)


def test_releasing_twice_is_an_error_and_frees_once():
    slots = node(cpus=4)
    slots.allocate(Resource(num_cpus=2))
    equal = slots.allocate(Resource(num_cpus=2))
    slots.release(equal)
    with pytest.raises(ResourceError, match="not held"):
        slots.release(equal)
    assert slots.used == (2, 0)


def test_memory_is_reserved_only_when_asked():
    slots = node(cpus=8, memory_gb=10)
    slots.allocate(Resource(memory_gb=8))
    assert not slots.free(Resource(memory_gb=3))
    assert slots.free(Resource(memory_gb=2))
    assert slots.free(Resource())
    assert not slots.fits(Resource(memory_gb=11))


@pytest.mark.parametrize("parts", [2, 3, 6, 7, 10, 33])
def test_that_many_shares_fit_on_one_gpu_and_one_more_does_not(parts):
    slots = node(cpus=100, gpus=1)
    share = Resource(num_gpus=1 / parts)
    allocations = [slots.allocate(share) for _ in range(parts)]
    assert all(allocation.gpus == ("0",) for allocation in allocations)
    assert allocations[0].gpu_share == pytest.approx(1 / parts, abs=1e-12)
    assert slots.used == (parts, 1)
    assert not slots.free(share)
    for allocation in allocations:
        slots.release(allocation)
    assert slots.free(Resource(num_gpus=1))


def test_a_whole_gpu_is_given_only_when_nobody_shares_it():
    slots = node(gpus=2)
    slots.allocate(Resource(num_gpus=0.1))
    assert not slots.free(Resource(num_gpus=2))
    whole = slots.allocate(Resource(num_gpus=1))
    assert (whole.gpus, whole.gpu_share) == (("1",), 1)


def test_shares_are_packed_so_that_whole_gpus_stay_free():
    slots = node(gpus=3)
    slots.allocate(Resource(num_gpus=0.5))
    slots.allocate(Resource(num_gpus=0.75))
    assert slots.allocate(Resource(num_gpus=0.25)).gpus == ("1",)
    assert slots.allocate(Resource(num_gpus=0.25)).gpus == ("0",)
    assert slots.free(Resource(num_gpus=1))


resources = st.builds(
    Resource,
    num_cpus=st.integers(1, 4),
    num_gpus=st.sampled_from([0, 0.1, 0.25, 1 / 3, 0.5, 1, 2]),
    memory_gb=st.none() | st.integers(1, 9),
)


@given(st.lists(resources | st.integers(0, 9), max_size=60))
def test_a_node_is_never_oversubscribed(steps):
    """A resource is asked for; a number releases the oldest but so many."""
    slots = node(cpus=8, gpus=3, memory_gb=16)
    held = []
    for step in steps:
        if isinstance(step, int):
            if step < len(held):
                slots.release(held.pop(step)[1])
        elif slots.free(step):
            held.append((step, slots.allocate(step)))
        on_gpu = {gpu: [r for r, a in held if gpu in a.gpus] for gpu in "012"}
        assert sum(r.num_cpus for r, _ in held) == slots.used[0] <= 8
        assert sum(a.memory_bytes or 0 for _, a in held) <= 16 * 10**9
        for there in on_gpu.values():
            assert sum(r.gpu_share for r in there) <= 1
            assert len(there) == 1 or all(r.num_gpus < 1 for r in there)
        assert all(len(a.gpus) == -(-r.num_gpus // 1) for r, a in held)
        assert slots.used[1] == pytest.approx(sum(r.num_gpus for r, _ in held))
    for _, allocation in held:
        slots.release(allocation)
    assert slots.used == (0, 0)
    assert slots.free(Resource(num_cpus=8, num_gpus=3, memory_gb=16))
