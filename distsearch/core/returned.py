"""What a train function returns, on its way to the caller of `run_with_config`: without pickling.

    kept = keep(value, folder, attempt)                  # in the trial: how, as JSON
    value, warning = await of(returned, trial, trials)   # in the driver

Plain JSON travels with the word that the trial has ended. All else that a checkpoint can hold
(arrays, tensors, bytes, tuples, NaN) lies in the trial's folder, in the form of a checkpoint, and
is copied as such. The rest becomes its text, and the caller is warned.
"""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import CheckpointError
from ..resource.cache import RETURNED, returned_by
from ..space.base import plain
from ..space.privacy import without_secrets
from . import checkpoint
from .metrics import MAX_REPORT_BYTES, strict_json

if TYPE_CHECKING:  # trials need no more than what keeps
    from .attempt import Returned

SHOWN = 200  # characters of a text in a warning


def as_text(value: Any) -> Any:
    """A returned value as the log shows it: JSON, with texts for what that does not hold."""
    if value is None:
        return None
    text = strict_json(without_secrets({"value": value}))
    return json.loads(text)["value"] if len(text) <= MAX_REPORT_BYTES else repr(value)[:1000]


def keep(value: Any, folder: str, attempt: int) -> dict[str, Any]:
    """Keep a returned value for the driver; {} where `as_text` holds it whole.

    `folder`: that of the trial. What cannot be written is left to `as_text`, with the reason.
    """
    if _is_json(value):
        return {}
    lost: list[str] = []
    try:
        savable = {"value": _savable(value, "the returned value", lost)}
        checkpoint.save(savable, Path(folder) / RETURNED, 0, attempt=attempt, keep=1)
    except (CheckpointError, RecursionError) as error:
        return {"is_there": False, "as_text": [f"the returned value cannot be kept: {error}"]}
    return {"is_there": True, "as_text": lost}


async def of(returned: Returned | None, trial: int, trials: Path) -> tuple[Any, str]:
    """What a trial has returned, and what is to be said of it, or ''; `trials`: their folder here.

    Raises NodeError when the trial's node is lost meanwhile, OSError for a disk that is full.
    """
    if returned is None or returned.kept is None:
        return (None if returned is None else returned.value), ""
    warning = _warning(returned.kept["as_text"])
    if not returned.kept["is_there"]:
        return returned.value, warning
    folder = trials / str(trial) / RETURNED
    if not returned.remote.is_local:
        await returned.remote.fetch_checkpoint(returned_by(trial), folder)
    return checkpoint.load(folder)["value"], warning


def _warning(as_text: list[str]) -> str:
    if not as_text:
        return ""
    return (
        f"{'; '.join(as_text)}. Such an object comes back as its text, as nothing here is pickled "
        "on its way back. Keep it in the train function, as a state of arrays or as a file: "
        "joblib.dump(model, 'model.joblib'); reporter.save(Path('model.joblib')). "
        "scheduler.load_checkpoint(task_id) gives it back"
    )


def _is_json(value: Any) -> bool:
    """Whether the value comes back from JSON as it was (a number of NumPy as Python's)."""
    value = plain(value)
    try:
        text = json.dumps(value, allow_nan=False)
        return len(text) <= MAX_REPORT_BYTES and bool(json.loads(text) == value)
    except (TypeError, ValueError):
        return False


def _savable(value: Any, where: str, lost: list[str]) -> Any:
    """The value with a text in the place of each part that no checkpoint holds."""
    if isinstance(value, dict):
        return {_key(k): _savable(item, f"{where}[{k!r}]", lost) for k, item in value.items()}
    if isinstance(value, list | tuple):
        items = [_savable(item, f"{where}[{n}]", lost) for n, item in enumerate(value)]
        return items if isinstance(value, list) else tuple(items)
    try:
        checkpoint.check(value, where)
    except CheckpointError:
        lost.append(f"{where} is a {type(value).__qualname__} ({repr(value)[:SHOWN]})")
        return repr(value)[:1000]
    return value


def _key(key: Any) -> Any:
    return key if isinstance(key, str | int | float | bool | tuple | None) else repr(key)
