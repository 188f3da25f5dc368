"""Metrics in what a command prints: by regular expressions, or from lines of JSON."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Mapping
from typing import Any

from ..errors import OptionError
from ..report import value_of

NUMBER = r"([-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?|[-+]?(?:nan|inf)\b)"
_SHOWS = "as 'accuracy', 'accuracy=([0-9.]+)', or 'accuracy=Test: ([0-9.]+)%'"


def pattern_of(name: str, expression: str = "") -> re.Pattern[str]:
    """What finds a metric in a line; its one group is the value.

    An expression that begins with its group, or none, looks for the metric's own name before it:

    >>> pattern_of("accuracy").search("epoch 3, accuracy: 0.91")[1]
    '0.91'
    >>> pattern_of("acc", r"Test: ([0-9.]+)%").search("Test: 91.5%")[1]
    '91.5'

    Raises OptionError for what is no regular expression with one group.
    """
    given, expression = expression, expression or NUMBER
    if expression.startswith("(") and not expression.startswith("(?"):
        expression = rf"(?<![\w.]){re.escape(name)}['\"]?\s*[=:]?\s*{expression}"
    try:
        pattern = re.compile(expression)
    except re.error as error:
        raise OptionError(
            f"metric {name!r}: {given!r} is no regular expression: {error}; give it {_SHOWS}"
        ) from error
    if pattern.groups != 1:
        raise OptionError(
            f"metric {name!r}: {given!r} has {pattern.groups} groups; put the value alone into "
            f"( ), and other groups into (?: ), {_SHOWS}"
        )
    return pattern


def parse(texts: Iterable[str]) -> dict[str, str]:
    """`name` or `name=expression` for each, as names and expressions. Raises OptionError."""
    found: dict[str, str] = {}
    for text in texts:
        name, _, expression = text.partition("=")
        if not re.fullmatch(r"[\w.-]+", name):
            raise OptionError(f"metric {text!r} does not begin with a name; give it {_SHOWS}")
        if name in found:
            raise OptionError(f"metric {name!r} is given twice; one expression can have an |")
        found[name] = expression
    return found


class Watch:
    """Finds reports in lines.

        watch = Watch({"accuracy": "", "epoch": r"Epoch (\\d+)"}, json_lines=False)
        watch.hear("Epoch 3: accuracy=0.9")     # {'epoch': 3, 'accuracy': 0.9}

    A report is made at the first metric, with what was seen of the others since the last report.
    With `json_lines` each line that is an object of JSON is one.
    """

    def __init__(self, metrics: Mapping[str, str], *, json_lines: bool) -> None:
        self._patterns = {name: pattern_of(name, text) for name, text in metrics.items()}
        self._metrics = dict(metrics)
        self._first = next(iter(self._patterns), None)
        self._json_lines = json_lines
        self._seen: dict[str, Any] = {}

    def hear(self, line: str) -> dict[str, Any] | None:
        """The report that a line completes, if any."""
        if self._json_lines and (found := report_in(line)) is not None:
            return found
        is_complete = False
        for name, pattern in self._patterns.items():
            for match in pattern.finditer(line):  # the last match counts
                value = value_of(match[1])
                if not isinstance(value, str):
                    self._seen[name] = value
                    is_complete = is_complete or name == self._first
        if not is_complete:
            return None
        report, self._seen = self._seen, {}
        return report

    def __str__(self) -> str:
        """What is looked for, as an error says it."""
        each = [f"{name}={text}" if text else name for name, text in self._metrics.items()]
        return " and ".join([*each, *["lines of JSON"] * self._json_lines])


def report_in(line: str) -> dict[str, Any] | None:
    """The object of JSON that a line is; None for other lines.

    >>> report_in('{"accuracy": 0.9}'), report_in("accuracy 0.9")
    ({'accuracy': 0.9}, None)
    """
    text = line.strip()
    if not text.startswith("{"):
        return None
    try:
        found = json.loads(text)
    except (ValueError, RecursionError):
        return None
    return found if isinstance(found, dict) and found else None
