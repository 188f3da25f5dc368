"""Random SIGKILLs of real searches, each followed by the same command: what is lost by that?

    python -m benchmarks.kill                   # 100 kills and the times, a few minutes
    python -m benchmarks.kill --kills 1000 --jobs 4 --no-times

Searches on this machine and on two nodes over SSH on loopback are killed, at random times and right
after a named kind of event is in the log: the driver (then the same command is run again), the
launcher, a trial, a node's process, its starter. What must not be, and is counted:

- **lost reports**: a report is acknowledged when the trial was answered (every report of these
  searches waits for a decision; the trial notes each answer in a file of its own), or when a reader
  saw it in the log before a kill. It must be in the log in the end, unchanged.
- **duplicates**: a finished trial that ran again, a configuration issued twice, a report applied or
  shown twice, an epoch trained again although its report was acknowledged. (On other nodes the
  last one may be: checkpoints are copied to the driver behind the trial's back. Those are told.)
- **two at once**: two attempts of a trial that train at the same time (a file lock tells).
- **orphans**: a process of an earlier run, or of the search at its end, alive after 60 s.
- **hung**: a search that does not end within its bound.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import random
import signal
import sqlite3
import subprocess
import sys
import tempfile
import threading
import time
import uuid
from collections import Counter, defaultdict
from collections.abc import Iterator
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import psutil

import distsearch as ag
from distsearch.core import store

from .common import Figure, parser, scratch, show
from .reports import decision_ms, reports_per_second

ROOT = Path(__file__).resolve().parents[1]
EPOCHS = 6
TRIALS = 20
POINTS = ("experiment", "node", "launched", "started", "saved", "report", "ended", "lost")
VICTIMS = {
    "local": {"driver": 5, "launcher": 1, "guard": 1, "trial": 2, "driver and launcher": 2},
    "SSH": {"driver": 3, "launcher": 1, "guard": 1, "trial": 2, "node process": 1, "starter": 1},
}
BELOW = ("guard", "launcher", "trial")  # each the parent of the next, with the same command line
ONCE_A_RUN = ("node process", "starter")  # a search without nodes waits, as it should
BOUND_S = 240.0
ORPHAN_S = 60.0
MOMENT_S = {"local": 1.5, "SSH": 5.0}  # then it is killed anyway: some events come but once
MARK = "DISTSEARCH_KILL_MARK"


# The search that is killed, in a process of its own


@ag.args(x=ag.Real(0, 1), notes="", epochs=6, pause_s=0.03)
def train_fn(args, reporter):
    import fcntl
    import os
    import time

    def note(what, epoch):
        with open(f"{args.notes}/{args.task_id}.txt", "a") as file:
            file.write(f"{what} {os.getpid()} {epoch} {time.monotonic()}\n")

    lock = open(f"{args.notes}/{args.task_id}.lock", "w")  # noqa: SIM115 - as long as it trains
    try:
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except OSError:
        note("overlap", 0)
    first = (reporter.load() or {"epoch": 0})["epoch"] + 1
    for epoch in range(first, args.epochs + 1):
        note("trains", epoch)
        time.sleep(args.pause_s)
        reporter.save({"epoch": epoch}, step=epoch)
        reporter(epoch=epoch, accuracy=args.x, pid=os.getpid())
        note("answered", epoch)


class Decides(ag.scheduler.FIFOScheduler):
    """Decides at every report that the trial goes on, so that every report is answered."""

    def on_report(self, trial: Any, report: Any) -> Any:
        return super().on_report(trial, report)


def search(order: dict[str, Any]) -> None:
    """Run, or go on with, a search until its end; print what a user would see."""
    nodes: dict[str, Any] = {"local": ag.Node("localhost", num_cpus=2)}
    if order["addresses"]:
        found = [ag.Node.parse(address) for address in order["addresses"]]
        nodes = {
            "local": False,
            "ssh_config": [order["ssh_config"]],
            "dist_ip_addrs": [
                ag.Node(n.host, port=n.port, python=sys.executable, num_cpus=1) for n in found
            ],
        }
    folder = Path(order["folder"])
    args: dict[str, Any] = {
        "notes": str(folder / "notes"),
        "epochs": order["epochs"],
        "pause_s": order["pause_s"],
    }
    with Decides(
        train_fn,
        args=args,
        checkpoint=folder / "search",
        seed=order["seed"],
        max_failures=1000,
        **nodes,
    ) as scheduler:
        scheduler.run(num_trials=order["trials"])
        scheduler.join_jobs()
        told = {
            "ends": [trial.status.value for trial in scheduler.trials],
            "shown": [
                [report["epoch"] for report in reports]
                for reports in scheduler.training_history.values()
            ],
        }
    (folder / "told.json").write_text(json.dumps(told))


# Killing it


@dataclass
class Count:
    """What the kills did."""

    kills: Counter[str] = field(default_factory=Counter)
    searches: int = 0
    acknowledged: int = 0
    repeated: int = 0
    unreported: int = 0
    wrong: list[str] = field(default_factory=list)

    def add(self, other: Count) -> None:
        """Count what another search counted."""
        self.kills += other.kills
        self.searches += other.searches
        self.acknowledged += other.acknowledged
        self.repeated += other.repeated
        self.unreported += other.unreported
        self.wrong += other.wrong

    def of(self, kind: str) -> int:
        """How often this went wrong."""
        return sum(text.startswith(kind) for text in self.wrong)


class Search:
    """A search in a folder of its own, its killer, and what both saw."""

    def __init__(self, folder: Path, place: str, seed: int, hosts: Any, **order: Any) -> None:
        self.folder = folder
        self.place = place
        self.seed = seed
        self.rng = random.Random(seed)
        self.count = Count(searches=1)
        self.seen: dict[int, tuple[Any, ...]] = {}
        self.dying: list[tuple[psutil.Process, float]] = []
        self.spent: Counter[str] = Counter()
        self.answered: dict[int, set[int]] = defaultdict(set)
        self.mark = uuid.uuid4().hex
        (folder / "notes").mkdir(parents=True)
        addresses: list[str] = []
        self.config = None
        if place == "SSH":
            # In a folder of their own each, as on machines of their own.
            for name in ("one", "two"):
                (folder / name).mkdir()
                env = {MARK: self.mark, "TMPDIR": str(folder / name), "PYTHONPATH": str(ROOT)}
                addresses.append(hosts.start(env=env).address)
            self.config = str(hosts.config)
        self.order = {
            "folder": str(folder),
            "addresses": addresses,
            "ssh_config": self.config,
            "seed": seed,
            "trials": TRIALS,
            "epochs": EPOCHS,
            "pause_s": 0.05 if place == "local" else 0.2,
            **order,
        }

    def start(self) -> None:
        """Run the command; it is the same each time."""
        with open(self.folder / "output.txt", "a") as output:
            self.driver = subprocess.Popen(
                [sys.executable, "-m", "benchmarks.kill", "--search", json.dumps(self.order)],
                cwd=ROOT,
                env={**os.environ, MARK: self.mark, "PYTHONPATH": str(ROOT)},
                stdout=output,
                stderr=subprocess.STDOUT,
                start_new_session=True,
            )
        self.spent.clear()

    def kill_until(self, kills: int) -> Count:
        """Kill something so often, or until the search has ended; then let it end; judge it."""
        self.start()
        try:
            while self.count.kills.total() < kills and self.driver.poll() is None:
                self.kill_once()
            self.wait_for_the_end()
        finally:
            self.end_all()
        self.judge()
        return self.count

    def kill_once(self) -> None:
        """Wait for a moment, kill something; after the driver's death run the command again."""
        victim = self.choose()
        self.wait_for_a_moment()
        self.look_into_the_log()
        family = self.processes()
        now = time.monotonic()
        kinds = victim.split(" and ")
        targets = [
            self.driver.pid if kind == "driver" else self.find(kind, family) for kind in kinds
        ]
        if None in targets or self.driver.poll() is not None:
            return
        with contextlib.suppress(ProcessLookupError):
            for target in filter(None, targets):
                os.kill(target, signal.SIGKILL)
            self.count.kills[f"{self.place}: {victim}"] += 1
            self.spent[victim] += 1
        if "driver" in kinds:
            self.driver.wait()
            self.dying += [(process, now) for process in family]
            self.start()

    def choose(self) -> str:
        """Whom to kill next."""
        kinds = dict(VICTIMS[self.place])
        if any(self.spent[kind] for kind in ONCE_A_RUN):
            kinds = {kind: share for kind, share in kinds.items() if kind not in ONCE_A_RUN}
        return self.rng.choices(list(kinds), list(kinds.values()))[0]

    def wait_for_a_moment(self) -> None:
        """Wait some time, or until the next event of some kind is in the log."""
        if self.rng.random() < 0.4:
            deadline = time.monotonic() + self.rng.uniform(0, 1.5)
            while time.monotonic() < deadline and self.driver.poll() is None:
                time.sleep(0.005)
            return
        kind, times = self.rng.choice(POINTS), self.rng.randint(1, 4)
        deadline = time.monotonic() + MOMENT_S[self.place]
        known = self.last_event()
        while time.monotonic() < deadline and self.driver.poll() is None:
            fresh = [row for row in self.rows(known) if row[1] == kind]
            if len(fresh) >= times:
                return
            time.sleep(0.001)

    def rows(self, after: int = 0) -> list[tuple[Any, ...]]:
        """What a reader sees in the log."""
        path = self.folder / "search" / store.FILE
        if not path.exists():
            return []
        with contextlib.closing(sqlite3.connect(f"file:{path}?mode=ro", uri=True)) as log:
            try:
                return log.execute(
                    "select id, kind, trial, attempt, seq, body from events where id > ? "
                    "order by id",
                    (after,),
                ).fetchall()
            except sqlite3.OperationalError:  # it has no table yet
                return []

    def last_event(self) -> int:
        return max((row[0] for row in self.rows()), default=0)

    def look_into_the_log(self) -> None:
        """Note what is acknowledged by being there for a reader."""
        for row in self.rows():
            if self.seen.setdefault(row[0], row) != row:
                self.count.wrong.append(f"lost: event {row[0]} was {self.seen[row[0]]}, is {row}")

    def processes(self) -> list[psutil.Process]:
        """Everything of this search that is alive."""
        found = []
        for process in psutil.process_iter():
            with contextlib.suppress(psutil.Error):
                if process.environ().get(MARK) == self.mark:
                    found.append(process)
        return found

    def find(self, victim: str, family: list[psutil.Process]) -> int | None:
        """The process id of one such process."""
        found = []
        for process in family:
            with contextlib.suppress(psutil.Error):
                command, kind = process.cmdline(), ""
                if any("distsearch.resource.launcher" in word for word in command):
                    above = [one for one in process.parents() if one.cmdline() == command]
                    kind = BELOW[len(above)]
                if "distsearch.resource.node_process" in command:
                    kind = "node process"
                elif any("b64decode" in word for word in command):
                    kind = "starter"
                if kind == victim and process.status() != psutil.STATUS_ZOMBIE:
                    found.append(process.pid)
        return self.rng.choice(sorted(found)) if found else None

    def wait_for_the_end(self) -> None:
        """Let the search end by itself."""
        try:
            code = self.driver.wait(BOUND_S)
        except subprocess.TimeoutExpired:
            self.count.wrong.append(f"hung: {self.tail()}")
            return
        if code:
            self.count.wrong.append(f"hung: it ended with exit code {code}: {self.tail()}")

    def tail(self) -> str:
        return (self.folder / "output.txt").read_text()[-1500:]

    def end_all(self) -> None:
        """Count orphans, then leave none."""
        if self.driver.poll() is None:
            self.driver.kill()
            self.driver.wait()
        now = time.monotonic()
        self.dying += [(process, now) for process in self.processes()]
        for process, since in self.dying:
            with contextlib.suppress(psutil.NoSuchProcess):
                try:
                    process.wait(max(0.0, since + ORPHAN_S - time.monotonic()))
                except psutil.TimeoutExpired:
                    self.count.wrong.append(f"orphan: {process} {process.cmdline()[:3]}"[:300])
                    process.kill()

    def first_note(self, trial: int, other_than: str = "", bound_s: float = 120) -> list[str]:
        """The first thing that a trial's (other) process did."""
        path = self.folder / "notes" / f"{trial}.txt"
        deadline = time.monotonic() + bound_s
        while time.monotonic() < deadline:
            for line in path.read_text().splitlines() if path.exists() else []:
                if line.split()[1] != other_than and line.endswith(tuple("0123456789")):
                    return line.split()
            time.sleep(0.01)
        raise TimeoutError(f"trial {trial} did not start in {bound_s:g} s: {self.tail()}")

    # Judging it

    def judge(self) -> None:
        """Compare what everyone saw with the log."""
        rows = self.rows()
        told_file = self.folder / "told.json"
        if not told_file.exists():
            return  # counted as hung
        told = json.loads(told_file.read_text())
        wrong = self.count.wrong
        final = {row[0]: row for row in rows}
        for number, row in self.seen.items():
            if final.get(number) != row:
                wrong.append(f"lost: event {row} that a reader had seen")
        by_kind: dict[str, list[tuple[Any, ...]]] = {}
        for row in rows:
            by_kind.setdefault(row[1], []).append(row)
        reported = Counter(
            (row[2], json.loads(row[5])["pid"], json.loads(row[5])["epoch"])
            for row in by_kind.get("report", [])
        )
        wrong += [f"duplicate: report {key}" for key, times in reported.items() if times > 1]
        for trial in range(self.order["trials"]):
            self.judge_notes(trial, reported)
        ends = Counter(row[2] for row in by_kind.get("ended", []))
        wrong += [f"duplicate: trial {trial} ended {n} times" for trial, n in ends.items() if n > 1]
        ended_at = {row[2]: row[0] for row in by_kind.get("ended", [])}
        for row in by_kind.get("started", []):
            if row[0] > ended_at.get(row[2], row[0]):
                wrong.append(f"duplicate: trial {row[2]} started again after its end")
        launched = by_kind.get("launched", [])
        configs = {json.dumps(json.loads(row[5])["config"]["x"]) for row in launched}
        if len(configs) != len(launched):
            wrong.append("duplicate: a configuration was issued twice")
        if told["ends"] != ["finished"] * self.order["trials"]:
            wrong.append(f"hung: not all have finished: {told['ends']}")
        epochs = list(range(1, self.order["epochs"] + 1))
        for trial, shown in enumerate(told["shown"]):
            # What was killed between a checkpoint and its report never reports that epoch.
            self.count.unreported += len(set(epochs) - set(shown))
            if shown != sorted(set(shown)):
                wrong.append(f"duplicate: trial {trial} shows {shown}")
            if self.answered[trial] - set(shown):
                wrong.append(f"lost: trial {trial} shows only {shown}")

    def judge_notes(self, trial: int, reported: Counter[Any]) -> None:
        """What the trial itself wrote down: trains, answered, overlap."""
        path = self.folder / "notes" / f"{trial}.txt"
        lines = path.read_text().splitlines() if path.exists() else []
        answered_by_others = 0
        answered, current = 0, ""
        for line in lines:
            what, pid, epoch, _at = line.split()
            if pid != current:
                current, answered_by_others = pid, max(answered, answered_by_others)
            if what == "overlap":
                self.count.wrong.append(f"two at once: trial {trial}, process {pid}")
            elif what == "answered":
                answered = max(answered, int(epoch))
                self.answered[trial].add(int(epoch))
                self.count.acknowledged += 1
                if not reported[trial, int(pid), int(epoch)]:
                    self.count.wrong.append(f"lost: trial {trial}, process {pid}, epoch {epoch}")
            elif int(epoch) <= answered_by_others and self.place == "SSH":
                self.count.repeated += 1  # its checkpoint died with the node, before it was copied
            elif int(epoch) <= answered_by_others:
                self.count.wrong.append(f"duplicate: trial {trial} trained epoch {epoch} again")


@contextlib.contextmanager
def loopback_hosts(wanted: bool) -> Iterator[Any]:
    """SSH servers on loopback, if they are wanted."""
    if not wanted:
        yield None
        return
    from tests.hosts import Hosts

    with Hosts() as hosts:
        yield hosts


def kill_randomly(
    kills: int,
    seed: int,
    *,
    jobs: int = 1,
    ssh_share: float = 0.25,
    keep: Path | None = None,
    bound_s: float = float("inf"),
) -> Count:
    """So many kills of searches, `jobs` at once; fewer if `bound_s` is over before."""
    total, lock = Count(), threading.Lock()
    deadline = time.monotonic() + bound_s
    rng = random.Random(seed)

    def one_after_another(hosts: Any) -> None:
        while True:
            with lock:
                left = kills - total.kills.total()
                number = rng.randrange(1 << 30)
                place = "SSH" if rng.random() < ssh_share else "local"
            if left <= 0 or time.monotonic() > deadline:
                return
            with tempfile.TemporaryDirectory(prefix="distsearch-kill-") as folder:
                search = Search(Path(folder), place, number, hosts)
                count = search.kill_until(min(left, 20))
                if count.wrong and keep is not None:
                    keep.mkdir(exist_ok=True)
                    (keep / f"{number}.txt").write_text(evidence(search))
            with lock:
                total.add(count)
                for text in count.wrong:
                    print(f"seed {number} ({place}): {text}", flush=True)
                print(f"{total.kills.total()} kills, {len(total.wrong)} wrong", flush=True)

    with loopback_hosts(ssh_share > 0) as hosts, ThreadPoolExecutor(jobs) as pool:
        for done in [pool.submit(one_after_another, hosts) for _ in range(jobs)]:
            done.result()
    return total


def evidence(search: Search) -> str:
    """All that is known about a search, for whoever has to find out."""
    notes = "\n".join(
        f"{path.name}: {path.read_text()}"
        for path in sorted((search.folder / "notes").glob("*.txt"))
    )
    rows = "\n".join(map(str, search.rows()))
    return "\n\n".join(
        [*search.count.wrong, rows, notes, (search.folder / "output.txt").read_text()]
    )


# How long it takes


def seconds_until_elsewhere(fault: str) -> float:
    """From a fault of a node to the trial training on another node."""
    with loopback_hosts(True) as hosts, tempfile.TemporaryDirectory() as name:
        search = Search(Path(name), "SSH", 1, hosts, trials=1, epochs=10_000)
        search.start()
        try:
            first = search.first_note(0)
            family = search.processes()
            trial = next(process for process in family if process.pid == int(first[1]))
            above = {process.pid for process in trial.parents()}
            node = next(
                process
                for process in family
                if process.pid in above and "distsearch.resource.node_process" in process.cmdline()
            )
            begun = time.monotonic()
            if fault == "SIGKILL":
                node.kill()
            elif fault == "SIGSTOP":
                node.suspend()
            else:
                starter = node.parent()
                port = int(starter.environ()["SSH_CONNECTION"].split()[3])
                next(host for host in hosts.hosts if host.port == port).cut()
            again = search.first_note(0, other_than=first[1])
            return float(again[3]) - begun
        finally:
            search.end_all()


def seconds_until_nothing_is_left(place: str) -> float:
    """From SIGKILL of the driver to no process on any node."""
    with loopback_hosts(place == "SSH") as hosts, tempfile.TemporaryDirectory() as name:
        search = Search(Path(name), place, 1, hosts, trials=2, epochs=10_000)
        search.start()
        try:
            for trial in range(2):
                search.first_note(trial)
            begun = time.monotonic()
            search.driver.kill()
            search.driver.wait()
            psutil.wait_procs(search.processes(), timeout=ORPHAN_S)
            assert search.processes() == [], "not all is gone"
            return time.monotonic() - begun
        finally:
            search.end_all()


@contextlib.contextmanager
def not_durable() -> Iterator[None]:
    """Let SQLite not wait for the disk, to see what that waiting costs: for a benchmark only."""
    opened = store.Store._open

    def in_haste(self: store.Store) -> sqlite3.Connection:
        connection = opened(self)
        connection.execute("pragma synchronous=off")
        return connection

    store.Store._open = in_haste
    try:
        yield
    finally:
        store.Store._open = opened


def cost_of_durability(repeats: int) -> list[Figure]:
    """Reports per second and the wait for a decision, with and without the disk, in turns."""
    nodes = {"local": ag.Node("localhost", num_cpus=2)}
    rates: dict[str, list[float]] = {"durable": [], "synchronous=off": []}
    waits: dict[str, list[float]] = {name: [] for name in rates}
    for _ in range(repeats):
        for name in rates:
            with not_durable() if name != "durable" else contextlib.nullcontext():
                rates[name].append(reports_per_second(20_000, nodes))
                waits[name].append(decision_ms(500, nodes)[0])
    return [
        *(Figure(f"reports, {name}", values, "reports/s") for name, values in rates.items()),
        *(Figure(f"decision, p50, {name}", values, "ms") for name, values in waits.items()),
    ]


def main() -> None:
    options = parser(__doc__ or "", repeats=3)
    options.add_argument("--kills", type=int, default=100)
    options.add_argument("--jobs", type=int, default=2, help="so many searches at once")
    options.add_argument("--ssh-share", type=float, default=0.25, help="of the searches")
    options.add_argument("--seed", type=int, default=None)
    options.add_argument("--minutes", type=float, default=float("inf"))
    options.add_argument("--keep", type=Path, help="put what went wrong into this folder")
    options.add_argument("--no-times", action="store_true")
    options.add_argument("--search", type=json.loads, help=argparse.SUPPRESS)
    given = options.parse_args()
    if given.search is not None:
        search(given.search)
        return
    if given.kills:
        seed = random.SystemRandom().randrange(1 << 30) if given.seed is None else given.seed
        print(f"--seed {seed}")
        count = kill_randomly(
            given.kills,
            seed,
            jobs=given.jobs,
            ssh_share=given.ssh_share,
            keep=given.keep,
            bound_s=60 * given.minutes,
        )
        print(f"\n{count.searches} searches, {count.kills.total()} SIGKILLs: {dict(count.kills)}")
        print(f"{count.repeated} epochs of lost nodes were trained again")
        print(f"{count.unreported} epochs were saved, but killed before their report was sent")
        kinds = ("lost", "duplicate", "two at once", "orphan", "hung")
        figures = [
            Figure(f"{kind}, of {count.acknowledged} reports", [count.of(kind)], at_most=0)
            for kind in kinds
        ]
        show("Random SIGKILLs", figures, given.json)
    if given.no_times:
        return
    with scratch():
        times = [
            Figure(f"{what}: trial runs elsewhere", [seconds_until_elsewhere(what)], "s")
            for what in ("SIGKILL", "SIGSTOP", "cut connection")
        ] + [
            Figure(
                f"driver SIGKILL, {place}: none left",
                [seconds_until_nothing_is_left(place)],
                "s",
                at_most=60,
            )
            for place in ("local", "SSH")
        ]
        show("Times", times, given.json)
        show("Durability", cost_of_durability(given.repeats), given.json)


if __name__ == "__main__":
    main()
