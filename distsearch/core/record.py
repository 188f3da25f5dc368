"""The record of a search: its results, read from its folder alone, by any process.

    record = open("runs/digits")        # as distsearch.open
    record.best.config, record.get_training_curves("curves.png")
    record.refresh()                    # what has happened since

The search may be running, here or in another process, or have ended long ago. Its folder is only
read, and its train function is not needed.
"""

from __future__ import annotations

import atexit
import functools
import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

from ..errors import NoExperiment, StoreError
from . import store, summary
from .ledger import Ledger
from .phrases import counted
from .results import Results
from .words import Trial

LISTED = 10  # an error names at most so many experiments
INSIDE = "search"  # where a coevolution has its experiment, within the folder that users name


def open(folder: str | os.PathLike[str]) -> SearchRecord:
    """The results of the search in a folder, which may be running; from any process.

        record = distsearch.open("distsearch_results/train_fn-20260101-120000-1a2b")
        print(record)
        record.best.config, record.best.best_reward
        record.dataframe()
        while record.refresh():     # something has happened since
            ...

    `folder`: that of the experiment, as `checkpoint=` named it or `scheduler.folder` says, or of a
    run of GANs, whose experiment lies in it; `~` is the home. Nothing there is locked or changed. A
    trial that ran when its driver was killed is `running` in the record, until the search goes on.

    Raises StoreError when the folder holds no search, and names those right below it, and when its
    log is not as it was written; StoreVersion when another version of distsearch wrote it.
    """
    return SearchRecord(place_of(folder))


def place_of(folder: str | os.PathLike[str]) -> Path:
    """Where the search of a folder lies: in the folder itself, or, of a coevolution, right below.

    place_of("runs/gan")        # .../runs/gan/search
    """
    given = Path(folder).expanduser().absolute()
    inside = given / INSIDE
    is_outer = not (given / store.FILE).is_file() and (inside / store.FILE).is_file()
    return inside if is_outer else given


class SearchRecord(Results):
    """What a folder tells of its search; see `distsearch.open`.

    It shows how the search stood when the record was opened, or at the last `refresh()`; histories,
    curves and checkpoints are always the newest.
    """

    def __init__(self, folder: Path) -> None:
        if (folder / store.FILE).is_file():
            store.verify(folder)
        self._first = first_of(folder)
        super().__init__(Ledger.described(self._first.body), folder, self._first.body)
        self._start_time = self._first.time
        self._until = self._first.time
        self._worked_before_s = 0.0  # seconds of earlier runs of the driver
        self.refresh()

    def refresh(self) -> bool:
        """Take in what has happened since the last call; False if nothing has.

        Raises StoreError when the folder has another search now, or none.
        """
        if first_of(self.folder) != self._first:
            raise StoreError(
                f"the search in {self.folder} was started anew (resume=False), so this record "
                "ends; open the folder again to follow the new one"
            )
        before = self.ledger.last_id
        for event in store.read(self.folder, after=before):
            if event.kind == "experiment":  # each run of the driver begins with one
                self._worked_before_s = self.worked_s
                self.searched, self._start_time = event.body, event.time
            self._until = event.time
            self.ledger.apply(event)
        return self.ledger.last_id > before

    @property
    def best(self) -> Trial:
        """The best trial so far: `record.best.config`, `record.best.best_reward`.

        Raises NothingReported while there is none, and says why; DistsearchError for several
        objectives: see `get_pareto_front`.
        """
        return self._best

    @property
    def metadata(self) -> dict[str, Any]:
        """What was searched, when its last run began (in Unix seconds), and how it stands."""
        return {**super().metadata, "start_time": self._start_time}

    @property
    def worked_s(self) -> float:
        """For how many seconds the search has run, all runs of the driver together."""
        return self._worked_before_s + max(0.0, self._until - self._start_time)

    @functools.cached_property
    def _copies(self) -> Path:
        """A temporary folder of this process, as the folder of the search is only read."""
        folder = Path(tempfile.mkdtemp(prefix="distsearch-"))
        atexit.register(shutil.rmtree, folder, ignore_errors=True)
        return folder

    @property
    def in_words(self) -> str:
        """How the search stands: how many trials there are, how they ended, which is the best."""
        ledger = self.ledger
        each = summary.counts_of(ledger)
        about = counted(ledger.counts.launched) + (f" ({each})" if each else "")
        if ledger.counts.final:
            about += f", {ledger.counts.final} by run_with_config"
        if ledger.objectives.several:
            about += f", {len(ledger.front)} in the Pareto front"
        elif ledger.best is not None:
            name = ledger.objectives.names[0]
            about += f", the best {name}={ledger.best.best_reward:.6g} by trial {ledger.best.id}"
        return about

    def __repr__(self) -> str:
        """What was searched, in which folder, and how the search stands, in one line."""
        return f"<SearchRecord of {self.searched['function']} in {self.folder}: {self.in_words}>"


def first_of(folder: Path) -> store.Event:
    """The event with which a search begins. Raises StoreError when the folder has none."""
    if not (folder / store.FILE).is_file():  # (SQLite would make an empty file)
        raise NoExperiment(_no_log(folder))
    first = next(store.read(folder, "experiment"), None)
    if first is None:
        raise StoreError(_nothing_yet(folder))
    return first


def _nothing_yet(folder: Path) -> str:
    return (
        f"the log {folder / store.FILE} does not say yet what is searched: the search has only "
        "just begun (try again in a moment), or was killed before it did"
    )


def _no_log(folder: Path) -> str:
    """Why there is nothing to open, and what could be opened instead."""
    if folder.is_file():
        return f"{folder} is a file; give the folder of an experiment, which holds {store.FILE}"
    if not folder.is_dir():
        return f"there is no folder {folder}; give that of an experiment (scheduler.folder)"
    text = f"{folder} holds no experiment: there is no {store.FILE} in it"
    below = sorted(path.parent.name for path in folder.glob(f"*/{store.FILE}"))
    if not below:
        return f"{text}, nor in the folders right below it"
    more = f" and {len(below) - LISTED} more" if len(below) > LISTED else ""
    return f"{text}; open one of those right below it: {', '.join(below[-LISTED:])}{more}"
