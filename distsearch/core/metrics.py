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
import re
from decimal import Decimal
from fractions import Fraction
from typing import Any

from ..errors import ReportError
from ..space.privacy import without_secrets

MAX_REPORT_BYTES = 64 * 1024
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
    text = report_json(metrics if hides_nothing else without_secrets(opened(metrics)))
    if len(text) > MAX_REPORT_BYTES:
        sizes = {key: len(json.dumps(_plain(value))) for key, value in metrics.items()}
        largest = max(sizes, key=lambda key: sizes[key])
        raise ReportError(
            f"a report holds at most {MAX_REPORT_BYTES} bytes, this one has {len(text)} "
            f"({largest!r} alone {sizes[largest]}); report numbers, and keep arrays with "
            "reporter.save(...)"
        )
    return text


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
    except (ValueError, TypeError):
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
        return {name: getattr(value, name, None) for name in names}
    if isinstance(value, tuple) and hasattr(value, "_fields"):
        return dict(zip(value._fields, value, strict=False))
    return None


def _plain(value: Any, depth: int = 0) -> Any:
    """The value as JSON can hold it."""
    if value is None or isinstance(value, (str, bool, int)):
        return value
    if isinstance(value, float):
        if math.isfinite(value):
            return float(value)
        name = "NaN" if math.isnan(value) else "Infinity" if value > 0 else "-Infinity"
        return _NonFinite(name)
    if isinstance(value, dict) and depth < 8:
        return {str(key): _plain(item, depth + 1) for key, item in value.items()}
    if isinstance(value, (list, tuple)) and depth < 8:
        return [_plain(item, depth + 1) for item in value]
    if getattr(value, "size", None) == 1 or getattr(value, "ndim", None) == 0:
        item = getattr(value, "item", None)  # a NumPy scalar, a 0-d array
        return _plain(item(), depth + 1) if callable(item) and depth < 8 else repr(value)
    if callable(getattr(value, "numel", None)) and value.numel() == 1 and depth < 8:
        return _plain(value.item(), depth + 1)  # a tensor of one element
    if isinstance(value, (Fraction, Decimal)):
        try:
            return _plain(float(value))
        except (OverflowError, ValueError):  # a number that is too large, or a signalling NaN
            return repr(value)[:1000]
    if isinstance(value, (bytes, bytearray)):
        return repr(value[:1000])[:1000]
    return (
        repr(value)[:1000]
        if not hasattr(value, "shape")
        else f"{type(value).__name__} of shape {tuple(value.shape)}"
    )
