"""Other libraries' early stopping on tables of learning curves; needs one of them, not distsearch.

    python benchmarks/multi_fidelity_peer.py                      # prints which are installed
    python benchmarks/multi_fidelity_peer.py TABLE.npz OUT.npz    # plays them all

Only their decisions are theirs: their scheduler or pruner object is asked through its public
methods, as their own loops ask it. Time is simulated here, as multi_fidelity.py simulates it: a
trial of the table takes its seconds, a free slot takes what the library wants resumed, else the
next trial of the table.
"""

from __future__ import annotations

import contextlib
import heapq
import logging
import math
import sys
import warnings
from datetime import datetime
from types import SimpleNamespace

import numpy as np

CONTINUE, STOP, PAUSE = "continue", "stop", "pause"


class Peer:
    """What the simulation asks of a library; its settings are the same for all."""

    def __init__(self, max_t: int, grace: int, factor: int, seed: int) -> None:
        raise NotImplementedError

    def launch(self, trial: int) -> None:
        """Hear of a new trial."""

    def resume(self, new_trial: int) -> int | None:
        """The paused trial that is to go on, or None: then `new_trial` is launched."""
        return None

    def report(self, trial: int, epoch: int, value: float) -> str:
        """What a report means."""
        raise NotImplementedError

    def complete(self, trial: int, epoch: int, value: float) -> None:
        """Hear of the end of a whole training that was not stopped at its last report."""


class RayASHA(Peer):
    """Ray Tune's ASHAScheduler."""

    brackets = 1

    def __init__(self, max_t: int, grace: int, factor: int, seed: int) -> None:
        from ray.tune.schedulers import ASHAScheduler

        np.random.seed(seed)  # its brackets are drawn from the global generator
        self.asha = ASHAScheduler(
            time_attr="epoch",
            metric="accuracy",
            mode="max",
            max_t=max_t,
            grace_period=grace,
            reduction_factor=factor,
            brackets=self.brackets,
        )
        self.trials: dict[int, SimpleNamespace] = {}

    def launch(self, trial: int) -> None:
        self.trials[trial] = SimpleNamespace(trial_id=str(trial))
        self.asha.on_trial_add(None, self.trials[trial])

    def report(self, trial: int, epoch: int, value: float) -> str:
        result = {"epoch": epoch, "accuracy": value}
        return self.asha.on_trial_result(None, self.trials[trial], result).lower()


class RayASHA3(RayASHA):
    """Ray Tune's ASHAScheduler with three brackets."""

    brackets = 3


class SyneStopping(Peer):
    """Syne Tune's ASHA, which stops."""

    def __init__(self, max_t: int, grace: int, factor: int, seed: int) -> None:
        from syne_tune.backend.trial_status import Trial
        from syne_tune.config_space import uniform
        from syne_tune.optimizer.schedulers.asha import AsynchronousSuccessiveHalving

        np.random.seed(seed)
        self.make = Trial
        self.asha = AsynchronousSuccessiveHalving(
            {"x": uniform(0, 1)},
            metric="accuracy",
            do_minimize=False,
            time_attr="epoch",
            max_t=max_t,
            grace_period=grace,
            reduction_factor=factor,
            random_seed=seed,
        )
        self.trials = {}

    def launch(self, trial: int) -> None:
        self.trials[trial] = self.make(trial, {"x": 0.5}, datetime.now())
        self.asha.on_trial_add(self.trials[trial])

    def report(self, trial: int, epoch: int, value: float) -> str:
        result = {"epoch": epoch, "accuracy": value}
        return self.asha.on_trial_result(self.trials[trial], result).lower()


class SynePromotion(Peer):
    """Syne Tune's ASHA, which pauses and promotes (up to version 0.13)."""

    def __init__(self, max_t: int, grace: int, factor: int, seed: int) -> None:
        from syne_tune.backend.trial_status import Trial
        from syne_tune.config_space import uniform
        from syne_tune.optimizer.schedulers.hyperband import HyperbandScheduler

        self.make = Trial
        self.asha = HyperbandScheduler(
            {"x": uniform(0, 1), "epochs": max_t},
            searcher="random",
            metric="accuracy",
            mode="max",
            resource_attr="epoch",
            max_resource_attr="epochs",
            grace_period=grace,
            reduction_factor=factor,
            type="promotion",
            random_seed=seed,
            search_options={"debug_log": False},
        )
        self.trials = {}
        self.config = None
        self.refused = 0  # new trials that it suggested when the table had no more

    def resume(self, new_trial: int) -> int | None:
        suggestion = self.asha.suggest(new_trial + self.refused)
        if suggestion.spawn_new_trial_id:
            self.config = suggestion.config
            self.refused += 1
            return None
        return suggestion.checkpoint_trial_id

    def launch(self, trial: int) -> None:
        self.refused -= 1
        self.trials[trial] = self.make(trial, self.config, datetime.now())
        self.asha.on_trial_add(self.trials[trial])

    def report(self, trial: int, epoch: int, value: float) -> str:
        result = {"epoch": epoch, "accuracy": value}
        return self.asha.on_trial_result(self.trials[trial], result).lower()

    def complete(self, trial: int, epoch: int, value: float) -> None:
        self.asha.on_trial_complete(self.trials[trial], {"epoch": epoch, "accuracy": value})


class OptunaPeer(Peer):
    """What Optuna's two pruners share."""

    def start(self, pruner, seed: int) -> None:
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.optuna = optuna
        self.study = optuna.create_study(
            study_name=f"study {seed}",  # which decides the trials' brackets
            direction="maximize",
            pruner=pruner,
            sampler=optuna.samplers.RandomSampler(seed),
        )
        self.trials = {}

    def launch(self, trial: int) -> None:
        self.trials[trial] = self.study.ask()

    def report(self, trial: int, epoch: int, value: float) -> str:
        asked = self.trials[trial]
        asked.report(value, epoch)
        if not asked.should_prune():
            return CONTINUE
        self.study.tell(asked, state=self.optuna.trial.TrialState.PRUNED)
        return STOP

    def complete(self, trial: int, epoch: int, value: float) -> None:
        self.study.tell(self.trials[trial], value)


class OptunaHalving(OptunaPeer):
    """Optuna's SuccessiveHalvingPruner."""

    def __init__(self, max_t: int, grace: int, factor: int, seed: int) -> None:
        from optuna.pruners import SuccessiveHalvingPruner

        self.start(SuccessiveHalvingPruner(grace, factor), seed)


class OptunaHyperband(OptunaPeer):
    """Optuna's HyperbandPruner."""

    def __init__(self, max_t: int, grace: int, factor: int, seed: int) -> None:
        from optuna.pruners import HyperbandPruner

        self.start(HyperbandPruner(grace, max_t, factor), seed)


PEERS: dict[str, type[Peer]] = {
    "Ray ASHA": RayASHA,
    "Ray ASHA, 3 brackets": RayASHA3,
    "Syne Tune ASHA": SyneStopping,
    "Syne Tune promotion": SynePromotion,
    "Optuna halving": OptunaHalving,
    "Optuna Hyperband": OptunaHyperband,
}


def play(
    peer: Peer, epochs: np.ndarray, values: np.ndarray, seconds: np.ndarray, slots: int
) -> np.ndarray:
    """Let a library search a table on some slots; its reports in order of time.

    `values` and `seconds` (since the trial's start): (trials, reports), `epochs`: (reports).
    Returns rows of (seconds since the search's start, epochs that this report cost, trial, value).
    """
    whole = len(epochs)
    done: dict[int, int] = {}  # trial -> how many of its reports there are
    coming: list[tuple[float, int, int]] = []  # heap of (time, running number, trial)
    history: list[tuple[float, float, int, float]] = []
    numbers = iter(range(1 << 60))

    def train(trial: int, now: float) -> None:
        at = done[trial]
        took = seconds[trial, at] - (seconds[trial, at - 1] if at else 0.0)
        heapq.heappush(coming, (now + took, next(numbers), trial))

    def occupy(now: float) -> bool:
        new = len(done)
        trial = peer.resume(new)
        if trial is None:
            if new == len(values):
                return False
            trial = new
            done[trial] = 0
            peer.launch(trial)
        train(trial, now)
        return True

    free = slots
    now = 0.0
    while True:
        while free and occupy(now):
            free -= 1
        if not coming:
            return np.array(history)
        now, _, trial = heapq.heappop(coming)
        at = done[trial]
        done[trial] = at + 1
        value = float(values[trial, at])
        history.append((now, float(epochs[at] - (epochs[at - 1] if at else 0)), trial, value))
        decision = peer.report(trial, int(epochs[at]), value)
        ended = at + 1 == whole
        if ended and decision == CONTINUE:
            peer.complete(trial, int(epochs[at]), value)
        if ended or decision != CONTINUE:
            free += 1
        else:
            train(trial, now)


def installed() -> list[str]:
    """The names of the peers that this interpreter can play."""
    names = []
    for name, make in PEERS.items():
        with contextlib.suppress(ImportError):
            make(9, 1, 3, 0)
            names.append(name)
    return names


def main(arguments: list[str]) -> None:
    logging.disable(logging.WARNING)
    warnings.simplefilter("ignore")
    if not arguments:
        print("\n".join(f"peer: {name}" for name in installed()))
        return
    source, target = arguments
    table = np.load(source)
    slots, factor = int(table["slots"]), int(table["factor"])
    histories = {}
    for name in table["peers"]:
        for grace in table["graces"]:
            for row, seed in enumerate(table["seeds"]):
                max_t = math.ceil(table["epochs"][-1])
                peer = PEERS[name](max_t, int(grace), factor, int(seed))
                histories[f"{name}|{grace}|{seed}"] = play(
                    peer, table["epochs"], table["values"][row], table["seconds"][row], slots
                )
    np.savez(target, **histories)


if __name__ == "__main__":
    main(sys.argv[1:])
