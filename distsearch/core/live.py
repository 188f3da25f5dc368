"""What is live in a search, and therefore not in its log: `live.json`, for those who look on.

    live.read(folder)      # None: no driver runs the search
    {"time": 1790000000.1, "driver": "process 7 on gpu1",
     "run": {"began": 1790000000, "ended": null, "deadline": null, "ended_earlier": 0},
     "queue": [12], "later": [9], "held": [3], "children": {"14": [11]}, "ending": "", "paused": "",
     "waits": {"for": "2 CPUs, 1 GPU", "trial": 12, "fences": ["gpu2"], "parked": false},
     "rule": {"waits": true, "thinks": false, "open": true, "why_closed": ""},
     "nodes": [{"host": "gpu1", "named": "ada@gpu1:2222", "address": "tcp://...", "cpus": 8,
                "cpus_used": 4, "gpus": 2, "gpus_used": 1.0, "state": "up", "trials": [4, 5]}],
     "running": {"4": {"stage": "sent", "attempt": 1,
                       "places": [{"rank": 0, "node": "gpu1", "cpus": 2, "gpus": ["0"]}]}}}

`queue` lists the trials that may start, in order; `later` those that wait for the lease of a lost
node, which may still run their last attempts; `held` those that are paused by request (`paused`
says who has paused the whole search); `children` those that wait for the weights of their parents.
`waits` is the request for slots that could not be met yet: `trial` is the trial that would get the
slots (null: a new one), `fences` are the nodes that are kept free for it, `parked` says that all
nodes together have not enough. `rule` is the rule's last answer: that nothing is to be launched
before something happens (`waits`), or that it will say itself when (`thinks`). A node is called as
the user has `named` it, which tells it from others of its host. It is `up`, `resting` (it could
start no trial a moment ago) or `draining` (it goes when its trials have ended).

The driver replaces the file whole, once a second at most; readers never touch the live search.
"""

from __future__ import annotations

import contextlib
import json
import os
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

from ..resource.private import private
from ..resource.remote import Remote
from ..resource.resource import Resource
from .belongings import LIVE as FILE
from .experiment import Experiment
from .lock import holder

MAX_BYTES = 16 * 1024 * 1024
AT_LEAST_EVERY_S = 10.0  # the file is written though nothing has changed
MOST = 1000  # a list has at most so many trials


def read(folder: str | os.PathLike[str]) -> dict[str, Any] | None:
    """What is live in the search of a folder; None when no driver runs it, or has written yet."""
    where = Path(folder).expanduser().absolute()
    who = holder(where)
    if who is None:
        return None
    try:
        with open(where / FILE, "rb", opener=private) as file:
            state = json.loads(file.read(MAX_BYTES))
    except (OSError, ValueError):  # the file is not there yet
        return None
    return {**state, "driver": who} if isinstance(state, dict) else None


def state_of(experiment: Experiment, name_of: Callable[[Remote], str]) -> dict[str, Any]:
    """What is live now; in the loop's thread. `name_of`: how the user has named a node."""
    queue, source, ledger = experiment.queue, experiment.source, experiment.ledger
    ready = [trial.id for trial in queue.ready]
    may_start = set(ready)
    return {
        "ending": experiment.why_it_ends,
        "trouble": experiment.store.trouble,
        "total": source.total,
        "run": _run(experiment),
        "paused": ledger.paused_by,
        "queue": ready[:MOST],
        "queued": len(queue),
        "later": [trial.id for trial in queue if trial.id not in may_start][:MOST],
        "held": list(ledger.held)[:MOST],
        "children": {str(one.id): list(one.parents) for one in list(experiment.children)[:MOST]},
        "waits": _waits(experiment, ready),
        "rule": source.state,
        "nodes": [
            {"named": name_of(one), **_node(experiment, one)}
            for one in experiment.manager.remotes.values()
        ],
        "running": {
            str(attempt.trial.id): {
                "stage": attempt.stage.value,
                "attempt": attempt.number,
                "places": [
                    {
                        "rank": place.rank,
                        "node": place.remote.host,
                        "cpus": place.allocation.cpus,
                        "gpus": list(place.allocation.gpus),
                    }
                    for place in attempt.places
                ],
            }
            for attempt in list(experiment.attempts)[:MOST]
        },
    }


def _run(experiment: Experiment) -> dict[str, Any]:
    """When this driver began and ended, in Unix seconds, and how many trials had ended before."""
    offset = time.time() - time.monotonic()
    moments = {
        "began": experiment.activity.started_at,
        "ended": experiment.activity.ended_at,
        "deadline": experiment.activity.deadline,
    }
    in_unix_s = {name: at and round(at + offset) for name, at in moments.items()}
    return {**in_unix_s, "ended_earlier": experiment.earlier.ended}


def _waits(experiment: Experiment, ready: list[int]) -> dict[str, Any] | None:
    """The request for slots that waits, and which nodes are kept free for it."""
    request = experiment.dispatcher.request
    if request is None:
        return None
    hosts = {one.slots: one.host for one in experiment.manager.remotes.values()}
    return {
        "for": in_words(request.resource),
        "trial": ready[0] if ready else None,
        "fences": [hosts[slots] for slots in request.fences if slots in hosts],
        "parked": request.is_parked,
    }


def in_words(resource: Resource) -> str:
    """What a trial needs.

    >>> in_words(Resource(num_cpus=2, num_gpus=0.5, world_size=4))
    '4 times 2 CPUs, 0.5 GPUs'
    """
    parts = [f"{resource.num_cpus} CPU{'s' * (resource.num_cpus != 1)}"]
    if resource.num_gpus:
        parts.append(f"{resource.num_gpus:g} GPU{'s' * (resource.num_gpus != 1)}")
    if resource.memory_gb is not None:
        parts.append(f"{resource.memory_gb:g} GB")
    times = f"{resource.world_size} times " if resource.world_size > 1 else ""
    return times + ", ".join(parts)


def _node(experiment: Experiment, remote: Remote) -> dict[str, Any]:
    manager = experiment.manager
    state = "resting" if manager.is_resting(remote) else "up"
    cpus, gpus = remote.slots.used
    return {
        "host": remote.host,
        "address": remote.address,
        "cpus": remote.facts.num_cpus,
        "cpus_used": cpus,
        "gpus": len(remote.facts.gpus),
        "gpus_used": gpus,
        "state": "draining" if manager.is_draining(remote) else state,
        "trials": [trial.id for trial in experiment.trials_on(remote)][:MOST],
    }


class Window:
    """Where the driver shows what is live; not in the loop's thread, as a disk may be slow.

    window.show(state)
    window.close()
    """

    def __init__(self, folder: Path) -> None:
        self._path = folder / FILE
        self._unfinished = folder / f".{FILE}.part"
        self._shown: dict[str, Any] | None = None
        self._at = 0.0
        self.close()  # deletes what a killed driver has left

    def show(self, state: dict[str, Any]) -> None:
        """Replace the file whole, if the state is another one, or the file is 10 s old."""
        if state == self._shown and time.monotonic() < self._at + AT_LEAST_EVERY_S:
            return
        text = json.dumps({"time": time.time(), **state})
        with contextlib.suppress(OSError):  # a full disk: the log says so itself
            with open(self._unfinished, "w", encoding="utf-8", opener=private) as file:
                file.write(text)
            self._unfinished.replace(self._path)
            self._shown, self._at = state, time.monotonic()

    def close(self) -> None:
        """Delete the file: nothing is live any more."""
        for path in (self._path, self._unfinished):
            with contextlib.suppress(OSError):
                path.unlink(missing_ok=True)
