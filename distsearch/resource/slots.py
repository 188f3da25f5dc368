"""The slots of one node: what is free, what is taken, and by whom."""

from __future__ import annotations

from dataclasses import dataclass
from fractions import Fraction
from typing import NamedTuple

from ..errors import ResourceError
from .node import NodeFacts
from .resource import Resource, exact_share


@dataclass(frozen=True, eq=False)
class Allocation:
    """Slots that one trial holds; two trials with equal slots are still two allocations.

    `gpus` are names for CUDA_VISIBLE_DEVICES, `gpu_share` is the share of each GPU that is held (1
    for whole GPUs, 0 without a GPU), `memory_bytes` is what is reserved, None for nothing.
    """

    cpus: int
    gpus: tuple[str, ...]
    gpu_share: float
    memory_bytes: int | None


class Level(NamedTuple):
    """How full a node is, apart from memory: to a request, nodes of one level are alike.

    `open_share` is the largest free share of a GPU that some trial uses already.
    """

    has_gpus: bool
    cpus: int
    whole_gpus: int
    open_share: float

    def admits(self, resource: Resource) -> bool:
        """Whether the request's CPUs and GPUs are free."""
        if resource.num_cpus > self.cpus:
            return False
        if not resource.num_gpus:
            return True
        if resource.num_gpus < 1:
            return self.whole_gpus > 0 or float(resource.gpu_share) <= self.open_share
        return resource.num_gpus <= self.whole_gpus

    def missing(self, resource: Resource) -> float:
        """How much is missing for a request: 0: nothing, 2: all CPUs and GPUs."""
        missing = 0.0
        if resource.num_cpus > self.cpus:
            missing += 1 - self.cpus / resource.num_cpus
        if resource.num_gpus >= 1:
            missing += max(0.0, 1 - self.whole_gpus / resource.num_gpus)
        elif resource.num_gpus and not self.whole_gpus:
            missing += max(0.0, 1 - self.open_share / float(resource.gpu_share))
        return missing

    def preference(self, resource: Resource) -> tuple[float, ...]:
        """Smaller is better: CPU trials spread, and keep off GPU nodes; GPU trials pack."""
        if not resource.num_gpus:
            return (self.has_gpus, -self.cpus)
        opens_a_gpu = float(resource.gpu_share) > self.open_share
        return (opens_a_gpu, self.whole_gpus, -self.cpus)


class NodeResourceManager:
    """Accounts for the slots of one node.

        slots = NodeResourceManager(NodeFacts(num_cpus=8, gpus=("0",), memory_bytes=64 * 10**9))
        allocation = slots.allocate(Resource(num_cpus=2, num_gpus=0.25))   # .gpus == ("0",)
        slots.release(allocation)

    A whole GPU is given only when no trial uses it. A share comes from the GPU with the smallest
    free share that suffices, so that whole GPUs stay free. `level` says how full the node is.
    """

    def __init__(self, facts: NodeFacts) -> None:
        self.facts = facts
        self._cpus = facts.num_cpus
        self._memory_bytes = facts.memory_bytes
        self._gpus = dict.fromkeys(facts.gpus, Fraction(1))
        self._allocations: set[Allocation] = set()
        self._empty = self.level = self._measure()

    def fits(self, resource: Resource) -> bool:
        """Whether the node could hold a request, if it were empty."""
        return self._empty.admits(resource) and (
            (resource.memory_bytes or 0) <= self.facts.memory_bytes
        )

    def most(self, resource: Resource) -> int:
        """How many such requests the node could hold at once, if it were empty."""
        fits = []
        if resource.num_cpus:
            fits.append(self.facts.num_cpus // resource.num_cpus)
        if resource.num_gpus >= 1:
            fits.append(len(self._gpus) // int(resource.num_gpus))
        elif resource.num_gpus:
            fits.append(len(self._gpus) * int(1 / resource.gpu_share))
        if resource.memory_bytes:
            fits.append(self.facts.memory_bytes // resource.memory_bytes)
        return min(fits)

    def free(self, resource: Resource) -> bool:
        """Whether the node can hold a request now."""
        return self.level.admits(resource) and (resource.memory_bytes or 0) <= self._memory_bytes

    def allocate(self, resource: Resource) -> Allocation:
        """Take the slots of one process; raises ResourceError when they are not free."""
        if not self.free(resource):
            raise ResourceError(f"{resource} is not free on {self!r}; ask `free` before, or wait")
        share = float(resource.gpu_share) if resource.num_gpus else 0.0
        allocation = Allocation(
            resource.num_cpus, self._choose_gpus(resource), share, resource.memory_bytes
        )
        self._allocations.add(allocation)
        self._change(allocation, -1)
        return allocation

    def release(self, allocation: Allocation) -> None:
        """Give slots back; raises ResourceError when they are not held (any more)."""
        if allocation not in self._allocations:
            raise ResourceError(f"{allocation} is not held on {self!r}; release it once, here")
        self._allocations.remove(allocation)
        self._change(allocation, +1)

    @property
    def used(self) -> tuple[int, float]:
        """How many CPUs and GPUs are taken; shares of GPUs are added up."""
        gpus = len(self._gpus) - sum(self._gpus.values())
        return self.facts.num_cpus - self._cpus, float(gpus)

    def _choose_gpus(self, resource: Resource) -> tuple[str, ...]:
        if resource.num_gpus >= 1:
            whole = [gpu for gpu, free in self._gpus.items() if free == 1]
            return tuple(whole[: int(resource.num_gpus)])
        if resource.num_gpus:
            share = float(resource.gpu_share)
            enough = [gpu for gpu, free in self._gpus.items() if float(free) >= share]
            return (min(enough, key=lambda gpu: self._gpus[gpu]),)
        return ()

    def _change(self, allocation: Allocation, sign: int) -> None:
        self._cpus += sign * allocation.cpus
        self._memory_bytes += sign * (allocation.memory_bytes or 0)
        for gpu in allocation.gpus:
            self._gpus[gpu] += sign * exact_share(allocation.gpu_share)
        self.level = self._measure()

    def _measure(self) -> Level:
        if not self._gpus:  # (as on most nodes; quick, as it is measured for each lease)
            return Level(False, self._cpus, 0, 0.0)
        whole = sum(free == 1 for free in self._gpus.values())
        open_shares = (float(free) for free in self._gpus.values() if free < 1)
        return Level(True, self._cpus, whole, max(open_shares, default=0.0))

    def __repr__(self) -> str:
        return f"NodeResourceManager({self.facts.num_cpus} CPUs, {len(self._gpus)} GPUs)"
