"""Faults to plant in the real code, each of which the simulation has to find.

A fault is a few words of a real function, replaced while a story is told: if the words are no
longer there, the fault says so, and has to be written anew.
"""

from __future__ import annotations

import contextlib
import inspect
import textwrap
from unittest import mock

from distsearch.core import earlier
from distsearch.core.attempt import Attempt
from distsearch.core.attempts import Attempts
from distsearch.core.ends import Ends
from distsearch.core.experiment import Experiment
from distsearch.core.keeper import Keeper
from distsearch.core.ledger import Ledger
from distsearch.core.lock import Lock
from distsearch.core.nodes import Nodes
from distsearch.core.queue import Queue
from distsearch.core.reports import Reports
from distsearch.core.standings import Standings
from distsearch.core.store import Store
from distsearch.resource.agent import Agent
from distsearch.resource.dask_link import Cluster
from distsearch.resource.manager import DistributedResourceManager
from distsearch.resource.slots import NodeResourceManager
from distsearch.resource.supervisor import Supervisor
from distsearch.searcher.desk import Desk


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
GANGS = {
    **LONG,
    "gangs": True,
    "epoch_s": 2.0,
    "blows": 20,
    "troubles": ["trial_dies", "node_dies"],
}
ASLEEP = {**LONG, "troubles": ["driver_pause"], "delay_s": 0.003}
FULL = {"troubles": ["disk_full"], "blows": 9}
CRAMPED = {"troubles": ["no_room"], "blows": 9}
WEATHER = {
    "a gang's slots are free before its last rank is reaped": GANGS,
    "the ranks that are left do not hear that another is over": {
        **GANGS,
        "rule": "fifo",
        "ranks": 2,
        "cpus_of_nodes": (2, 2),
    },
    "only the node of rank 0 hears of decisions and stops": GANGS,
    "of a gang's slots those of one rank are given back": GANGS,
    "nodes of a driver that stood still are given up": ASLEEP,
    "nodes of a driver that stood still come twice": ASLEEP,
    "an answer is sent though the log could not be written": FULL,
    "a write that failed is not made again": FULL,
    "a trial that did not begin is forgotten": CRAMPED,
    "two drivers have one folder": {"troubles": ["racing_start"], "blows": 9},
    "reports of a stale attempt are taken": CUT_OFF,
    "the lease counts from when the answer arrives": {**SUSPENDED, "rule": "fifo"},
    "an agent's lease never ends": CUT_OFF,
    "no grace: lost trials start elsewhere at once": CUT_OFF,
    "a grace shorter than the lease": CUT_OFF,
    "lost trials are tried again for ever": CUT_OFF,
    "a trial that is still ending is resumed": {**CUT_OFF, "epoch_s": 2.0, "rule": "promotion"},
    "after Ctrl-C trials of a lost node go on at once": {
        **LONG,
        "troubles": ["connection_breaks", "partition", "ctrl_c"],
    },
    "a killed trial runs again though the rule has stopped or paused it": {
        **LONG,
        "epoch_s": 0.3,
        "troubles": ["trial_dies", "node_dies"],
        "delay_s": 1.5,
        "blows": 30,
        "rule": "promotion",
    },
    "the node that had the first checkpoint is believed to have the newest": {
        **LONG,
        "epoch_s": 2.0,
        "rule": "promotion",
        "troubles": ["launcher_dies", "trial_dies"],
    },
    "a suggestion is launched without its defaults": {"rule": "partial"},
    "a stop leaves before the report that caused it is durable": {"rule": "unasked"},
    "a trial that runs again is still in the front of those that have ended": {
        **LONG,
        "epoch_s": 2.0,
        "rule": "front",
        "troubles": ["node_dies", "power_cut", "trial_dies"],
    },
    "the rule is not asked again when a node was lost": {
        **CUT_OFF,
        "epoch_s": 8.0,
        "rule": "synchronous",
    },
}
# Seeds with which faults show soon. After a change of the code it may be others: then all are
# searched, and one that shows it can be written here.
SHOWN_BY = {
    "nodes of a driver that stood still are given up": 3,
    "reports of a stale attempt are taken": 12,
    "the lease counts from when the answer arrives": 32,
    "an agent's lease never ends": 59,
    "no grace: lost trials start elsewhere at once": 17,
    "after Ctrl-C trials of a lost node go on at once": 5,
    "the node that had the first checkpoint is believed to have the newest": 16,
    "a trial that runs again is still in the front of those that have ended": 43,
    "a gang's slots are free before its last rank is reaped": 5,
    "the ranks that are left do not hear that another is over": 60,
    "only the node of rank 0 hears of decisions and stops": 28,
}
FAULTS = {
    "nodes of a driver that stood still are given up": [
        (Cluster, "_ping_all", "remote.heard += stood_still_s", "pass")
    ],
    "nodes of a driver that stood still come twice": [
        (
            Cluster,
            "_ping_all",
            "before = now",
            "before = now\n        for one in self._workers if stood_still_s > 1 else ():\n"
            "            self._hear_scheduler((0, {'action': 'add-worker', 'worker': one}))",
        ),
        (Cluster, "attach_workers", "if address not in self._workers:", "if True:"),
    ],
    "an answer is sent though the log could not be written": [
        (
            Store,
            "_written",
            "self._callbacks[:0] = callbacks",
            "[callback() for callback in callbacks]",
        )
    ],
    "a write that failed is not made again": [
        (Store, "_written", "self._pending[:0] = rows", "pass")
    ],
    "a trial that did not begin is forgotten": [
        (Ends, "_goes_back", "self._queue.put(trial)", "pass")
    ],
    "two drivers have one folder": [(Lock, "_lock", "fcntl.LOCK_EX", "fcntl.LOCK_SH")],
    "reports of a stale attempt are taken": [
        (
            Attempts,
            "meant_by",
            ' if attempt and attempt.number == message["attempt"] else None',
            "",
        )
    ],
    "reports that come twice are counted twice": [
        (Reports, "hear", " or not attempt.takes(sequence)", "")
    ],
    "acknowledged before it is durable": [
        (
            Reports,
            "acknowledge",
            'self._store.when_durable(partial(remote.send, {"op": "ack", "bytes": size}))',
            'remote.send({"op": "ack", "bytes": size})',
        )
    ],
    "decided before the report is durable": [
        (
            Reports,
            "hear",
            "self._store.when_durable(partial(attempt.answer, decision))",
            "attempt.answer(decision)",
        )
    ],
    "started before that is durable": [
        (
            Experiment,
            "start",
            "self.store.when_durable(partial(self.preparation.prepare, attempt))",
            "self.preparation.prepare(attempt)",
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
        (Nodes, "went", "0.0 if confirmed_dead else NODE_LEASE_S + LEASE_GRACE_S", "0.0")
    ],
    "a grace shorter than the lease": [
        (Nodes, "went", "NODE_LEASE_S + LEASE_GRACE_S", "0.5 * NODE_LEASE_S")
    ],
    "a new driver starts what the old one's agents still run": [
        (Ledger, "_started", 'if any(place["outlives_driver"] for place in places):', "if False:")
    ],
    "a slot is free before its process is reaped": [
        (
            Supervisor,
            "_after_end",
            "self._kill_later(trial)\n",
            'process.work = None\n        self._finish(trial, {"code": 0})\n',
        )
    ],
    "a slot is never given back": [
        (Experiment, "rank_over", "self.manager.release(attempt.lease)", "pass")
    ],
    "a slot is leased twice": [
        (NodeResourceManager, "allocate", "self._change(allocation, -1)", "pass"),
        (NodeResourceManager, "release", "self._change(allocation, +1)", "pass"),
    ],
    "what the rule decides is not logged": [
        (
            Reports,
            "_decide",
            'self._search.log("decided", trial, body, sequence=report.sequence)',
            "pass",
        )
    ],
    "a replay leaves out how trials ended": [(earlier, "replay", "rule.on_end(trial)", "pass")],
    "a replay leaves out what trials have reported": [
        (earlier, "replay", "rule.on_report(trial, trial.last_report)", "pass")
    ],
    "lost trials are tried again for ever": [
        (Ends, "_may_run_again", "trial.failures[status] < self._retries.get(status, 0)", "True")
    ],
    "a trial that is still ending is resumed": [
        (
            Queue,
            "put",
            "(self._later if trial.id in self._busy else self._ready)",
            "self._ready",
        ),
        (Queue, "begins", "assert trial.id not in self._busy,", "assert True,"),
    ],
    "after Ctrl-C trials of a lost node go on at once": [
        (Queue, "clear", "self._later.clear()", "self._later.clear(); self._busy.clear()")
    ],
    "a killed trial runs again though the rule has stopped or paused it": [
        (Ends, "carry_out", "decided is not None and status is not Status.FINISHED", "False")
    ],
    "the node that had the first checkpoint is believed to have the newest": [
        (
            Keeper,
            "saved",
            "self._home[trial.id] = remote.remote_id",
            "self._home.setdefault(trial.id, remote.remote_id)",
        )
    ],
    "a suggestion is launched without its defaults": [
        (Desk, "_complete", "self._space.validate(config)", "dict(config)"),
        (Experiment, "new_trial", "self.settings.complete(launch.config)", "launch.config"),
    ],
    "a stop leaves before the report that caused it is durable": [
        (Experiment, "stop", "self.store.when_durable(attempt.send_stop)", "attempt.send_stop()")
    ],
    "a trial that runs again is still in the front of those that have ended": [
        (
            Standings,
            "reopened",
            "self._ended = [one for one in self._ended if one is not trial]",
            "pass",
        )
    ],
    "a silent driver leaves processes on its nodes": [
        (Agent, "_keep_lease", "SLEEP_AFTER * lease_s and", "1e9 and")
    ],
    "the rule is not asked again when a node was lost": [
        (Experiment, "on_lost", "self.wake()\n", "self.fill()\n"),
        (Experiment, "rank_over", "self.source.something_happened()\n", "pass\n"),
    ],
    "a gang's slots are free before its last rank is reaped": [
        (Experiment, "rank_over", "if not attempt.has_ended:", "if not attempt._ends:")
    ],
    "the ranks that are left do not hear that another is over": [
        (Attempt, "end_the_rest", 'self._tell({"op": "follow", **about})', "pass")
    ],
    "only the node of rank 0 hears of decisions and stops": [
        (Attempt, "_tell", "for remote in self.remotes:", "for remote in self.remotes[:1]:")
    ],
    "of a gang's slots those of one rank are given back": [
        (
            DistributedResourceManager,
            "release",
            "for remote, allocation in left:",
            "for remote, allocation in left[:1]:",
        )
    ],
}
