"""What the benchmarks share: repeats, medians, a table with goals, a file of results."""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import platform
import statistics
import tempfile
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import asdict, dataclass
from pathlib import Path


@dataclass(frozen=True)
class Figure:
    """One measured thing: a value per repeat, and the goal for their median, if it has one."""

    name: str
    values: list[float]
    unit: str = ""
    at_least: float | None = None
    at_most: float | None = None

    @property
    def median(self) -> float:
        return statistics.median(self.values)

    @property
    def goal(self) -> str:
        if self.at_least is not None:
            return f">= {self.at_least:g}"
        return "" if self.at_most is None else f"<= {self.at_most:g}"

    @property
    def verdict(self) -> str:
        if self.at_least is not None:
            return "met" if self.median >= self.at_least else "MISSED"
        if self.at_most is not None:
            return "met" if self.median <= self.at_most else "MISSED"
        return ""


@dataclass(frozen=True)
class Run:
    """What many trivial trials, or tasks, cost."""

    per_second: float
    cpu_ms: float
    """CPU time of one, in all processes: the driver, its children and theirs."""

    @classmethod
    def of(cls, count: int, seconds: float, cpu_s: float) -> Run:
        return cls(count / seconds, 1e3 * cpu_s / count)

    def as_dict(self) -> dict[str, float]:
        return asdict(self)

    def __str__(self) -> str:
        return f"{self.per_second:.0f} per second, {self.cpu_ms:.1f} ms of CPU time each"


def ratio(name: str, over: Figure, under: Figure, at_least: float | None = None) -> Figure:
    """Two figures of the same repeats, divided repeat by repeat."""
    pairs = zip(over.values, under.values, strict=True)
    return Figure(name, [a / b for a, b in pairs], "x", at_least=at_least)


class CPUClock:
    """CPU time that this process and all its descendants use from now on."""

    def __init__(self) -> None:
        self._before = self._now()

    def seconds(self) -> float:
        """So much until now, with what descendants that have ended had used."""
        now = self._now()
        return sum(used - self._before.get(pid, 0.0) for pid, used in now.items())

    def _now(self) -> dict[int, float]:
        import psutil

        here, found = psutil.Process(), {}
        for process in [here, *here.children(recursive=True)]:
            with contextlib.suppress(psutil.NoSuchProcess):
                times = process.cpu_times()
                of_ended_children = times.children_user + times.children_system
                found[process.pid] = times.user + times.system + of_ended_children
        return found


def parser(text: str, repeats: int = 5) -> argparse.ArgumentParser:
    """The options of every benchmark."""
    options = argparse.ArgumentParser(description=text.splitlines()[0])
    options.add_argument("--repeats", type=int, default=repeats)
    options.add_argument("--json", type=Path, help="append the figures to this file, one line")
    return options


def peer_options(text: str, what: str = "trials") -> argparse.ArgumentParser:
    """The options of the program that runs a peer: how many of what, on how many slots."""
    options = argparse.ArgumentParser(description=text.splitlines()[0])
    options.add_argument(what, type=int)
    options.add_argument("slots", type=int)
    options.add_argument("--choose", action="store_true", help="try its settings")
    return options


def machine() -> str:
    """The facts that figures depend on."""
    cores = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count()
    return f"{cores} cores, Python {platform.python_version()}, {platform.system()}"


def show(title: str, figures: list[Figure], json_file: Path | None = None) -> None:
    """Print a table; append the figures to `json_file`, one JSON object a line."""
    width = max(len(figure.name) for figure in figures)
    print(f"\n{title} ({machine()}; medians of {len(figures[0].values)} repeats)")
    print(f"{'':{width}}  {'median':>10} {'least':>10} {'most':>10} {'':10} {'goal':>9}")
    for figure in figures:
        numbers = (figure.median, min(figure.values), max(figure.values))
        cells = " ".join(f"{value:10.4g}" for value in numbers)
        print(
            f"{figure.name:{width}}  {cells} {figure.unit:10} {figure.goal:>9} {figure.verdict}",
            flush=True,
        )
    if json_file is not None:
        record = {"title": title, "machine": machine(), "figures": [asdict(f) for f in figures]}
        with open(json_file, "a") as file:
            file.write(json.dumps(record) + "\n")


@contextmanager
def scratch() -> Iterator[Path]:
    """A folder for logs, gone afterwards; searches without a folder of their own go there too."""
    with tempfile.TemporaryDirectory(prefix="distsearch-bench-") as folder:
        before = os.environ.get("DISTSEARCH_RESULTS")
        os.environ["DISTSEARCH_RESULTS"] = folder
        try:
            yield Path(folder)
        finally:
            os.environ.pop("DISTSEARCH_RESULTS")
            if before is not None:
                os.environ["DISTSEARCH_RESULTS"] = before
