"""Ray Tune on trivial trials, tuned for them; needs ray[tune], psutil, and nothing of distsearch.

    python benchmarks/ray_peer.py TRIALS SLOTS            # prints its figures as JSON
    python benchmarks/ray_peer.py TRIALS SLOTS --choose   # tries settings, one line for each

What Ray Tune writes for people is off: its loggers, its table, and the state of the search, but at
its end. The clock runs from the end of a search's 20th trial to that of its last, so that the start
of the actors does not count, in the second search of a session, which is faster than the first.
More pending trials than 16 are not tried: they would be made before.
"""

from __future__ import annotations

import json
import logging
import os
import tempfile
import time
from dataclasses import dataclass

from common import CPUClock, Run, peer_options

os.environ.update(
    TUNE_DISABLE_AUTO_CALLBACK_LOGGERS="1",
    TUNE_DISABLE_STRICT_METRIC_CHECKING="1",
    TUNE_GLOBAL_CHECKPOINT_S="100000",
    TUNE_WARN_EXCESSIVE_EXPERIMENT_CHECKPOINT_SYNC_THRESHOLD_S="0",
    RAY_AIR_NEW_OUTPUT="0",
    RAY_CHDIR_TO_TRIAL_DIR="0",
    RAY_AUTH_MODE="disabled",
    RAY_USAGE_STATS_ENABLED="0",
    RAY_DEDUP_LOGS="0",
)

import ray
from ray import tune


@dataclass(frozen=True)
class Settings:
    """What is tried; the defaults are the best of it."""

    pending: int = 16
    "TUNE_MAX_PENDING_TRIALS_PG: trials that wait for an actor."
    buffered: bool = False
    "TUNE_RESULT_BUFFER_*: a trial's report and its end come in one answer of its actor."
    trainable: str = "class"
    "A function, or a class with step() and reset_config(), which needs no thread."


CHOICES = [
    Settings(pending, buffered, trainable)
    for trainable in ("class", "function")
    for buffered in (True, False)
    for pending in (1, 4, 16)
]
WARM_UP = 20
ACTORS_END_S = 2  # until those of the search before are gone


def train_function(config):
    tune.report({"accuracy": config["x"]})


class TrainClass(tune.Trainable):
    def setup(self, config):
        self.x = config["x"]

    def step(self):
        return {"accuracy": self.x, "done": True}

    def reset_config(self, config):
        self.x = config["x"]
        return True


TRAINABLES = {"function": train_function, "class": TrainClass}


class Watch(tune.Callback):
    """Measures from the end of the last trial that warms up to the end of the last of all."""

    def __init__(self, trials):
        self.trials, self.ended, self.run = trials, 0, None

    def on_trial_complete(self, iteration, trials, trial, **info):
        self.ended += 1
        if self.ended == WARM_UP:
            self.cpu, self.begin = CPUClock(), time.perf_counter()
        elif self.ended == WARM_UP + self.trials:
            seconds = time.perf_counter() - self.begin
            self.run = Run.of(self.trials, seconds, self.cpu.seconds())


def search(trials: int, folder: str, settings: Settings) -> Run:
    os.environ["TUNE_MAX_PENDING_TRIALS_PG"] = str(settings.pending)
    # Ray hands both numbers over in the wrong order, so each is large: the end ends a buffer.
    os.environ["TUNE_RESULT_BUFFER_LENGTH"] = "1000" if settings.buffered else "1"
    os.environ["TUNE_RESULT_BUFFER_MIN_TIME_S"] = "1000" if settings.buffered else "0"
    watch = Watch(trials)
    tuner = tune.Tuner(
        TRAINABLES[settings.trainable],
        param_space={"x": tune.uniform(0, 1)},
        tune_config=tune.TuneConfig(num_samples=WARM_UP + trials, reuse_actors=True),
        run_config=tune.RunConfig(
            storage_path=folder,
            verbose=0,
            log_to_file=False,
            callbacks=[watch],
            checkpoint_config=tune.CheckpointConfig(checkpoint_at_end=False),
        ),
    )
    results = tuner.fit()
    assert len(results) == WARM_UP + trials and not results.errors
    assert all("accuracy" in result.metrics for result in results)
    time.sleep(ACTORS_END_S)
    return watch.run


def main() -> None:
    given = peer_options(__doc__).parse_args()
    with tempfile.TemporaryDirectory() as folder:
        ray.init(
            num_cpus=given.slots,
            include_dashboard=False,
            log_to_driver=False,
            logging_level=logging.ERROR,
            configure_logging=False,
        )
        search(given.trials, folder, Settings())  # a second search of a session is faster
        if given.choose:
            for settings in CHOICES:
                print(f"{settings}: {search(given.trials, folder, settings)}", flush=True)
        else:
            print(json.dumps(search(given.trials, folder, Settings()).as_dict()))
        ray.shutdown()


if __name__ == "__main__":
    main()
