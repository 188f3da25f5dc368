"""What can befall a search."""

from __future__ import annotations

import random
from collections.abc import Callable
from typing import Protocol

from .dask import FakeNode, FakeWorker
from .machines import Machine, World
from .trials import FakeProcesses


class Victim(Protocol):
    """What troubles befall: of a story, what they touch."""

    world: World
    draw: random.Random
    driver: Machine
    nodes: list[FakeNode]
    troubles_are_over: bool

    def kill_driver_if_alive(self, why: str) -> None:
        """The driver's process is gone, if there still is one."""

    def interrupt(self) -> None:
        """The user presses Ctrl-C."""

    def processes_of(self, worker: FakeWorker) -> list[FakeProcesses]:
        """What the agents on a worker have started, by agent."""


def driver_crash(story: Victim) -> None:
    """The driver is killed."""
    story.kill_driver_if_alive("SIGKILL")


def driver_pause(story: Victim) -> None:
    """The driver stands still for a while: suspended, or a laptop asleep."""
    if story.troubles_are_over:
        return
    seconds = story.draw.uniform(1, 80)
    story.world.note(f"the driver stands still for {seconds:.1f} s")
    story.driver.pause(seconds)


def ctrl_c(story: Victim) -> None:
    """The user interrupts the search, and then lets the same program go on with it."""
    story.interrupt()


def node_pause(story: Victim) -> None:
    """A node stands still, its trials too; its connection may break meanwhile."""
    worker = story.draw.choice(story.nodes).worker
    seconds = story.draw.uniform(1, story.draw.choice([30, 90]))
    story.world.note(worker.address, f"stands still for {seconds:.1f} s")
    worker.machine.pause(seconds)
    if story.draw.random() < 0.5:
        at = story.draw.choice([0.0, 1.0, seconds]) * story.draw.random()
        closes = story.draw.uniform(seconds, seconds + 60)
        story.world.post(at, lambda: worker.break_wires(0.01, closes))


def partition(story: Victim) -> None:
    """No word gets through, in one direction or both; in the end the connection may break."""
    worker = story.draw.choice(story.nodes).worker
    seconds = story.draw.uniform(1, 60)
    ways = story.draw.choice(["down", "up", "both"])
    story.world.note(worker.address, f"partition ({ways}) for {seconds:.1f} s")
    wires = [w for name, w in (("down", worker.down), ("up", worker.up)) if ways in (name, "both")]
    for wire in wires:
        wire.is_blocked = True

    def unblock() -> None:
        for wire in wires:
            wire.unblock()

    story.world.post(seconds, unblock)
    breaks = story.draw.uniform(10, 30)
    if breaks < seconds:
        closes = story.draw.uniform(0, 60)
        story.world.post(breaks, lambda: worker.break_wires(story.draw.uniform(0, 5), closes))


def connection_breaks(story: Victim) -> None:
    """A connection breaks; the driver sees it at once, the node up to 80 s later."""
    worker = story.draw.choice(story.nodes).worker
    worker.break_wires(0.001, story.draw.uniform(0, 80))


def node_dies(story: Victim) -> None:
    """A node's process is killed."""
    story.draw.choice(story.nodes).worker.die("SIGKILL")


def power_cut(story: Victim) -> None:
    """A node is gone without a word."""
    worker = story.draw.choice(story.nodes).worker
    worker.down.is_blocked = worker.up.is_blocked = True
    worker.die("power cut")


def launcher_dies(story: Victim) -> None:
    """A node's launcher is killed, and its trials with it."""
    worker = story.draw.choice(story.nodes).worker
    for processes in story.processes_of(worker):
        if processes.is_up and processes.lives:
            story.world.note(worker.address, "launcher dies")
            worker.machine.do(processes.launcher_dies)


def trial_dies(story: Victim) -> None:
    """A trial is killed."""
    worker = story.draw.choice(story.nodes).worker
    agents = story.processes_of(worker)
    lives = [life for processes in agents for life in processes.lives.values()]
    if lives:
        story.world.note(worker.address, "a trial is killed")
        worker.machine.do(story.draw.choice(lives).signalled, 9)


def disk_full(story: Victim) -> None:
    """The driver's disk is full for a while, or so nearly that each write fails at first."""
    # (By dice of its own, so that the seeds stay what they were.)
    story.world.writes_fail_once = random.Random(f"disk {story.world.now}").random() < 0.5
    each = ", and then not: each write fails once" if story.world.writes_fail_once else ""
    story.world.note(f"the driver's disk is full{each}")
    story.world.disk_full = True
    story.world.post(story.draw.uniform(1, 30), lambda: setattr(story.world, "disk_full", False))


def clock_jumps(story: Victim) -> None:
    """The driver's wall clock is set an hour forward or back."""
    story.world.wall_s += story.draw.choice([-3600, 3600])


TROUBLES: dict[str, Callable[[Victim], None]] = {
    one.__name__: one
    for one in (
        driver_crash,
        driver_pause,
        ctrl_c,
        node_pause,
        partition,
        connection_breaks,
        node_dies,
        power_cut,
        launcher_dies,
        trial_dies,
        disk_full,
        clock_jumps,
    )
}
