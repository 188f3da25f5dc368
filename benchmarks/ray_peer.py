"""Ray Tune on trivial trials, tuned for them; needs ray[tune], and nothing of distsearch.

python benchmarks/ray_peer.py TRIALS SLOTS       # prints trials per second
"""

from __future__ import annotations

import logging
import os
import sys
import tempfile
import time

os.environ.update(
    TUNE_DISABLE_AUTO_CALLBACK_LOGGERS="1",
    TUNE_DISABLE_AUTO_CALLBACK_SYNCER="1",
    TUNE_DISABLE_STRICT_METRIC_CHECKING="1",
    TUNE_GLOBAL_CHECKPOINT_S="100000",
    TUNE_MAX_PENDING_TRIALS_PG="16",
    RAY_AIR_NEW_OUTPUT="0",
    RAY_USAGE_STATS_ENABLED="0",
    RAY_DEDUP_LOGS="0",
)

import ray
from ray import tune


def train_fn(config):
    tune.report({"accuracy": config["x"]})


def search(trials: int, folder: str) -> float:
    tuner = tune.Tuner(
        train_fn,
        param_space={"x": tune.uniform(0, 1)},
        tune_config=tune.TuneConfig(num_samples=trials, reuse_actors=True),
        run_config=tune.RunConfig(storage_path=folder, verbose=0, log_to_file=False),
    )
    begin = time.perf_counter()
    results = tuner.fit()
    seconds = time.perf_counter() - begin
    assert len(results) == trials and not results.errors
    return seconds


def main(trials: int, slots: int) -> None:
    with tempfile.TemporaryDirectory() as folder:
        ray.init(
            num_cpus=slots,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            configure_logging=False,
        )
        search(2 * slots, folder)  # so that the first actors are not counted
        print(trials / search(trials, folder))
        ray.shutdown()


if __name__ == "__main__":
    main(int(sys.argv[1]), int(sys.argv[2]))
