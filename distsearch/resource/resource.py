"""What one trial asks of the nodes."""

from __future__ import annotations

import difflib
import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from fractions import Fraction
from functools import cached_property, lru_cache
from numbers import Integral, Real
from typing import Any

from ..errors import ResourceError


@dataclass(frozen=True)
class Resource:
    """The slots that one trial takes: `Resource(num_cpus=2, num_gpus=0.25, memory_gb=4)`.

    `num_gpus` is a number of whole GPUs, or a share of one GPU (0.001 to 1), which several trials
    then use. `memory_gb` (1e9 bytes) is reserved, as CPUs are; None reserves none. `world_size`:
    how many processes, its ranks, a trial has; they start together, and each takes these slots, on
    whichever nodes. `ranks_per_node`: how many ranks are on each node; None: wherever there is
    room. `Resource(num_gpus=1, world_size=4, ranks_per_node=2)` takes two nodes. Raises
    ResourceError for values that make no sense.
    """

    num_cpus: int = 1
    num_gpus: float = 0
    memory_gb: float | None = None
    world_size: int = 1
    ranks_per_node: int | None = None

    def __post_init__(self) -> None:
        if not _is_number(self.num_cpus, Integral) or self.num_cpus < 0:
            raise ResourceError(f"num_cpus={self.num_cpus!r}; give an integer of at least 0")
        gpus = self.num_gpus
        if not _is_number(gpus, Real) or not (0.001 <= gpus < 1 or (gpus >= 0 and gpus % 1 == 0)):
            raise ResourceError(f"num_gpus={gpus!r}; give an integer, or a share from 0.001 to 1")
        if self.num_cpus == 0 and gpus == 0:
            raise ResourceError("num_cpus=0 and num_gpus=0; a trial needs at least one of them")
        memory = self.memory_gb
        if memory is not None and not (_is_number(memory, Real) and 0 < memory < math.inf):
            raise ResourceError(f"memory_gb={memory!r}; give a number of GB above 0, or None")
        self._check_ranks()
        # (NumPy's numbers are welcome, but JSON takes only Python's.)
        object.__setattr__(self, "num_cpus", int(self.num_cpus))
        object.__setattr__(self, "num_gpus", float(gpus) if 0 < gpus < 1 else int(gpus))
        object.__setattr__(self, "memory_gb", None if memory is None else float(memory))
        object.__setattr__(self, "world_size", int(self.world_size))
        if self.ranks_per_node is not None:
            object.__setattr__(self, "ranks_per_node", int(self.ranks_per_node))

    def _check_ranks(self) -> None:
        ranks, together = self.world_size, self.ranks_per_node
        if not _is_number(ranks, Integral) or ranks < 1:
            raise ResourceError(
                f"world_size={ranks!r}; give an integer of at least 1, the processes of one trial"
            )
        if together is not None and not (_is_number(together, Integral) and together >= 1):
            raise ResourceError(
                f"ranks_per_node={together!r}; give an integer of at least 1, or None for any"
            )
        if together is not None and ranks % together:
            divisors = [n for n in range(1, ranks + 1) if ranks % n == 0]
            raise ResourceError(
                f"ranks_per_node={together} does not divide world_size={ranks}; give one of "
                f"{', '.join(map(str, divisors))}"
            )
        if ranks > 1 and 0 < self.num_gpus < 1:
            raise ResourceError(
                f"num_gpus={self.num_gpus!r} with world_size={ranks}: two ranks would share a GPU, "
                "which NCCL refuses; give num_gpus=1 for each rank, or 0 to use gloo on CPUs"
            )

    def __str__(self) -> str:
        """What is asked for, as arguments: `num_cpus=1, world_size=4`."""
        usual = {item.name: item.default for item in fields(self)}
        asked = {name: getattr(self, name) for name in usual}
        return ", ".join(
            f"{name}={value:g}"
            for name, value in asked.items()
            if name == "num_cpus" or value != usual[name]
        )

    @classmethod
    def parse(cls, given: Mapping[str, Any] | Resource | None) -> Resource:
        """Read `{'num_cpus': 2, 'num_gpus': 0}`; None is one CPU, a Resource stays as it is.

        Raises ResourceError for unknown names, with the valid ones.
        """
        if given is None:
            return cls()
        if isinstance(given, Resource):
            return given
        names = [item.name for item in fields(cls)]
        if not isinstance(given, Mapping):
            raise ResourceError(f"resource={given!r}; give a dict with some of {names}")
        unknown = [name for name in given if name not in names]
        if unknown:
            nearest = difflib.get_close_matches(str(unknown[0]), names, 1)
            hint = f"; did you mean {nearest[0]!r}?" if nearest else ""
            raise ResourceError(
                f"resource has the unknown names {unknown}; valid are {names}{hint}"
            )
        return cls(**given)

    @cached_property
    def parts(self) -> tuple[int, int]:
        """How many parts a request for the trial has, and how many ranks each part has on one node.

        >>> Resource(world_size=4).parts, Resource(world_size=4, ranks_per_node=2).parts
        ((4, 1), (2, 2))
        """
        ranks = self.ranks_per_node or 1
        return self.world_size // ranks, ranks

    def of_ranks(self, ranks: int) -> Resource:
        """What `ranks` of its ranks need together on one node."""
        if ranks == self.world_size == 1:
            return self
        memory_gb = None if self.memory_gb is None else ranks * self.memory_gb
        return Resource(ranks * self.num_cpus, ranks * self.num_gpus, memory_gb)

    @property
    def gpu_share(self) -> Fraction:
        """The share of each GPU that is taken, exactly: 1/10 for 0.1, 1 for whole GPUs, else 0."""
        return exact_share(self.num_gpus) if self.num_gpus < 1 else Fraction(1)

    @property
    def memory_bytes(self) -> int | None:
        """The bytes to reserve, or None."""
        return None if self.memory_gb is None else round(self.memory_gb * 1e9)


@lru_cache(maxsize=256)
def exact_share(share: float) -> Fraction:
    """The fraction that is meant by a float: ten times 0.1, and six times 0.1667, are one GPU."""
    return Fraction(share).limit_denominator(1000)


def _is_number(value: object, kind: type) -> bool:
    return isinstance(value, kind) and not isinstance(value, bool)
