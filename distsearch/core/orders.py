"""What the driver tells the agent of a node: what to import, the train function, and each job."""

from __future__ import annotations

import os
import sys
from collections.abc import Sequence
from typing import Any

from ..resource.messages import Message
from ..resource.remote import Remote
from .attempt import Attempt, Place
from .meeting import Meeting, ranks_of
from .settings import Settings
from .travel import Packed


def preload_of(settings: Settings, remote: Remote) -> Message:
    """What a node's launcher prepares before the first trial, and how it makes processes."""
    packed = _packed_for(settings, remote)
    return {
        "op": "preload",
        "modules": [*packed.modules, *(["fsspec"] if settings.storage else [])],
        "surroundings": packed.surroundings,
        "sys_path": _own_path() if remote.is_local else [],
        "entry": "distsearch.core.trial_process",
        "spawn": settings.spawn,
    }


def _own_path() -> list[str]:
    """Where this process imports from, as absolute paths."""
    return [os.path.abspath(path) for path in sys.path if isinstance(path, str)]


def function_of(settings: Settings, remote: Remote) -> Message:
    """The train function, pickled."""
    packed = _packed_for(settings, remote)
    return {"op": "function", "name": packed.name, "data": packed.data}


def starts_of(
    settings: Settings,
    attempt: Attempt,
    due: str | Sequence[float] | None,
    storage: Message | None,
    meeting: Meeting | None = None,
) -> list[Message]:
    """What each rank of an attempt needs to start: its slots, its limits, its job.

    `due`: at which reports the trial waits for a decision. `storage`: where the attempt finds what
    it goes on from, None without a storage. `meeting`: where the ranks meet, None for a single one.
    """
    return [_start_of(settings, attempt, place, due, storage, meeting) for place in attempt.places]


def _start_of(
    settings: Settings,
    attempt: Attempt,
    place: Place,
    due: str | Sequence[float] | None,
    storage: Message | None,
    meeting: Meeting | None,
) -> Message:
    trial, resource = attempt.trial, settings.resource
    here = [one for one in attempt.places if one.remote is place.remote]
    job: dict[str, Any] = {
        "function": _packed_for(settings, place.remote).name,
        "config": trial.config,
        "time_attr": settings.time_attr,
        "reward_attr": None if settings.objectives.several else settings.objectives.names[0],
        "has_reported": trial.last_report is not None,
        "due": due,
        "is_final": trial.is_final,
        "resume": attempt.number > 1,
        "attempt": attempt.number,
        "seed": attempt.seed,
        "keep": settings.keep,
        "storage": storage,
        "saved_step": trial.saved_step,
        "parents": list(zip(trial.parents, trial.inherits or (), strict=False)),
        "cwd": place.remote.trial_cwd,
        "rank": place.rank,
        "ranks": None if meeting is None else ranks_of(meeting, place),
        "args": {
            "task_id": trial.id,
            "num_cpus": resource.num_cpus,
            "num_gpus": resource.num_gpus,
            "gpu_ids": list(place.allocation.gpus),
            "rank": place.rank,
            "local_rank": here.index(place),
            "world_size": len(attempt.places),
        },
    }
    # As with torchrun, a rank sees the GPUs of all ranks of its trial on its node, and uses the one
    # that LOCAL_RANK counts to: scripts, and NCCL, rely on that.
    gpus = [gpu for one in here for gpu in one.allocation.gpus]
    return {
        "op": "start",
        "env": {"CUDA_VISIBLE_DEVICES": ",".join(gpus)},
        "threads": max(1, resource.num_cpus),
        "reuse": settings.reuse,
        "limits": {
            "memory_bytes": place.allocation.memory_bytes,
            "trial_timeout_s": settings.trial_timeout_s,
            "report_timeout_s": settings.report_timeout_s if place.rank == 0 else None,
        },
        "job": job,
    }


def _packed_for(settings: Settings, remote: Remote) -> Packed:
    return settings.packed_here if remote.is_local else settings.packed
