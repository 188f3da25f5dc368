"""Looks for what keeps machines from working together, and for the command that mends it.

    reports = asyncio.run(examine([Node("gpu1"), Node("gpu2")], environment_of(["torch"])))
    [finding for report in reports for finding in report.findings if finding.state == FAULT]

All nodes are examined at once, each for at most `LIMIT_S`: the doctor logs in and chooses the
interpreter as a search does, and runs `probe` there. Nothing is left on a node but distsearch
itself, which a search would send, too.
"""

from __future__ import annotations

import asyncio
import sys
import time
from collections.abc import Sequence
from contextlib import aclosing
from typing import Any

import asyncssh

from ..errors import NodeError
from .conversation import NodeProcess
from .diagnosis import (
    FAULT,
    OK,
    WARNING,
    Report,
    judge_facts,
    judge_packages,
    judge_python,
    name_of,
)
from .environment import Environment, least_environment
from .interpreter import starter_command
from .login import config_files, log_in, ssh
from .node import Node
from .probe import facts
from .versions import NODE_PACKAGES, own_versions

LIMIT_S = 9.5  # the examination of a node takes at most so long
MEETING_S = 5.0  # so long nodes that are ready wait for the others, to try to reach them
END_S = 2.0  # the doctor waits so long for what ends on the nodes
PROBE = "distsearch.resource.probe"


async def examine(
    nodes: Sequence[Node],
    environment: Environment | None = None,
    *,
    spans_nodes: bool = False,
    ssh_config: Sequence[str] | None = None,
    setup: str = "distsearch setup",
) -> list[Report]:
    """Examine nodes, all at once; without any, this machine.

    `environment`: the packages that trials want, in the driver's versions; modules that it leaves
    out are looked for, too. `spans_nodes`: trials have ranks on several nodes, which must reach
    each other. `setup`: the command that installs missing packages.
    """
    environment = environment or least_environment()
    if not nodes:
        return [await _examine_this_machine(environment)]
    meeting = _Meeting(len(nodes))
    config = config_files(ssh_config)
    patients = [_Patient(node, environment, meeting, config, spans_nodes, setup) for node in nodes]
    try:
        await asyncio.gather(*(patient.examine() for patient in patients))
    finally:  # (not earlier, as other nodes try to reach what runs there)
        ends = [asyncio.ensure_future(patient.end()) for patient in patients]
        await asyncio.wait(ends, timeout=END_S)
    return [patient.report for patient in patients]


class _Meeting:
    """Where each node can be reached, once all nodes that come are there."""

    def __init__(self, expected: int) -> None:
        self.places: dict[str, list[Any]] = {}
        self.is_of_one = expected == 1
        self._expected = expected
        self._complete = asyncio.Event()
        self._until = time.monotonic() + MEETING_S

    def comes(self, name: str, place: list[Any]) -> None:
        """Take note of where a node can be reached."""
        self.places[name] = place
        self.comes_not()

    def comes_not(self) -> None:
        """Take note that a node does not come."""
        self._expected -= 1
        if self._expected <= 0:
            self._complete.set()

    async def others(self, name: str) -> dict[str, list[Any]]:
        """Where the other nodes are, once all are there, or the time is over."""
        try:
            left_s = self._until - time.monotonic()
            await asyncio.wait_for(self._complete.wait(), max(0.0, left_s))
        except asyncio.TimeoutError:
            pass
        return {other: place for other, place in self.places.items() if other != name}


class _Patient:
    """A node that is examined."""

    def __init__(
        self,
        node: Node,
        environment: Environment,
        meeting: _Meeting,
        config: list[str],
        spans_nodes: bool,
        setup: str,
    ) -> None:
        self.node = node
        self.report = Report(node)
        self.process: NodeProcess | None = None
        self.work: asyncio.Future[None] | None = None
        self._environment = environment
        self._meeting = meeting
        self._config = config
        self._spans_nodes = spans_nodes
        self._setup = setup
        self._at = "login"  # the check that is being made
        self._is_expected = True  # whether the meeting waits for the node

    async def examine(self) -> None:
        """Examine the node, within `LIMIT_S`; whatever is wrong gets into the report."""
        began = time.monotonic()
        self.work = asyncio.ensure_future(self._examine())
        await asyncio.wait([self.work], timeout=LIMIT_S)
        self.report.seconds = round(time.monotonic() - began, 1)
        if self._is_expected:
            self._is_expected = False
            self._meeting.comes_not()
        if not self.work.done():
            self.work.cancel()
            found = f"no answer within {LIMIT_S:g} s; is it up, and its port open?"
            self.report.add(self._at, FAULT, found, f"{ssh(self.node)} true")
            return
        try:
            self.work.result()
        except NodeError as error:
            self._note(self._at, error)
        except (OSError, asyncssh.Error) as error:
            self.report.add(self._at, FAULT, f"the connection was lost: {error}")

    async def end(self) -> None:
        """End what runs on the node, and what is still coming up there."""
        if self.process is not None:
            await self.process.end()
        if self.work is not None:
            await asyncio.wait([self.work])

    async def _examine(self) -> None:
        connections = await log_in(self.node, self._config)
        user = connections[-1].get_extra_info("username")
        self.report.add("login", OK, f"as {user}, with a host key that is known")
        self._at = "python"
        command = starter_command(self.node, self._environment)
        packages = [*NODE_PACKAGES, *map(name_of, self._environment.wanted)]
        process = await NodeProcess.start(self.node, connections, command, packages=packages)
        self.process = process
        has_python = judge_python(self.report, self.node, process.hello, self._setup)
        if has_python:
            setup = "" if self.node.python and not self.node.setup else self._setup
            judge_packages(self.report, self._environment, process.hello, setup)
        if self.node.tunnel is not False:
            try:
                await process.try_forwards()
            except NodeError as error:
                self._note("forwarding", error)
        if has_python:
            self._at = "probe"
            await process.send_distsearch()
            await self._probe(process)

    def _note(self, check: str, error: NodeError) -> None:
        found = str(error).removeprefix(f"node {str(self.node)!r}").lstrip(": ")
        self.report.add(check, FAULT, found, error.remedy)

    async def _probe(self, process: NodeProcess) -> None:
        """Hear what the probe says, and let it try to reach the other nodes."""
        unreached: list[str] = []
        waiting: set[str] | None = None
        is_alone = self._meeting.is_of_one
        spec = {"modules": self._environment.left_out, "meets": not is_alone}
        async with aclosing(process.run(PROBE, spec)) as said:
            async for message in said:
                if "facts" in message:
                    judge_facts(self.report, self.node, message["facts"])
                    if is_alone:
                        return
                    self._at = "nodes"
                elif message.get("meeting"):
                    others = await self._meet(message["meeting"])
                    process.tell({"others": others})
                    waiting = set(others)
                elif "meeting" in message:
                    found = f"not tried: its Python has {message['why']}"
                    self.report.add("nodes", WARNING, found, self._setup)
                    return
                elif "reached" in message and waiting is not None:
                    waiting.discard(message["reached"])
                    unreached += [] if message["at"] else [message["reached"]]
                if waiting is not None and not waiting:
                    self._judge_reach(unreached)
                    return
        _, reason = process.over.result()
        raise NodeError(f"it ended before its time: {reason}")

    async def _meet(self, meeting: dict[str, Any]) -> dict[str, list[Any]]:
        """Say where this node can be reached; returns where the other nodes are."""
        own = self.node.address
        addresses = meeting["addresses"] if own is None else [own]
        self._is_expected = False
        self._meeting.comes(str(self.node), [addresses, meeting["port"], meeting["token"]])
        return await self._meeting.others(str(self.node))

    def _judge_reach(self, unreached: list[str]) -> None:
        places = self._meeting.places
        if unreached:
            where = "; ".join(f"{name} at {', '.join(places[name][0])}" for name in unreached)
            found = f"does not reach {where}"
            if not self._spans_nodes:
                found += " (only trials over several nodes need it)"
            mend = f"on {unreached[0]}: sudo ufw allow from {self.node.host} proto tcp"
            self.report.add("nodes", FAULT if self._spans_nodes else WARNING, found, mend)
        elif len(places) > 1:
            others = len(places) - 1
            self.report.add("nodes", OK, f"reaches {others} other{'s' * (others > 1)}")


async def _examine_this_machine(environment: Environment) -> Report:
    """Examine this machine: this interpreter, and what this process may use."""
    report = Report(None)
    began = time.monotonic()
    judge_python(report, None, {**own_versions(), "executable": sys.executable}, "")
    judge_facts(report, None, await asyncio.to_thread(facts, list(environment.left_out)))
    report.seconds = round(time.monotonic() - began, 1)
    return report
