"""Other libraries' searchers under early stopping; needs one of them, not distsearch.

    python benchmarks/multi_fidelity_models_peer.py           # prints which are installed
    python benchmarks/multi_fidelity_models_peer.py NAME      # answers multi_fidelity_models.py

What they suggest, and which trials they stop, pause and resume, is theirs: their objects are asked
through their public methods, as their own loops ask them, with the settings that their
documentation gives for this use. The clock and the learning curves are those of
multi_fidelity_models.py, which asks in lines of JSON on standard input:

    {"open": {"space": ..., "max_t": 52, "grace": 3, "factor": 3, "seed": 0}}   -> {}
    {"next": 7}       a slot is free -> {"config": {...}}, {"resume": 3}, or {}: nothing to do now
    {"report": [7, 3, 71.2]}         -> "continue", "stop" or "pause"
    {"complete": [7, 52, 80.1]}      -> {}
"""

from __future__ import annotations

import contextlib
import json
import logging
import math
import os
import random
import sys
import tempfile
import warnings
from datetime import datetime

CONTINUE, STOP, PAUSE = "continue", "stop", "pause"
WHOLE_TRIALS = 40  # the last budget of multi_fidelity_models.py


class Peer:
    """What the simulation asks of a library."""

    def open(self, space: dict, max_t: int, grace: int, factor: int, seed: int) -> None:
        """Begin a search; `space`: name -> kind, lower, upper and log, or options."""
        raise NotImplementedError

    def next(self, new: int) -> dict:
        """What a free slot is to do: a configuration for the trial of that number, or a resume."""
        raise NotImplementedError

    def report(self, trial: int, epoch: int, value: float) -> str:
        """What a report means."""
        raise NotImplementedError

    def complete(self, trial: int, epoch: int, value: float) -> None:
        """Hear of the end of a whole training that was not stopped at its last report."""


class SynePromotion(Peer):
    """Syne Tune's schedulers of type promotion with Gaussian processes, up to version 0.13."""

    kind = "MOBSTER"  # with its defaults: one process over configurations and times
    brackets = 1  # which often works best, as its documentation says

    def open(self, space, max_t, grace, factor, seed):
        from syne_tune.backend.trial_status import Trial
        from syne_tune.optimizer import baselines

        self.make = Trial
        self.scheduler = getattr(baselines, self.kind)(
            {**_syne_space(space), "epochs": max_t},
            metric="accuracy",
            mode="max",
            resource_attr="epoch",
            max_resource_attr="epochs",
            grace_period=grace,
            reduction_factor=factor,
            type="promotion",
            brackets=self.brackets,
            random_seed=seed,
            search_options={"debug_log": False},
        )
        self.names = list(space)
        self.trials = {}

    def next(self, new):
        suggestion = self.scheduler.suggest(new)
        if suggestion is None:
            return {}
        if not suggestion.spawn_new_trial_id:
            return {"resume": suggestion.checkpoint_trial_id}
        self.trials[new] = self.make(new, suggestion.config, datetime.now())
        self.scheduler.on_trial_add(self.trials[new])
        return {"config": {name: suggestion.config[name] for name in self.names}}

    def report(self, trial, epoch, value):
        result = {"epoch": epoch, "accuracy": value}
        return self.scheduler.on_trial_result(self.trials[trial], result).lower()

    def complete(self, trial, epoch, value):
        self.scheduler.on_trial_complete(self.trials[trial], {"epoch": epoch, "accuracy": value})


class HyperTune(SynePromotion):
    """Syne Tune's HyperTune, which learns in which of several brackets a trial is to start."""

    kind = "HyperTune"
    brackets = 4  # or as many as there are rungs, and one


class SyneStopping(Peer):
    """Syne Tune's schedulers since version 0.14, which stop."""

    kind = "ASHACQR"

    def open(self, space, max_t, grace, factor, seed):
        from syne_tune.backend.trial_status import Trial
        from syne_tune.optimizer import baselines
        from syne_tune.optimizer.schedulers.asha import AsynchronousSuccessiveHalving

        self.make = Trial
        self.scheduler = getattr(baselines, self.kind)(
            _syne_space(space),
            metric="accuracy",
            do_minimize=False,
            time_attr="epoch",
            max_t=max_t,
            grace_period=grace,
            reduction_factor=factor,
            random_seed=seed,
        )
        if not isinstance(self.scheduler, AsynchronousSuccessiveHalving):
            raise ImportError("another version of Syne Tune")
        self.trials = {}

    def next(self, new):
        suggestion = self.scheduler.suggest()
        self.trials[new] = self.make(new, suggestion.config, datetime.now())
        self.scheduler.on_trial_add(self.trials[new])
        return {"config": suggestion.config}

    def report(self, trial, epoch, value):
        result = {"epoch": epoch, "accuracy": value}
        return self.scheduler.on_trial_result(self.trials[trial], result).lower()

    def complete(self, trial, epoch, value):
        self.scheduler.on_trial_complete(self.trials[trial], {"epoch": epoch, "accuracy": value})


class AshaBORE(SyneStopping):
    kind = "ASHABORE"


def _syne_space(space):
    from syne_tune.config_space import choice, lograndint, loguniform, randint, uniform

    makers = {("real", True): loguniform, ("real", False): uniform}
    makers |= {("int", True): lograndint, ("int", False): randint}
    found = {}
    for name, one in space.items():
        if one["kind"] == "choice":
            found[name] = choice(one["options"])
        else:
            found[name] = makers[one["kind"], one["log"]](one["lower"], one["upper"])
    return found


class OptunaTPE(Peer):
    """Optuna's TPE with its HyperbandPruner, as its documentation advises."""

    def open(self, space, max_t, grace, factor, seed):
        import optuna

        optuna.logging.set_verbosity(optuna.logging.ERROR)
        self.optuna, self.space, self.trials = optuna, space, {}
        self.study = optuna.create_study(
            study_name=f"study {seed}",  # which decides the trials' brackets
            direction="maximize",
            pruner=optuna.pruners.HyperbandPruner(grace, max_t, factor),
            sampler=optuna.samplers.TPESampler(seed=seed, constant_liar=True),
        )

    def next(self, new):
        trial = self.trials[new] = self.study.ask()
        config = {}
        for name, one in self.space.items():
            if one["kind"] == "choice":
                config[name] = trial.suggest_categorical(name, one["options"])
            else:
                suggest = trial.suggest_int if one["kind"] == "int" else trial.suggest_float
                config[name] = suggest(name, one["lower"], one["upper"], log=one["log"])
        return {"config": config}

    def report(self, trial, epoch, value):
        asked = self.trials[trial]
        asked.report(value, epoch)
        if not asked.should_prune():
            return CONTINUE
        self.study.tell(asked, state=self.optuna.trial.TrialState.PRUNED)
        return STOP

    def complete(self, trial, epoch, value):
        self.study.tell(self.trials[trial], value)


class ByBudget(Peer):
    """A library that asks for a configuration to be trained for so long.

    One that it asked for before goes on from where it was, what it trained before is told again at
    once, and one that trains already trains on, without another slot: that is more than these
    libraries promise their users.
    """

    def begin(self):
        self.numbers, self.values = {}, {}
        self.jobs = {}  # trial -> [(until which epoch, job)], while it trains

    def next(self, new):
        while True:
            job = self.ask()
            config, budget = self.wanted(job)
            trial = self.numbers.setdefault(json.dumps(config, sort_keys=True), new)
            known = self.values.setdefault(trial, {})
            if math.ceil(budget) in known:
                self.tell(job, known[math.ceil(budget)])
                continue
            jobs = self.jobs.setdefault(trial, [])
            jobs.append((math.ceil(budget), job))
            if len(jobs) == 1:
                return {"config": config} if trial == new else {"resume": trial}

    def report(self, trial, epoch, value):
        self.values[trial][epoch] = value
        jobs = self.jobs.pop(trial)
        for until, job in jobs:
            if until <= epoch:
                self.tell(job, value)
        left = [(until, job) for until, job in jobs if until > epoch]
        if left:
            self.jobs[trial] = left
        return CONTINUE if left else PAUSE

    def ask(self):
        """The next job."""
        raise NotImplementedError

    def wanted(self, job):
        """Its configuration, and until which epoch it is to be trained."""
        raise NotImplementedError

    def tell(self, job, value):
        """Hear what came of a job."""
        raise NotImplementedError


def _configspace(space, seed):
    from ConfigSpace import Categorical, ConfigurationSpace, Float, Integer

    found = ConfigurationSpace(seed=seed)
    for name, one in space.items():
        if one["kind"] == "choice":
            found.add(Categorical(name, one["options"]))
        else:
            make = Integer if one["kind"] == "int" else Float
            found.add(make(name, (one["lower"], one["upper"]), log=one["log"]))
    return found


def _least_budget(max_t, grace, factor):
    """A least budget with which Hyperband has a rung at about `grace`.

    Its rungs are `max_t`, and that by powers of the factor, down to the least budget. On
    NAS-Bench-201 they are 200 and 200 / 17 = 11.8, which is below 12: there would be one.
    """
    rung = max_t / factor
    return grace if rung >= grace else 0.999 * rung


def _plain(config):
    return {
        name: value.item() if hasattr(value, "item") else value
        for name, value in dict(config).items()
    }


class SMAC(ByBudget):
    """SMAC3's MultiFidelityFacade with its Hyperband.

    A quarter of the trials at most are random at first, as usual; how many there are is what SMAC3
    itself computes for the epochs of a search. It is not told so, as it would stop there.
    """

    def open(self, space, max_t, grace, factor, seed):
        from smac import MultiFidelityFacade, Scenario
        from smac.intensifier import Hyperband
        from smac.intensifier.hyperband_utils import get_n_trials_for_hyperband_multifidelity
        from smac.runhistory import StatusType, TrialValue

        self.begin()
        self.value, self.success = TrialValue, StatusType.SUCCESS
        self.output = tempfile.TemporaryDirectory()
        least = _least_budget(max_t, grace, factor)
        trials = get_n_trials_for_hyperband_multifidelity(
            WHOLE_TRIALS * max_t, least, max_t, factor, print_summary=False
        )
        scenario = Scenario(
            _configspace(space, seed),
            n_trials=100_000,
            min_budget=least,
            max_budget=max_t,
            deterministic=True,
            seed=seed,
            output_directory=self.output.name,
        )
        self.smac = MultiFidelityFacade(
            scenario,
            lambda config, seed, budget: 0.0,
            intensifier=Hyperband(scenario, eta=factor),
            initial_design=MultiFidelityFacade.get_initial_design(
                scenario, n_configs=min(10 * len(space), trials // 4)
            ),
            overwrite=True,
            logging_level=logging.CRITICAL,
        )

    def ask(self):
        return self.smac.ask()

    def wanted(self, job):
        return _plain(job.config), job.budget

    def tell(self, job, value):
        self.smac.tell(job, self.value(cost=-value, time=1.0, status=self.success))


class WholeSMAC(SMAC):
    """SMAC3's BlackBoxFacade, which trains everything whole."""

    def open(self, space, max_t, grace, factor, seed):
        from smac import BlackBoxFacade, Scenario
        from smac.runhistory import StatusType, TrialValue

        self.begin()
        self.value, self.success, self.max_t = TrialValue, StatusType.SUCCESS, max_t
        self.output = tempfile.TemporaryDirectory()
        scenario = Scenario(
            _configspace(space, seed),
            n_trials=WHOLE_TRIALS,  # a quarter of which at most are its initial design
            deterministic=True,
            seed=seed,
            output_directory=self.output.name,
        )
        self.smac = BlackBoxFacade(
            scenario,
            lambda config, seed: 0.0,
            overwrite=True,
            logging_level=logging.CRITICAL,
        )

    def wanted(self, job):
        return _plain(job.config), self.max_t


class DEHB(ByBudget):
    """DEHB, asked and told."""

    def open(self, space, max_t, grace, factor, seed):
        from dehb import DEHB as Dehb
        from loguru import logger

        logger.remove()
        self.begin()
        self.output = tempfile.TemporaryDirectory()
        self.dehb = Dehb(
            f=lambda config, fidelity: None,
            cs=_configspace(space, seed),
            min_fidelity=_least_budget(max_t, grace, factor),
            max_fidelity=max_t,
            eta=factor,
            n_workers=1,  # who asks and tells has workers of its own; more would start Dask
            seed=seed,
            output_path=self.output.name,
        )

    def ask(self):
        return self.dehb.ask()

    def wanted(self, job):
        return _plain(job["config"]), job["fidelity"]

    def tell(self, job, value):
        self.dehb.tell(job, {"fitness": -value, "cost": 1.0})


PEERS: dict[str, type[Peer]] = {
    "Syne Tune MOBSTER": SynePromotion,
    "Syne Tune HyperTune": HyperTune,
    "Syne Tune ASHACQR": SyneStopping,
    "Syne Tune ASHABORE": AshaBORE,
    "Optuna TPE": OptunaTPE,
    "SMAC3": SMAC,
    "SMAC3, nothing stopped": WholeSMAC,
    "DEHB": DEHB,
}


def installed() -> list[str]:
    """The names of the peers that this interpreter can play."""
    names = []
    space = {"x": {"kind": "real", "lower": 0.1, "upper": 1.0, "log": False}}
    for name, make in PEERS.items():
        with contextlib.suppress(ImportError, AttributeError, TypeError):
            peer = make()
            peer.open(space, 9, 1, 3, 0)
            peer.next(0)
            names.append(name)
    return names


def answer(peer: Peer, asked: dict) -> object:
    """What the library says to one line."""
    ((verb, what),) = asked.items()
    if verb == "open":
        random.seed(what["seed"])
        _seed_numpy(what["seed"])
        return peer.open(**what) or {}
    if verb == "next":
        return peer.next(what)
    if verb == "report":
        return peer.report(*what)
    return peer.complete(*what) or {}


def _seed_numpy(seed: int) -> None:
    import numpy as np

    np.random.seed(seed)  # from which some libraries draw


def main(arguments: list[str]) -> None:
    logging.disable(logging.CRITICAL)
    warnings.simplefilter("ignore")
    answers = os.fdopen(os.dup(1), "w")
    os.dup2(2, 1)  # what a library prints is no answer
    if not arguments:
        print(*(f"peer: {name}" for name in installed()), sep="\n", file=answers)
        return
    peer = PEERS[arguments[0]]()
    for line in sys.stdin:
        print(json.dumps(answer(peer, json.loads(line))), file=answers, flush=True)


if __name__ == "__main__":
    main(sys.argv[1:])
