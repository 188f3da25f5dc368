"""What a search has found so far: the best trial, configurations, histories, curves.

All of it comes from the ledger and the folder of the search, so that a scheduler, and a record that
is opened later (see `record.py`), answer the same.
"""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import DistsearchError, NothingReported, OptionError
from . import checkpoint, curves, dataframe, lineage, notebook, pareto, pedigree, store, summary
from .ledger import Ledger
from .lineage import Descent
from .pareto import FrontPoint
from .phrases import counted
from .storage import Shelf
from .story import Story
from .words import Status, Trial

if TYPE_CHECKING:
    import pandas


class Results:
    """What can be read of a search, while its trials run and afterwards.

        results = Results(Ledger.of(folder), folder, searched)
        results.get_best_config(), results.training_history

    `ledger`: how the search stands. `folder`: that of the experiment, which has its log and its
    trials. `searched`: what is searched, as an `experiment` event of the log describes it.
    """

    def __init__(self, ledger: Ledger, folder: Path, searched: Mapping[str, Any]) -> None:
        self.ledger = ledger
        self.folder = folder
        self.searched = searched
        self._story: Story | None = None

    @property
    def story(self) -> Story:
        """What has happened in the search so far, from its log: `distsearch.plots` draws it.

        The first call reads the whole log, later calls read what has happened since.
        """
        self._flush()
        if self._story is None:
            self._story = Story.of(self.folder)
        else:
            self._story.catch_up()
        return self._story

    def _flush(self) -> None:
        """Write what waits to be written to the log, before it is read; schedulers do so."""

    def _repr_html_(self) -> str:
        """What a notebook shows: what is searched and how the search stands, with the curves."""
        told = summary.as_html(summary.pairs(self.ledger, self.searched, self.folder))
        png = self.curves_as_png()
        return told if png is None else told + notebook.as_html(png)

    def curves_as_png(self) -> bytes | None:
        """The picture of all training curves, as a PNG; None while no trial has reported."""
        if not self.story.curves:
            return None
        return notebook.png_of(lambda figure: self.paint_curves(figure.add_subplot()), curves.SIZE)

    def paint_curves(self, axes: Any, reward_attr: str | None = None) -> None:
        """Draw all training curves into axes of matplotlib's, the best one highlighted.

        Of several objectives `reward_attr` names the one to show, by default the first.
        """
        number = self._number_of(reward_attr)
        lines = self.story.lines(number)
        curves.paint(axes, lines, use_legend=True, **self._look(number, len(lines)))

    def _number_of(self, reward_attr: str | None) -> int:
        names = self.ledger.objectives.names
        if reward_attr is not None and reward_attr not in names:
            raise OptionError(f"reward_attr={reward_attr!r}, but it is one of {', '.join(names)}")
        return 0 if reward_attr is None else names.index(reward_attr)

    def _look(self, number: int, count: int) -> dict[str, Any]:
        """How the curves of an objective are drawn."""
        trials, best = self.trials, self.ledger.best
        return {
            "best": None if best is None else best.id,
            "stopped": {trial.id for trial in trials if trial.status is Status.STOPPED},
            "failed": {trial.id for trial in trials if trial.status.is_failure},
            "reward_attr": self.ledger.objectives.names[number],
            "time_attr": self.ledger.time_attr,
            "mode": self.ledger.objectives.modes[number],
            "title": f"{self.searched['function']}: {counted(count)}",
        }

    @property
    def _copies(self) -> Path:
        """The folder for copies of checkpoints that a storage has, with a folder for each trial."""
        return self.folder / "trials"

    def get_best_config(self) -> dict[str, Any]:
        """The configuration of the best trial so far: plain values, by parameter.

        With constraints it is the best of the trials that meet them. Raises NothingReported while
        there is none. With several objectives no trial is the best: this, `get_best_reward` and
        `get_best_task_id` raise DistsearchError then; see `get_pareto_front`.
        """
        return dict(self._best.config)

    def get_best_reward(self) -> float:
        """The best reward so far, in the user's own sign."""
        reward = self._best.best_reward
        assert reward is not None
        return reward

    def get_best_task_id(self) -> int:
        """The id of the best trial so far."""
        return self._best.id

    def load_checkpoint(self, task_id: int | None = None) -> Any:
        """The newest checkpoint of a trial, by default the best one, as `reporter.load()` gives it.

            model.load_state_dict(scheduler.load_checkpoint())
            booster = xgboost.Booster(model_file=scheduler.load_checkpoint())   # a saved file

        None when the trial has saved nothing. A damaged checkpoint is passed over with a warning.
        Raises CheckpointError when the storage cannot be read, NothingReported where no trial has
        this id.
        """
        if task_id is not None and task_id not in self.ledger.trials:
            raise NothingReported(
                f"there is no trial {task_id!r}; there are {len(self.ledger.trials)}, from 0 on"
            )
        trial = self._best.id if task_id is None else int(task_id)
        url = self.searched["storage"]
        if url is None:
            return checkpoint.load(self.folder / "trials" / str(trial) / "checkpoints")
        shelf = Shelf(url, "", self._copies, trial, 0, self._saved_names(trial)[::-1])
        shelf.leave_out_deleted()
        return shelf.load()

    def _saved_names(self, trial: int) -> list[str]:
        """The checkpoints of a trial that the log does not call deleted, the oldest first."""
        self._flush()
        names: dict[str, None] = {}
        for event in store.read(self.folder, "saved", "deleted", trial=trial):
            names.pop(event.body["name"], None)
            if event.kind == "saved":
                names[event.body["name"]] = None
        return list(names)

    def get_pareto_front(self) -> list[FrontPoint]:
        """The trials that no other dominates so far: better in one objective, worse in none.

            for task_id, config, values in scheduler.get_pareto_front():
                print(task_id, values["accuracy"], values["latency"])

        They come by the first objective, the best first; of trials with equal values only the
        earliest is in the front. The values of a trial are those of its last report in which all
        objectives, and the metrics of all constraints, are finite numbers. A trial has to meet the
        constraints; failed trials are left out. With one objective the front is the best trial.

        Raises NothingReported when no trial counts, and says why.
        """
        names = self.ledger.objectives.names
        if not self.ledger.objectives.several:
            best = self._best
            return [FrontPoint(best.id, dict(best.config), {names[0]: self.get_best_reward()})]
        front = self.ledger.front
        if not front:
            raise self._nothing_found()
        return [
            FrontPoint(
                trial.id, dict(trial.config), dict(zip(names, trial.point.values, strict=True))
            )
            for trial in front
            if trial.point is not None
        ]

    def draw_pareto_front(
        self, filename: str | os.PathLike[str] | None = None, plot: bool = False
    ) -> None:
        """Draw all trials by their objectives, those of the Pareto front with their task ids.

        `filename` saves a picture (its ending says which kind), `plot` shows one. Three objectives
        and more are drawn in pairs. Raises OptionError when there is only one.
        """
        names = self.ledger.objectives.names
        if not self.ledger.objectives.several:
            raise OptionError(
                f"there is one objective, {names[0]!r}: see get_training_curves(filename=...), or "
                "give several as reward_attr"
            )
        trials = self._own_trials
        points = {trial.id: trial.point for trial in trials if trial.point is not None}
        pareto.draw(
            points,
            front=[trial.id for trial in self.ledger.front],
            failed={trial.id for trial in trials if trial.status.is_failure},
            objectives=self.ledger.objectives,
            title=f"{self.searched['function']}: {counted(len(points))}",
            filename=filename,
            plot=plot,
        )

    def lineage(self) -> dict[int, Descent]:
        """Who descends from whom: {task id: its parents, generation, status, reward, config}.

            scheduler.lineage()[7].parents      # (3,)

        Trials without parents are in it too, as generation 0. `inherited` says whose weights stood
        in for those of a lost parent. The view `lineage` of the log has the same.
        """
        return lineage.descents({trial.id: trial for trial in self._own_trials})

    def draw_lineage(
        self, filename: str | os.PathLike[str] | None = None, plot: bool = False
    ) -> None:
        """Draw who descends from whom, from left to right by generation, coloured by reward.

        The line that leads to the best trial stands out. `filename` saves a picture (its ending
        says which kind), `plot` shows one.
        """
        best = None if self.ledger.objectives.several else self.ledger.best
        pedigree.draw(
            self.lineage(),
            best=None if best is None else best.id,
            reward_attr=self.ledger.objectives.names[0],
            mode=self.ledger.objectives.modes[0],
            title=f"{self.searched['function']}: the lineage of {counted(len(self._own_trials))}",
            filename=filename,
            plot=plot,
        )

    @property
    def _best(self) -> Trial:
        if self.ledger.objectives.several:
            names = ", ".join(self.ledger.objectives.names)
            raise DistsearchError(
                f"with several objectives ({names}) no trial is the best: choose one of "
                "get_pareto_front()"
            )
        best = self.ledger.best
        if best is None:
            raise self._nothing_found()
        return best

    def _nothing_found(self) -> NothingReported:
        """Why no trial is the best, or in the front."""
        attr = " with ".join(map(repr, self.ledger.objectives.metrics))
        reported = [trial for trial in self.trials if trial.point is not None]
        beyond = [trial for trial in reported if trial.point and not trial.point.is_feasible]
        if beyond:
            least = min(beyond, key=lambda trial: trial.point.violation if trial.point else 0)
            assert least.point is not None
            return NothingReported(
                f"no trial is feasible: {len(beyond)} have reported and violate "
                f"{self.ledger.objectives.limits}; the closest, trial {least.id}, by "
                f"{least.point.violation:.4g}"
            )
        failed = "".join(f"; {counted(count)} {reason}" for count, reason in self.ledger.failures)
        return NothingReported(f"no trial has reported {attr} yet{failed}")

    @property
    def training_history(self) -> dict[int, list[dict[str, Any]]]:
        """{task id: its reports in order}, each a dict of the metrics.

        Final trials, those of `run_with_config`, are left out: their reports are in the log alone.
        """
        self._flush()
        trials = self.ledger.trials
        reports = (
            event
            for event in store.read(self.folder, "report")
            if event.trial not in trials or not trials[event.trial].is_final
        )
        return curves.history(reports, self.ledger.time_attr)

    @property
    def config_history(self) -> dict[int, dict[str, Any]]:
        """{task id: its configuration}, of the trials of the search."""
        return {trial.id: dict(trial.config) for trial in self._own_trials}

    @property
    def trials(self) -> list[Trial]:
        """Every trial with its status, reason, traceback and reward.

        Trials of `run_with_config` are among them (`is_final`), as in no other result.
        """
        return list(self.ledger.trials.values())

    @property
    def _own_trials(self) -> list[Trial]:
        return [trial for trial in self.trials if not trial.is_final]

    @property
    def num_finished_tasks(self) -> int:
        """How many trials of the search have ended, in whatever way."""
        counts = self.ledger.counts
        return counts.done + counts.stopped + counts.failed

    @property
    def metadata(self) -> dict[str, Any]:
        """What was searched, and how it stands."""
        searched, best = self.searched, self.ledger.best
        return {
            "train_fn": searched["function"],
            "search_space": searched["space"],
            "search_strategy": searched["searcher"],
            "scheduler": searched["scheduler"],
            "seed": searched["seed"],
            **self.ledger.objectives.described,
            "time_attr": self.ledger.time_attr,
            "folder": str(self.folder),
            "num_trials": self.ledger.counts.launched,
            "num_finished_tasks": self.num_finished_tasks,
            "best_reward": None if best is None else best.best_reward,
            "best_config": None if best is None else dict(best.config),
            "best_task_id": None if best is None else best.id,
            "pareto_front": [trial.id for trial in self.ledger.front],
        }

    def dataframe(self) -> pandas.DataFrame:
        """A pandas DataFrame with a row for each trial: its parameters, and what became of it.

            scheduler.dataframe().nlargest(5, "best")[["lr", "best", "seconds"]]

        Columns: `id`; one for each parameter, empty where it was not active; `status`, `attempt`
        (how many there were), `host`; `best`, or with several objectives a column for each of them,
        by its name; with constraints `feasible`; `best_time` (when the best was reported, in
        `time_attr`), `seconds` (what the last attempt took), `reason`, `parents` (a tuple of ids),
        and `is_final` (whether it is a trial of `run_with_config`). What is not known is missing:
        NaN, NA or None. A parameter with the name of another column is `config.NAME`.

        Raises MissingPackage when pandas is not installed.
        """
        return dataframe.of(self.trials, self.ledger.objectives)

    def get_training_curves(
        self,
        filename: str | os.PathLike[str] | None = None,
        plot: bool = False,
        use_legend: bool = True,
        *,
        reward_attr: str | None = None,
    ) -> dict[int, list[tuple[float, float]]]:
        """The learning curves, {task id: [(time, reward), ...]}; draws them if asked.

        `filename` saves a picture (its ending says which kind), `plot` shows one. Of several
        objectives `reward_attr` names the one to show, by default the first.
        """
        number = self._number_of(reward_attr)
        data = curves.curves(
            self.training_history,
            reward_attr=self.ledger.objectives.names[number],
            time_attr=self.ledger.time_attr,
        )
        if filename is not None or plot:
            look = self._look(number, len(data))
            curves.draw(data, use_legend=use_legend, filename=filename, plot=plot, **look)
        return data
