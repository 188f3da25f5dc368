"""A window of no-op tasks on Dask's engine, as its users write it; needs distributed and psutil.

    python benchmarks/dask_peer.py TASKS SLOTS            # prints its figures as JSON
    python benchmarks/dask_peer.py TASKS SLOTS --choose   # tries windows and ways to get results

Some tasks are submitted at first, and one more for each that `as_completed` gives back, until all
are done. There is no search, no log and no isolation.
"""

from __future__ import annotations

import asyncio
import json
import time
from collections.abc import Iterator

from common import CPUClock, Run, peer_options
from distributed import Client, Future, LocalCluster, as_completed

WINDOW, WAY = 32, "with_results"  # the best of what --choose tries, within its noise
WINDOWS, WAYS = (4, 8, 16, 32), ("result", "with_results", "batches", "asynchronous")
WARM_UP = 100
BOUND_S = 120


def no_op(number: int) -> int:
    return number


def each_result(done: as_completed, way: str) -> Iterator[int]:
    """The result of each task, as soon as it is done."""
    if way == "result":
        for future in done:
            yield future.result()
    elif way == "with_results":
        for _, result in done:
            yield result
    else:
        for batch in done.batches():
            yield from (result for _, result in batch)


def window_of(client: Client, tasks: int, window: int, way: str) -> int:
    """Keep `window` tasks submitted until `tasks` are done; how many results came."""

    def submit(number: int) -> Future:
        return client.submit(no_op, number, pure=False)

    begun = min(window, tasks)
    done = as_completed(
        [submit(number) for number in range(begun)],
        with_results=way != "result",
        timeout=BOUND_S,
    )
    results = 0
    for _ in each_result(done, way):
        results += 1
        if begun < tasks:
            done.add(submit(begun))
            begun += 1
    return results


def run(tasks: int, slots: int, window: int = WINDOW, way: str = WAY) -> Run:
    """What a window costs; the cluster is up and warm before."""
    if way == "asynchronous":
        return asyncio.run(run_asynchronously(tasks, slots, window))
    with (
        LocalCluster(
            n_workers=slots, threads_per_worker=1, processes=True, dashboard_address=None
        ) as cluster,
        Client(cluster, timeout=BOUND_S) as client,
    ):
        window_of(client, WARM_UP, window, way)
        cpu, begin = CPUClock(), time.perf_counter()
        assert window_of(client, tasks, window, way) == tasks
        return Run.of(tasks, time.perf_counter() - begin, cpu.seconds())


async def run_asynchronously(tasks: int, slots: int, window: int) -> Run:
    """The same in one event loop, which spares the client's second thread."""
    async with (
        LocalCluster(
            n_workers=slots,
            threads_per_worker=1,
            processes=True,
            dashboard_address=None,
            asynchronous=True,
        ) as cluster,
        Client(cluster, timeout=BOUND_S, asynchronous=True) as client,
    ):

        async def go(count: int) -> int:
            begun = min(window, count)
            done = as_completed(
                [client.submit(no_op, number, pure=False) for number in range(begun)],
                with_results=True,
            )
            results = 0
            async for _ in done:
                results += 1
                if begun < count:
                    done.add(client.submit(no_op, begun, pure=False))
                    begun += 1
            return results

        await go(WARM_UP)
        cpu, begin = CPUClock(), time.perf_counter()
        assert await asyncio.wait_for(go(tasks), BOUND_S) == tasks
        return Run.of(tasks, time.perf_counter() - begin, cpu.seconds())


def main() -> None:
    options = peer_options(__doc__, "tasks")
    options.add_argument("--window", type=int, default=WINDOW)
    given = options.parse_args()
    if not given.choose:
        print(json.dumps(run(given.tasks, given.slots, given.window).as_dict()))
        return
    for way in WAYS:
        for window in WINDOWS:
            found = run(given.tasks, given.slots, window, way)
            print(f"{way:14} window {window:3}: {found}", flush=True)


if __name__ == "__main__":
    main()
