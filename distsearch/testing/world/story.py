"""One seed: a search, what befalls it, and the driver that is started again until it is done."""

from __future__ import annotations

import contextlib
import random
import shutil
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from unittest import mock

from ...core.store import Store
from ...errors import NodeError, ResourceError, SearchFailed
from ...scheduler import Scheduler
from . import insides
from .dask import DaskCluster, FakeNode, FakeWorker
from .judge import Judge
from .machines import DriverDied, Machine, UserThread, Violation, World
from .plan import Plan, Weather
from .rules import scheduler_of
from .seams import seams
from .shortages import no_room, racing_start
from .trials import FakeProcesses
from .troubles import TROUBLES as BLOWS

LIMIT_S = 20_000.0
TROUBLE_S = 150.0  # after this time nothing more goes wrong by itself
OPERATOR_S = 15.0
ASKED = 0.25  # of so many stories somebody asks something of the search
LET_GO_S = 60.0  # after which what is paused by request goes on
TROUBLES: dict[str, Callable[..., None]] = {
    **BLOWS,
    "no_room": no_room,
    "racing_start": racing_start,
}
MEMORY = Path("/dev/shm")  # a folder in memory, where there is one


class Story:
    """A search in a world of its own, all of it drawn from a seed.

        story = Story(17)
        story.tell()
        for at_s, words in story.world.trace: ...

    `weather` fixes some of what would be drawn.
    """

    judge: Judge
    drivers: int  # so many were started
    driver: Machine  # the newest one's process, dead or alive
    user_thread: UserThread  # what waits for it

    def __init__(self, seed: int, weather: Weather | None = None) -> None:
        weather = weather or {}
        self.world = World(seed, LIMIT_S)
        self.draw = random.Random(f"plan {seed}")
        self.plan = Plan.drawn(seed, self.draw, weather)
        self.judge = Judge(self)
        self.world.on_commit = self.judge.committed
        self.world.before_commit = self.at_commit
        self.folder = Path(
            tempfile.mkdtemp(prefix="simulation-", dir=MEMORY if MEMORY.is_dir() else None)
        )
        self.drivers = 0
        self.scheduler: Scheduler | None = None
        self.stores: list[Store] = []
        self.commits = 0
        self.crash_at_commits: set[int] = set()
        self.troubles_are_over = False
        self.interrupted = False
        self.places_to_meet: dict[str, FakeWorker] = {}
        self.cluster = DaskCluster(self.world, self.folder)
        self.nodes = [FakeNode(n, cpus) for n, cpus in enumerate(self.plan.cpus_of_nodes)]
        self.draw_troubles(seed, weather)

    def draw_troubles(self, seed: int, weather: Weather) -> None:
        """What befalls the search, and when."""
        draw = self.draw
        drawn = draw.sample(list(TROUBLES), draw.randint(1, 4))
        self.troubles = weather.get("troubles", drawn)
        for _ in range(weather.get("blows", draw.randint(1, 7))):
            name = draw.choice(self.troubles)
            at = draw.uniform(0.5, draw.choice([10.0, 40.0, TROUBLE_S]))
            self.world.post(at, partial(TROUBLES[name], self))
        if "driver_crash" in self.troubles and draw.random() < 0.5:
            self.crash_at_commits = {draw.randint(2, 60) for _ in range(2)}

        # (By dice of its own, so that the seeds stay what they were.)
        dice = random.Random(f"asks {seed}")
        if "troubles" not in weather and dice.random() < ASKED:
            for _ in range(dice.randint(1, 6)):
                kind = dice.choice(["stop_trial", "pause_trial", "pause_trial", "go_on"])
                ask = partial(self.ask, kind, dice.randrange(self.plan.num_trials))
                self.world.post(dice.uniform(0.5, dice.choice([5.0, 40.0])), ask)
            if dice.random() < 0.5:
                self.world.post(dice.uniform(0.5, 40.0), partial(self.ask, "pause_search", None))
            self.world.post(LET_GO_S, self.let_all_go)

    def __str__(self) -> str:
        places = ", ".join(f"{node.host} ({node.cpus} CPUs)" for node in self.nodes)
        plan = self.plan
        return (
            f"{plan.rule}, {plan.num_trials} trials of {plan.max_t} epochs, {plan.ranks} ranks and "
            f"{plan.cpus} CPUs, "
            f"on {places}; troubles: {', '.join(self.troubles)}{', echo' if plan.echo else ''}"
        )

    # Telling it

    def tell(self) -> None:
        """Run the search to its end, whatever happens; Violation if a guarantee is broken."""
        with contextlib.ExitStack() as exits:
            exits.callback(self.clean_up)
            for target, name, value in seams(self):
                exits.enter_context(mock.patch.object(target, name, value))
            for node in self.nodes:
                self.start_worker(node)
            self.world.post(OPERATOR_S, self.look_after_nodes)
            self.compare_with_replay(live=self.search())

    # The driver

    def start_driver(self) -> None:
        """The user starts the program (again)."""
        self.drivers += 1
        self.interrupted = False
        self.world.note(f"driver {self.drivers} starts")
        self.driver = Machine(self.world, f"driver{self.drivers}")
        self.user_thread = UserThread(self.driver)

    def make_scheduler(self) -> Scheduler:
        """What the program makes: the same each time."""
        return scheduler_of(self.plan, self.folder / "search", self.cluster)

    def search(self) -> Scheduler:
        """The user's own part: run the same command until it comes to its end."""
        while True:
            self.start_driver()
            try:
                scheduler = self.scheduler = self.make_scheduler()
                scheduler.run(num_trials=self.plan.num_trials)
                scheduler.join_jobs()
                while self.interrupted:
                    self.interrupted = False
                    self.world.note("the user lets the search go on")
                    left = self.plan.num_trials - insides.counts_of(scheduler).suggested
                    scheduler.run(num_trials=max(1, left))
                    scheduler.join_jobs()
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
                self.judge.at_the_end(scheduler)
            break
        self.world.note("the search is over")
        try:
            self.crash_at_commits.clear()
            self.troubles_are_over = True
            scheduler.close()
        except DriverDied:
            self.bury_driver()
        else:
            self.kill_driver("it has ended")
        self.sleep(61.0)
        self.judge.read_the_log(self.folder / "search", self.plan.max_failures)
        return scheduler

    def compare_with_replay(self, live: Scheduler) -> None:
        """The same command once more: it finds what the last driver knew."""
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
            self.world.raise_first_violation()
            restored.close()
            return
        raise Violation("no node could be had any more")

    def sleep(self, seconds: float) -> None:
        """Let the world go on for so long."""
        until = self.world.now + seconds
        self.world.run_until(lambda: self.world.now >= until, until)

    def kill_driver(self, why: str) -> None:
        """The driver's process is gone, at once."""
        self.world.note(f"driver {self.drivers} is gone: {why}")
        self.judge.driver_vanished(self.drivers)
        self.driver.die()
        self.cluster.clients.clear()

    def bury_driver(self) -> None:
        """Let nothing be left of dead drivers in this process."""
        for left in self.stores:
            insides.kill_files(left)
        self.stores.clear()
        insides.forget_schedulers()

    def at_commit(self) -> None:
        """Some drivers die at a commit: before it, or after it and before an answer."""
        self.commits += 1
        if self.commits in self.crash_at_commits:
            if self.commits % 2:
                self.kill_driver("killed before a commit")
            else:
                self.world.post(0.0, lambda: self.kill_driver_if_alive("killed after a commit"))

    def kill_driver_if_alive(self, why: str) -> None:
        """Kill the driver if it is alive and troubles last."""
        if self.driver.alive and not self.troubles_are_over:
            self.kill_driver(why)

    def interrupt(self) -> None:
        """The user presses Ctrl-C while the search runs."""
        scheduler = self.scheduler
        if self.troubles_are_over or not self.driver.alive or scheduler is None:
            return
        if insides.is_closed(scheduler) or insides.was_ended(scheduler):
            return
        self.world.note("the user interrupts the search")
        self.interrupted = True
        self.driver.do(insides.interrupt, scheduler, self.draw.choice([0.0, 30.0]))

    def let_all_go(self) -> None:
        """Somebody lets go on what is paused by request; every 60 s."""
        self.world.post(LET_GO_S, self.let_all_go)
        if self.has_the_folder() and self.scheduler is not None:
            self.driver.do(insides.let_all_go, self.scheduler)

    def ask(self, kind: str, trial: int | None) -> None:
        """Somebody asks the driver for something."""
        scheduler = self.scheduler
        if self.has_the_folder() and scheduler is not None:
            self.world.note("somebody asks:", kind, trial)
            self.driver.do(insides.ask, scheduler, kind, trial)

    def has_the_folder(self) -> bool:
        """Whether a driver lives, and has the folder of the search."""
        scheduler = self.scheduler
        if self.troubles_are_over or not self.driver.alive or scheduler is None:
            return False
        return not insides.is_closed(scheduler)

    # Nodes

    def start_worker(self, node: FakeNode) -> None:
        """Somebody starts a Dask worker on a machine."""
        name = f"{node.host}-{len(node.workers)}"
        worker = FakeWorker(self.cluster, node.host, node.cpus, name, self.plan.delay_s)
        Path(worker.local_directory).mkdir()
        node.workers.append(worker)
        self.cluster.join(worker)

    def look_after_nodes(self) -> None:
        """Who runs the cluster starts a new worker where the driver has none; every 15 s."""
        self.world.post(OPERATOR_S, self.look_after_nodes)
        for node in self.nodes:
            worker = node.worker
            if worker.machine.paused_until > self.world.now:
                continue
            if self.is_used(worker):
                worker.unused = 0
                continue
            worker.unused += 1
            if worker.unused * OPERATOR_S < 45 and worker.machine.alive:
                continue
            if self.draw.random() < 0.7:
                for old in node.workers:
                    old.die("replaced")
            self.start_worker(node)

    def processes_of(self, worker: FakeWorker) -> list[FakeProcesses]:
        """What the agents on a worker have started, by agent."""
        return [processes for processes in self.judge.agents if processes.worker is worker]

    def is_used(self, worker: FakeWorker) -> bool:
        """Whether the driver has an agent there, as far as can be known."""
        if not worker.machine.alive or worker.down.is_broken:
            return False
        scheduler = self.scheduler
        if not self.driver.alive or scheduler is None or insides.is_closed(scheduler):
            return True  # nobody knows
        return insides.is_linked_to(scheduler, worker.address)

    def clean_up(self) -> None:
        """End all machines, and remove what they wrote."""
        self.world.violations.append("the end")  # what dies now says nothing
        self.world.close()
        self.bury_driver()
        shutil.rmtree(self.folder, ignore_errors=True)


def play(seed: int, weather: Weather | None = None) -> Story:
    """Play one seed. Raises SeedFailed with the story and the command that tells it again."""
    story = Story(seed, weather)
    try:
        story.tell()
    except Exception as error:
        raise SeedFailed(story, error) from error
    return story


class SeedFailed(AssertionError):
    """A seed in which something went wrong; its text tells the end of the story."""

    def __init__(self, story: Story, error: Exception, lines: int = 60) -> None:
        self.story = story
        self.error = error
        told = [
            f"{at:9.3f}  " + " ".join(map(str, words))
            for at, words in list(story.world.trace)[-lines:]
        ]
        super().__init__(
            f"seed {story.plan.seed}: {type(error).__name__}: {error}\n{story}\n"
            + "\n".join(told)
            + f"\nreplay it: python -m distsearch.testing.world --seed {story.plan.seed}"
        )
