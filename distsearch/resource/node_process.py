"""The Dask worker of a node: `python -m distsearch.resource.node_process`.

It reads one line of JSON from its standard input (addresses, certificates, folder), joins the
driver's cluster, says so, and runs until it is told to end (TERM, or the end of its standard input)
or the driver's cluster is gone. The agent is a plugin of it; no trial's code runs in it.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import shutil
import signal
import sys
from typing import Any

import dask
from distributed import Security, Worker

from .strangers import bound_strangers

READY = "distsearch node ready at "

SETTINGS: dict[str, Any] = {
    "distributed.comm.timeouts.connect": "10s",
    "distributed.comm.timeouts.tcp": "15s",
    "distributed.worker.http.routes": [],  # (nobody needs pages or metrics of this process)
    "distributed.worker.memory.target": False,
    "distributed.worker.memory.spill": False,
    "distributed.worker.memory.pause": False,
    "distributed.worker.preload": [],
    "distributed.worker.profile.enabled": False,
}


def main() -> None:
    spec = json.loads(sys.stdin.readline())
    logging.getLogger("distributed").setLevel(logging.WARNING)
    dask.config.set(SETTINGS)
    with contextlib.suppress(asyncio.CancelledError):
        asyncio.run(_live(spec))
    shutil.rmtree(spec["folder"], ignore_errors=True)  # (the starter deletes it, too, if it lives)


async def _live(spec: dict[str, Any]) -> None:
    task = asyncio.current_task()
    assert task is not None
    loop = asyncio.get_running_loop()
    loop.add_signal_handler(signal.SIGTERM, task.cancel)
    loop.add_reader(sys.stdin.fileno(), _end_at_end_of_input, task)
    worker = Worker(
        spec["scheduler"],
        name=spec["name"],
        nthreads=1,
        memory_limit=0,
        host=spec["host"],
        port=spec["port"],
        protocol="tls",
        contact_address=spec["contact"],
        security=Security(**spec["tls"]),
        local_directory=spec["folder"],
        dashboard=False,
        dashboard_address="127.0.0.1:0",  # (Dask always opens this port: on loopback)
        death_timeout=spec["start_timeout_s"],
    )
    async with worker:
        bound_strangers(worker)
        print(READY + worker.contact_address, flush=True)
        await worker.finished()


def _end_at_end_of_input(task: asyncio.Task[Any]) -> None:
    if not os.read(sys.stdin.fileno(), 1 << 16):
        asyncio.get_running_loop().remove_reader(sys.stdin.fileno())
        task.cancel()


if __name__ == "__main__":
    main()
