"""Follows the searches of some folders, and tells whoever waits that something has changed."""

from __future__ import annotations

import asyncio
import gc
import os
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from pathlib import Path
from typing import Any

from ..core import live
from ..core import summary as core_summary
from ..core.lock import holder
from ..core.phrases import counted
from ..errors import DistsearchError
from .panels import OBJECTIVE, PANELS, SECTIONS, WIDE
from .report import compared_row, summary
from .searches import open_view
from .view import View

LOOK_S = 0.4  # between two looks at a folder
RESTS = 2.0  # after a look comes a rest of so many times its length
THREADS = 4
WAIT_S = 20.0  # a browser's question for changes is kept open for so long


class Seat:
    """One folder: its search once that is read, and what can be said of the folder until then."""

    def __init__(self, folder: str, name: str) -> None:
        self.folder, self.name = folder, name
        self.view: View | None = None
        self.reading, self.error = f"reading {folder} ...", ""
        self.live: dict[str, Any] | None = None
        self.runs = False


class Watch:
    """All folders that a page shows.

        watch = Watch([Path("runs/digits")], say=print)
        await watch.start()
        state = await watch.state(after=3)      # at once, or when something has changed
        watch.close()

    `version` counts changes of any of them. `say` hears what is being read, in words.
    """

    def __init__(self, folders: Sequence[str | os.PathLike[str]], say: Callable[[str], None]):
        paths = [Path(folder).expanduser().absolute() for folder in folders]
        names = [path.name for path in paths]
        self.seats = [
            Seat(os.fspath(folder), path.name if names.count(path.name) == 1 else str(path))
            for folder, path in zip(folders, paths, strict=True)
        ]
        self.version = 0
        self._say = say
        self._pool = ThreadPoolExecutor(THREADS, thread_name_prefix="distsearch-page")
        self._changed = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []

    async def start(self) -> None:
        """Begin to read, and to follow."""
        self._tasks = [asyncio.ensure_future(self._follow(seat)) for seat in self.seats]

    def close(self) -> None:
        """Stop following."""
        for task in self._tasks:
            task.cancel()
        self._pool.shutdown(wait=False, cancel_futures=True)

    async def work(self, job: Callable[..., Any], *arguments: Any) -> Any:
        """Do something that takes a while, beside the loop."""
        job_of = partial(job, *arguments)
        return await asyncio.get_running_loop().run_in_executor(self._pool, job_of)

    async def state(self, after: int) -> dict[str, Any]:
        """How all searches stand, once `version` is beyond `after`, or after 20 s."""
        until = time.monotonic() + WAIT_S
        while self.version <= after and time.monotonic() < until:
            changed = self._changed
            try:
                await asyncio.wait_for(changed.wait(), until - time.monotonic())
            except (asyncio.TimeoutError, TimeoutError):
                break
        version = self.version
        searches = [await self.work(_told, seat) for seat in self.seats]
        return {"version": version, "searches": searches, "sections": _sections()}

    def _bump(self) -> None:
        self.version += 1
        self._changed.set()
        self._changed = asyncio.Event()

    async def _follow(self, seat: Seat) -> None:
        loop = asyncio.get_running_loop()

        def hear(count: int) -> None:
            seat.reading = f"reading {seat.folder}: {count:,} events so far ..."
            loop.call_soon_threadsafe(self._bump)

        self._say(seat.reading)
        while True:
            began = time.monotonic()
            try:
                if seat.view is None:
                    view = await self.work(open_view, seat.folder, hear)
                    view.name = seat.name
                    gc.freeze()  # millions of objects that stay: each full collection took 0.5 s
                    seat.view, seat.reading, seat.error = view, "", ""
                    took = time.monotonic() - began
                    self._say(f"{seat.folder} is read: {view.revision:,} events in {took:.1f} s")
                    await self.work(_look_at_driver, seat)
                    self._bump()
                elif await self.work(_look, seat) or seat.error:
                    seat.error = ""
                    self._bump()
            except (DistsearchError, OSError) as error:
                if str(error) != seat.error:
                    self._say(f"{seat.folder}: {error}")
                seat.error, seat.view = str(error), None
                self._bump()
                await asyncio.sleep(2.0)
            took = time.monotonic() - began
            await asyncio.sleep(max(LOOK_S, RESTS * took))


def _look(seat: Seat) -> bool:
    assert seat.view is not None
    driven = _look_at_driver(seat)
    return seat.view.catch_up() or seat.view.settle() or driven


def _look_at_driver(seat: Seat) -> bool:
    """Read what the driver shows; whether that is something else than before."""
    assert seat.view is not None
    folder = seat.view.story.folder
    runs = holder(folder) is not None
    now = live.read(folder) if runs else None
    before = (seat.runs, None if seat.live is None else {**seat.live, "time": 0})
    seat.live, seat.runs = now, runs
    return before != (runs, None if now is None else {**now, "time": 0})


def _told(seat: Seat) -> dict[str, Any]:
    """A search as the page's script hears of it."""
    told: dict[str, Any] = {
        "name": seat.name,
        "reading": seat.reading,
        "error": seat.error,
        "runs": seat.runs,
        "revision": "",
    }
    view = seat.view
    if view is None:
        return told
    with view.lock:
        ledger = view.story.ledger
        best = ledger.best
        return told | {
            "revision": f"{view.revision} {view.settled}",
            "stands": _in_words(view, seat.runs),
            "summary": summary(view),
            "objectives": list(ledger.objectives.names),
            "best_config": {} if best is None else dict(best.config),
            "compared": dict(compared_row(view)),
            "live": _live(seat.live),
        }


def _in_words(view: View, runs: bool) -> str:
    ledger = view.story.ledger
    state = "runs" if runs else "does not run"
    paused = f" · paused by {by}" if (by := ledger.paused_by) else ""
    each = core_summary.counts_of(ledger) or "none yet"
    return f"{state}{paused} · {counted(ledger.counts.launched)}: {each}"


def _live(now: dict[str, Any] | None) -> dict[str, Any] | None:
    """What the page shows of `live.json`; None where that file is not as it should be."""
    try:
        return None if now is None else _read_live(now)
    except (TypeError, AttributeError, ValueError):
        return None


def _read_live(now: dict[str, Any]) -> dict[str, Any]:
    nodes = [
        {
            "named": str(node.get("named", node.get("host", ""))),
            "state": str(node.get("state", "")),
            "cpus": f"{node.get('cpus_used')} of {node.get('cpus')}",
            "gpus": f"{node.get('gpus_used')} of {node['gpus']}" if node.get("gpus") else "",
            "trials": ", ".join(map(str, node.get("trials", ())[:20])),
        }
        for node in now.get("nodes", ())
    ]
    queue = ", ".join(map(str, now.get("queue", ())[:20]))
    words = [f"In the queue: {queue}." if queue else "The queue is empty."]
    if waits := now.get("waits"):
        fences = ", ".join(map(str, waits.get("fences", ())))
        kept = f", for which {fences} is kept free" if fences else ""
        words.append(f"Waited for: {waits.get('for')}{kept}.")
    return {"nodes": nodes, "queue": " ".join(words)}


def _sections() -> list[dict[str, Any]]:
    return [
        {
            "title": section.title,
            "panels": [
                {
                    "name": name,
                    "title": PANELS[name].title,
                    "about": PANELS[name].about,
                    "wide": name in WIDE,
                    "objective": name in OBJECTIVE,
                }
                for name in section.panels
            ],
        }
        for section in SECTIONS
    ]
