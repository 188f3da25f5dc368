"""How busy 500 declared slots of one machine are with 1,500 trials that sleep for 20 s.

    python -m benchmarks.utilisation                           # about 70 s each: fresh, reused
    python -m benchmarks.utilisation --slots 50 --seconds 5    # smaller

Utilisation: the seconds that all trials have spent inside their train functions, by the slots and
by the seconds from the first trial's start to the last one's end, so that slots which wait for
their first trial, or have no more, count as idle. Beside it the same over all the time of `run()`
and `join_jobs()`.
"""

from __future__ import annotations

import time

import distsearch as ag
from distsearch.core.store import read

from .common import CPUClock, Figure, parser, scratch, show

GOAL = 0.99
ROUNDS = 3  # trials of each slot
BOUND_S = 300


@ag.args(x=ag.Real(0, 1), seconds=1.0)
def train_fn(args, reporter):
    import time

    began = time.time()
    time.sleep(args.seconds)
    reporter(epoch=1, accuracy=args.x, began=began, ended=time.time())


def search(isolation: str, slots: int, seconds: float) -> tuple[float, float, float]:
    """Utilisation; with the start and the end of the search; and ms of CPU time of a trial."""
    trials = ROUNDS * slots
    node = ag.Node("localhost", num_cpus=slots)
    with ag.scheduler.FIFOScheduler(
        train_fn,
        args={"seconds": seconds},
        resource={"num_cpus": 1},
        local=node,
        isolation=isolation,
        verbose=0,
    ) as scheduler:
        cpu, begin = CPUClock(), time.perf_counter()
        scheduler.run(num_trials=trials)
        assert scheduler.join_jobs(BOUND_S), "the search did not end"
        whole, cpu_s = time.perf_counter() - begin, cpu.seconds()
        assert {trial.status.value for trial in scheduler.trials} == {"finished"}
        bodies = [event.body for event in read(scheduler.folder) if event.kind == "report"]
    assert len(bodies) == trials
    busy = sum(body["ended"] - body["began"] for body in bodies)
    span = max(body["ended"] for body in bodies) - min(body["began"] for body in bodies)
    return busy / slots / span, busy / slots / whole, 1e3 * cpu_s / trials


def main() -> None:
    options = parser(__doc__, repeats=1)
    options.add_argument("--slots", type=int, default=500)
    options.add_argument("--seconds", type=float, default=20.0, help="that a trial sleeps")
    options.add_argument("--isolation", nargs="*", default=["fresh", "reuse"])
    given = options.parse_args()
    figures = []
    for isolation in given.isolation:
        with scratch():
            found = [search(isolation, given.slots, given.seconds) for _ in range(given.repeats)]
        busy, whole, cpu_ms = (list(column) for column in zip(*found, strict=True))
        figures += [
            Figure(f"{isolation}: utilisation", busy, "", at_least=GOAL),
            Figure(f"{isolation}: run() and join_jobs() included", whole),
            Figure(f"{isolation}: CPU time", cpu_ms, "ms each"),
        ]
    title = f"{given.slots} slots, {ROUNDS * given.slots} trials of {given.seconds:g} s"
    show(title, figures, given.json)


if __name__ == "__main__":
    main()
