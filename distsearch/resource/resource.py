"""What one trial asks of a node."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass, fields
from fractions import Fraction
from functools import lru_cache
from numbers import Integral, Real
from typing import Any

from ..errors import ResourceError


@dataclass(frozen=True)
class Resource:
    """The slots that one trial takes: `Resource(num_cpus=2, num_gpus=0.25, memory_gb=4)`.

    `num_gpus` is a count of whole GPUs, or a share of one GPU (0.001 to 1) that trials divide among
    themselves. `memory_gb` (1e9 bytes) is reserved as CPUs are; None reserves none.
    Raises ResourceError for values that make no sense.
    """

    num_cpus: int = 1
    num_gpus: float = 0
    memory_gb: float | None = None

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
        # NumPy's numbers may be given, but JSON takes only Python's.
        object.__setattr__(self, "num_cpus", int(self.num_cpus))
        object.__setattr__(self, "num_gpus", float(gpus) if 0 < gpus < 1 else int(gpus))
        object.__setattr__(self, "memory_gb", None if memory is None else float(memory))

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
            raise ResourceError(f"resource has the unknown names {unknown}; valid are {names}")
        return cls(**given)

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
