"""What a report may hold, and what of it counts as a number.

NumPy scalars, 0-d arrays and tensors become plain numbers, dataclasses and named tuples the dicts
of their fields. Strings, booleans and None are stored but never compared. NaN and the infinities,
which JSON cannot hold, travel and are stored as the strings below and come back as floats; NaN is
worse than every number. Text that reads like one of these strings is stored with a quote before it,
and comes back as it was.
"""

from __future__ import annotations

import dataclasses
import json
import math
import numbers
import re
from decimal import Decimal
from typing import Any

from ..errors import ReportError
from ..space.privacy import without_secrets

MAX_REPORT_BYTES = 64 * 1024
MAX_BITS = 14_000  # Python writes whole numbers of up to 4,300 digits
encode = json.JSONEncoder(allow_nan=False).encode  # raises for what JSON cannot hold
_decoder = json.JSONDecoder()
NON_FINITE = {"NaN": math.nan, "Infinity": math.inf, "-Infinity": -math.inf}
NUMBERS = frozenset({float, int, bool, type(None)})  # and nothing that only behaves like one
_looks_non_finite = re.compile("'*(?:NaN|-?Infinity)").fullmatch


class _NonFinite(str):
    """A string that stands for a float: text that was reported is a plain `str`."""


def to_json(metrics: dict[str, Any]) -> str:
    """The metrics as strict JSON; text under names such as `api_key` is left out.

    Raises ReportError when they take more than 64 KB.
    """
    hides_nothing = NUMBERS.issuperset(map(type, metrics.values()))  # as nearly always
    text = report_json(metrics if hides_nothing else _shown(metrics))
    if len(text) > MAX_REPORT_BYTES:
        sizes = {key: len(json.dumps(_plain(value))) for key, value in metrics.items()}
        largest = max(sizes, key=lambda key: sizes[key])
        raise ReportError(
            f"a report holds at most {MAX_REPORT_BYTES} bytes, this one has {len(text)} "
            f"({largest!r} alone {sizes[largest]}); report numbers, and keep arrays with "
            "reporter.save(...)"
        )
    return text


def _shown(metrics: dict[str, Any]) -> dict[str, Any]:
    """The metrics without secrets, with the fields of their dataclasses and named tuples."""
    all_opened = opened(metrics)
    _refuse_twins(all_opened)
    shown: dict[str, Any] = without_secrets(all_opened)
    return shown


def report_json(metrics: dict[str, Any]) -> str:
    """The metrics of a report as strict JSON, from which `from_json` tells text from numbers."""
    text = strict_json(metrics)
    if "NaN" not in text and "Infinity" not in text:
        return text
    plain = {str(key): _plain(value) for key, value in metrics.items()}
    for key, value in plain.items():
        is_text = isinstance(value, str) and not isinstance(value, _NonFinite)
        if is_text and _looks_non_finite(value):
            plain[key] = f"'{value}"
    return json.dumps(plain)


def strict_json(value: Any) -> str:
    """Any value as JSON that every reader understands."""
    try:
        return encode(value)
    except Exception:  # (an object of the user's own raises whatever it likes)
        return json.dumps(_plain(value))


def decode(text: str) -> Any:
    """What the JSON in a text stands for. Raises ValueError for anything else."""
    value, end = _decoder.raw_decode(text)
    # (`JSONDecoder.decode` would look for spaces around the text, which has none.)
    return value if end == len(text) else _decoder.decode(text)


def from_json(text: str) -> dict[str, Any]:
    """The metrics that `to_json` wrote."""
    metrics: dict[str, Any] = decode(text)
    if not isinstance(metrics, dict):
        raise ValueError(f"a report is a JSON object, not {text[:100]!r}")
    if "NaN" in text or "Infinity" in text:
        for key, value in metrics.items():
            if isinstance(value, str) and _looks_non_finite(value):
                metrics[key] = NON_FINITE[value] if value in NON_FINITE else value[1:]
    return metrics


def number(value: Any) -> float | None:
    """The value as a float if it is a number that can be compared, else None (NaN too)."""
    if type(value) is float:  # nearly always, and asked several times a report
        return None if math.isnan(value) else value
    if isinstance(value, (int, float)) and not isinstance(value, bool):
        try:
            as_float = float(value)
        except OverflowError:
            return None
        return None if math.isnan(as_float) else as_float
    return None


def is_one_number(value: Any) -> bool:
    """Whether the value would be stored as a number, NaN and the infinities among them."""
    seen = _plain(value)
    return isinstance(seen, (int, float, _NonFinite)) and not isinstance(seen, bool)


def opened(value: Any, depth: int = 8) -> Any:
    """The value with the dict of its fields for each dataclass and each named tuple in it.

    Looks `depth` dicts, lists and tuples deep.
    """
    if value is None or isinstance(value, (float, int, str)) or not depth:
        return value
    named = fields_of(value)
    if named is not None:
        value = named
    if type(value) is dict:  # (a subclass may behave in any way)
        return {key: opened(item, depth - 1) for key, item in value.items()}
    if type(value) in (list, tuple):
        return type(value)(opened(item, depth - 1) for item in value)
    return value


def fields_of(value: Any) -> dict[str, Any] | None:
    """The fields of a dataclass or a named tuple by name; None for anything else."""
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        names = [field.name for field in dataclasses.fields(value)]
        return {name: _field(value, name) for name in names}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return dict(zip(value._fields, value, strict=False))
    return None


def _text_of(key: Any) -> str:
    try:
        return str(key)
    except Exception:
        return type(key).__name__


def _field(value: Any, name: str) -> Any:
    try:
        return getattr(value, name, None)
    except Exception as error:  # of a property of the user's own
        return f"it could not be read: {type(error).__name__}"


def _plain(value: Any, depth: int = 0) -> Any:
    """The value as JSON can hold it; of an object that fails when it is looked at, its type."""
    try:
        return _seen(value, depth)
    except Exception as error:
        return f"{type(value).__name__} (which could not be read: {type(error).__name__})"


def _seen(value: Any, depth: int) -> Any:
    if value is None or isinstance(value, (str, bool)):
        return value
    if isinstance(value, int):
        is_short = value.bit_length() <= MAX_BITS
        return value if is_short else f"a whole number of {value.bit_length()} bits"
    if isinstance(value, float):
        if math.isfinite(value):
            return float(value)
        name = "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
        return _NonFinite(name)
    if isinstance(value, dict) and depth < 8:
        return {_text_of(key): _plain(item, depth + 1) for key, item in value.items()}
    if isinstance(value, (list, tuple)) and depth < 8:
        return [_plain(item, depth + 1) for item in value]
    if isinstance(value, (numbers.Real, Decimal)):  # also NumPy's, of whatever precision
        try:
            return _plain(int(value) if isinstance(value, numbers.Integral) else float(value))
        except (OverflowError, ValueError):  # a number that is too large, or a signalling NaN
            return repr(value)[:1000]
        except TypeError:
            pass  # a time span of NumPy's, which takes itself for a number
    if getattr(value, "size", None) == 1 or getattr(value, "ndim", None) == 0:
        item = getattr(value, "item", None)  # a 0-d array
        return _plain(item(), depth + 1) if callable(item) and depth < 8 else repr(value)
    if callable(getattr(value, "numel", None)) and value.numel() == 1 and depth < 8:
        return _plain(value.item(), depth + 1)  # a tensor of one element
    if isinstance(value, (bytes, bytearray)):
        return repr(value[:1000])[:1000]
    return (
        repr(value)[:1000]
        if not hasattr(value, "shape")
        else f"{type(value).__name__} of shape {tuple(value.shape)}"
    )


def _refuse_twins(value: Any, depth: int = 8) -> None:
    """Raise ReportError for a dict with keys, as 1 and '1', that are one key in JSON."""
    if type(value) is dict:
        names: dict[str, Any] = {}
        for key in value:
            name = key if isinstance(key, str) else _name_of(key)
            if name in names:
                raise ReportError(
                    f"a report has a dict with the keys {names[name]!r} and {key!r}, which are the "
                    f"same where it is kept, as {name!r}; give them names that differ"
                )
            names[name] = key
    if depth and type(value) in (dict, list, tuple):
        for item in value.values() if type(value) is dict else value:
            _refuse_twins(item, depth - 1)


def _name_of(key: Any) -> str:
    """The name that a dict's key gets in JSON."""
    is_plain = key is None or isinstance(key, (bool, int, float))
    return json.dumps(key) if is_plain else _text_of(key)
