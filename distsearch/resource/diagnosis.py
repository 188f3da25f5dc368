"""What is wrong on a machine, judged by what was found there, and the command that mends it."""

from __future__ import annotations

import importlib.util
import sys
import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

from ..errors import ResourceError
from .detect import declared
from .environment import PREFIX, Environment
from .interpreter import in_words, interpreters
from .node import Node, NodeFacts
from .versions import NODE_PACKAGES, alike

OK, WARNING, FAULT = "ok", "warning", "fault"
LEAST_FREE_BYTES, LITTLE_FREE_BYTES = 200 * 10**6, 5 * 10**9
LEAST_INODES = 1000
# What is limited, the limit's name in limits.conf, and the least that will do.
LIMITS = (("open_files", "nofile", 1024), ("processes", "nproc", 512))
LEAST_SHARED_BYTES = 128 * 2**20  # (containers have 64 MB by default)
MOST_SECONDS_OFF = 60.0


@dataclass(frozen=True)
class Finding:
    """A thing that was looked at: its state, what was found, and the command that mends it."""

    check: str
    state: str
    found: str
    mend: str = ""


@dataclass
class Report:
    """What was found on a machine; `node` is None for this machine."""

    node: Node | None
    findings: list[Finding] = field(default_factory=list)
    seconds: float = 0.0

    @property
    def name(self) -> str:
        """The machine's name, as the user writes it."""
        return "this machine" if self.node is None else str(self.node)

    @property
    def is_well(self) -> bool:
        """Whether nothing is wrong; warnings are no faults."""
        return all(finding.state != FAULT for finding in self.findings)

    def found(self, check: str) -> str:
        """What a check has found; '' if it was not made."""
        return "; ".join(one.found for one in self.findings if one.check == check)

    def add(self, check: str, state: str, found: str, mend: str = "") -> None:
        """Take note of what a check has found."""
        self.findings.append(Finding(check, state, found, mend))


def name_of(pinned: str) -> str:
    """The package of `numpy==2.1.0`."""
    return pinned.partition("==")[0]


def judge_python(report: Report, node: Node | None, hello: dict[str, Any], setup: str) -> bool:
    """Note a node's interpreter; returns whether it has the driver's version of Python."""
    theirs, ours = (".".join(map(str, one[:3])) for one in (hello["python"], sys.version_info))
    found = f"{theirs}, {hello['executable']}"
    if node is not None and node.python is None:
        found += f" (tried: {', '.join(map(in_words, interpreters(node)))})"
    if hello["python"][:2] == list(sys.version_info[:2]):
        report.add("python", OK, found)
        return True
    report.add("python", FAULT, f"{found}; the driver has {ours}", setup)
    return False


def judge_packages(
    report: Report, environment: Environment, hello: dict[str, Any], setup: str
) -> None:
    """Compare the packages that distsearch and trials want with those that are there.

    `setup`: the command that installs what is missing; if it is '', pip is named. (A node with
    `setup=True` gets its packages from the search.)
    """
    wrong = WARNING if report.node is not None and report.node.setup else FAULT
    theirs: dict[str, str | None] = hello["packages"]
    missing, refused, other = [], [], []
    for pinned in environment.wanted:
        name, _, version = pinned.partition("==")
        there = (theirs.get(name) or "").partition("+")[0]
        if not there:
            missing.append(pinned)
        elif not alike(version, there, NODE_PACKAGES.get(name)):
            refused.append((f"{name} {there} (driver: {version})", pinned))
        elif there != version:
            other.append((f"{name} {there} (driver: {version})", pinned))
    python = hello["executable"]
    if missing:
        mend = setup or _pip(python, missing)
        report.add("packages", wrong, f"lacks {', '.join(missing)}", mend)
    for state, ones in ((wrong, refused), (WARNING, other)):
        if ones:
            found = f"other versions: {', '.join(told for told, _ in ones)}"
            mend = setup or _pip(python, [one for _, one in ones])
            report.add("packages", state, found, mend)
    if not (missing or refused or other):
        made = ", made by setup" if f"/{PREFIX}" in python else ""
        report.add("packages", OK, f"{len(environment.wanted)} as the driver has them{made}")


def _pip(python: str, wanted: list[str]) -> str:
    return f"{python} -m pip install {' '.join(wanted)}"


def judge_facts(report: Report, node: Node | None, facts: dict[str, Any]) -> None:
    """Note what the probe has found."""
    if facts["lacks"]:
        paths = [path for path in map(_path_of, facts["lacks"]) if path]
        mend = f"scheduler.upload_files({paths})" if paths else ""
        report.add("modules", FAULT, f"no {', '.join(facts['lacks'])}", mend)
    _judge_gpus(report, node, facts)
    for disk in facts["disks"]:
        _judge_disk(report, disk)
    if node is not None:
        _judge_clock(report, facts["time"] - time.time())
    _judge_limits(report, facts)


def _path_of(module: str) -> str | None:
    """The file of a module that the driver has, or the folder of a package."""
    found = importlib.util.find_spec(module)
    if found is None or found.origin is None:
        return None
    return str(Path(found.origin).parent) if found.submodule_search_locations else found.origin


def _judge_gpus(report: Report, node: Node | None, facts: dict[str, Any]) -> None:
    gpus, usable = facts["gpus"], facts["usable_gpus"]
    if facts["gpu_fault"]:
        mend = "nvidia-smi; sudo reboot, if the driver was just updated"
        report.add("gpus", FAULT, facts["gpu_fault"], mend)
        return
    if node is not None and usable is not None:
        try:
            declared(node, NodeFacts(1, tuple(usable), 1))
        except ResourceError as error:
            report.add("gpus", FAULT, str(error), "nvidia-smi")
            return
    if not gpus:
        if node is not None and node.num_gpus and not usable:
            found = f"none, though num_gpus={node.num_gpus} is declared"
            report.add("gpus", WARNING, found, "nvidia-smi")
        else:
            report.add("gpus", OK, "none")
        return
    found = f"{', '.join(gpus)}; driver {facts['gpu_driver']}"
    if usable is not None and len(usable) < len(gpus):
        found += f"; trials get {len(usable)} of them"
        mend = "" if usable else "echo $CUDA_VISIBLE_DEVICES"
        report.add("gpus", WARNING, found, mend)
    else:
        report.add("gpus", OK, found)


def _judge_disk(report: Report, disk: dict[str, Any]) -> None:
    folder, free, inodes = disk["folder"], disk["free"], disk["inodes"]
    found = f"{free / 1e9:.1f} GB free in {folder}"
    mend = f"df -h {folder}; or another folder: env = {{ TMPDIR = '/data/tmp' }} in nodes.toml"
    if not disk["writable"]:
        report.add("disk", FAULT, f"{folder} cannot be written to", f"ls -ld {folder}")
    elif free < LEAST_FREE_BYTES or (inodes is not None and inodes < LEAST_INODES):
        few = f", and {inodes} more files" if inodes is not None else ""
        report.add("disk", FAULT, found + few, mend)
    elif free < LITTLE_FREE_BYTES:
        report.add("disk", WARNING, found, mend)
    else:
        report.add("disk", OK, found)


def _judge_clock(report: Report, off_s: float) -> None:
    if abs(off_s) <= MOST_SECONDS_OFF:
        report.add("clock", OK, f"{abs(off_s):.0f} s off the driver's")
        return
    days, rest = divmod(round(abs(off_s)), 86400)
    hours, seconds = divmod(rest, 3600)
    off = " ".join(
        f"{number} {unit}"
        for number, unit in ((days, "d"), (hours, "h"), (seconds // 60, "min"), (seconds % 60, "s"))
        if number
    )
    side = "ahead of" if off_s > 0 else "behind"
    report.add("clock", FAULT, f"{off} {side} the driver's", "sudo timedatectl set-ntp true")


def _judge_limits(report: Report, facts: dict[str, Any]) -> None:
    who = "root" if facts["is_root"] else "'*'"
    is_low = False
    for kind, item, least in LIMITS:
        soft, _ = facts[kind]
        if 0 <= soft < least and not (kind == "processes" and facts["is_root"]):
            is_low = True
            line = f"{who} - {item} 65536"
            mend = f'echo "{line}" | sudo tee -a /etc/security/limits.d/distsearch.conf'
            report.add("limits", FAULT, f"at most {soft} {_words(kind)}", mend)
    shared = facts["shared_memory"]
    if shared is not None and shared < LEAST_SHARED_BYTES:
        is_low = True
        found = f"{shared / 2**20:.0f} MB in /dev/shm; PyTorch's data loaders want more"
        mend = "sudo mount -o remount,size=8G /dev/shm  # docker run --shm-size=8g"
        report.add("limits", WARNING, found, mend)
    if not is_low:
        told = [f"{_number(facts[kind][0])} {_words(kind)}" for kind, _, _ in LIMITS]
        told += [] if shared is None else [f"{shared / 1e9:.1f} GB in /dev/shm"]
        report.add("limits", OK, ", ".join(told))


def _words(kind: str) -> str:
    return kind.replace("_", " ")


def _number(limit: int) -> str:
    return "any number of" if limit < 0 else str(limit)
