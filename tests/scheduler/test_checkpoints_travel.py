"""Checkpoints follow their trials over nodes that share no disk."""

from __future__ import annotations

import sys

import pytest

import distsearch as ag
from distsearch.core import store
from tests.hosts import Hosts


@ag.args(x=ag.Real(0, 1), epochs=9)
def saves(args, reporter):
    import numpy

    state = reporter.load() or {"epoch": 0, "weights": numpy.zeros(300_000)}
    for epoch in range(state["epoch"], args.epochs):
        weights = state["weights"] + epoch
        reporter.save({"epoch": epoch + 1, "weights": weights}, step=epoch + 1)
        state["weights"] = weights
        reporter(epoch=epoch + 1, accuracy=args.x, total=float(weights.sum()))


@pytest.fixture
def nodes():
    with Hosts() as hosts:
        yield (
            [
                ag.Node("127.0.0.1", port=hosts.start().port, python=sys.executable, num_cpus=1)
                for _ in range(2)
            ],
            hosts.config,
        )


def test_a_paused_trial_goes_on_from_its_checkpoint_on_whichever_node_is_free(tmp_path, nodes):
    addresses, config = nodes
    with ag.scheduler.HyperbandScheduler(
        saves,
        type="promotion",
        dist_ip_addrs=addresses,
        ssh_config=[config],
        local=False,
        seed=3,
        verbose=0,
        checkpoint=tmp_path / "search",
    ) as scheduler:
        scheduler.run(num_trials=18)
        assert scheduler.join_jobs(timeout=90)
        folders = {
            trial.id: scheduler.folder / "trials" / str(trial.id) for trial in scheduler.trials
        }
    attempts = {}
    for event in store.read(tmp_path / "search", "report"):
        attempts.setdefault(event.trial, {}).setdefault(event.attempt, []).append(event.body)
    resumed = {trial: by for trial, by in attempts.items() if len(by) > 1}
    assert resumed, "no trial was promoted after a pause"
    for by_attempt in resumed.values():
        epochs = [report["epoch"] for reports in by_attempt.values() for report in reports]
        assert epochs == list(range(1, len(epochs) + 1)), "it began anew, or left epochs out"
    for trial, by_attempt in attempts.items():
        last = [*by_attempt.values()][-1][-1]
        assert last["total"] == 300_000 * sum(range(last["epoch"]))
        kept = list(folders[trial].glob("checkpoints/*/manifest.json"))
        assert 1 <= len(kept) <= 2, "the driver keeps the newest and the one before it"


def test_what_a_final_run_on_another_node_returns_comes_back_as_it_was(tmp_path, nodes):
    addresses, config = nodes

    @ag.args(x=ag.Real(0, 1))
    def train_fn(args, reporter):
        import numpy

        reporter.save({"x": args.x})
        reporter(accuracy=args.x)
        return numpy.arange(300_000.0), b"whole"

    with ag.scheduler.FIFOScheduler(
        train_fn,
        dist_ip_addrs=addresses[0],
        ssh_config=[config],
        local=False,
        verbose=0,
        checkpoint=tmp_path / "search",
    ) as scheduler:
        array, data = scheduler.run_with_config({"x": 0.5})
        assert array.tolist() == list(range(300_000)) and data == b"whole"
        assert scheduler.load_checkpoint(0) == {"x": 0.5}
