"""Optuna's samplers (TPE, GP, CMA-ES, QMC, NSGA-II), through its ask and tell, in memory.

Source: Akiba et al., "Optuna: A Next-generation Hyperparameter Optimization Framework", KDD (2019).
"""

from __future__ import annotations

import importlib
import logging
import math
import threading
import warnings
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from numbers import Integral
from typing import Any, ClassVar, TypeGuard

import numpy as np

from ..errors import MissingPackage, OptionError
from ..space import Choice, Int, Real, Space
from ..space.base import Domain
from .arguments import names_taken, refuse_unknown
from .base import Config, Reward, Searcher
from .random import draw_new, key

TRIES = 3  # after so many suggestions that are not new a random one is taken
TALKERS = (
    "_gp.optim_mixed",
    "storages._in_memory",
    "study.study",
    "trial._trial",
    "samplers._cmaes",
    "samplers._gp.sampler",
    "samplers._qmc",
    "samplers._tpe.sampler",
)


class OptunaSearcher(Searcher):
    """What the searchers by Optuna have in common; see its documentation for their options.

        scheduler = FIFOScheduler(train_fn, searcher='tpe', search_options={'multivariate': True})

    Options beside those of all searchers go to Optuna's sampler. Each trial of the search is one of
    Optuna's: RUNNING while it runs, which TPE and GP take into account; FAIL if it failed (also
    with NaN and infinite rewards); COMPLETE when it has ended or paused, with its best reward,
    which may grow. All objectives are maximised there, and constraints are `constraint 0`, ... of
    a trial. Conditional parameters exist only in the trials that have them. The name of a parameter
    is its path; the value of a Choice is the position of the option. No configuration that was
    suggested or told is suggested again.

    Each suggestion comes from a sampler of its own, seeded by (seed, trial_id): it depends on what
    was asked and told before, and on nothing else.

    Raises MissingPackage when Optuna is missing, OptionError for options that the sampler refuses.
    """

    endless = True
    slow = True
    sampler_name: ClassVar[str] = ""  # the name of the class in optuna.samplers
    stateless: ClassVar[bool] = False  # whether the sampler looks only at parameters and values
    needs: ClassVar[tuple[str, ...]] = ("optuna",)

    def __init__(
        self,
        space: Space,
        *,
        seed: int = 0,
        points_to_evaluate: Iterable[Config] | None = None,
        **options: Any,
    ) -> None:
        super().__init__(space, seed=seed, points_to_evaluate=points_to_evaluate)
        self.options = options
        self._optuna: Any = _load(type(self).__name__, self.needs)
        refuse_unknown(type(self).__name__, options, self.takes())
        for name in options.keys() & {"n_startup_trials", "population_size"}:  # seen late, or never
            if not isinstance(options[name], Integral) or isinstance(options[name], bool):
                raise OptionError(f"{name}={options[name]!r}; give an integer")
        with quietly():
            self._study = self._optuna.create_study(direction="maximize")
            try:
                self.sampler(0)
            except (TypeError, ValueError) as error:
                raise OptionError(
                    f"{type(self).__name__} cannot be made with {options!r}: {error}"
                ) from error
        self._common = self._optuna.search_space.IntersectionSearchSpace(include_pruned=True)
        self._number_of: dict[int, int] = {}  # Optuna's number of each trial
        self._seen: set[str] = set()

    @classmethod
    def takes(cls) -> list[str]:
        """The names of the options that Optuna's sampler has."""
        samplers = _load(cls.__name__, cls.needs).samplers
        own = super().takes()
        return own + names_taken(getattr(samplers, cls.sampler_name, object), without=("seed",))

    def aim(self, objectives: int, constraints: int = 0) -> None:
        """Make a study with this number of objectives."""
        super().aim(objectives, constraints)
        with quietly():
            self._study = self._optuna.create_study(directions=["maximize"] * objectives)

    def sampler(self, seed: int) -> Any:
        """The sampler of one suggestion."""
        raise NotImplementedError(f"{type(self).__name__} needs a method sampler(seed)")

    def ask(self, trial_id: int) -> Config | None:
        """A new configuration; None once every one of a finite space was suggested."""
        if not self._first:
            return self.suggest(trial_id, np.random.default_rng((self.seed, trial_id)))
        config = self._first.pop()
        self._begin(trial_id, config)
        return config

    def suggest(self, trial_id: int, rng: np.random.Generator) -> Config | None:
        """The configuration that the sampler suggests, or a random one if that is not new."""
        for _ in range(TRIES):
            number, config = self._ask_optuna(rng)
            if key(config) not in self._seen:
                self._number_of[trial_id] = number
                self._seen.add(key(config))
                return config
            self._fail(number)
        found = draw_new(self.space, rng, self._seen)
        if found is not None:
            self._begin(trial_id, found)
        return found

    def tell(
        self,
        trial_id: int,
        config: Config,
        reward: Reward | None,
        violations: tuple[float, ...] = (),
    ) -> None:
        """Complete a trial, or fail it; a better reward replaces an earlier one."""
        if trial_id not in self._number_of:
            self._begin(trial_id, config)
        number = self._number_of[trial_id]
        trial = self._optuna_trial(trial_id)
        rewards = list(reward) if isinstance(reward, tuple) else [reward]
        works = all(one is not None and math.isfinite(one) for one in rewards)
        state = self._optuna.trial.TrialState
        if not works:
            if not trial.state.is_finished():
                self._fail(number)
            return
        if not trial.state.is_finished():
            _constrain(trial, violations)
            self._study.tell(number, rewards, state=state.COMPLETE)
        elif trial.state is state.COMPLETE:
            # (Optuna has no call for that; in memory this is its own object.)
            _constrain(trial, violations)
            trial.values = rewards

    def replay(self, trial_id: int, config: Config) -> bool:
        """Take note of an earlier suggestion, which few samplers have to compute again.

        False only where the user's points to evaluate have changed: floats that differ from one
        machine to the next do not keep a search from being resumed.
        """
        if self._first:
            return super().replay(trial_id, config)
        if self.stateless or not super().replay(trial_id, config):
            self._forget(trial_id)
            self._begin(trial_id, config)
        return True

    def _optuna_trial(self, trial_id: int) -> Any:
        """Optuna's own object of a trial, which may be changed, as the study is in memory."""
        return self._study.get_trials(deepcopy=False)[self._number_of[trial_id]]

    def _fail(self, number: int) -> None:
        self._study.tell(number, state=self._optuna.trial.TrialState.FAIL)

    def _forget(self, trial_id: int) -> None:
        """Tell Optuna that a suggestion was not used."""
        if trial_id in self._number_of:
            self._fail(self._number_of.pop(trial_id))

    def _begin(self, trial_id: int, config: Config) -> None:
        """Tell Optuna of a trial with this configuration, which runs."""
        config = self.space.validate(config)
        self._seen.add(key(config))
        self._number_of[trial_id] = len(self._study.get_trials(deepcopy=False))
        domains: dict[str, Domain] = {}

        def note(path: str, domain: Domain) -> Any:
            domains[path] = domain
            return config[path]

        self.space.walk(note)
        params = {path: _to_optuna(domain, config[path]) for path, domain in domains.items()}
        if self.stateless:
            self._study.add_trial(
                self._optuna.trial.create_trial(
                    state=self._optuna.trial.TrialState.RUNNING,
                    params=params,
                    distributions={path: self._distribution(d) for path, d in domains.items()},
                )
            )
        else:  # (the sampler notes in a trial what it needs to learn from it)
            self._study.enqueue_trial(params)
            self._ask_optuna(np.random.default_rng((self.seed, abs(trial_id))))

    def _ask_optuna(self, rng: np.random.Generator) -> tuple[int, Config]:
        """Optuna's number of its next trial, and the configuration."""
        with quietly():
            sampler = self.sampler(int(rng.integers(2**31)))
            if "_search_space" in vars(sampler):  # spares it a look through all trials
                sampler._search_space = self._common
            self._study.sampler = sampler
            trial = self._study.ask()
            config = self.space.walk(lambda path, domain: _suggested(trial, path, domain))
            self._correct(trial.number, config)
        if self.stateless:
            # Optuna notes there, for other processes, what it suggests, also for parameters that
            # the trial turned out not to have. A replay would not know of these.
            self._study.get_trials(deepcopy=False)[trial.number].system_attrs = {}
        return trial.number, config

    def _correct(self, number: int, config: Config) -> None:
        """Tell Optuna the values that a trial gets of ranges with steps on a log scale."""
        params = self._study.get_trials(deepcopy=False)[number].params
        for path, (domain, _) in self.space._layout.items():
            if path in params and _has_steps(domain) and domain.log:
                params[path] = config[path]

    def _distribution(self, domain: Domain) -> Any:
        kinds = self._optuna.distributions
        if isinstance(domain, Choice):
            return kinds.CategoricalDistribution(range(len(domain.choices)))
        assert isinstance(domain, (Real, Int))
        if _has_steps(domain):
            if domain.log:
                return kinds.FloatDistribution(domain.lower, domain.upper, log=True)
            return kinds.IntDistribution(0, int(domain.size) - 1)
        kind = kinds.FloatDistribution if isinstance(domain, Real) else kinds.IntDistribution
        return kind(domain.lower, domain.upper, log=domain.log)


class TPESearcher(OptunaSearcher):
    """Tree-structured Parzen estimator (Bergstra et al. 2011; Watanabe 2023), `searcher='tpe'`.

    Models where the good trials lie, and where the others; running trials count among the others.
    Until there are 10 results (`n_startup_trials`) suggestions are random.
    """

    sampler_name = "TPESampler"
    stateless = several = constrained = True

    def sampler(self, seed: int) -> Any:
        """The sampler of one suggestion."""
        options = {"constant_liar": True, **self.options}
        return self._optuna.samplers.TPESampler(seed=seed, **options)

    def observe(self, trial_id: int, config: Config, reward: float | None, time: float) -> None:
        """Take note of a reward at a rung: the intermediate value of a trial that Optuna prunes."""
        if trial_id not in self._number_of:
            self._begin(trial_id, config)
        if reward is not None and math.isfinite(reward):
            self._optuna_trial(trial_id).intermediate_values[time] = reward

    def tell(
        self,
        trial_id: int,
        config: Config,
        reward: Reward | None,
        violations: tuple[float, ...] = (),
    ) -> None:
        """Complete a trial that trained to its end, prune one that stopped early, or fail it."""
        state = self._optuna.trial.TrialState
        if trial_id not in self._number_of:
            self._begin(trial_id, config)
        trial = self._optuna_trial(trial_id)
        times = trial.intermediate_values
        if not times or isinstance(reward, tuple):
            super().tell(trial_id, config, reward, violations)
            return
        works = reward is not None and math.isfinite(reward)
        if trial.state is state.PRUNED and math.inf in times:  # (it had paused, and went on)
            _constrain(trial, violations)
            trial.state, trial.value = state.COMPLETE, reward
        elif works and math.inf not in times:
            _constrain(trial, violations)
            if not trial.state.is_finished():
                self._study.tell(self._number_of[trial_id], state=state.PRUNED)
        else:
            super().tell(trial_id, config, reward, violations)


class GPSearcher(OptunaSearcher):
    """Gaussian process with expected improvement, `searcher='gp'`; needs torch.

    For few, costly trials: a suggestion takes seconds after a thousand results. Until there are 10
    results (`n_startup_trials`) suggestions are random.
    """

    sampler_name = "GPSampler"
    stateless = several = constrained = True
    needs = ("optuna", "torch", "scipy")

    def __init__(self, *args: Any, **options: Any) -> None:
        super().__init__(*args, **options)
        from threadpoolctl import ThreadpoolController  # (the import sets an environment variable)

        self._threads = ThreadpoolController()

    def suggest(self, trial_id: int, rng: np.random.Generator) -> Config | None:
        """What the sampler suggests, computed on one core."""
        # (The matrices are small: with several threads it was ten times slower.)
        with self._threads.limit(limits=1):
            return super().suggest(trial_id, rng)

    def sampler(self, seed: int) -> Any:
        """The sampler of one suggestion."""
        options = {"warn_independent_sampling": False, **self.options}
        return self._optuna.samplers.GPSampler(seed=seed, **options)


class CMAESSearcher(OptunaSearcher):
    """CMA-ES (Hansen and Ostermeier 2001), `searcher='cmaes'`, for spaces of numbers.

    Choices and conditional parameters are drawn at random.
    """

    sampler_name = "CmaEsSampler"
    needs = ("optuna", "cmaes")

    def sampler(self, seed: int) -> Any:
        """The sampler of one suggestion."""
        options = {"warn_independent_sampling": False, **self.options}
        return self._optuna.samplers.CmaEsSampler(seed=seed, **options)


class QMCSearcher(OptunaSearcher):
    """A scrambled Sobol' sequence, `searcher='qmc'`: random search with fewer holes.

    Its suggestions do not depend on results. Conditional parameters are drawn at random.
    """

    sampler_name = "QMCSampler"
    several = True
    needs = ("optuna", "scipy")
    _sequence: Any = None
    _rest: Any = None  # the sampler of parameters that the sequence does not have

    def sampler(self, seed: int) -> Any:
        """The sampler of all suggestions: the sequence is one, with the seed of the search."""
        samplers = self._optuna.samplers
        if self._sequence is None or self._sequence[0] != self.seed:
            options = {"scramble": True, "warn_independent_sampling": False, **self.options}
            self._rest = samplers.RandomSampler()
            with warnings.catch_warnings():
                warnings.simplefilter("ignore")  # (Optuna says that it is experimental)
                sampler = samplers.QMCSampler(
                    seed=self.seed, independent_sampler=self._rest, **options
                )
            self._sequence = self.seed, sampler
        self._rest.__init__(seed=seed)
        return self._sequence[1]


class NSGA2Searcher(OptunaSearcher):
    """The genetic algorithm NSGA-II (Deb et al. 2002), `searcher='nsga2'`."""

    sampler_name = "NSGAIISampler"
    several = constrained = True

    def sampler(self, seed: int) -> Any:
        """The sampler of one suggestion."""
        return self._optuna.samplers.NSGAIISampler(seed=seed, **self.options)


def _constrain(trial: Any, violations: tuple[float, ...]) -> None:
    """Note, in place of an earlier note, by how much a trial violates each constraint."""
    if not violations:
        return
    attributes = trial.system_attrs.items()
    trial.system_attrs = {k: v for k, v in attributes if not k.startswith("constraint")}
    for number, violation in enumerate(violations):
        trial.set_constraint(f"constraint {number}", violation)


def _suggested(trial: Any, path: str, domain: Domain) -> Any:
    """The value that Optuna suggests for a parameter."""
    if isinstance(domain, Choice):
        # By position, as 1, 1.0 and True are equal to Optuna.
        return domain.choices[trial.suggest_categorical(path, range(len(domain.choices)))]
    assert isinstance(domain, (Real, Int))
    if _has_steps(domain):
        if domain.log:
            return domain.nearest(trial.suggest_float(path, domain.lower, domain.upper, log=True))
        return domain.after(trial.suggest_int(path, 0, int(domain.size) - 1))
    suggest = trial.suggest_float if isinstance(domain, Real) else trial.suggest_int
    value = suggest(path, domain.lower, domain.upper, log=domain.log)
    return min(max(value, domain.lower), domain.upper)


def _has_steps(domain: Domain) -> TypeGuard[Real | Int]:
    """Whether a range has steps that Optuna cannot have: there it is a range of step numbers."""
    return isinstance(domain, (Real, Int)) and domain.step != domain.whole_step


def _to_optuna(domain: Domain, value: Any) -> Any:
    if _has_steps(domain) and not domain.log:
        return domain.steps_to(value)
    if not isinstance(domain, Choice):
        return value
    return [(type(choice), choice) for choice in domain.choices].index((type(value), value))


def _load(name: str, modules: Iterable[str]) -> Any:
    """The optuna module; raises MissingPackage where a package is missing."""
    try:
        first, *_ = [importlib.import_module(module) for module in modules]
    except ImportError as error:
        raise MissingPackage(
            f"{name} needs {error.name}, which is not installed: "
            "pip install optuna cmaes scipy greenlet"
        ) from error
    return first


@contextmanager
def quietly() -> Iterator[None]:
    """Let Optuna log nothing of what this thread does, until the block is left."""
    thread = threading.get_ident()
    loggers = [logging.getLogger(f"optuna.{name}") for name in TALKERS]

    def is_of_another_thread(record: logging.LogRecord) -> bool:
        return record.thread != thread

    for logger in loggers:
        logger.addFilter(is_of_another_thread)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(is_of_another_thread)
