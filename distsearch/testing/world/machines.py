"""Machines with a loop each, on one virtual clock."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import random
import sqlite3
from asyncio import events
from collections import deque
from collections.abc import Callable, Coroutine, Mapping
from typing import Any, Generic, TypeVar

T = TypeVar("T")
Row = tuple[Any, ...]  # of the log, as it is written
TRACED = 3000  # so many last events are kept for the reader


class Violation(AssertionError):
    """A guarantee was broken."""


class DriverDied(BaseException):
    """What the user's own thread is in, when the driver's process is killed."""


class World:
    """Time, what happens next, and what has happened.

        world = World(seed=7, limit_s=600)
        world.post(2.5, lambda: print("2.5 s later"))
        world.run_until(lambda: world.now >= 3, limit_s=3)

    `now` is in seconds and begins at 0; a world that is older than `limit_s` has hung, which is a
    violation. `on_commit` hears of rows that are on the driver's disk, `before_commit` is called
    before they get there.
    """

    def __init__(self, seed: int, limit_s: float) -> None:
        self.random = random.Random(seed)
        self.now = 0.0
        self.limit_s = limit_s
        self.wall_s = 1.7e9  # what the wall clock shows beyond `now`; it may jump
        self.machines: list[Machine] = []
        self.violations: list[str] = []
        self.trace: deque[tuple[float, tuple[Any, ...]]] = deque(maxlen=TRACED)
        self.steps = 0
        self.disk_full = False
        self.writes_fail_once = False  # while the disk is full: the next attempt gets through
        self._last_failed = False
        self.on_commit: Callable[[list[Row]], None] = lambda rows: None
        self.before_commit: Callable[[], None] = lambda: None
        self._posted: list[tuple[float, int, Callable[[], object]]] = []
        self._numbers = itertools.count()

    def has_room(self) -> bool:
        """Whether the write that is about to be made on the driver's disk gets through."""
        self._last_failed = self.disk_full and not (self.writes_fail_once and self._last_failed)
        return not self._last_failed

    def post(self, delay_s: float, action: Callable[[], object]) -> None:
        """Let something happen after a delay."""
        heapq.heappush(self._posted, (self.now + delay_s, next(self._numbers), action))

    def note(self, *words: object) -> None:
        """Keep a line for the reader of a failed seed."""
        self.trace.append((self.now, words))

    def violated(self, text: str) -> None:
        """Take note that a guarantee was broken; the step that is being taken raises Violation."""
        self.note("VIOLATED", text)
        self.violations.append(text)

    def raise_first_violation(self) -> None:
        """Raise Violation if a guarantee was broken."""
        if self.violations:
            raise Violation(self.violations[0])

    def run_until(self, condition: Callable[[], bool], limit_s: float | None = None) -> bool:
        """Step until the condition holds; False when the limit (a time) has come before."""
        while not condition():
            if limit_s is not None and self.now >= limit_s:
                return False
            self.step(limit_s)
        return True

    def step(self, limit_s: float | None = None) -> None:
        """Do what is next: hand over a message, or let one machine's loop turn once."""
        self.steps += 1
        at, turn = float("inf"), None
        for machine in self.machines:
            next_at = machine.next_at
            if next_at < at or (next_at == at and self.random.random() < 0.5):
                at, turn = next_at, machine
        if self._posted and self._posted[0][0] <= at:
            at, turn = self._posted[0][0], None
        if limit_s is not None and at > limit_s:
            self.now = limit_s
            return
        self.now = max(self.now, at)
        if self.now > self.limit_s:
            self.violated(f"the search has not ended after {self.limit_s:g} s")
        elif turn is not None:
            turn.run_once()
        elif self._posted:
            heapq.heappop(self._posted)[2]()
        self.raise_first_violation()

    def close(self) -> None:
        """End all machines."""
        for machine in list(self.machines):
            machine.die()


class NoFiles:
    """A selector for loops that watch none."""

    def select(self, timeout: float | None) -> list[Any]:
        """Nothing ever happens to a file."""
        return []

    def get_map(self) -> dict[Any, Any]:
        """Nothing is watched."""
        return {}


class Loop(asyncio.BaseEventLoop):
    """The loop of one machine; it turns when the world says so."""

    # What asyncio's own loop has, and keeps to itself.
    _ready: deque[asyncio.Handle]
    _scheduled: list[asyncio.TimerHandle]
    _run_once: Callable[[], None]

    def __init__(self, machine: Machine) -> None:
        super().__init__()
        self.machine = machine
        self._selector = NoFiles()

    def time(self) -> float:
        """The machine's clock, in seconds."""
        return self.machine.world.now + self.machine.offset_s

    def next_at(self) -> float:
        """When it has something to do, in the world's time; inf: never, as things stand."""
        if self._ready:
            return self.machine.world.now
        if self._scheduled:
            return self._scheduled[0].when() - self.machine.offset_s
        return float("inf")

    def turn(self) -> None:
        """Do what is ready."""
        events._set_running_loop(self)
        try:
            self._run_once()
        finally:
            events._set_running_loop(None)

    def forget_all(self) -> None:
        """Be gone, with all tasks, without a word of them."""
        for task in asyncio.all_tasks(self):
            bury(task)
        self._ready.clear()
        self._scheduled.clear()
        self.close()

    def _process_events(self, event_list: list[Any]) -> None:
        pass

    def _write_to_self(self) -> None:
        pass

    def call_exception_handler(self, context: Mapping[str, Any]) -> None:
        """An exception that nobody catches is a violation, unless the machine is dead."""
        if not self.machine.alive:
            return
        error = context.get("exception")
        self.machine.world.violated(f"{self.machine.name}: {context.get('message')}: {error!r}")

    def run_in_executor(  # type: ignore[override]
        self, executor: Any, function: Callable[..., Any], *arguments: Any
    ) -> asyncio.Future[Any]:
        """What threads do, the store's writer above all: it takes a while, then it is known."""
        world, done = self.machine.world, self.create_future()
        commits = getattr(function, "__name__", "") == "_commit"

        def work() -> None:
            if not self.machine.alive:
                return
            error: Exception | None = None
            result = None
            if commits:
                world.before_commit()
                if not self.machine.alive:
                    return
            try:
                if commits and not world.has_room():
                    raise sqlite3.OperationalError("database or disk is full")
                result = function(*arguments)
            except Exception as raised:
                error = raised
            if commits and error is None:
                world.on_commit(*arguments)
            world.post(world.random.uniform(0, 0.002), lambda: answer(result, error))

        def answer(result: Any, error: Exception | None) -> None:
            if not self.machine.alive or done.done():
                return
            if error is None:
                self.call_soon(done.set_result, result)
            else:
                self.call_soon(done.set_exception, error)

        slow = world.random.random() < 0.02
        world.post(world.random.uniform(0.0005, 3.0 if slow else 0.02), work)
        return done


class Machine:
    """A process of the driver, or of a node with its trials: it lives, stands still, or is dead."""

    def __init__(self, world: World, name: str) -> None:
        self.world = world
        self.name = name
        self.alive = True
        self.offset_s = world.random.uniform(0, 1e5)  # no two clocks begin alike
        self.paused_until = 0.0
        self.loop = Loop(self)
        world.machines.append(self)

    @property
    def next_at(self) -> float:
        """When it does something next, in the world's time."""
        return max(self.loop.next_at(), self.paused_until)

    def run_once(self) -> None:
        """Let its loop turn once."""
        self.loop.turn()

    def do(self, function: Callable[..., object], *arguments: Any) -> None:
        """Call something in this machine's loop, if it is alive."""
        if self.alive:
            self.loop.call_soon(function, *arguments)

    def pause(self, seconds: float) -> None:
        """Stand still, as SIGSTOP or a hypervisor makes it."""
        self.paused_until = max(self.paused_until, self.world.now + seconds)

    def die(self) -> None:
        """Be gone, in the middle of whatever it did."""
        if not self.alive:
            return
        self.alive = False
        self.world.machines.remove(self)
        if events._get_running_loop() is self.loop:
            self.world.post(0.0, self.loop.forget_all)
        else:
            self.loop.forget_all()


def running_machine() -> Machine:
    """The machine in whose loop this is called."""
    loop = asyncio.get_running_loop()
    assert isinstance(loop, Loop)
    return loop.machine


def bury(task: asyncio.Task[Any]) -> None:
    """Let a task be forgotten without asyncio's complaint that it was not waited for."""
    task._log_destroy_pending = False  # type: ignore[attr-defined]


class Waiting(Generic[T]):
    """What the user's thread waits for: the world goes on meanwhile."""

    def __init__(self, machine: Machine, task: asyncio.Task[T]) -> None:
        self._machine = machine
        self._task = task

    def result(self, timeout: float | None = None) -> T:
        """The result of the coroutine. Raises TimeoutError, and DriverDied."""
        world, machine = self._machine.world, self._machine
        limit_s = None if timeout is None else world.now + timeout
        finished = world.run_until(lambda: self._task.done() or not machine.alive, limit_s)
        if not machine.alive:
            raise DriverDied
        if not finished:
            raise TimeoutError
        return self._task.result()

    def cancel(self) -> None:
        """Cancel what is waited for."""
        self._machine.do(self._task.cancel)


class UserThread:
    """Stands for `core.loop.LoopThread`: how the user's thread reaches the driver's loop."""

    def __init__(self, machine: Machine) -> None:
        self.machine = machine
        self.loop = machine.loop
        self.error: BaseException | None = None  # this loop ends with its machine alone

    def refuse_inside(self) -> None:
        """Nothing: whatever a rule of a story calls is its own."""

    def submit(self, coroutine: Coroutine[Any, Any, T]) -> Waiting[T]:
        """Start a coroutine in the loop. Raises DriverDied."""
        if not self.machine.alive:
            coroutine.close()
            raise DriverDied
        return Waiting(self.machine, self.loop.create_task(coroutine))

    def call(self, coroutine: Coroutine[Any, Any, T], timeout_s: float | None = None) -> T:
        """Run a coroutine in the loop and wait for its result."""
        return self.submit(coroutine).result(timeout_s)

    def run(self, function: Callable[[], T], timeout_s: float | None = None) -> T:
        """Call a function in the loop and wait for its result."""

        async def call() -> T:
            return function()

        return self.call(call(), timeout_s)
