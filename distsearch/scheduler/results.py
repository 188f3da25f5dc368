"""What a search has found so far: the best trial, configurations, histories, curves."""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from ..core import curves, store
from ..core.decorators import TrainFunction
from ..core.experiment import Experiment
from ..core.loop import loop
from ..core.words import Trial
from ..errors import NothingReported
from ..searcher import Searcher


class Results:
    """The part of every scheduler that only reads, while trials run and after `close()`."""

    train_fn: TrainFunction
    searcher: Searcher
    experiment: Experiment
    folder: Path
    seed: int
    _store: store.Store
    _start_time: float
    _closed: bool
    _pid: int

    def get_best_config(self) -> dict[str, Any]:
        """The configuration of the best trial so far: plain values, by parameter."""
        return dict(self._best.config)

    def get_best_reward(self) -> float:
        """The best reward so far, in the user's own sign."""
        reward = self._best.best_reward
        assert reward is not None
        return reward

    def get_best_task_id(self) -> int:
        """The id of the best trial so far."""
        return self._best.id

    @property
    def _best(self) -> Trial:
        best = self.experiment.best
        if best is None:
            attr = self.experiment.settings.reward_attr
            failed = "".join(
                f"; {count} trials {first.status.value}: {first.reason}"
                for count, first in self.experiment.failures
            )
            raise NothingReported(f"no trial has reported {attr!r} yet{failed}")
        return best

    @property
    def training_history(self) -> dict[int, list[dict[str, Any]]]:
        """{task id: its reports in order}, each a dict of the metrics."""
        self._flush()
        return self._read_history()

    def _read_history(self) -> dict[int, list[dict[str, Any]]]:
        return curves.history(store.read(self.folder, "report"), self.experiment.settings.time_attr)

    @property
    def config_history(self) -> dict[int, dict[str, Any]]:
        """{task id: its configuration}."""
        trials = list(self.experiment.trials.values())
        return {trial.id: dict(trial.config) for trial in trials}

    @property
    def trials(self) -> list[Trial]:
        """Every trial with its status, reason, traceback and reward."""
        return list(self.experiment.trials.values())

    @property
    def num_finished_tasks(self) -> int:
        """How many trials have ended, in whatever way."""
        counts = self.experiment.counts
        return counts.done + counts.stopped + counts.failed

    @property
    def metadata(self) -> dict[str, Any]:
        """What was searched, and how it stands."""
        settings = self.experiment.settings
        best = self.experiment.best
        return {
            "train_fn": self.train_fn.__name__,
            "search_space": self.train_fn.space.describe(),
            "search_strategy": type(self.searcher).__name__,
            "scheduler": type(self).__name__,
            "seed": self.seed,
            "reward_attr": settings.reward_attr,
            "mode": settings.mode,
            "time_attr": settings.time_attr,
            "num_cpus": settings.resource.num_cpus,
            "num_gpus": settings.resource.num_gpus,
            "folder": str(self.folder),
            "start_time": self._start_time,
            "num_trials": len(self.experiment.trials),
            "num_finished_tasks": self.num_finished_tasks,
            "best_reward": None if best is None else best.best_reward,
            "best_config": None if best is None else dict(best.config),
            "best_task_id": None if best is None else best.id,
        }

    def get_training_curves(
        self, filename: str | None = None, plot: bool = False, use_legend: bool = True
    ) -> dict[int, list[tuple[float, float]]]:
        """The learning curves, {task id: [(time, reward), ...]}; draws them if asked.

        `filename` saves a picture (its ending says which kind), `plot` shows one.
        """
        settings = self.experiment.settings
        data = curves.curves(
            self.training_history, reward_attr=settings.reward_attr, time_attr=settings.time_attr
        )
        if filename is not None or plot:
            trials = self.trials
            best = self.experiment.best
            curves.draw(
                data,
                best=None if best is None else best.id,
                stopped={t.id for t in trials if t.status.value == "stopped"},
                failed={t.id for t in trials if t.status.is_failure},
                reward_attr=settings.reward_attr,
                time_attr=settings.time_attr,
                mode=settings.mode,
                title=f"{self.train_fn.__name__}: {len(data)} trials",
                use_legend=use_legend,
                filename=filename,
                plot=plot,
            )
        return data

    def _flush(self) -> None:
        if not self._closed and self._pid == os.getpid():
            loop().call(self._store.flush())
