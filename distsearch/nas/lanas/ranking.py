"""What a search has found: the cells in order of their validation accuracy, as text and files."""

from __future__ import annotations

import csv
import io
import json
import os
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ...core.record import SearchRecord
from ...core.words import Status, Trial
from ...errors import OptionError, StoreError
from ...resource.private import replace
from .cells import EDGES, cell_of

JSON, CSV = "results.json", "results.csv"
FUNCTION = "train_cell"


@dataclass(frozen=True)
class Ranked:
    """One evaluated cell; rank 1 is the best. `accuracy`: on the validation part, None: it failed.

    `cell`: of each of the 7 nodes two pairs of an operation and what it reads.
    """

    rank: int
    trial: int
    accuracy: float | None
    epoch: float | None
    status: str
    cell: tuple[tuple[tuple[str, int], tuple[str, int]], ...]

    @property
    def inputs(self) -> list[int]:
        """The inputs of the 14 operations."""
        return [source for node in self.cell for _, source in node]

    @property
    def operations(self) -> list[str]:
        """The 14 operations."""
        return [operation for node in self.cell for operation, _ in node]


def ranking(record: SearchRecord) -> list[Ranked]:
    """All evaluated cells of a search, the best first; of equal cells the earlier one.

        for one in ranking(distsearch.open("runs/digits")):
            print(one.rank, one.accuracy)

    Those that failed come last. Trials that run or wait are not in it, those that a rule has paused
    are, with the best that they have reached. Raises StoreError for the record of another search.
    """
    if record.searched["function"] != FUNCTION or not _chooses_cells(record):
        raise StoreError(
            f"{record.folder} is no search of cells; give the --out of a `distsearch lanas search`"
        )
    ended = [
        trial
        for trial in record.trials
        if (trial.status.is_end or trial.status is Status.PAUSED) and not trial.is_final
    ]
    ended.sort(key=lambda one: (one.best_reward is None, -(one.best_reward or 0.0), one.id))
    return [_ranked(1 + place, trial) for place, trial in enumerate(ended)]


def _chooses_cells(record: SearchRecord) -> bool:
    """Whether the cell differs from trial to trial: that of a retraining does not."""
    return bool(record.searched["space"]["items"]["operations"].get("type") == "list")


def _ranked(rank: int, trial: Trial) -> Ranked:
    operations = [trial.config[f"operations.{edge}"] for edge in range(EDGES)]
    inputs = [trial.config[f"inputs.{edge}"] for edge in range(EDGES)]
    cell = cell_of(operations, inputs)
    return Ranked(
        rank, trial.id, trial.best_reward, trial.best_time, trial.status.value, cell.nodes
    )


def at(ranked: Sequence[Ranked], rank: int) -> Ranked:
    """The cell of a rank. Raises OptionError for a rank that does not exist, or that failed."""
    works = [one for one in ranked if one.accuracy is not None]
    if not 1 <= rank <= len(works):
        raise OptionError(
            f"there is no rank {rank}: {len(works)} cells have been trained; give 1 to {len(works)}"
            if works
            else f"there is no rank {rank}: no cell has been trained yet"
        )
    return works[rank - 1]


def write(ranked: Sequence[Ranked], folder: str | os.PathLike[str]) -> tuple[Path, Path]:
    """Write results.json and results.csv into a folder, each all at once; returns their paths."""
    text = json.dumps([_as_json(one) for one in ranked], indent=1) + "\n"
    table = io.StringIO(newline="")
    writer = csv.writer(table)
    edges = [f"{name}.{edge}" for name in ("operations", "inputs") for edge in range(EDGES)]
    writer.writerow(["rank", "trial", "accuracy", "epoch", "status", *edges])
    for one in ranked:
        first = [one.rank, one.trial, one.accuracy, one.epoch, one.status]
        writer.writerow([*first, *one.operations, *one.inputs])
    contents = {JSON: text, CSV: table.getvalue()}
    written = [replace(Path(folder) / name, one.encode()) for name, one in contents.items()]
    return written[0], written[1]


def _as_json(one: Ranked) -> dict[str, Any]:
    return {
        "rank": one.rank,
        "trial": one.trial,
        "accuracy": one.accuracy,
        "epoch": one.epoch,
        "status": one.status,
        "operations": one.operations,
        "inputs": one.inputs,
    }
