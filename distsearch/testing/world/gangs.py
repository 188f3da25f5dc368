"""What the ranks of a trial have to do with each other in the world: meet, and work in step."""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import Sequence
from typing import TYPE_CHECKING

from ...resource.meeting import REACH_S, MeetingPoint, Network
from .dask import FakeWorker, running_worker

if TYPE_CHECKING:
    from .trials import Life

LOOK_S = 0.25  # how often a rank looks for the others
ports = itertools.count(20_000)


class FakePoint(MeetingPoint):
    """A port that exists in the world only."""

    def __init__(self, token: str) -> None:
        self.port, self.token = next(ports), token

    def give_way(self) -> None:
        """Nothing: no other has it."""

    def close(self) -> None:
        """Nothing."""


class FakeNetwork(Network):
    """The network between nodes; `places` are those where ranks meet, by token.

    It is another one than that to the driver: nodes that the driver does not reach may reach each
    other. Sometimes it fails.
    """

    def __init__(self, places: dict[str, FakeWorker]) -> None:
        self._places = places

    def interfaces(self) -> dict[str, str]:
        """One beside the loopback."""
        return {"10.0.0.1": "eth0", "127.0.0.1": "lo"}

    async def open(self, alone: bool) -> MeetingPoint:
        """Choose a port."""
        worker = running_worker()
        await asyncio.sleep(worker.world.random.uniform(0.0, 0.01))
        token = f"{worker.address} {next(ports)}"
        self._places[token] = worker
        return FakePoint(token)

    async def reach(self, addresses: Sequence[str], port: int, token: str) -> dict[str, str]:
        """Reach it, if its node lives."""
        world, there = running_worker().world, self._places[token].machine
        is_up = there.alive and there.paused_until <= world.now and world.random.random() > 0.02
        await asyncio.sleep(world.random.uniform(0.0, 0.02) if is_up else REACH_S)
        return {addresses[0]: "eth0"} if is_up else {}


class Gang:
    """The ranks of an attempt, which take every step together.

    gang.joins(life)
    gang.is_met(3)          # whether all ranks have come to step 3
    gang.is_broken          # whether one has gone before it had done its work
    """

    def __init__(self, size: int) -> None:
        self.size = size
        self.lives: list[Life] = []
        self.steps: dict[Life, float] = {}

    def joins(self, life: Life) -> None:
        """A rank begins."""
        self.lives.append(life)

    def comes_to(self, life: Life, step: float) -> None:
        """A rank has come to a step; inf: it has done its work."""
        self.steps[life] = step

    def is_met(self, step: float) -> bool:
        """Whether all ranks have come to a step."""
        return len(self.lives) == self.size and all(
            self.steps.get(life, 0.0) >= step for life in self.lives
        )

    @property
    def is_broken(self) -> bool:
        """Whether a rank has gone that the others wait for."""
        return any(life.is_over and self.steps.get(life) != float("inf") for life in self.lives)
