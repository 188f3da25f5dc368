"""How a search is described, kept and gone on with: from its log, or from a copy of it."""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from ..core import description, reach, store
from ..core.decorators import TrainFunction
from ..core.experiment import Experiment
from ..core.loop import loop
from ..core.objectives import Objectives
from ..core.phrases import called, counted
from ..core.progress import Progress
from ..core.results import Results
from ..errors import DistsearchError, StoreError
from ..resource.private import private
from ..searcher import Searcher, warm
from ..searcher.desk import Desk
from ..space.privacy import command_without_secrets
from . import interrupts


class Resumable(Results):
    """The part of every scheduler that says what it searches for, and takes up an earlier run.

    Its results can be read while trials run and after `close()`.
    """

    train_fn: TrainFunction
    objectives: Objectives
    searcher: Searcher
    desk: Desk
    experiment: Experiment
    progress: Progress
    seed: int
    _store: store.Store
    _start_time: float
    _is_named: bool  # whether the user has named the folder
    _closed: bool
    pid: int  # the process that made the scheduler

    def state_dict(self) -> dict[str, Any]:
        """The search so far as plain data: its settings, configurations, reports and ends."""
        self._flush()
        return {
            "version": store.VERSION,
            "searched": self.searched,
            "events": [list(event) for event in store.read(self.folder)],
        }

    def load_state_dict(self, state: Mapping[str, Any]) -> None:
        """Go on with a search whose `state_dict()` was kept; to be called before the first `run()`.

        Raises StoreError when that search was for something else, and shows the difference.
        """
        self._check_open()
        if self.trials:
            raise StoreError("load_state_dict comes before run(): this search has trials already")
        try:
            searched = dict(state["searched"])
            store.check_version(state.get("version", 1), "this state")
            missing = self.searched.keys() - searched.keys() - description.LATER
            if missing:
                raise KeyError(*missing)
            events = [store.Event(*event) for event in state["events"]]
        except (KeyError, TypeError) as error:
            raise StoreError(f"this is not what state_dict() gave: {error!r}") from error

        def load() -> None:
            self.seed = self.searcher.seed = searched["seed"]
            self._restore(searched, events)
            self.searched = self._describe()
            self.experiment.log("experiment", body=self.searched)
            for event in events:
                if event.trial is not None or event.kind == "warm":
                    self._store.append(*event[2:])

        loop().run(load)

    def save(self, checkpoint: str | os.PathLike[str] | None = None) -> Path:
        """Write `state_dict()` as JSON; by default into the experiment's folder. Returns the path.

        The log itself is always up to date: this is for a copy that goes elsewhere. No other user
        can read the file.
        """
        path = self.folder / "state.json" if checkpoint is None else Path(checkpoint)
        path = path.expanduser().absolute()
        path.parent.mkdir(parents=True, exist_ok=True)
        target = path if checkpoint is None else path.resolve()  # (a link here is the user's own)
        with open(target, "w", encoding="utf-8", opener=private) as file:
            file.write(json.dumps(self.state_dict()))
        return path

    @property
    def rule_settings(self) -> dict[str, Any]:
        """The settings of the rule, as JSON: a search goes on only with the same ones."""
        return {}

    @property
    def metadata(self) -> dict[str, Any]:
        """What was searched, what each trial gets, and how the search stands."""
        resource = self.experiment.settings.resource
        return {
            **super().metadata,
            "num_cpus": resource.num_cpus,
            "num_gpus": resource.num_gpus,
            "start_time": self._start_time,
        }

    def _describe(self) -> dict[str, Any]:
        """What is searched, for the log."""
        settings = self.experiment.settings
        return description.describe(
            function=self.train_fn.__name__,
            space=self.train_fn.space,
            searcher=self.desk.described,
            scheduler=type(self).__name__,
            seed=self.seed,
            objectives=self.objectives,
            time_attr=settings.time_attr,
            rule=self.rule_settings,
            storage=None if settings.storage is None else settings.storage.url,
            code=reach.fingerprint(self.train_fn),
            started=description.command(interrupts.is_interactive(), self._is_named),
        )

    def _warm_start(self, known: warm.Known) -> None:
        """Tell the searcher what is known before the search, and keep it in the log."""
        for line in known.left_out:
            self.progress.say(line)
        if known.points:
            loop().run(lambda: self.experiment.log("warm", body={"points": known.points}))
            self.desk.tell_known(known.points)

    def _take_up(self, earlier: Mapping[str, Any], known: warm.Known) -> None:
        """Go on with the earlier run that the folder's log holds, and say so."""
        self._restore(earlier, store.read(self.folder))
        told = [
            point for event in store.read(self.folder, "warm") for point in event.body["points"]
        ]
        if known.points and json.loads(json.dumps(known.points)) != told:
            self.progress.say(
                "evaluated_points and warm_start are not used: this search goes on with the "
                f"{len(told)} points that it was told when it began"
            )
        paused = self.ledger.counts.paused
        ended, total = self.num_finished_tasks, self.ledger.counts.launched
        also = f", {paused} are paused" if paused else ""
        self.progress.say(
            f"going on with {self.folder}: of {counted(total)} {ended} have ended{also}, "
            f"{total - ended - paused} run again; {called('resume=False')} would start anew"
        )

    def _restore(self, earlier: Mapping[str, Any], events: Iterable[store.Event]) -> None:
        """Go on with an earlier run; raises StoreError if it searched for something else."""
        changes = description.changes(earlier, self.searched)
        if changes:
            raise StoreError(
                f"{self.folder} holds a different search, which this one cannot go on with:\n  "
                + "\n  ".join(changes)
                + f"\nUndo these changes, or choose another {called('checkpoint=')}"
            )
        for line in description.notices(earlier, self.searched):
            self.progress.say(line)
        self.experiment.restore(events)

    def _how_to_go_on(self) -> str:
        if interrupts.is_interactive():
            named = "" if self._is_named else f", with checkpoint={str(self.folder)!r}"
            return f"to go on with this search, run again what made its scheduler{named}"
        command = command_without_secrets(sys.orig_argv)
        if self._is_named:
            return f"the same command goes on with this search: {command}"
        named = f"{called('checkpoint=')}{str(self.folder)!r}"
        return f"to go on with this search, give it {named} in: {command}"

    def _flush(self) -> None:
        if not self._closed and self.pid == os.getpid():
            loop().call(self._store.flush())

    def _check_open(self) -> None:
        if self.pid != os.getpid():
            raise DistsearchError(
                f"this scheduler belongs to process {self.pid}, from which this one was forked; "
                "use it there, or make another one here"
            )
        if self._closed:
            raise DistsearchError("this scheduler is closed; its results can still be read")
