"""Train functions whose trials come to every end, in a module that trials import fast."""

from __future__ import annotations

import itertools
import math
import os
import signal
import sys
from typing import Any

from .. import Choice, Int, Real, args

# The status of a trial with each fate, under a scheduler that stops none.
STATUS_OF_FATE = {
    "fine": "finished",
    "sparse": "finished",
    "raise": "failed",
    "exit": "exited",
    "leave": "exited",
    "kill": "killed",
    "nothing": "no_metric",
    "nan": "no_metric",
    "bad": "no_metric",
}
# Each fate twice, with a good and a bad value, and with 1 to 3 epochs.
POINTS: list[dict[str, Any]] = [
    {"fate": fate, "x": x, "epochs": epochs}
    for (fate, x), epochs in zip(
        itertools.product(STATUS_OF_FATE, (0.5, -0.25)), itertools.cycle((3, 1, 2)), strict=False
    )
]


@args(fate=Choice(*STATUS_OF_FATE), x=Real(-1.0, 1.0), epochs=Int(1, 4))
def fated(args: Any, reporter: Any) -> Any:
    """Reports a few epochs, goes on where it was, and comes to a good or bad end."""
    if args.fate == "nothing":
        return None
    last = (reporter.load() or {"epoch": 0})["epoch"]
    for epoch in (2, 4, 9) if args.fate == "sparse" else range(1, args.epochs + 1):
        if epoch <= last:
            continue
        reporter.save({"epoch": epoch})
        value = {"nan": math.nan, "bad": "high"}.get(args.fate, args.x / epoch)
        reporter(epoch=epoch, accuracy=value)
    if args.fate == "raise":
        raise KeyError("no such key")
    if args.fate == "exit":
        sys.exit(3)
    if args.fate == "leave":
        os._exit(4)
    if args.fate == "kill":
        os.kill(os.getpid(), signal.SIGKILL)
    return args.task_id


@args(x=Real(-1.0, 1.0))
def endless(args: Any, reporter: Any) -> None:
    """Never ends by itself."""
    for epoch in itertools.count(1 + (reporter.load() or {"epoch": 0})["epoch"]):
        reporter.save({"epoch": epoch})
        reporter(epoch=epoch, accuracy=args.x + epoch)
