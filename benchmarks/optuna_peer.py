"""Optuna on trivial trials: 2 processes over one journal; needs optuna, and nothing of distsearch.

    python benchmarks/optuna_peer.py TRIALS SLOTS             # prints its figures as JSON
    python benchmarks/optuna_peer.py TRIALS SLOTS --choose    # tries its locks

Each process runs `study.optimize` of the same study, whose trials lie in a `JournalFileBackend`: a
random value, one report, the end. The clock runs while all processes optimise; they have started
and loaded the study before.
"""

from __future__ import annotations

import json
import multiprocessing
import os
import tempfile
import time
from multiprocessing.synchronize import Barrier
from typing import Any

import optuna
from common import Run, peer_options
from optuna.storages import JournalStorage
from optuna.storages.journal import (
    JournalFileBackend,
    JournalFileOpenLock,
    JournalFileSymlinkLock,
)

LOCKS = {"symlink": JournalFileSymlinkLock, "open": JournalFileOpenLock}
LOCK = "symlink"  # the best of what --choose tries
NAME = "trivial"
BOUND_S = 120


def objective(trial: optuna.Trial) -> float:
    accuracy = trial.suggest_float("x", 0, 1)
    trial.report(accuracy, 1)
    return accuracy


def storage(path: str, lock: str) -> JournalStorage:
    return JournalStorage(JournalFileBackend(path, lock_obj=LOCKS[lock](path)))


def optimise(path: str, lock: str, trials: int, together: Barrier, results: Any) -> None:
    """What each process does: its begin, its end, and the CPU time between them."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    study = optuna.load_study(
        study_name=NAME,
        storage=storage(path, lock),
        sampler=optuna.samplers.RandomSampler(seed=os.getpid()),
        pruner=optuna.pruners.NopPruner(),
    )
    study.optimize(objective, n_trials=2)
    together.wait(BOUND_S)
    cpu, begin = time.process_time(), time.perf_counter()
    study.optimize(objective, n_trials=trials)
    results.put((begin, time.perf_counter(), time.process_time() - cpu))


def run(trials: int, slots: int, lock: str = LOCK) -> Run:
    """What `trials` trials cost, equally many of each process."""
    optuna.logging.set_verbosity(optuna.logging.ERROR)
    together, results = multiprocessing.Barrier(slots), multiprocessing.Queue()
    each = trials // slots
    with tempfile.TemporaryDirectory() as folder:
        path = os.path.join(folder, "journal.log")
        optuna.create_study(study_name=NAME, storage=storage(path, lock), direction="maximize")
        processes = [
            multiprocessing.Process(target=optimise, args=(path, lock, each, together, results))
            for _ in range(slots)
        ]
        for process in processes:
            process.start()
        begins, ends, cpus = zip(*[results.get(timeout=BOUND_S) for _ in processes], strict=True)
        for process in processes:
            process.join(BOUND_S)
        found = optuna.load_study(study_name=NAME, storage=storage(path, lock)).trials
        assert len(found) == (each + 2) * slots
        assert all(trial.state.is_finished() for trial in found)
    return Run.of(each * slots, max(ends) - min(begins), sum(cpus))


def main() -> None:
    given = peer_options(__doc__).parse_args()
    if not given.choose:
        print(json.dumps(run(given.trials, given.slots).as_dict()))
        return
    for lock in LOCKS:
        print(f"lock {lock:8}: {run(given.trials, given.slots, lock)}", flush=True)


if __name__ == "__main__":
    main()
