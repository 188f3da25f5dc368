"""A search and the training of what it found are trials of one scheduler, with their lineage."""

from __future__ import annotations

import numpy as np
import pytest

import distsearch
from distsearch.nas.pc_darts.lineage import SearchThenRetrain, search_then_retrain
from distsearch.scheduler import FIFOScheduler

pytest.importorskip("torch")

TINY = {"channels": 4, "layers": 3, "batch_size": 16, "epochs": 1}


def test_the_training_goes_on_from_the_genotype_of_its_search(tmp_path):
    images = np.random.default_rng(0).integers(0, 256, (60, 8, 8), dtype=np.uint8)
    labels = np.arange(60) % 2
    path = tmp_path / "noise.npz"
    np.savez(path, x_train=images[:40], y_train=labels[:40], x_test=images[40:], y_test=labels[40:])
    space = search_then_retrain.space
    search, retrain = space["search"], space["retrain"]
    train_fn = search_then_retrain.with_args(
        {
            "data": str(path),
            "search": {**search, **TINY, "part": 2, "warm_up": 0},
            "retrain": {**retrain, **TINY},
        }
    )
    with FIFOScheduler(
        train_fn,
        searcher=SearchThenRetrain(train_fn.space, searches=1),
        checkpoint=tmp_path / "out",
        num_trials=4,
        on_parent_failure="fail",
        local=distsearch.Node("localhost", num_cpus=2),
        verbose=0,
    ) as scheduler:
        scheduler.run()
        scheduler.join_jobs()
        first, second = scheduler.trials
        assert [trial.status.value for trial in scheduler.trials] == ["finished"] * 2, second.error
        assert second.parents == (first.id,)
        found, trained = (scheduler.load_checkpoint(trial) for trial in (0, 1))
    assert trained["args"]["genotype"] == found["genotype"]
    assert "network" in trained
