"""What a train function returns, on its way to the caller of `run_with_config`: without pickling.

    kept = keep(value, folder, attempt)                  # in the trial: what it kept, as JSON
    value, warning = await of(returned, trial, trials)   # in the driver

Plain JSON travels in the message that the trial has ended, and is in the log. Whatever else a
checkpoint can hold (arrays, tensors, bytes, tuples, NaN), and what the log shows without its
secrets, lies in the trial's folder, in the form of a checkpoint, and is copied like one. A
dataclass comes back as the dict of its fields; a named tuple, a member of an enum and the like as
the plain value that it also is; other objects as their text, of which the caller is warned.
"""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..errors import CheckpointError, shown
from ..resource.cache import RETURNED, returned_by
from ..space.base import plain
from ..space.privacy import without_secrets
from . import checkpoint
from .metrics import MAX_REPORT_BYTES, fields_of, opened, strict_json

if TYPE_CHECKING:  # (a trial needs `keep` alone)
    from .attempt import Returned

SHOWN = 200  # a warning shows so many characters of a text
_PLAIN = (bool, int, float, str, bytes, bytearray, list, tuple)  # and dicts, of whatever class

# How to make a plain value of an object that is one, whatever its own class does: `str(...)` of an
# enum that is a `str` gives another text.
_CONVERSIONS: dict[type, Callable[[Any], Any]] = {
    str: str.__str__,
    int: int.__int__,
    float: float.__float__,
}


def as_text(value: Any) -> Any:
    """A returned value as the log shows it: JSON, with texts for what that does not hold."""
    if value is None:
        return None
    text = strict_json(without_secrets(opened({"value": value})))
    return json.loads(text)["value"] if len(text) <= MAX_REPORT_BYTES else shown(value)[:1000]


def keep(value: Any, folder: str, attempt: int) -> dict[str, Any]:
    """Keep a returned value for the driver; {} where `as_text` holds it whole.

    `folder` is the trial's. Where the value cannot be written, the result has the reason.
    """
    lost: list[str] = []
    changed: list[str] = []
    try:
        savable = _savable(value, "the returned value", lost, changed)
        if not (lost or changed) and _is_json(value) and as_text(value) == value:
            return {}
        state = {"value": savable}
        checkpoint.save(state, Path(folder) / RETURNED, 0, attempt=attempt, keep=1)
    except (CheckpointError, RecursionError) as error:
        lost = [f"the returned value cannot be kept: {error}"]
        return {"is_there": False, "as_text": lost, "as_plain": []}
    return {"is_there": True, "as_text": lost, "as_plain": changed}


async def of(returned: Returned | None, trial: int, trials: Path) -> tuple[Any, str]:
    """What a trial has returned, and a warning, or ''.

    `trials` is the driver's folder of trials. Raises NodeError when the trial's node is lost
    meanwhile, OSError for a disk that is full.
    """
    if returned is None or returned.kept is None:
        return (None if returned is None else returned.value), ""
    warning = _warning(returned.kept["as_text"], returned.kept["as_plain"])
    if not returned.kept["is_there"]:
        return returned.value, warning
    folder = trials / str(trial) / RETURNED
    if not returned.remote.is_local:
        await returned.remote.fetch_checkpoint(returned_by(trial), folder)
    return checkpoint.load(folder)["value"], warning


def _warning(as_text: list[str], as_plain: list[str]) -> str:
    told = []
    if as_plain:
        told.append(
            f"{'; '.join(as_plain)}: nothing here is pickled on its way back, so make the object "
            "anew from that"
        )
    if as_text:
        told.append(
            f"{'; '.join(as_text)}. Such an object comes back as its text, as nothing here is "
            "pickled on its way back. Keep it in the train function, as a state of arrays or as a "
            "file: joblib.dump(model, 'model.joblib'); reporter.save(Path('model.joblib')). "
            "scheduler.load_checkpoint(task_id) gives it back"
        )
    return ". ".join(told)


def _is_json(value: Any) -> bool:
    """Whether the value comes back from JSON as it was (a number of NumPy as Python's)."""
    value = plain(value)
    try:
        text = json.dumps(value, allow_nan=False)
        return len(text) <= MAX_REPORT_BYTES and bool(json.loads(text) == value)
    except (TypeError, ValueError):
        return False


def _savable(value: Any, where: str, lost: list[str], changed: list[str]) -> Any:
    """The value as a checkpoint can hold it.

    `lost` gets what becomes a text, `changed` what keeps its content and loses its class.
    """
    named = fields_of(value)
    if named is not None and not isinstance(value, tuple):
        changed.append(f"{_told(value, where)} and comes back as the dict of its fields")
        value = named
    if isinstance(value, dict):
        return {
            _key(k): _savable(item, f"{where}[{k!r}]", lost, changed) for k, item in value.items()
        }
    base = next((one for one in _PLAIN if isinstance(plain(value), one)), None)
    if base is not None and type(plain(value)) is not base:
        changed.append(f"{_told(value, where)} and comes back as a plain {base.__name__}")
        value = _CONVERSIONS.get(base, base)(value)
    if isinstance(value, list | tuple):
        items = [_savable(item, f"{where}[{n}]", lost, changed) for n, item in enumerate(value)]
        return items if isinstance(value, list) else tuple(items)
    try:
        checkpoint.check(value, where)
    except CheckpointError:
        lost.append(_told(value, where))
        return shown(value)[:1000]
    return value


def _told(value: Any, where: str) -> str:
    return f"{where} is a {type(value).__qualname__} ({shown(value)[:SHOWN]})"


def _key(key: Any) -> Any:
    return key if isinstance(key, str | int | float | bool | tuple | None) else shown(key)
