"""Why a trial was stopped or paused, as its user reads it; and that it is the truth."""

from __future__ import annotations

import random
import re

import pytest

import distsearch as ag
from distsearch.core import store
from distsearch.core.words import Launch, Report, Status, Trial
from distsearch.scheduler import (
    HyperbandScheduler,
    MedianStoppingScheduler,
    PASHAScheduler,
    PBTScheduler,
)


@ag.args(x=ag.Real(0, 1), epochs=3)
def train_fn(args, reporter):
    """Reports `x` as what is to be large and as what is to be small; 0 stands for NaN."""
    for epoch in range((reporter.load() or {"epoch": 0})["epoch"] + 1, args.epochs + 1):
        reporter.save({"epoch": epoch})
        value = float("nan") if args.x == 0 else args.x
        reporter(epoch=epoch, accuracy=value, loss=value, latency=30 * (1 - args.x))


@pytest.fixture
def reasons(search):
    """Run the values of `x` one after another; the reasons of each trial, as in the log."""

    def run(scheduler, xs, **options):
        points = [{"x": x} for x in xs]
        made = search(train_fn, scheduler, slots=1, points_to_evaluate=points, **options)
        made.run(num_trials=options.get("num_trials", len(xs)))
        assert made.join_jobs(timeout=60)
        found = {trial.id: [] for trial in made.trials}
        for event in store.read(made.folder, "decided"):
            found[event.trial].append(event.body["reason"])
        for trial in made.trials:
            if trial.status is Status.STOPPED:
                assert trial.reason == f"by the rule: {found[trial.id][-1]}"
        return found

    return run


# Each rule, in words


def test_a_trial_that_hyperband_stops_tells_its_rank_its_rung_and_who_has_the_last_place(reasons):
    found = reasons(HyperbandScheduler, [0.9, 0.5, 0.1], max_t=3, grace_period=1)
    assert found == {
        0: [],
        1: [
            "rank 2 of 2 at the rung of epoch 1 with accuracy=0.5; "
            "going on takes rank 1, held by trial 0 with 0.9"
        ],
        2: [
            "rank 3 of 3 at the rung of epoch 1 with accuracy=0.1; "
            "going on takes rank 1, held by trial 0 with 0.9"
        ],
    }
