"""The driver's memory after 10,000 trials of 10 reports, and whether trials get slower.

    python -m benchmarks.memory

Each repeat is a search in an interpreter of its own, with reused processes. The ratio compares
the time from the 9,000th trial's end to the last one's with that of the first thousand.
"""

from __future__ import annotations

import itertools
import json
import subprocess
import sys

import psutil

import distsearch as ag
from distsearch.core import store

from .common import Figure, parser, scratch, show

BOUND_S = 600


@ag.args(x=ag.Real(0, 1))
def train_fn(args, reporter):
    for epoch in range(10):
        reporter(epoch=epoch + 1, accuracy=args.x)


def search(trials: int) -> dict[str, float]:
    """Run one search in this process; its memory, and the ms per trial at its begin and end."""
    node = ag.Node("localhost", num_cpus=2)
    with (
        scratch(),
        ag.scheduler.FIFOScheduler(train_fn, local=node, isolation="reuse", verbose=0) as scheduler,
    ):
        scheduler.run(num_trials=trials)
        assert scheduler.join_jobs(BOUND_S), "the search did not end"
        memory_bytes = psutil.Process().memory_info().rss
        ends = [event.time for event in store.read(scheduler.folder, "ended")]
        part = trials // 10
        first, *_, last = [ends[n + part - 1] - ends[n] for n in range(0, trials, part)]
    return {"mb": memory_bytes / 1e6, "first": 1e3 * first / part, "last": 1e3 * last / part}


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--trials", type=int, default=10_000)
    options.add_argument("--once", action="store_true", help="one search, printed as JSON")
    given = options.parse_args()
    if given.once:
        print(json.dumps(search(given.trials)))
        return
    command = [sys.executable, "-m", "benchmarks.memory", "--once", "--trials", str(given.trials)]
    runs = []
    for _ in itertools.repeat(None, given.repeats):
        done = subprocess.run(command, check=True, stdout=subprocess.PIPE, timeout=BOUND_S)
        runs.append(json.loads(done.stdout))
    first, last = [run["first"] for run in runs], [run["last"] for run in runs]
    figures = [
        Figure("driver's memory", [run["mb"] for run in runs], "MB", at_most=150),
        Figure("a trial of the first tenth", first, "ms"),
        Figure("a trial of the last tenth", last, "ms"),
        Figure("last / first", [b / a for a, b in zip(first, last, strict=True)], "x"),
    ]
    show(f"{given.trials:,} trials of 10 reports", figures, given.json)


if __name__ == "__main__":
    main()
