"""One seed: a search, what befalls it, and the driver that is started again until it is done."""

from __future__ import annotations

import contextlib
import random
import shutil
import tempfile
import time as real_time
from collections import deque
from pathlib import Path
from unittest import mock

from ...core import experiment as experiment_module
from ...core import store as store_module
from ...core.decorators import args
from ...errors import NodeError, ResourceError, SearchFailed
from ...resource import agent as agent_module
from ...resource import dask_link, detect, fleet
from ...resource.node import NodeFacts
from ...scheduler import FIFOScheduler, HyperbandScheduler, PBTScheduler, base
from ...space import Real
from .dask import DaskCluster, FakeClient, FakeWorker
from .judge import Judge
from .machines import DriverDied, Machine, UserThread, Violation, World
from .trials import FakeProcesses

LIMIT_S = 20_000.0
TROUBLE_S = 150.0  # after this time nothing more goes wrong by itself
OPERATOR_S = 15.0
VERSIONS = dask_link.own_versions()
RULES = ("fifo", "fifo", "evolution", "stopping", "promotion", "synchronous", "pbt")
MEMORY = Path("/dev/shm")  # a folder in memory, where there is one


@args(x=Real(0.0, 1.0))
def train_fn(args, reporter):
    """Never called: fake trials train in its place."""


class Node:
    """A machine; the worker on it may be replaced."""

    def __init__(self, number, cpus):
        self.number = number
        self.host = f"node{number}"
        self.cpus = cpus
        self.workers = []

    @property
    def worker(self):
        return self.workers[-1]


class FakeTime:
    """The module `time` of those who look at a clock."""

    def __init__(self, story):
        self._story = story

    def monotonic(self):
        return self._story.driver.loop.time()

    def time(self):
        return self._story.world.wall_s + self._story.world.now

    def __getattr__(self, name):
        return getattr(real_time, name)


class Story:
    """A search in a world of its own, all of it drawn from a seed.

    `weather` fixes some of what would be drawn: `troubles` (names), `blows` (how many of them
    come), `delay_s` of the network, `epoch_s`, `rule`.
    """

    def __init__(self, seed, weather=None):
        weather = weather or {}
        self.seed = seed
        self.world = World(seed, LIMIT_S)
        self.judge = Judge(self)
        self.world.on_commit = self.judge.committed
        self.world.before_commit = self.at_commit
        draw = self.draw = random.Random(f"plan {seed}")
        self.folder = Path(
            tempfile.mkdtemp(prefix="simulation-", dir=MEMORY if MEMORY.is_dir() else None)
        )
        self.drivers = 0
        self.driver = None
        self.scheduler = None
        self.stores = []
        self.commits = 0
        self.crash_at_commits = set()
        # What is searched
        self.rule = weather.get("rule", draw.choice(RULES))
        self.num_trials = draw.randint(4, 14)
        self.max_t = draw.randint(3, 9)
        self.epoch_s = weather.get("epoch_s", draw.choice([0.3, 2.0, 8.0, 25.0, 25.0]))
        self.saves = draw.choice([0, 1, 1, 2])
        self.cpus = draw.choice([1, 1, 1, 2])
        self.reuse = draw.random() < 0.4
        self.zoo = draw.random() < 0.5
        self.report_timeout = draw.choice([None, 40.0]) if self.zoo else None
        self.max_failures = draw.choice([0, 1, 3, 3])
        # Where
        self.cluster = DaskCluster(self.world, self.folder)
        count = draw.randint(1, 3)
        self.nodes = [Node(n, draw.randint(self.cpus, 3)) for n in range(count)]
        self.delay_s = weather.get("delay_s", draw.choice([0.0005, 0.003, 0.1, 1.5]))
        # What befalls it
        self.echo = draw.random() < 0.25
        self.troubles = draw.sample(list(TROUBLES), draw.randint(1, 4))
        self.troubles = weather.get("troubles", self.troubles)
        for _ in range(weather.get("blows", draw.randint(1, 7))):
            name = draw.choice(self.troubles)
            at = draw.uniform(0.5, draw.choice([10.0, 40.0, TROUBLE_S]))
            self.world.post(at, lambda name=name: TROUBLES[name](self))
        if "driver_crash" in self.troubles and draw.random() < 0.5:
            self.crash_at_commits = {draw.randint(2, 60) for _ in range(2)}

    def __str__(self):
        places = ", ".join(f"{node.host} ({node.cpus} CPUs)" for node in self.nodes)
        return (
            f"{self.rule}, {self.num_trials} trials of {self.max_t} epochs and {self.cpus} CPUs, "
            f"on {places}; troubles: {', '.join(self.troubles)}{', echo' if self.echo else ''}"
        )

    # Telling it

    def tell(self):
        """Run the search to its end, whatever happens; Violation if a guarantee is broken."""
        with contextlib.ExitStack() as exits:
            exits.callback(self.clean_up)
            for target, name, value in self.seams():
                exits.enter_context(mock.patch.object(target, name, value))
            for node in self.nodes:
                self.start_worker(node)
            self.world.post(OPERATOR_S, self.look_after_nodes)
            self.search()
            self.compare_with_replay()

    def seams(self):
        """Where the fake world touches the real code."""
        clock = FakeTime(self)
        yield from ((module, "time", clock) for module in (experiment_module, dask_link, base))
        yield store_module, "time", clock
        yield store_module, "Store", self.make_store
        yield base, "loop", lambda: self.user_thread
        yield dask_link, "Client", lambda *a, **o: FakeClient(self.cluster, self.driver)
        yield dask_link, "Authority", lambda: None
        yield dask_link, "own_versions", lambda: VERSIONS
        yield detect, "detect", lambda: NodeFacts(1, (), 10**9)
        yield agent_module, "Agent", self.make_agent
        # Looked at less often, for speed: fake trials print nothing and use no memory.
        yield agent_module, "OUTPUT_PERIOD_S", 1000.0
        yield agent_module, "MEMORY_PERIOD_S", 1000.0
        for name in ("run", "wake", "on_messages", "on_lost"):
            experiment = experiment_module.Experiment
            yield experiment, name, checked(getattr(experiment, name))
        if self.echo:
            yield fleet.Fleet, "on_messages", self.echoing(fleet.Fleet.on_messages)

    def make_store(self, folder):
        made = RealStore(folder)
        self.stores.append(made)
        return made

    def make_agent(self, *, folder, send, **options):
        sent = deque()

        def heard(messages):
            for message in messages:
                if message["op"] == "report":
                    size = len(message["body"])
                    sent.append((message["trial"], message["attempt"], message["seq"], size))
            send(messages)

        agent = RealAgent(
            folder=folder,
            send=heard,
            clock=lambda: self.running_machine().loop.time(),
            make_processes=lambda folder, agent: FakeProcesses(self, folder, agent),
            **options,
        )
        agent.sent = sent
        handle = agent.handle

        def hear(messages):
            for message in messages:
                self.judge.agent_hears(agent, message)
            handle(messages)

        agent.handle = hear
        return agent

    @staticmethod
    def running_machine():
        import asyncio

        return asyncio.get_running_loop().machine

    def echoing(self, on_messages):
        """Repeat some of what agents say, up to a minute later."""

        def repeat(of_fleet, remote, messages):
            on_messages(of_fleet, remote, messages)
            again = [m for m in messages if m["op"] in ("report", "ended", "saved", "running")]
            driver = self.driver
            if again and self.world.random.random() < 0.3:
                later = self.world.random.choice([0.01, 1.0, 60.0]) * self.world.random.random()
                act = lambda: driver.do(on_messages, of_fleet, remote, again)  # noqa: E731
                self.world.post(later, act)

        return repeat

    # The driver

    def start_driver(self):
        self.drivers += 1
        self.world.note(f"driver {self.drivers} starts")
        self.driver = Machine(self.world, f"driver{self.drivers}")
        self.user_thread = UserThread(self.driver)

    def make_scheduler(self):
        options = {
            "resource": {"num_cpus": self.cpus},
            "searcher": "evolution" if self.rule == "evolution" else "random",
            "search_options": {"population": 4, "sample": 2} if self.rule == "evolution" else None,
            "checkpoint": self.folder / "search",
            "resume": True,
            "client": self.cluster,
            "isolation": "reuse" if self.reuse else "fresh",
            "report_timeout": self.report_timeout,
            "max_failures": self.max_failures,
            "seed": self.seed,
            "verbose": 0,
        }
        if self.rule in ("fifo", "evolution"):
            return FIFOScheduler(train_fn, **options)
        if self.rule == "pbt":
            return PBTScheduler(train_fn, max_t=self.max_t, population_size=3, **options)
        return HyperbandScheduler(
            train_fn, max_t=self.max_t, reduction_factor=2, type=self.rule, **options
        )

    def search(self):
        """The user's own part: run the same command until it comes to its end."""
        while True:
            self.start_driver()
            try:
                self.scheduler = self.make_scheduler()
                self.scheduler.run(num_trials=self.num_trials)
                self.scheduler.join_jobs()
            except DriverDied:
                self.bury_driver()
                self.sleep(self.draw.choice([0.3, 5.0, 80.0]) * self.draw.random())
                continue
            except (ResourceError, NodeError) as error:  # there is no node just now
                self.world.note("the driver gives up:", error)
                self.kill_driver("it gave up")
                self.bury_driver()
                self.sleep(10.0)
                continue
            except SearchFailed:
                self.world.note("the first trials failed alike")
            else:
                self.judge.at_the_end(self.scheduler.experiment)
            break
        self.world.note("the search is over")
        try:
            self.crash_at_commits.clear()
            self.troubles_are_over = True
            self.scheduler.close()
        except DriverDied:
            self.bury_driver()
        else:
            self.kill_driver("it has ended")
        self.sleep(61.0)
        self.judge.read_the_log(self.folder / "search", self.max_failures)

    troubles_are_over = False

    def compare_with_replay(self):
        """The same command once more: it finds what the last driver knew."""
        live = self.scheduler
        for _ in range(20):
            self.start_driver()
            try:
                restored = self.make_scheduler()
            except (ResourceError, NodeError):
                self.kill_driver("there is no node")
                self.bury_driver()
                self.sleep(10.0)
                continue
            self.judge.compare(live, restored)
            self.judge.nothing_was_left(live)
            if self.world.violations:
                raise Violation(self.world.violations[0])
            restored.close()
            return
        raise Violation("no node could be had any more")

    def sleep(self, seconds):
        until = self.world.now + seconds
        self.world.run_until(lambda: self.world.now >= until, until)

    def kill_driver(self, why):
        self.world.note(f"driver {self.drivers} is gone: {why}")
        self.judge.driver_vanished(self.drivers)
        self.driver.die()
        self.cluster.clients.clear()

    def bury_driver(self):
        """What the kernel does for a dead process: its files are closed, its lock is free."""
        for left in self.stores:
            left._connection.close()
            left._lock.close()
            left._closed = True
        self.stores.clear()
        for scheduler in list(base._open_schedulers):
            scheduler._closed = True
            base._open_schedulers.discard(scheduler)

    def at_commit(self):
        """Some drivers die at a commit: before it, or after it and before an answer."""
        self.commits += 1
        if self.commits in self.crash_at_commits:
            if self.commits % 2:
                self.kill_driver("killed before a commit")
            else:
                self.world.post(0.0, lambda: self.kill_driver_if_alive("killed after a commit"))

    def kill_driver_if_alive(self, why):
        if self.driver.alive and not self.troubles_are_over:
            self.kill_driver(why)

    # Nodes

    def start_worker(self, node):
        machine = Machine(self.world, f"{node.host}-{len(node.workers)}")
        worker = FakeWorker(self.cluster, node, machine, self.delay_s)
        machine.worker = worker
        Path(worker.local_directory).mkdir()
        node.workers.append(worker)
        self.cluster.join(worker)

    def look_after_nodes(self):
        """Who runs the cluster starts a new worker where the driver has none; every 15 s."""
        self.world.post(OPERATOR_S, self.look_after_nodes)
        for node in self.nodes:
            worker = node.worker
            if worker.machine.paused_until > self.world.now:
                continue
            if self.is_used(worker):
                worker.unused = 0
                continue
            worker.unused = getattr(worker, "unused", 0) + 1
            if worker.unused * OPERATOR_S < 45 and worker.machine.alive:
                continue
            if self.draw.random() < 0.7:
                for old in node.workers:
                    old.die("replaced")
            self.start_worker(node)

    def is_used(self, worker):
        if not worker.machine.alive or worker.down.is_broken:
            return False
        if not self.driver.alive or self.scheduler is None or self.scheduler._closed:
            return True  # nobody knows
        cluster = self.scheduler.fleet._client_cluster
        return cluster is None or any(r.worker == worker.address for r in cluster.remotes.values())

    def clean_up(self):
        self.world.violations.append("the end")  # what dies now says nothing
        self.world.close()
        self.bury_driver()
        shutil.rmtree(self.folder, ignore_errors=True)


def checked(method):
    """A method of the experiment, after which all that must always hold is looked at."""

    def call(experiment, *arguments, **options):
        result = method(experiment, *arguments, **options)
        experiment.check()
        return result

    return call


RealStore, RealAgent = store_module.Store, agent_module.Agent


# What can befall a search


def driver_crash(story):
    story.kill_driver_if_alive("SIGKILL")


def driver_pause(story):
    if story.troubles_are_over:
        return
    seconds = story.draw.uniform(1, 80)
    story.world.note(f"the driver stands still for {seconds:.1f} s")
    story.driver.pause(seconds)


def node_pause(story):
    worker = story.draw.choice(story.nodes).worker
    seconds = story.draw.uniform(1, story.draw.choice([30, 90]))
    story.world.note(worker.address, f"stands still for {seconds:.1f} s")
    worker.machine.pause(seconds)
    if story.draw.random() < 0.5:
        at = story.draw.choice([0.0, 1.0, seconds]) * story.draw.random()
        closes = story.draw.uniform(seconds, seconds + 60)
        story.world.post(at, lambda: worker.break_wires(0.01, closes))


def partition(story):
    """No word gets through, in one direction or both; in the end the connection may break."""
    worker = story.draw.choice(story.nodes).worker
    seconds = story.draw.uniform(1, 60)
    ways = story.draw.choice(["down", "up", "both"])
    story.world.note(worker.address, f"partition ({ways}) for {seconds:.1f} s")
    wires = [w for name, w in (("down", worker.down), ("up", worker.up)) if ways in (name, "both")]
    for wire in wires:
        wire.is_blocked = True
    story.world.post(seconds, lambda: [wire.unblock() for wire in wires])
    breaks = story.draw.uniform(10, 30)
    if breaks < seconds:
        closes = story.draw.uniform(0, 60)
        story.world.post(breaks, lambda: worker.break_wires(story.draw.uniform(0, 5), closes))


def connection_breaks(story):
    worker = story.draw.choice(story.nodes).worker
    worker.break_wires(0.001, story.draw.uniform(0, 80))


def node_dies(story):
    story.draw.choice(story.nodes).worker.die("SIGKILL")


def power_cut(story):
    worker = story.draw.choice(story.nodes).worker
    worker.down.is_blocked = worker.up.is_blocked = True
    worker.die("power cut")


def launcher_dies(story):
    worker = story.draw.choice(story.nodes).worker
    for processes in worker.processes:
        if processes.is_up and processes.lives:
            story.world.note(worker.address, "launcher dies")
            worker.machine.do(processes.launcher_dies)


def trial_dies(story):
    worker = story.draw.choice(story.nodes).worker
    lives = [life for processes in worker.processes for life in processes.lives.values()]
    if lives:
        story.world.note(worker.address, "a trial is killed")
        worker.machine.do(story.draw.choice(lives).signalled, 9)


def disk_full(story):
    story.world.note("the driver's disk is full")
    story.world.disk_full = True
    story.world.post(story.draw.uniform(1, 30), lambda: setattr(story.world, "disk_full", False))


def clock_jumps(story):
    story.world.wall_s += story.draw.choice([-3600, 3600])


TROUBLES = {
    one.__name__: one
    for one in (
        driver_crash,
        driver_pause,
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


def play(seed, weather=None):
    """Play one seed. Raises AssertionError with the seed, the command and the trace."""
    story = Story(seed, weather)
    try:
        story.tell()
    except Exception as error:
        raise SeedFailed(story, error) from error
    return story


class SeedFailed(AssertionError):
    """A seed in which something went wrong; its text tells the end of the story."""

    def __init__(self, story, error, lines=60):
        self.story = story
        self.error = error
        told = [
            f"{at:9.3f}  " + " ".join(map(str, words))
            for at, words in list(story.world.trace)[-lines:]
        ]
        super().__init__(
            f"seed {story.seed}: {type(error).__name__}: {error}\n{story}\n"
            + "\n".join(told)
            + f"\nreplay it: python -m distsearch.testing.world --seed {story.seed}"
        )
