"""Folders of searches that have never run: a log is written as if they had, in seconds.

    python -m benchmarks.made_up runs/large --trials 10000 --reports 50

The story is ASHA over nodes of four slots each, whose trials learn in one time unit a report; some
fail. It is the same for the same seed. `Growing` adds to a folder afterwards, as a driver would.
"""

from __future__ import annotations

import argparse
import heapq
import json
import math
import random
import sqlite3
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from distsearch.core import schema
from distsearch.core.end_mark import MarkFile
from distsearch.space import Bool, Choice, Dict, Int, Real

SLOTS, UNIT_S = 4, 2.0
SPACE = Dict(
    lr=Real(1e-4, 1e-1, log=True),
    width=Int(8, 256),
    dropout=Real(0, 0.5),
    norm=Bool(),
    optimizer=Choice("sgd", "adam", "rmsprop"),
    batch_size=128,
)
Row = tuple[Any, ...]


def searched(
    function: str, seed: int, reports: int, several: bool, space: Any, searcher: str
) -> dict[str, Any]:
    """What the log says is searched."""
    return {
        "function": function,
        "space": space,
        "searcher": searcher,
        "search_options": {},
        "scheduler": "FIFOScheduler" if several else "HyperbandScheduler",
        "seed": seed,
        "reward_attr": ["accuracy", "latency"] if several else "accuracy",
        "mode": ["max", "min"] if several else "max",
        "constraints": [],
        "time_attr": "epoch",
        "rule": {} if several else {"type": "stopping", "rungs": [_levels(reports)]},
        "storage": None,
        "code": "",
    }


def _levels(reports: int) -> list[float]:
    levels = [1.0]
    while levels[-1] * 3 < reports:
        levels.append(levels[-1] * 3)
    return levels


class MadeUp:
    """The events of one search, one after the other; see `write`."""

    def __init__(
        self, trials: int, reports: int, nodes: int, seed: int, *, several: bool, stops: bool
    ) -> None:
        self.trials, self.reports, self.seed = trials, reports, seed
        self.several, self.stops = several, stops
        self.nodes = [f"gpu{n}" for n in range(nodes)]
        self.rng = random.Random(seed)
        self.began = time.time() - 2 * UNIT_S * trials * reports / (SLOTS * nodes) - 3600
        self.rungs: dict[float, list[float]] = {level: [] for level in _levels(reports)}
        self.best: list[tuple[float, int]] = []

    def events(self, function: str, space: Any, searcher: str) -> Iterator[Row]:
        """(time, kind, trial, attempt, seq, body) of each event, the body as plain data."""
        about = searched(function, self.seed, self.reports, self.several, space, searcher)
        yield self.began, "experiment", None, None, None, about
        for node in self.nodes:
            facts = {"came": node, "address": f"tls://{node}:1", "num_cpus": SLOTS, "gpus": []}
            yield self.began + 0.1, "node", None, None, None, facts
        waiting = [(self.began + 1 + 0.01 * n, n, None) for n in range(SLOTS * len(self.nodes))]
        heapq.heapify(waiting)
        slots = [node for node in self.nodes for _ in range(SLOTS)]
        launched = 0
        under_way: dict[int, dict[str, Any]] = {}
        while waiting:
            at, slot, _ = heapq.heappop(waiting)
            one = under_way.get(slot)
            if one is None:
                if launched == self.trials:
                    continue
                one = under_way[slot] = self._trial(launched, space)
                launched += 1
                body = {"config": one["config"], "given": False, "is_final": False}
                if one["parents"]:
                    body |= {"parents": one["parents"], "wait_for": "end"}
                yield at, "launched", one["id"], None, None, body
                places = [{"rank": 0, "node": slots[slot], "gpus": [], "outlives_driver": True}]
                yield at, "started", one["id"], 1, None, {"places": places}
                one["began"] = at
            else:
                over = yield from self._go_on(one, at)
                if over:
                    del under_way[slot]
                    heapq.heappush(waiting, (at + 0.2, slot, None))
                    continue
            heapq.heappush(waiting, (at + UNIT_S * self.rng.uniform(0.7, 1.3), slot, None))

    def _trial(self, number: int, space: Any) -> dict[str, Any]:
        rng = self.rng
        names = [name for name, one in space["items"].items() if one["type"] != "constant"]
        config = {
            names[0]: 10 ** rng.uniform(-4, -1),
            names[1]: rng.randint(8, 256),
            names[2]: rng.uniform(0, 0.5),
            names[3]: rng.random() < 0.5,
            names[4]: rng.choice(space["items"][names[4]]["choices"]),
        }
        lr, width, dropout, norm, optimizer = config.values()
        quality = 0.93 - 0.06 * (math.log10(lr) + 2.2) ** 2 - 0.12 * (dropout - 0.2) ** 2
        quality += 0.02 * norm + 0.03 * math.log2(width / 64) * (0.2 if optimizer == "sgd" else 0.4)
        parents = []
        if number > 40 and self.best and rng.random() < 0.3:
            parents = [self.best[rng.randrange(len(self.best))][1]]
        return {
            "id": number,
            "config": config,
            "quality": min(0.995, max(0.12, quality + rng.gauss(0, 0.015))),
            "pace": rng.uniform(3, 9) * self.reports / 50,
            "fails_at": rng.randint(1, self.reports) if rng.random() < 0.03 else None,
            "latency": 2 + width / 20 + rng.uniform(0, 3),
            "parents": parents,
            "epoch": 0,
            "top": None,
        }

    def _go_on(self, one: dict[str, Any], at: float) -> Iterator[Row]:
        """Report once more; whether the trial is over then."""
        one["epoch"] += 1
        epoch, number = one["epoch"], one["id"]
        value = one["quality"] * (1 - math.exp(-epoch / one["pace"]))
        value = min(0.999, value + self.rng.gauss(0, 0.004))
        one["top"] = value if one["top"] is None else max(one["top"], value)
        metrics = {"epoch": epoch, "accuracy": round(value, 5), "time_this_iter": UNIT_S}
        if self.several:
            metrics["latency"] = round(one["latency"], 3)
        yield at, "report", number, 1, epoch, metrics
        status, reason, traceback = "", "", ""
        if epoch == one["fails_at"]:
            status, reason = "failed", "RuntimeError: CUDA error: device-side assert triggered"
            traceback = (
                'Traceback (most recent call last):\n  File "train.py", line 41, in train_fn\n'
                "    loss.backward()\nRuntimeError: CUDA error: device-side assert triggered\n"
            )
        elif self.stops and not self.several and float(epoch) in self.rungs:
            rung = self.rungs[float(epoch)]
            rung.append(value)
            rank = sum(other >= value for other in rung)
            places = max(1, len(rung) // 3)
            if rank > places:
                reason = f"rank {rank} of {len(rung)} at the rung of epoch {epoch}"
                body = {"word": "stop", "reason": reason, "report": epoch}
                yield at, "decided", number, 1, epoch, body
                status, reason = "stopped", f"by the rule: {reason}"
        if not status and epoch == self.reports:
            status = "finished"
        if not status:
            return False
        body = {
            "error": reason if traceback else "",
            "traceback": traceback,
            "returned": None,
            "exit_code": 0,
            "signal": None,
            "max_rss_bytes": 4 << 20,
            "cpu_s": 1.0,
            "seconds": at - one["began"],
            "status": status,
            "reason": reason,
            "best": one["top"],
        }
        yield at, "ended", number, 1, None, body
        if status != "failed":
            self.best = sorted([*self.best, (value, number)], reverse=True)[:8]
        return True


def write(
    folder: Path,
    trials: int = 100,
    reports: int = 20,
    *,
    nodes: int = 4,
    seed: int = 0,
    function: str = "train_fn",
    several: bool = False,
    stops: bool = True,
    until: float = 1.0,
    space: Any = None,
    searcher: str = "RandomSearcher",
) -> Growing:
    """Write the log of a made-up search into a new folder.

        write(Path("runs/large"), trials=10_000, reports=50)

    `several`: two objectives. `stops`: as ASHA does. `until`: the part of its events that have
    happened; what comes next adds the returned `Growing`. `space`: as `Space.describe` says it,
    with parameters of the kinds of `SPACE`, in this order.
    """
    folder.mkdir(parents=True)
    (folder / "trials").mkdir()
    story = MadeUp(trials, reports, nodes, seed, several=several, stops=stops)
    space = SPACE.describe() if space is None else space
    events = list(story.events(function, space, searcher))
    shown = max(2, int(until * len(events)))
    late = time.time() - events[shown - 1][0]
    events = [(at + late, *rest) for at, *rest in events]
    growing = Growing(folder, events[shown:])
    growing.add(events[:shown])
    return growing


class Growing:
    """A made-up search of which more happens: `growing.go_on(100)` adds a hundred events."""

    def __init__(self, folder: Path, rest: list[Row]) -> None:
        self.folder, self.rest = folder, rest
        self._log_id = random.Random(str(folder)).getrandbits(62)
        self._connection = sqlite3.connect(
            folder / schema.FILE, isolation_level=None, check_same_thread=False
        )
        self._connection.execute("pragma journal_mode=wal")
        schema.create(self._connection, self._log_id)
        self._mark = MarkFile(folder, self._log_id)
        self._next, self._seal = 1, self._log_id

    def go_on(self, count: int) -> int:
        """Let so many events happen; how many did."""
        some, self.rest = self.rest[:count], self.rest[count:]
        now = time.time()
        self.add([(now, *rest) for _, *rest in some])
        return len(some)

    def add(self, events: list[Row]) -> None:
        """Append events to the log, and say so in the end mark."""
        rows = [(self._next + n, *rest, json.dumps(body)) for n, (*rest, body) in enumerate(events)]
        new = schema.sealed(rows, self._seal)
        if not new:
            return
        self._connection.execute("begin")
        self._connection.executemany(schema.INSERT + schema.ROW, new)
        self._connection.execute("commit")
        self._next, self._seal = self._next + len(new), new[-1][-1]
        self._mark.write(self._next - 1, self._seal)

    def close(self) -> None:
        """Let go of the log."""
        self._connection.close()
        self._mark.close()


def main() -> None:
    options = argparse.ArgumentParser(description=(__doc__ or "").splitlines()[0])
    options.add_argument("folder", type=Path)
    options.add_argument("--trials", type=int, default=10_000)
    options.add_argument("--reports", type=int, default=50)
    options.add_argument("--all-whole", action="store_true", help="no trial is stopped early")
    given = options.parse_args()
    write(given.folder, given.trials, given.reports, stops=not given.all_whole).close()


if __name__ == "__main__":
    main()
