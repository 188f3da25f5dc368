"""Runs of trials that train networks, in a folder: what the driver does before and after.

The driver loads neither torch nor images. The same call with the same folder goes on with what is
there.
"""

from __future__ import annotations

import os
import tempfile
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from pathlib import Path
from typing import Any

from ..core.decorators import TrainFunction
from ..core.words import Continue, Decision, Report, Status, Trial
from ..errors import OptionError, TrialFailed
from ..resource.addresses import Addresses
from ..resource.node import Node
from ..resource.private import replace
from ..scheduler import FIFOScheduler
from ..space import Choice
from .checks import check_number
from .drawing import draw
from .folders import check_folder, check_torch
from .genotype import Genotype, of_text, parse

CURVES, CELLS = "curves.png", "cells.png"


@dataclass(frozen=True)
class Machines:
    """Where trials run: so many ranks each, of so many CPUs and GPUs, on these nodes.

        Machines(ranks=4, gpus=1, nodes=("gpu1", "me@gpu2"), ranks_per_node=2)

    `ranks_per_node`: so many on each of a trial's nodes, None for wherever there is room. `local`:
    whether this machine is a node too.
    """

    ranks: int = 1
    ranks_per_node: int | None = None
    cpus: int = 1
    gpus: float = 0
    nodes: Addresses = ()
    local: bool | Node = True

    def __post_init__(self) -> None:
        check_number("ranks", self.ranks, int, least=1)
        check_number("cpus", self.cpus, int, least=1)
        check_number("gpus", self.gpus, float, least=0)
        if not (self.nodes or self.local):
            raise OptionError("local=False, and no nodes: name some, or let this machine be one")
        if self.ranks > 1 and self.gpus not in (0, 1):
            raise OptionError(f"gpus={self.gpus!r}; each of several ranks needs a GPU of its own")

    @property
    def resource(self) -> dict[str, Any]:
        """The resource that one trial asks for."""
        return {
            "num_cpus": self.cpus,
            "num_gpus": self.gpus,
            "world_size": self.ranks,
            "ranks_per_node": self.ranks_per_node,
        }


class EpochsScheduler(FIFOScheduler):
    """A FIFOScheduler that says a line for each epoch: `epoch 3/12: loss 0.486, accuracy 0.214`.

    The constant `epochs` of the train function says how many there will be.
    """

    def __init__(self, *args: Any, **options: Any) -> None:
        self._told: dict[int, float] = {}
        self._says = False  # (what an earlier run has reported is not said again)
        super().__init__(*args, **options)
        self.progress.says_milestones = False
        self._says = True

    def due_at(self, trial: Trial) -> None:
        """Say that this rule decides at no report."""
        return

    def on_report(self, trial: Trial, report: Report) -> Decision:
        """Say the epoch, once, though a trial that was interrupted may report it again."""
        if report.time > self._told.get(trial.id, 0):
            self._told[trial.id] = report.time
            if self._says:
                self.progress.say(self._line(trial, report))
        return Continue()

    def _line(self, trial: Trial, report: Report) -> str:
        whose = f"task {trial.id}: " if (self.num_trials or 1) > 1 else ""
        shown = ("loss", "accuracy", "top5", "test_accuracy")
        values = [
            f"{name.replace('_', ' ')} {report.metrics[name]:.4f}"
            for name in shown
            if isinstance(report.metrics.get(name), float)
        ]
        return f"{whose}epoch {report.time:g}/{self.train_fn.args.epochs}: {', '.join(values)}"


@dataclass(frozen=True)
class Found:
    """What a run has found: the best trial, its last report, and where everything is."""

    folder: Path
    trial: int
    report: Mapping[str, Any]
    genotype: Genotype

    @property
    def accuracy(self) -> float:
        """The accuracy of the best trial's last epoch."""
        return float(self.report["accuracy"])


def run(
    train_fn: TrainFunction,
    out: str | os.PathLike[str],
    arguments: Mapping[str, Any],
    machines: Machines,
    *,
    seeds: Sequence[int],
    verbose: int,
) -> Found:
    """Run a trial for each seed, then write the genotype of the best and the pictures into `out`.

    `arguments`: of the train function, without the seed.

    Raises TrialFailed when no trial has come to its end, and what FIFOScheduler raises.
    """
    if not seeds or len({*seeds}) < len(seeds):
        raise OptionError(f"seeds={list(seeds)!r}; give one or more, each once")
    check_torch(is_here=bool(machines.local))
    check_folder(out, train_fn, arguments, len(seeds))
    with EpochsScheduler(
        train_fn,
        args={**arguments, "seed": Choice(*seeds) if len(seeds) > 1 else seeds[0]},
        searcher="grid",
        resource=machines.resource,
        checkpoint=out,
        num_trials=len(seeds),
        dist_ip_addrs=machines.nodes,
        local=machines.local,
        verbose=verbose,
    ) as scheduler:
        scheduler.run()
        scheduler.join_jobs()
        found = _best(scheduler, arguments)
        found.genotype.save(scheduler.folder)
        _draw_into(scheduler.folder / CURVES, scheduler.get_training_curves)
        _draw_into(scheduler.folder / CELLS, partial(draw, found.genotype))
    return found


def _draw_into(path: Path, draw: Callable[[Path], object]) -> None:
    """Put a picture into a search's folder: private, and through no link."""
    with tempfile.TemporaryDirectory(prefix="distsearch-") as folder:
        drawn = Path(folder) / path.name
        draw(drawn)
        replace(path, drawn.read_bytes())


def _best(scheduler: FIFOScheduler, arguments: Mapping[str, Any]) -> Found:
    """The trial with the best accuracy in its last epoch."""
    ended = [trial for trial in scheduler.trials if trial.status is Status.FINISHED]
    if not ended:
        trial = scheduler.trials[0]
        raise TrialFailed(f"trial {trial.id} {trial.status.value}: {trial.reason}")
    reports = {trial.id: scheduler.training_history[trial.id][-1] for trial in ended}
    best = max(reports, key=lambda trial: (reports[trial]["accuracy"], -trial))
    found = reports[best].get("genotype")
    genotype = of_text(arguments["genotype"]) if found is None else parse(found, "the last report")
    return Found(scheduler.folder, best, reports[best], genotype)
