"""Forked trials share what the launcher has loaded, but not its random numbers."""

from __future__ import annotations

import distsearch as ag


@ag.args(x=ag.Real(0.0, 1.0))
def train_fn(args, reporter):
    import random

    import numpy
    import torch

    reporter(
        accuracy=1.0,
        python=random.random(),
        numpy=float(numpy.random.rand()),
        torch=torch.rand(1).item(),
    )


def test_trials_draw_different_random_numbers_with_python_numpy_and_torch(search):
    scheduler = search(train_fn, slots=1)
    scheduler.run(num_trials=3)
    assert scheduler.join_jobs(timeout=60)
    reports = [reports[-1] for reports in scheduler.training_history.values()]
    for generator in ("python", "numpy", "torch"):
        assert len({report[generator] for report in reports}) == 3, generator
