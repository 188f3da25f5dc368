"""Faults to plant in the real code, each of which the simulation has to find.

A fault is a few words of a real function, replaced while a story is told: if the words are no
longer there, the fault says so, and has to be written anew.
"""

from __future__ import annotations

import contextlib
import inspect
import textwrap
from unittest import mock

from distsearch.core.experiment import Experiment
from distsearch.core.store import Store
from distsearch.resource.agent import Agent
from distsearch.resource.slots import NodeResourceManager


@contextlib.contextmanager
def planted(name):
    """The real code with one fault in it."""
    with contextlib.ExitStack() as exits:
        for owner, method, right, wrong in FAULTS[name]:
            exits.enter_context(
                mock.patch.object(owner, method, spoiled(owner, method, right, wrong))
            )
        yield


def spoiled(owner, method, right, wrong):
    """A method with some of its words replaced."""
    function = getattr(owner, method)
    source = textwrap.dedent(inspect.getsource(function))
    assert source.count(right) == 1, f"{owner.__name__}.{method} has {right!r} no longer just once"
    found = {}
    code = compile(source.replace(right, wrong), inspect.getsourcefile(function), "exec")
    exec(code, vars(inspect.getmodule(function)), found)
    return found[method]


# Seeds in which a fault shows are rare where several things have to come together: this makes them
# come together more often.
LONG = {"epoch_s": 25.0, "blows": 9}
SUSPENDED = {**LONG, "troubles": ["node_pause"], "delay_s": 1.5, "blows": 4}
CUT_OFF = {**LONG, "troubles": ["connection_breaks", "partition"]}
WEATHER = {
    "reports of a stale attempt are taken": CUT_OFF,
    "the lease counts from when the answer arrives": SUSPENDED,
    "an agent's lease never ends": CUT_OFF,
    "no grace: lost trials start elsewhere at once": CUT_OFF,
    "a grace shorter than the lease": CUT_OFF,
    "lost trials are tried again for ever": CUT_OFF,
    "a trial that is still ending is resumed": {**CUT_OFF, "epoch_s": 2.0, "rule": "promotion"},
    "the rule is not asked again when a node was lost": {
        **CUT_OFF,
        "epoch_s": 8.0,
        "rule": "synchronous",
    },
}
FAULTS = {
    "reports of a stale attempt are taken": [
        (
            Experiment,
            "_attempt",
            ' if attempt and attempt.number == message["attempt"] else None',
            "",
        )
    ],
    "reports that come twice are counted twice": [
        (Experiment, "_on_report", ' or message["seq"] <= attempt.sequence', "")
    ],
    "acknowledged before it is durable": [
        (
            Experiment,
            "on_messages",
            'self.store.when_durable(partial(remote.send, {"op": "ack", "bytes": size}))',
            'remote.send({"op": "ack", "bytes": size})',
        )
    ],
    "decided before the report is durable": [
        (
            Experiment,
            "_on_report",
            "self.store.when_durable(partial(remote.send, answer))",
            "remote.send(answer)",
        )
    ],
    "started before that is durable": [
        (
            Experiment,
            "_start",
            "self.store.when_durable(partial(self._send_start, attempt))",
            "self._send_start(attempt)",
        )
    ],
    "the store calls back before it has written": [
        (
            Store,
            "when_durable",
            "self._callbacks.append(callback)",
            "asyncio.get_running_loop().call_soon(callback)",
        )
    ],
    "the lease counts from when the answer arrives": [
        (Agent, "_on_beat", "max(self._lease_from, sent)", "self._clock()")
    ],
    "an agent's lease never ends": [
        (Agent, "_keep_lease", "if self._silent_s > lease_s:", "if False:"),
        (Agent, "_on_start", "self._silent_s > self.lease_s", "False"),
    ],
    "no grace: lost trials start elsewhere at once": [
        (Experiment, "on_lost", "0.0 if confirmed_dead else NODE_LEASE_S + LEASE_GRACE_S", "0.0")
    ],
    "a grace shorter than the lease": [
        (Experiment, "on_lost", "NODE_LEASE_S + LEASE_GRACE_S", "0.5 * NODE_LEASE_S")
    ],
    "a new driver starts what the old one's agents still run": [
        (Experiment, "_replay_started", "if trial.host in self._outliving:", "if False:")
    ],
    "a slot is free before its process is reaped": [
        (
            Agent,
            "_after_end",
            "self._kill_later(trial)\n",
            'process.work = None\n        self._finish(trial, {"code": 0})\n',
        )
    ],
    "a slot is never given back": [
        (Experiment, "_on_ended", "self.manager.release(attempt.lease)", "pass")
    ],
    "a slot is leased twice": [
        (NodeResourceManager, "allocate", "self._change(allocation, -1)", "pass"),
        (NodeResourceManager, "release", "self._change(allocation, +1)", "pass"),
    ],
    "a replay leaves out what the rule decided": [
        (
            Experiment,
            "_replay_report",
            "self._decided[trial.id] = self.rule.on_report(trial, report)",
            "pass",
        )
    ],
    "a replay leaves out how trials ended": [
        (Experiment, "_replay_ended", 'self._count_end(trial, status, body["reason"])', "pass")
    ],
    "a replay forgets how often a trial was lost": [
        (Experiment, "_replay_lost", 'Status(body.get("status", "node_lost"))', "Status.STOPPED")
    ],
    "lost trials are tried again for ever": [
        (Experiment, "_attempt_failed", "failures > allowed", "False")
    ],
    "a trial that is still ending is resumed": [
        (
            Experiment,
            "_next_resumed",
            "elif trial_id in self._live or trial_id in self._delayed:",
            "elif trial_id in self._live:",
        )
    ],
    "a silent driver leaves processes on its nodes": [
        (Agent, "_keep_lease", "REST_AFTER * lease_s and", "1e9 and")
    ],
    "the rule is not asked again when a node was lost": [
        (Experiment, "on_lost", "self._something_happened()\n", "pass\n")
    ],
}
