"""Tells what there is to know of a machine: `python -m distsearch.resource.probe`, by the doctor.

It reads one line of JSON from its standard input:

    {"modules": ["helper"], "meets": true}      modules to look for; whether there are other nodes

and prints lines of JSON:

    {"facts": {...}}                                             clock, disks, limits, GPUs, ...
    {"meeting": {"port": 40123, "token": "...", "addresses": [...]}}   where others try to reach it

On a second line it is told where the other nodes are: `{"others": {"gpu2": [[addresses], port,
token]}}`. It tries to reach them, prints for each at which addresses it does (`{"reached": "gpu2",
"at": ["10.0.0.2"]}`), and can be reached itself until its input ends. Packages that distsearch
needs may be missing here, so they are imported where they are used.
"""

from __future__ import annotations

import asyncio
import importlib.util
import json
import os
import resource
import shutil
import subprocess
import sys
import tempfile
import threading
import time
from pathlib import Path
from typing import Any

from .starter import cache_folder

MOST_ADDRESSES = 20
LIMIT_S = 30.0  # after so long the probe ends by itself
GPU_S = 5.0
GPU_QUERY = ["--query-gpu=name,memory.total,driver_version", "--format=csv,noheader,nounits"]
SHARED_MEMORY = "/dev/shm"


def main() -> None:
    spec = json.loads(sys.stdin.readline())
    watch = threading.Timer(LIMIT_S, os._exit, [1])
    watch.daemon = True
    watch.start()
    say(facts=facts(spec["modules"]))
    try:
        if spec["meets"]:
            asyncio.run(_meet())
    except ImportError as error:  # (psutil, which knows the addresses)
        say(meeting=None, why=f"no {error.name}")


def say(**message: Any) -> None:
    """Tell the doctor something, in one line of JSON."""
    print(json.dumps(message), flush=True)


def facts(modules: list[str]) -> dict[str, Any]:
    """Clock, disks, limits and GPUs of this machine, and which of these modules it lacks."""
    return {
        "time": time.time(),
        "disks": _disks(tempfile.gettempdir(), cache_folder()),
        "open_files": resource.getrlimit(resource.RLIMIT_NOFILE),
        "processes": resource.getrlimit(resource.RLIMIT_NPROC),
        "is_root": os.getuid() == 0,
        "shared_memory": _size(SHARED_MEMORY),
        "lacks": [name for name in modules if not _is_there(name)],
        **_gpus(),
    }


def _disks(*folders: str) -> list[dict[str, Any]]:
    """The disks of these folders (also of folders that are not there yet), each once."""
    disks: dict[int, dict[str, Any]] = {}
    for there in map(Path, folders):
        while not there.exists():
            there = there.parent
        about = os.statvfs(there)
        disk = {
            "folder": str(there),
            "free": about.f_bavail * about.f_frsize,
            "inodes": about.f_favail if about.f_files else None,
            "writable": os.access(there, os.W_OK),
        }
        if there.stat().st_dev not in disks or not disk["writable"]:
            disks[there.stat().st_dev] = disk
    return list(disks.values())


def _size(folder: str) -> int | None:
    try:
        return shutil.disk_usage(folder).total
    except OSError:
        return None


def _is_there(module: str) -> bool:
    try:
        return importlib.util.find_spec(module) is not None
    except (ImportError, ValueError):
        return False


def _gpus() -> dict[str, Any]:
    """The GPUs by NVIDIA's driver, and how many of them trials would get."""
    told: dict[str, Any] = {"gpus": [], "gpu_driver": None, "gpu_fault": None, "usable_gpus": None}
    if (smi := shutil.which("nvidia-smi")) is not None:
        try:
            done = subprocess.run(
                [smi, *GPU_QUERY], capture_output=True, text=True, timeout=GPU_S, check=False
            )
        except (OSError, subprocess.TimeoutExpired) as error:
            told["gpu_fault"] = f"nvidia-smi: {error}"
        else:
            rows = [line.split(", ") for line in done.stdout.splitlines() if line.count(", ") == 2]
            told["gpus"] = [f"{name} {int(float(mb) / 1024)} GB" for name, mb, _ in rows]
            told["gpu_driver"] = rows[0][2] if rows else None
            if done.returncode != 0:
                lines = (done.stdout + done.stderr).strip().splitlines()
                told["gpu_fault"] = f"nvidia-smi: {lines[0] if lines else done.returncode}"[:300]
    elif Path("/proc/driver/nvidia/version").exists():
        told["gpu_fault"] = "there is a driver of NVIDIA, but no nvidia-smi"
    try:
        from .detect import detect

        told["usable_gpus"] = list(detect().gpus)
    except ImportError:  # (another check tells which packages are missing)
        pass
    return told


async def _meet() -> None:
    """Let other nodes reach this machine, and try to reach them."""
    from .meeting import Network, own_addresses

    network = Network()
    point = await network.open(alone=False)
    try:
        addresses = own_addresses()[:MOST_ADDRESSES]
        say(meeting={"port": point.port, "token": point.token, "addresses": addresses})
        line = await asyncio.to_thread(sys.stdin.readline)
        others = json.loads(line)["others"] if line else {}
        await asyncio.gather(*(_reach(network, name, *where) for name, where in others.items()))
        await asyncio.to_thread(sys.stdin.read)
    finally:
        point.close()


async def _reach(network: Any, name: str, addresses: list[str], port: int, token: str) -> None:
    say(reached=name, at=list(await network.reach(addresses, port, token)))


if __name__ == "__main__":
    main()
