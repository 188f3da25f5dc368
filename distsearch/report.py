"""Report from a command that is a trial, in any language: `python -m distsearch.report`.

    python -m distsearch.report epoch=3 accuracy=0.91 note=warm

What it writes is one line of JSON, to the end of the file that $DISTSEARCH_REPORT names, which any
program can do itself: `echo '{"epoch": 3, "accuracy": 0.91}' >> "$DISTSEARCH_REPORT"`.

Exit codes: 0 reported, or nothing to report to (the program runs outside of a search); 2 for what
is no report.
"""

from __future__ import annotations

import json
import os
import sys
from collections.abc import Sequence
from typing import Any

VARIABLE = "DISTSEARCH_REPORT"


def value_of(text: str) -> Any:
    """A number where a text is one, else the text.

    >>> value_of("3"), value_of(".9"), value_of("warm")
    (3, 0.9, 'warm')
    """
    for kind in (int, float):
        try:
            return kind(text)
        except ValueError:
            continue
    return text


def main(arguments: Sequence[str]) -> int:
    """Report `name=value` for each argument; the exit code."""
    metrics: dict[str, Any] = {}
    for word in arguments:
        name, equals, text = word.partition("=")
        if not (name and equals):
            print(f"Error: {word!r}; give name=value, as accuracy=0.91", file=sys.stderr)
            return 2
        metrics[name] = value_of(text)
    if not metrics:
        print("Error: nothing to report; give name=value, as accuracy=0.91", file=sys.stderr)
        return 2
    path = os.environ.get(VARIABLE)
    if path is None:
        shown = " ".join(f"{name}={value}" for name, value in metrics.items())
        print(f"${VARIABLE} is not set: no search hears of {shown}", file=sys.stderr)
        return 0
    line = json.dumps(metrics) + "\n"
    file = os.open(path, os.O_WRONLY | os.O_APPEND)
    try:
        os.write(file, line.encode())  # in one piece, so that lines of two processes stay whole
    finally:
        os.close(file)
    return 0


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
