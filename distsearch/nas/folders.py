"""Checks that a folder was begun by the same command, which alone may go on with it."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from ..core.decorators import TrainFunction
from ..core.record import SearchRecord
from ..core.record import open as open_record
from ..core.schema import FILE as LOG
from ..errors import MissingPackage, OptionError, StoreError

COMMANDS = {
    "train_supernet": "distsearch pc-darts search",
    "train_network": "distsearch pc-darts retrain",
    "train_cell": "distsearch lanas",
}


def check_folder(
    out: str | os.PathLike[str],
    train_fn: TrainFunction,
    arguments: Mapping[str, Any],
    num_trials: int,
) -> None:
    """Raise OptionError for a folder with which this command may not go on.

        check_folder("runs/digits", train_supernet, {"epochs": 12}, num_trials=1)

    It belongs to another train function, or all its trials have ended with other settings, which
    would not be used. One that holds nothing yet is fine.
    """
    if not (Path(out).expanduser() / LOG).exists():
        return
    record = open_record(out)
    if record.searched["function"] != train_fn.__name__:
        raise OptionError(f"{record.folder} is the folder of {_maker(record)}; give another --out")
    own = [trial for trial in record.trials if not trial.is_final]
    if len(own) < num_trials or not all(trial.status.is_end for trial in own):
        return
    known = record.searched["space"]["items"]
    changed = [
        f"{name}={value!r} (it was {known[name]['value']!r})"
        for name, value in arguments.items()
        if isinstance(value, bool | int | float | str)
        and known.get(name, {}).get("value", value) != value
    ]
    if changed:
        raise OptionError(
            f"all trials in {record.folder} have ended, so that nothing would be trained with "
            f"{', '.join(changed)}; give another --out"
        )


def check_origin(record: SearchRecord, *functions: str) -> None:
    """Raise StoreError for a folder of a search with none of these train functions."""
    if record.searched["function"] not in functions:
        wanted = " or ".join(f"`{COMMANDS[name]}`" for name in functions)
        raise StoreError(f"{record.folder} is the folder of {_maker(record)}, not of {wanted}")


def check_torch(is_here: bool) -> None:
    """Raise MissingPackage if trials are to run on this machine, which has no PyTorch."""
    if is_here and importlib.util.find_spec("torch") is None:
        raise MissingPackage(
            "networks are trained with PyTorch, which is not installed here: pip install torch"
        )


def _maker(record: SearchRecord) -> str:
    function = record.searched["function"]
    return f"`{COMMANDS[function]}`" if function in COMMANDS else f"a search of {function}"
