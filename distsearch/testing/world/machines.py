"""Machines with a loop each, on one virtual clock."""

from __future__ import annotations

import asyncio
import heapq
import itertools
import random
import sqlite3
from asyncio import events
from collections import deque

TRACED = 3000  # so many last events are kept for the reader


class Violation(AssertionError):
    """A guarantee was broken."""


class DriverDied(BaseException):
    """What the user's own thread is in, when the driver's process is killed."""


class World:
    """Time, what happens next, and what has happened."""

    def __init__(self, seed, limit_s):
        self.random = random.Random(seed)
        self.now = 0.0
        self.limit_s = limit_s
        self.wall_s = 1.7e9  # what the wall clock shows beyond `now`; it may jump
        self.machines = []
        self.violations = []
        self.trace = deque(maxlen=TRACED)
        self.steps = 0
        self.disk_full = False
        self.on_commit = lambda rows: None
        self.before_commit = lambda: None
        self._posted = []
        self._numbers = itertools.count()

    def post(self, delay_s, action):
        """Let something happen after a delay."""
        heapq.heappush(self._posted, (self.now + delay_s, next(self._numbers), action))

    def note(self, *words):
        """Keep a line for the reader of a failed seed."""
        self.trace.append((self.now, words))

    def violated(self, text):
        self.note("VIOLATED", text)
        self.violations.append(text)

    def run_until(self, condition, limit_s=None):
        """Step until the condition holds; False when the limit (a time) has come before."""
        while not condition():
            if limit_s is not None and self.now >= limit_s:
                return False
            self.step(limit_s)
        return True

    def step(self, limit_s=None):
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
        if self.violations:
            raise Violation(self.violations[0])

    def close(self):
        for machine in list(self.machines):
            machine.die()


class NoFiles:
    """A selector for loops that watch none."""

    def select(self, timeout):
        return []

    def get_map(self):
        return {}


class Loop(asyncio.BaseEventLoop):
    """The loop of one machine; it turns when the world says so."""

    def __init__(self, machine):
        super().__init__()
        self.machine = machine
        self._selector = NoFiles()

    def time(self):
        return self.machine.world.now + self.machine.offset_s

    def _process_events(self, event_list):
        pass

    def _write_to_self(self):
        pass

    def call_exception_handler(self, context):
        if not self.machine.alive:
            return
        error = context.get("exception")
        self.machine.world.violated(f"{self.machine.name}: {context.get('message')}: {error!r}")

    def run_in_executor(self, executor, function, *arguments):
        """What threads do, the store's writer above all: it takes a while, then it is known."""
        world, done = self.machine.world, self.create_future()
        commits = getattr(function, "__name__", "") == "_commit"

        def work():
            if not self.machine.alive:
                return
            error = result = None
            if commits:
                world.before_commit()
                if not self.machine.alive:
                    return
            try:
                if commits and world.disk_full:
                    raise sqlite3.OperationalError("database or disk is full")
                result = function(*arguments)
            except Exception as raised:
                error = raised
            if commits and error is None:
                world.on_commit(*arguments)
            world.post(world.random.uniform(0, 0.002), lambda: answer(result, error))

        def answer(result, error):
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

    def __init__(self, world, name):
        self.world = world
        self.name = name
        self.alive = True
        self.offset_s = world.random.uniform(0, 1e5)  # no two clocks begin alike
        self.paused_until = 0.0
        self.loop = Loop(self)
        world.machines.append(self)

    @property
    def next_at(self):
        loop = self.loop
        if loop._ready:
            at = self.world.now
        elif loop._scheduled:
            at = loop._scheduled[0]._when - self.offset_s
        else:
            return float("inf")
        return max(at, self.paused_until)

    def run_once(self):
        events._set_running_loop(self.loop)
        try:
            self.loop._run_once()
        finally:
            events._set_running_loop(None)

    def do(self, function, *arguments):
        """Call something in this machine's loop, if it is alive."""
        if self.alive:
            self.loop.call_soon(function, *arguments)

    def pause(self, seconds):
        """Stand still, as SIGSTOP or a hypervisor makes it."""
        self.paused_until = max(self.paused_until, self.world.now + seconds)

    def die(self):
        """Be gone, in the middle of whatever it did."""
        if not self.alive:
            return
        self.alive = False
        self.world.machines.remove(self)
        if events._get_running_loop() is self.loop:
            self.world.post(0.0, self._bury)
        else:
            self._bury()

    def _bury(self):
        for task in asyncio.all_tasks(self.loop):
            task._log_destroy_pending = False
        self.loop._ready.clear()
        self.loop._scheduled.clear()
        self.loop.close()


class Waiting:
    """What the user's thread waits for: the world goes on meanwhile."""

    def __init__(self, machine, task):
        self._machine = machine
        self._task = task

    def result(self, timeout=None):
        world, machine = self._machine.world, self._machine
        limit_s = None if timeout is None else world.now + timeout
        finished = world.run_until(lambda: self._task.done() or not machine.alive, limit_s)
        if not machine.alive:
            raise DriverDied
        if not finished:
            raise TimeoutError
        return self._task.result()

    def cancel(self):
        self._machine.do(self._task.cancel)


class UserThread:
    """Stands for `core.loop.LoopThread`: how the user's thread reaches the driver's loop."""

    def __init__(self, machine):
        self.machine = machine
        self.loop = machine.loop

    def submit(self, coroutine):
        if not self.machine.alive:
            coroutine.close()
            raise DriverDied
        return Waiting(self.machine, self.loop.create_task(coroutine))

    def call(self, coroutine, timeout_s=None):
        return self.submit(coroutine).result(timeout_s)

    def run(self, function, timeout_s=None):
        async def call():
            return function()

        return self.call(call(), timeout_s)
