"""Self-test of weight sharing: a father writes random bytes, his children read just these.

    python tutorials/09_weight_sharing_selftest.py                       # on this machine
    python tutorials/09_weight_sharing_selftest.py --loopback            # two pretended machines
    python tutorials/09_weight_sharing_selftest.py gpu1 ada@gpu2:2222    # your own machines

A father saves 1 to 100 KiB of random bytes and reports their digest. Nine children name him as
their parent: they start once his checkpoint is committed, three trials at a time, read it and
report the digest of what they have read. If all digests are the same, weights get where they should
on the machines that you have: over the network when they share no disk.

It is also the shortest example of how a searcher names parents, and how a trial finds their
weights.
"""

from __future__ import annotations

import argparse
import contextlib
import hashlib
import os
import sys
from collections import Counter
from pathlib import Path

import numpy as np

import distsearch as ag
from distsearch.core import store
from distsearch.scheduler import Launch
from distsearch.searcher import Searcher

CHILDREN = 9


class FatherAndChildren(Searcher):
    """Suggests the father first, then children of his."""

    def suggest(self, trial_id, rng):
        if trial_id == 0:
            return {"kib": int(rng.integers(1, 101))}
        # The child is launched at once, but it starts when trial 0 has ended with a checkpoint. It
        # waits in the scheduler: neither a slot nor a thread is kept for it.
        return Launch({"kib": 1}, parents=(0,))


@ag.args(kib=ag.Int(1, 100))
def train_fn(args, reporter):
    if not reporter.parents:
        data = np.frombuffer(os.urandom(1024 * args.kib), np.uint8)
        reporter.save({"bytes": data})
    else:
        data = reporter.load(parent=0)["bytes"]
    digest = hashlib.sha256(data.tobytes()).hexdigest()
    reporter(kib=len(data) / 1024, digest=digest)


def main():
    parser = argparse.ArgumentParser(description="Do weights get from trial to trial?")
    parser.add_argument("addresses", nargs="*", help="host, user@host or user@host:port")
    parser.add_argument("--loopback", action="store_true", help="two SSH servers on this machine")
    options = parser.parse_args()

    with contextlib.ExitStack() as stack:
        nodes, ssh_config, local = options.addresses, None, ag.Node("localhost", num_cpus=3)
        if options.loopback:
            nodes, ssh_config = stack.enter_context(loopback_hosts(east=2, west=1))
        scheduler = stack.enter_context(
            ag.scheduler.FIFOScheduler(
                train_fn,
                searcher=FatherAndChildren(train_fn.space, points_to_evaluate=[]),
                reward_attr="kib",
                dist_ip_addrs=nodes,
                local=False if nodes else local,
                ssh_config=ssh_config,
                on_parent_failure="fail",
            )
        )
        scheduler.run(num_trials=1 + CHILDREN)
        scheduler.join_jobs()
        print()
        sys.exit(0 if passed(scheduler) else 1)


def passed(scheduler):
    """Whether all digests are the same, and every child started after its father's commit."""
    digests = {task: told[0]["digest"] for task, told in scheduler.training_history.items()}
    for trial in scheduler.trials:
        who = f"child of {trial.parents[0]}" if trial.parents else "father"
        print(f"task {trial.id} ({who}) on {trial.host}: {digests.get(trial.id, trial.reason)}")

    # The log tells in which order things happened.
    saved, early = set(), 0
    for event in store.read(scheduler.folder, "saved", "started"):
        if event.kind == "saved":
            saved.add(event.trial)
        else:
            early += any(parent not in saved for parent in scheduler.trials[event.trial].parents)
    same = sum(digests.get(child) == digests.get(0) for child in range(1, 1 + CHILDREN))
    hosts = Counter(trial.host for trial in scheduler.trials)
    print(
        f"{same} of {CHILDREN} children read the bytes of their father; {early} started too early"
    )
    print("ran on " + ", ".join(f"{host} ({count})" for host, count in sorted(hosts.items())))
    return 0 in digests and same == CHILDREN and not early


@contextlib.contextmanager
def loopback_hosts(**slots):
    """SSH servers on this machine with so many slots, and an ssh_config that gives them names."""
    sys.path.insert(0, str(Path(__file__).resolve().parents[1]))
    from tests.hosts import Hosts

    with Hosts() as hosts:
        config, text = hosts.folder / "named_hosts", ""
        for name in slots:
            text += f"Host {name}\n    HostName 127.0.0.1\n    Port {hosts.start().port}\n"
        config.write_text(f"{text}Host *\n{hosts.config.read_text()}")
        nodes = [ag.Node(name, python=sys.executable, num_cpus=n) for name, n in slots.items()]
        yield nodes, [config]


if __name__ == "__main__":
    main()
