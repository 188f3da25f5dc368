"""Between a scheduler and its searcher: whatever one tells the other passes over this desk."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

from ..core.objectives import Objectives, Point
from ..core.words import Launch, Trial, Wait
from ..errors import OptionError, SpaceError, nearest
from ..space import Dict
from . import SEARCHERS
from .ahead import Ahead
from .arguments import ALIASES, SUCCESSORS, refuse_unknown, renamed
from .base import Config, Searcher


class Desk:
    """Makes a searcher, or takes the one that is given, and speaks with it for a scheduler.

        desk = Desk("tpe", space, objectives, seed=1, needed_soon=lambda: 4, wake=wake)
        launch = desk.next(0)   # Wait() while it thinks: wake() is called when it has thought
        desk.tell(trial)        # once the trial has ended, or pauses
        desk.close()

    The searcher hears rewards of which larger ones are better. A slow searcher works ahead in a
    thread of its own (see `Ahead`). `space` completes and checks each suggestion.

    `options`, `points_to_evaluate`: arguments of a searcher that is named. `choice`: the searcher
    for which 'auto' stands, and the reason (see `auto.choose`), which `why` then has ('' for other
    searchers). `needed_soon()`: how many suggestions may be needed at once. `wake()` is called in
    the searcher's thread.

    Raises OptionError for an unknown name, for options that the searcher does not have, and where
    it cannot learn from so many objectives; SpaceError for given points outside the space.
    """

    def __init__(
        self,
        searcher: str | Searcher,
        space: Dict,
        objectives: Objectives,
        *,
        seed: int,
        options: Mapping[str, Any] | None = None,
        points_to_evaluate: Iterable[Config] | None = None,
        choice: tuple[str, str] | None = None,
        needed_soon: Callable[[], int],
        wake: Callable[[], None],
    ) -> None:
        options = options or {}
        self.why = ""
        self._space, self._objectives = space, objectives
        self._options = json.loads(
            json.dumps(dict(options), default=lambda one: type(one).__name__)
        )
        if isinstance(searcher, Searcher):
            _refuse_unmade(searcher)
            _refuse_options(searcher, options, points_to_evaluate)
            self.searcher = searcher
        else:
            if searcher == "auto":
                searcher, self.why = _chosen(options, choice)
            self.searcher = _make(searcher, space, seed, options, points_to_evaluate)
        if not objectives.is_plain:
            self.searcher.aim(len(objectives.names), len(objectives.constraints))
        self._ahead: Ahead | None = None
        if self.searcher.slow:
            self._ahead = Ahead(self.searcher, soon=needed_soon, ready=wake)

    @property
    def described(self) -> dict[str, Any]:
        """The searcher's name and options as plain data, as a search is described."""
        options = {**self._options, **self.searcher.described}
        described = {"searcher": type(self.searcher).__name__, "search_options": options}
        return {**described, **({"searcher_because": self.why} if self.why else {})}

    def next(self, trial_id: int) -> Launch | Wait | None:
        """What the searcher suggests for a new trial; Wait() while it thinks, None: no more.

        Raises SpaceError, which names the searcher and the parameter, for a suggestion outside the
        space; and what the searcher raises.
        """
        ahead, searcher = self._ahead, self.searcher
        found = searcher.ask(trial_id) if ahead is None else ahead.next(trial_id)
        if found is None or isinstance(found, Wait):
            return found
        if isinstance(found, Launch):
            return replace(found, config=self._complete(found.config))
        return Launch(self._complete(found))

    def tell(self, trial: Trial) -> None:
        """Let the searcher hear what became of a trial that has ended, or pauses."""
        failed = trial.status.is_failure
        if self._objectives.is_plain:
            self._tell(trial.id, trial.config, None if failed else trial.best_reward)
        else:
            self._tell_point(trial.id, trial.config, None if failed else trial.point)

    def tell_known(self, points: Iterable[Sequence[Any]]) -> None:
        """Let the searcher hear, before it is asked, what is known already: see `warm.Known`."""
        for number, (config, known) in enumerate(points):
            if self._objectives.is_plain:
                self._tell(-1 - number, config, known)
            else:
                point = None if known is None else self._objectives.point(known)
                self._tell_point(-1 - number, config, point)

    def observe(self, trial: Trial, reward: float | None, time: float) -> None:
        """Let the searcher hear the reward of a report (larger is better) at a rung."""
        self._listener.observe(trial.id, trial.config, reward, time)

    def replay(self, trial_id: int, config: Config, told: int | None = None) -> bool:
        """When a search is resumed: let the searcher suggest again what it had suggested.

        False if it suggests something else. `told` is `Launch.told`.
        """
        config = self._complete(config)
        if self._ahead is not None:
            return self._ahead.replay(trial_id, config, told)
        return self.searcher.replay(trial_id, config)

    def may_need(self, trial_id: int) -> bool:
        """Whether the searcher may name a trial that has ended as a parent."""
        return self.searcher.may_need(trial_id)

    def close(self) -> None:
        """End the thread of a slow searcher, after the suggestion that it is making."""
        if self._ahead is not None:
            self._ahead.close()

    @property
    def _listener(self) -> Searcher | Ahead:
        return self.searcher if self._ahead is None else self._ahead

    def _complete(self, config: Config) -> Config:
        try:
            return self._space.validate(config)
        except SpaceError as error:
            raise SpaceError(
                f"{type(self.searcher).__name__} suggested what is not in the search space: {error}"
            ) from error

    def _tell(self, trial_id: int, config: Config, reward: float | None) -> None:
        """Tell the searcher a reward that is in the user's sign."""
        sign = -1.0 if self._objectives.modes[0] == "min" else 1.0
        self._listener.tell(trial_id, config, None if reward is None else sign * reward)

    def _tell_point(self, trial_id: int, config: Config, point: Point | None) -> None:
        """Tell the searcher several rewards, violated constraints, or both."""
        if point is None or not (point.is_feasible or self.searcher.constrained):
            self._listener.tell(trial_id, config, None)
            return
        reward = point.rewards if self._objectives.several else point.rewards[0]
        more = (point.violations,) if self.searcher.constrained and point.violations else ()
        self._listener.tell(trial_id, config, reward, *more)


def _refuse_unmade(searcher: Searcher) -> None:
    """Raise OptionError for a searcher whose `__init__` has left out `super().__init__`."""
    if "_first" not in vars(searcher):
        name = type(searcher).__name__
        raise OptionError(
            f"{name}.__init__ has to call super().__init__(space, seed=..., points_to_evaluate=...)"
        )


def _refuse_options(
    searcher: Searcher, options: Mapping[str, Any], points: Iterable[Config] | None
) -> None:
    if options or points is not None:
        raise OptionError(
            "search_options and points_to_evaluate go to the searcher that you made "
            f"yourself, {type(searcher).__name__}(...), not to the scheduler"
        )


def _chosen(options: Mapping[str, Any], choice: tuple[str, str] | None) -> tuple[str, str]:
    assert choice is not None, "'auto' needs a choice"
    if options:
        raise OptionError(
            f"search_options={dict(options)!r} are for one searcher, but searcher='auto' chooses "
            f"it; name it, perhaps searcher={choice[0]!r}"
        )
    return choice


def _make(
    name: Any,
    space: Dict,
    seed: int,
    options: Mapping[str, Any],
    points: Iterable[Config] | None,
) -> Searcher:
    known = ALIASES.get(name, name) if isinstance(name, str) else name
    if not isinstance(known, str) or known not in SEARCHERS:
        raise OptionError(f"searcher={name!r}; {_valid_names(name)}")
    made = SEARCHERS[known]
    if isinstance(points, Mapping | str) or not isinstance(points, Iterable | None):
        raise OptionError(
            f"points_to_evaluate={points!r}; give a list of configurations, [{{'lr': 0.1}}]"
        )
    options = renamed(options, made.takes())
    refuse_unknown(f"the searcher {name!r}", options, made.takes())
    try:
        return made(space, seed=seed, points_to_evaluate=points, **options)
    except TypeError as error:
        given = dict(options)
        raise OptionError(f"search_options={given!r} of {name!r}: {error}") from error


def _valid_names(name: Any) -> str:
    """What to give in place of a name that no searcher has."""
    if isinstance(name, str) and name in SUCCESSORS:
        return f"what AutoGluon calls so is {SUCCESSORS[name]}"
    if isinstance(name, type) and issubclass(name, Searcher):
        return f"make one: searcher={name.__name__}(train_fn.space)"
    near = nearest(name.lower(), SEARCHERS) if isinstance(name, str) else ""
    return f"{near}give one of {', '.join(map(repr, ['auto', *SEARCHERS]))}, or a Searcher you made"
