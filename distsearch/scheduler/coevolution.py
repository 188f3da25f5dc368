"""Coevolution: a population of cells on a graph, each of which goes on from its neighbours, too.

Source: Schmiedlechner et al., "Towards Distributed Coevolutionary GANs" (Lipizzaner),
arXiv:1807.08194 (2018), without its rounds: nobody waits for a neighbour.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field, replace
from numbers import Integral
from typing import Any, Union

from ..core.decorators import TrainFunction
from ..core.ends import NOTHING_LEFT
from ..core.words import Launch, Status, Trial, Wait
from ..errors import OptionError, StoreError
from ..space.containers import Constant
from .base import Scheduler
from .options import with_args

Graph = tuple[tuple[int, ...], ...]  # for each cell the numbers of its neighbours
Cells = Union[str, Sequence[int], Mapping[int, Iterable[int]]]

FAILURES_IN_A_ROW = 3  # so many failed generations in a row are the end of a cell
OWN_ARGUMENTS = ("cell", "generation")


def torus(width: int, height: int) -> Graph:
    """The neighbours of each cell of a torus: the cells above, below, to its right and left.

    Cells are numbered row by row. On a side of 2 cells both neighbours are one cell, which counts
    once; on a side of 1 cell both are the cell itself, which does not count. So each of 2 x 2 cells
    has two neighbours, and so has each cell of a ring, which is a torus of height 1.

    >>> torus(3, 3)[1], torus(2, 2)[0], torus(5, 1)[0]
    ((7, 4, 2, 0), (2, 1), (1, 4))
    """

    def around(cell: int) -> tuple[int, ...]:
        row, column = divmod(cell, width)
        places = [(row - 1, column), (row + 1, column), (row, column + 1), (row, column - 1)]
        numbers = [r % height * width + c % width for r, c in places]
        return tuple(number for number in dict.fromkeys(numbers) if number != cell)

    return tuple(around(cell) for cell in range(width * height))


def graph_of(cells: Cells, name: str = "cells") -> Graph:
    """The graph that a user has given as `cells=` (or an argument of another `name`).

    >>> graph_of("2x2") == graph_of((2, 2)), graph_of({0: [1], 1: [2, 0], 2: [1]})
    (True, ((1,), (2, 0), (1,)))

    Raises OptionError for what is no graph, and for fewer than two cells.
    """
    given = cells
    if isinstance(cells, str):
        sides = re.fullmatch(r"\s*(\d+)\s*[xX]\s*(\d+)\s*", cells)
        if sides is None:
            raise OptionError(
                f"{name}={cells!r}; give width x height, as in '3x5', or '5x1' for a ring of five"
            )
        cells = int(sides[1]), int(sides[2])
    if isinstance(cells, Mapping):
        graph = _checked(cells)
    else:
        sizes = list(cells)
        if len(sizes) != 2 or not all(isinstance(one, Integral) and one >= 0 for one in sizes):
            raise OptionError(f"{name}={cells!r}; give a width and a height, as in (3, 5)")
        graph = torus(*map(int, sizes))
    if len(graph) < 2:
        raise OptionError(
            f"{name}={given!r} makes a population of {len(graph)}, in which nothing can coevolve; "
            "give two cells at least, as in '2x1'"
        )
    return graph


def _checked(cells: Mapping[int, Iterable[int]]) -> Graph:
    if sorted(cells) != list(range(len(cells))):
        raise OptionError(f"cells={dict(cells)!r}; number the cells from 0 on, without a gap")
    graph = []
    for cell in range(len(cells)):
        neighbours = tuple(dict.fromkeys(cells[cell]))
        strangers = [one for one in neighbours if one not in cells or one == cell]
        if strangers:
            raise OptionError(
                f"cells={dict(cells)!r}: cell {cell} cannot have the neighbour {strangers[0]!r}; "
                f"its neighbours are among the others of 0 to {len(cells) - 1}"
            )
        graph.append(neighbours)
    return tuple(graph)


def _check_own_arguments(train_fn: TrainFunction) -> None:
    for name in OWN_ARGUMENTS:
        if not isinstance(train_fn.space.parts.get(name, Constant(0)), Constant):
            raise OptionError(
                f"{name}= of {train_fn.__name__} is set by the scheduler and cannot be searched; "
                f"declare {name}=0, or give the parameter another name"
            )


@dataclass
class Cell:
    """One cell of the population: its line of trials so far.

    `finished`: its trials that have finished, one for each generation. `open`: its trial that has
    not ended. `launched`: its newest trial, -1 before the first. `failures`: how many of its trials
    have failed; `in_a_row`: how many since the last one that finished. `node`: where its newest
    trial has run.
    """

    number: int
    config: Mapping[str, Any] | None = None
    finished: list[int] = field(default_factory=list)
    open: int | None = None
    launched: int = -1
    in_a_row: int = 0
    failures: int = 0
    node: str = ""

    @property
    def generation(self) -> int:
        """How many generations the cell has finished."""
        return len(self.finished)

    @property
    def has_failed(self) -> bool:
        """Whether the cell was given up."""
        return self.in_a_row >= FAILURES_IN_A_ROW


class CoevolutionScheduler(Scheduler):
    """Lets a population of cells evolve together, each with its neighbours on a torus or a graph.

        @args(cell=0, generation=1)
        def train_fn(args, reporter):
            genomes = [reporter.load(parent) for parent in reporter.parents]
            own = next((one for one in genomes if one["cell"] == args.cell), None)
            ...                                      # a generation: select, train, replace
            reporter.save({"cell": args.cell, "genome": genome})
            reporter(generation=args.generation, loss=loss)

        with CoevolutionScheduler(train_fn, cells="3x3", generations=200, reward_attr="loss",
                                  mode="min") as scheduler:
            scheduler.run()
            scheduler.join_jobs()

    Each generation of a cell is a trial. Its parents are the newest finished generations of the
    cell (first) and of its neighbours (in the order of the graph), as far as there are any. It
    starts as soon as a slot is free, and waits for no neighbour. The train function must
    `reporter.save` once, before it reports. Where it has constants named `cell` and `generation` as
    arguments, these are the number of the cell and of its generation, which counts from 1.

    The searcher is asked for the configuration of each cell once. When it has no more
    configurations, further cells get those of the first cells.

    A free slot goes to the cell that is furthest behind; a cell that has run on the same node
    before may be one generation ahead of others. Processes are reused between generations
    (`isolation="reuse"`, unless you say otherwise), so that what the train function keeps in its
    module stays: data, models, a GPU's context.

    A generation that fails (it raises, its process dies too often, it reports NaN) is tried again
    from the cell's last finished generation. After three failures in a row the cell has failed: the
    other cells go on with the last generation that it has finished.

    Checkpoints are deleted as soon as nobody needs them: what stays are the newest generation of
    each cell, what a running trial reads, and the best. What a cell saves is sent to the nodes of
    its neighbours at once.

    Args (beside those of FIFOScheduler):
        cells: the torus, "WIDTHxHEIGHT" or (width, height) (a ring is "5x1"); or any graph: {cell:
            its neighbours}, with cells that count from 0.
        generations: how many generations each cell finishes; failed ones do not count.

    Raises OptionError for fewer than two cells, neighbours that are none of the cells, generations
    below 1, and a `cell` or `generation` of the train function that is to be searched.
    """

    def __init__(
        self,
        train_fn: TrainFunction,
        args: Mapping[str, Any] | Any | None = None,
        *more: Any,
        cells: Cells = "2x2",
        generations: int = 100,
        isolation: str = "reuse",
        **options: Any,
    ) -> None:
        if not isinstance(generations, Integral) or generations < 1:
            raise OptionError(f"generations={generations!r}; give a whole number from 1 on")
        self.graph: Graph = graph_of(cells)
        self.generations: int = int(generations)
        self.cells: list[Cell] = [Cell(number) for number in range(len(self.graph))]
        self._configs: list[Mapping[str, Any]] = []  # the searcher's, for the first cells
        self._no_more_configs: bool = False
        _check_own_arguments(with_args(train_fn, args))
        super().__init__(train_fn, args, *more, isolation=isolation, **options)

    @property
    def rule_settings(self) -> dict[str, Any]:
        """The graph and the number of generations."""
        cells = [list(neighbours) for neighbours in self.graph]
        return {"cells": cells, "generations": self.generations}

    @property
    def planned(self) -> int:
        """How many trials there will be: finished and failed generations, as far as cells go on."""
        return sum(
            cell.failures + (cell.generation if cell.has_failed else self.generations)
            for cell in self.cells
        )

    @property
    def _could_go_on_forever(self) -> bool:
        return False

    def run(self, num_trials: int | None = None, time_out: float | None = None) -> None:
        """Start the search, as with every scheduler; say so if cells have to take turns."""
        super().run(num_trials, time_out)
        slots = self.manager.room_for(self.experiment.settings.resource)
        if slots < len(self.cells):
            self.progress.say(f"{len(self.cells)} cells share {slots} slots: they take turns")

    # The rule

    def next_launch(self) -> Launch | Wait | None:
        """The next generation of the cell that is furthest behind."""
        return self.next_launch_on("")

    def next_launch_on(self, node: str) -> Launch | Wait | None:
        """The next generation of a cell, preferably of a cell that last ran on this node."""
        todo = [cell for cell in self.cells if self._has_more(cell)]
        idle = [cell for cell in todo if cell.open is None]
        if not idle:
            return Wait() if todo else None
        cell = min(idle, key=lambda cell: self._turn(cell, node))
        if cell.config is None:
            first = self._first_launch(cell)
            if not isinstance(first, Launch):
                return first
            launch = first
        else:
            launch = Launch(cell.config)
        trial_id = len(self.ledger.trials)
        self._launched(cell, trial_id)
        own = {"cell": cell.number, "generation": cell.generation + 1}
        constants = {name: own[name] for name in OWN_ARGUMENTS if name in self.train_fn.space.parts}
        return replace(
            launch,
            config={**launch.config, **constants},
            parents=self._parents_of(cell),
            bracket=cell.number,
        )

    def due_at(self, trial: Trial) -> None:
        """Never: no generation is ended early."""

    def on_end(self, trial: Trial) -> None:
        """A cell goes on from the generation that has finished, or from the one before."""
        super().on_end(trial)
        if trial.bracket is None:  # a trial of add_job or run_with_config
            return
        cell = self.cells[trial.bracket]
        cell.open, cell.node = None, trial.host
        if not trial.status.is_failure and trial.saved_step is not None:
            cell.finished.append(trial.id)
            cell.in_a_row = 0
        elif trial.status is not Status.STOPPED or trial.reason == NOTHING_LEFT:
            # (Other trials are stopped with the search, which may go on with them.)
            cell.in_a_row += 1
            cell.failures += 1
            self._tell_of_failure(cell, trial)

    def may_need(self, trial: Trial) -> bool:
        """Whether a trial is the newest finished generation of its cell."""
        if trial.bracket is None:
            return super().may_need(trial)
        return self._newest(self.cells[trial.bracket]) == trial.id

    @property
    def keeps_only_needed(self) -> bool:
        """Yes: of many generations only the newest are read again."""
        return True

    def read_on(self, trial: Trial) -> Iterable[str]:
        """The nodes of the cells to which the trial's cell is a neighbour."""
        if trial.bracket is None:
            return ()
        readers = [cell for cell in self.cells if trial.bracket in self.graph[cell.number]]
        trials = self.ledger.trials
        return {
            cell.node if cell.open is None else trials[cell.open].host or cell.node
            for cell in readers
        }

    def replay_launch(
        self, trial_id: int, config: Mapping[str, Any], given: bool, told: int | None = None
    ) -> None:
        """When a search is resumed: hear that the cell of this trial went on."""
        bracket = self.ledger.trials[trial_id].bracket
        if given or bracket is None:
            super().replay_launch(trial_id, config, given, told)
            return
        cell = self.cells[bracket]
        suggested = self.train_fn.space.constants_of(config)[1]
        if cell.config is None:
            if not self._no_more_configs and self.desk.replay(trial_id, suggested, told):
                self._configs.append(suggested)
            else:
                self._no_more_configs = True
            cell.config = suggested
        if dict(cell.config) != suggested or (
            self._no_more_configs and suggested not in self._configs
        ):
            raise StoreError(
                f"{self.folder} cannot be resumed: cell {bracket} no longer has the configuration "
                f"of trial {trial_id}; were the searcher's options or points_to_evaluate changed?"
            )
        self._launched(cell, trial_id)

    # Cells

    def _has_more(self, cell: Cell) -> bool:
        return not cell.has_failed and cell.generation < self.generations

    def _turn(self, cell: Cell, node: str) -> tuple[int, int, int]:
        """The turn of a cell, smallest first: one that last ran on `node` counts as one behind."""
        is_warm = bool(cell.finished) and cell.node == node
        return cell.generation - is_warm, cell.generation, cell.launched

    def _first_launch(self, cell: Cell) -> Launch | Wait | None:
        """The configuration of a cell; None if the searcher has never had one."""
        launch = None if self._no_more_configs else self.desk.next(len(self.ledger.trials))
        if launch is None:
            self._no_more_configs = True
            if self._configs:
                launch = Launch(self._configs[cell.number % len(self._configs)])
        elif isinstance(launch, Launch):
            self._configs.append(launch.config)
        if isinstance(launch, Launch):
            cell.config = launch.config
        return launch

    def _launched(self, cell: Cell, trial_id: int) -> None:
        cell.open = cell.launched = trial_id

    def _newest(self, cell: Cell) -> int | None:
        """The newest finished generation of a cell that still has its weights."""
        trials = self.ledger.trials
        with_weights = (
            one for one in reversed(cell.finished) if trials[one].saved_step is not None
        )
        return next(with_weights, None)

    def _parents_of(self, cell: Cell) -> tuple[int, ...]:
        family = [cell, *(self.cells[one] for one in self.graph[cell.number])]
        newest = [self._newest(one) for one in family]
        return tuple(one for one in newest if one is not None)

    def _tell_of_failure(self, cell: Cell, trial: Trial) -> None:
        if not self.experiment.is_searching:  # (an earlier run has told, or the search ends)
            return
        newest = f"generation {cell.generation}" if cell.generation else "new random weights"
        why = trial.reason.partition("\n")[0][:200] or "without a checkpoint"
        what = f"cell {cell.number}: generation {cell.generation + 1} {trial.status.value}: {why}"
        if cell.has_failed:
            then = f"the last of {cell.in_a_row} in a row: the others go on with its {newest}"
        else:
            then = f"it goes on from {newest} ({cell.in_a_row} of {FAILURES_IN_A_ROW} in a row)"
        self.progress.say(f"{what}; {then}")
