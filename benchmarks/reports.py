"""Durable reports per second from 2 trials, and the round trip of a decision.

    python -m benchmarks.reports
    python -m benchmarks.reports --ssh          # also on a node over SSH on loopback, by sshd

Reports are counted from before the first is sent until all are committed to the log. The round
trip is measured inside a trial whose every report waits for the rule's answer, which leaves only
after its report is on the disk.
"""

from __future__ import annotations

import contextlib
import json
import os
import sqlite3
import statistics
import time
from typing import Any

import distsearch as ag
from distsearch.core.loop import loop
from distsearch.resource.dask_remote import DaskRemote

from .common import Figure, parser, scratch, show

BOUND_S = 300
P50_MS = {"local": 5.0, "SSH": 2.0}  # goals


@ag.args(count=0, x=ag.Real(0, 1))
def stream(args, reporter):
    import time

    begin = time.time()
    for number in range(args.count):
        reporter(epoch=number + 1, accuracy=number / args.count)
    return begin


@ag.args(count=0)
def ask(args, reporter):
    import time

    seconds = []
    for number in range(args.count):
        begin = time.perf_counter()
        reporter(epoch=number + 1, accuracy=number / args.count)
        seconds.append(time.perf_counter() - begin)
    seconds.sort()
    return [1e3 * seconds[int(share * args.count)] for share in (0.5, 0.99)]


class Decide(ag.scheduler.FIFOScheduler):
    """Decides at every report that the trial goes on."""

    def on_report(self, trial: Any, report: Any) -> Any:
        return super().on_report(trial, report)


def reports_per_second(count: int, nodes: dict[str, Any]) -> float:
    """The rate of 2 trials that report as fast as they can."""
    with ag.scheduler.FIFOScheduler(stream, args={"count": count}, verbose=0, **nodes) as scheduler:
        scheduler.run(num_trials=2)
        assert scheduler.join_jobs(BOUND_S), "the search did not end"
        end = time.time()  # all is committed when join_jobs returns
        assert {trial.status.value for trial in scheduler.trials} == {"finished"}
        with contextlib.closing(sqlite3.connect(scheduler.folder / "events.db")) as log:
            (committed,) = log.execute("select count(*) from reports").fetchone()
            (begin,) = log.execute(
                "select min(json_extract(body, '$.returned')) from events where kind = 'ended'"
            ).fetchone()
    assert committed == 2 * count, f"{committed} of {2 * count} reports are in the log"
    return committed / (end - begin)


def decision_ms(count: int, nodes: dict[str, Any]) -> tuple[float, float]:
    """The median and the 99th percentile of the time that a deciding report takes."""
    with Decide(ask, args={"count": count}, verbose=0, **nodes) as scheduler:
        scheduler.run(num_trials=1)
        assert scheduler.join_jobs(BOUND_S), "the search did not end"
        with contextlib.closing(sqlite3.connect(scheduler.folder / "events.db")) as log:
            (returned,) = log.execute(
                "select json_extract(body, '$.returned') from events where kind = 'ended'"
            ).fetchone()
    median, rare = json.loads(returned)
    return median, rare


def call_ms(count: int, nodes: dict[str, Any]) -> float:
    """The median of the time that a call to the node takes which does nothing, by Dask alone.

    A decision takes as many messages: the report comes up, the answer goes down.
    """

    async def calls(remote: DaskRemote) -> list[float]:
        seconds = []
        for _ in range(count):
            begin = time.perf_counter()
            await remote.link.run_on(remote.worker, os.getpid)
            seconds.append(time.perf_counter() - begin)
        return seconds

    with Decide(ask, args={"count": 1}, verbose=0, **nodes) as scheduler:
        (remote,) = scheduler.manager.remotes.values()
        assert isinstance(remote, DaskRemote)
        return 1e3 * statistics.median(loop().call(calls(remote), BOUND_S))


def main() -> None:
    options = parser(__doc__, repeats=9)
    options.add_argument("--reports", type=int, default=30_000, help="of each of the 2 trials")
    options.add_argument("--decisions", type=int, default=1000)
    options.add_argument("--ssh", action="store_true", help="also over SSH on loopback")
    given = options.parse_args()
    places: dict[str, dict[str, Any]] = {"local": {"local": ag.Node("localhost", num_cpus=2)}}
    with contextlib.ExitStack() as stack:
        folder = stack.enter_context(scratch())
        if given.ssh:
            from .ssh_hosts import ssh_nodes

            places["SSH"] = stack.enter_context(ssh_nodes(folder, 1, num_cpus=2))
        figures = []
        for place, nodes in places.items():
            rates, medians, rares, alone = [], [], [], []
            for _ in range(given.repeats):
                rates.append(reports_per_second(given.reports, nodes))
                median, rare = decision_ms(given.decisions, nodes)
                medians.append(median)
                rares.append(rare)
                if place == "SSH":
                    alone.append(call_ms(given.decisions, nodes))
            goal = 10_000 if place == "local" else None
            figures += [
                Figure(f"{place}: durable reports", rates, "reports/s", at_least=goal),
                Figure(f"{place}: decision, p50", medians, "ms", at_most=P50_MS[place]),
                Figure(f"{place}: decision, p99", rares, "ms"),
            ]
            if alone:
                figures.append(Figure(f"{place}: a call by Dask that does nothing", alone, "ms"))
    show("Reports and decisions", figures, given.json)


if __name__ == "__main__":
    main()
