"""What this process may use of its machine: CPUs, GPUs, memory."""

from __future__ import annotations

import hashlib
import math
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

import psutil

from ..errors import ResourceError
from .meeting import own_addresses
from .node import Node, NodeFacts

CGROUPS = Path("/sys/fs/cgroup")  # (version 1 or 2)
OWN_CGROUPS = Path("/proc/self/cgroup")
MACHINE_IDS = (Path("/etc/machine-id"), Path("/var/lib/dbus/machine-id"))
BOOT_ID = Path("/proc/sys/kernel/random/boot_id")
NAMESPACE = Path("/proc/self/ns/pid")


def detect() -> NodeFacts:
    """Find what this process may use of its own machine: `detect().num_cpus`.

    The affinity and the cgroup's quota (rounded up) limit CPUs, the cgroup limits memory,
    CUDA_VISIBLE_DEVICES limits GPUs and names them. Without NVIDIA's driver there are no GPUs.
    """
    groups = list(_groups())
    return NodeFacts(
        min([_affinity(), *_cpu_quotas(groups)]),
        _gpus(),
        min([psutil.virtual_memory().total, *_memory_limits(groups)]),
        machine_id(),
        own_addresses(),
    )


def declared(node: Node, facts: NodeFacts) -> NodeFacts:
    """The facts of a node, where what the user has declared replaces what was detected.

        declared(Node("h", num_cpus=4), detect()).num_cpus == 4

    If fewer GPUs are declared than were found, the first of these are used; if none was found, they
    are called "0", "1", ... Raises ResourceError when some were found, but fewer than declared.
    """
    if node.num_cpus is not None:
        facts = replace(facts, num_cpus=node.num_cpus)
    if node.address is not None:
        facts = replace(facts, addresses=(node.address,))
    if node.memory_gb is not None:
        facts = replace(facts, memory_bytes=round(node.memory_gb * 1e9))
    if node.num_gpus is None:
        return facts
    if 0 < len(facts.gpus) < node.num_gpus:
        raise ResourceError(
            f"node {node.host!r} declares num_gpus={node.num_gpus}, but has {len(facts.gpus)}: "
            f"{', '.join(facts.gpus)}; lower it, or leave it out"
        )
    gpus = facts.gpus or tuple(str(index) for index in range(node.num_gpus))
    return replace(facts, gpus=gpus[: node.num_gpus])


def machine_id() -> str:
    """A text that only this machine, or this container, has while it is up; '' if there is none.

    It is a hash of the id of the installation (the same in containers of one image), the id of the
    boot (the same in containers of one host), and the container's process namespace.
    """
    try:
        boot, namespace = BOOT_ID.read_text().strip(), os.readlink(NAMESPACE)
    except OSError:  # (not Linux)
        return ""
    installed = next(filter(None, map(_read, MACHINE_IDS)), "")
    return hashlib.sha256(f"{installed} {boot} {namespace}".encode()).hexdigest()[:16]


def _affinity() -> int:
    if hasattr(os, "sched_getaffinity"):  # macOS has none
        return len(os.sched_getaffinity(0))
    return os.cpu_count() or 1


def _groups() -> Iterator[Path]:
    """The folders of the cgroups whose limits hold: this process's, and those around them."""
    for line in (_read(OWN_CGROUPS) or "0::/").splitlines():
        _, controllers, path = line.split(":", 2)
        inside = [part for part in path.split("/") if part]
        if ".." in inside:  # (the group is outside of what the container sees)
            inside = []
        # Version 2 is one tree without controllers in its name, version 1 has a tree for each.
        for tree in {CGROUPS / name for name in ("", controllers, *controllers.split(","))}:
            for depth in range(len(inside) + 1):
                yield tree.joinpath(*inside[:depth])


def _cpu_quotas(groups: list[Path]) -> Iterator[int]:
    for group in groups:
        quota, _, period = (_read(group / "cpu.max") or "").partition(" ")
        if not period:
            quota = _read(group / "cpu.cfs_quota_us") or ""
            period = _read(group / "cpu.cfs_period_us") or ""
        # "max" and -1 say that there is no limit.
        if quota.isdigit() and period.isdigit():
            yield max(1, math.ceil(int(quota) / int(period)))


def _memory_limits(groups: list[Path]) -> Iterator[int]:
    for group in groups:
        for name in ("memory.max", "memory.limit_in_bytes"):
            limit = _read(group / name) or ""
            if limit.isdigit():
                yield int(limit)


def _read(path: Path) -> str | None:
    try:
        return path.read_text().strip()
    except OSError:
        return None


def _gpus() -> tuple[str, ...]:
    """The GPUs that CUDA would use, by the names of CUDA_VISIBLE_DEVICES."""
    visible = os.environ.get("CUDA_VISIBLE_DEVICES")
    devices = _nvml_devices()
    if visible is None:
        if not any(slices for _, slices in devices.values()):
            return tuple(str(index) for index in devices)
        # (A GPU that is cut into MIG slices is used through these, which have no index.)
        return tuple(name for uuid, slices in devices.values() for name in slices or [uuid])
    gpus: dict[str, str] = {}
    for entry in (entry.strip() for entry in visible.split(",")):
        uuid = _resolve(entry, devices)
        if uuid is None:  # (CUDA ignores all entries after an unknown one)
            break
        gpus.setdefault(uuid, entry)
    return tuple(gpus.values())


def _resolve(entry: str, devices: Mapping[int, tuple[str, list[str]]]) -> str | None:
    """The UUID of a GPU given by index, by UUID or by its beginning; None if there is none."""
    if entry.isdigit():
        uuid, slices = devices.get(int(entry), (None, []))
        return slices[0] if slices else uuid
    if not entry.startswith(("GPU-", "MIG-")):
        return None
    uuids = [name for uuid, slices in devices.values() for name in (uuid, *slices)]
    matches = [uuid for uuid in uuids if uuid.startswith(entry)]
    return matches[0] if len(matches) == 1 else None


def _nvml_devices() -> dict[int, tuple[str, list[str]]]:
    """For each GPU that answers, by index: its UUID, and the UUIDs of its MIG slices."""
    try:
        import pynvml as nvml
    except ImportError:
        return {}
    try:
        nvml.nvmlInit()
    except nvml.NVMLError:  # no driver
        return {}
    try:
        devices = {}
        for index in range(_ask(nvml, nvml.nvmlDeviceGetCount) or 0):
            gpu = _ask(nvml, nvml.nvmlDeviceGetHandleByIndex, index)
            uuid = None if gpu is None else _ask(nvml, nvml.nvmlDeviceGetUUID, gpu)
            if uuid is not None:
                devices[index] = (_text(uuid), list(_slices(nvml, gpu)))
        return devices
    finally:
        nvml.nvmlShutdown()


def _slices(nvml: Any, gpu: Any) -> Iterator[str]:
    mode = _ask(nvml, nvml.nvmlDeviceGetMigMode, gpu)  # (current, pending)
    if not mode or not mode[0]:
        return
    for index in range(_ask(nvml, nvml.nvmlDeviceGetMaxMigDeviceCount, gpu) or 0):
        part = _ask(nvml, nvml.nvmlDeviceGetMigDeviceHandleByIndex, gpu, index)
        uuid = None if part is None else _ask(nvml, nvml.nvmlDeviceGetUUID, part)
        if uuid is not None:
            yield _text(uuid)


def _ask(nvml: Any, question: Callable[..., Any], *about: Any) -> Any:
    """NVML's answer; None for an error, as one lost or old GPU must not hide the others."""
    try:
        return question(*about)
    except nvml.NVMLError:
        return None


def _text(uuid: str | bytes) -> str:
    return uuid.decode() if isinstance(uuid, bytes) else uuid
