"""Where the fake world touches the real code: what of it is replaced while a story is told."""

from __future__ import annotations

import time as real_time
from collections import deque
from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any, Protocol

from ...core import activity, earlier, progress, steering
from ...core import attempt as attempt_module
from ...core import store as store_module
from ...core.experiment import Experiment
from ...core.lock import Lock
from ...core.store import Store
from ...resource import agent as agent_module
from ...resource import dask_link, dask_remote, detect, fleet, supervisor, versions
from ...resource.agent import Agent
from ...resource.node import NodeFacts
from ...resource.process import ProcessListener
from ...scheduler import base, running
from . import insides
from .dask import DaskCluster, FakeClient, FakeWorker
from .gangs import FakeNetwork
from .judge import Judge, Sent
from .machines import Machine, UserThread, World, running_machine
from .plan import Plan
from .trials import FakeProcesses

# The modules of the driver that look at a clock.
CLOCKS = (activity, attempt_module, base, dask_link, dask_remote, earlier, store_module)
VERSIONS = versions.own_versions()


class Stage(Protocol):
    """What the seams touch of a story: see `Story`."""

    world: World
    plan: Plan
    judge: Judge
    cluster: DaskCluster
    drivers: int
    driver: Machine
    user_thread: UserThread
    stores: list[Store]
    places_to_meet: dict[str, FakeWorker]


def seams(story: Stage) -> Iterator[tuple[Any, str, Any]]:
    """Where the fake world touches the real code."""
    clock = FakeTime(story)
    yield from ((module, "time", clock) for module in CLOCKS)
    yield store_module, "Store", partial(make_store, story)
    yield base, "loop", lambda: story.user_thread
    yield running, "loop", lambda: story.user_thread
    yield dask_link, "Client", lambda *a, **o: FakeClient(story.cluster, story.driver)
    yield dask_link, "Authority", lambda: None
    yield dask_link, "own_versions", lambda: VERSIONS
    yield detect, "detect", lambda: NodeFacts(1, (), 10**9, "", ("10.0.0.1", "127.0.0.1"))
    yield agent_module, "Agent", partial(WatchedAgent, story)
    # Looked at less often, for speed: fake trials print nothing and use no memory.
    yield supervisor, "LOOK_PERIOD_S", 5.0
    yield supervisor, "MEMORY_PERIOD_S", 1000.0
    yield steering, "EVERY_S", 1000.0
    yield progress.Progress, "say", lambda _, line: story.judge.told.append(line)
    for name in ("run", "wake", "on_messages"):
        yield Experiment, name, checked(getattr(Experiment, name))
    yield Experiment, "on_lost", judging_losses(story, Experiment.on_lost)
    if story.plan.echo:
        yield fleet.Fleet, "on_messages", echoing(story, fleet.Fleet.on_messages)


def judging_losses(story: Stage, on_lost: Callable[..., None]) -> Callable[..., None]:
    """Have the judge hear of nodes that are given up."""

    def lost(experiment: Any, remote: Any, reason: str, confirmed_dead: bool) -> None:
        story.judge.given_up(story.cluster.ever[remote.worker], reason)
        checked(on_lost)(experiment, remote, reason, confirmed_dead)

    return lost


def make_store(story: Stage, folder: Path, lock: Lock) -> Store:
    """The real store; its files are closed when its driver dies."""
    made = Store(folder, lock)
    story.stores.append(made)
    return made


def echoing(story: Stage, on_messages: Callable[..., None]) -> Callable[..., None]:
    """Repeat some of what agents say, up to a minute later."""

    def repeat(of_fleet: fleet.Fleet, remote: Any, messages: list[Any]) -> None:
        on_messages(of_fleet, remote, messages)
        again = [m for m in messages if m["op"] in ("report", "ended", "saved", "meets")]
        driver = story.driver
        if again and story.world.random.random() < 0.3:
            later = story.world.random.choice([0.01, 1.0, 60.0]) * story.world.random.random()
            story.world.post(later, partial(driver.do, on_messages, of_fleet, remote, again))

    return repeat


def checked(method: Callable[..., None]) -> Callable[..., None]:
    """A method of the experiment, after which all that must always hold is looked at."""

    def call(experiment: Experiment, *arguments: Any) -> None:
        method(experiment, *arguments)
        insides.check(experiment)

    return call


class FakeTime:
    """The module `time` of those who look at a clock."""

    def __init__(self, story: Stage) -> None:
        self._story = story

    def monotonic(self) -> float:
        """The driver's clock."""
        return self._story.driver.loop.time()

    def time(self) -> float:
        """The wall clock."""
        return self._story.world.wall_s + self._story.world.now

    def __getattr__(self, name: str) -> Any:
        return getattr(real_time, name)


class WatchedAgent(Agent):
    """A real agent with fake processes, of which the judge knows what it says and hears.

    `unacknowledged`: its reports that the driver has not acknowledged yet.
    """

    def __init__(
        self,
        story: Stage,
        *,
        folder: Path,
        send: Callable[[list[dict[str, Any]]], None],
        **options: Any,
    ) -> None:
        self.story = story
        self.unacknowledged: deque[Sent] = deque()

        def send_and_note(messages: list[dict[str, Any]]) -> None:
            for message in messages:
                if message["op"] == "report":
                    name = message["trial"], message["attempt"]
                    self.unacknowledged.append((*name, message["seq"], len(message["body"])))
            send(messages)

        def make_processes(folder: Path, listener: ProcessListener) -> Any:
            return FakeProcesses(story.plan, story.drivers, story.judge, listener)

        super().__init__(
            folder=folder,
            send=send_and_note,
            clock=lambda: running_machine().loop.time(),
            make_processes=make_processes,
            network=FakeNetwork(story.places_to_meet),
            **options,
        )

    def handle(self, messages: list[dict[str, Any]]) -> None:
        """Take messages of the driver."""
        for message in messages:
            self.story.judge.agent_hears(message, self.unacknowledged)
        super().handle(messages)
