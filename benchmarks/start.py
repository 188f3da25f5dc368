"""Seconds to import distsearch, and to run a search of one trivial trial from start to exit.

python -m benchmarks.start
"""

from __future__ import annotations

import os
import subprocess
import sys
import time
from pathlib import Path

from .common import Figure, parser, scratch, show

IMPORT = """
import time
begin = time.perf_counter()
import distsearch
{more}
print(time.perf_counter() - begin)
"""
SEARCH = """
import distsearch as ag

@ag.args(x=ag.Real(0, 1))
def train_fn(args, reporter):
    reporter(epoch=1, accuracy=args.x)

if __name__ == "__main__":
    scheduler = ag.scheduler.FIFOScheduler(train_fn, num_trials=1, verbose=0)
    scheduler.run()
    scheduler.join_jobs()
    print(scheduler.get_best_reward())
"""


def run(*command: str | os.PathLike[str]) -> str:
    """What a fresh interpreter prints."""
    return subprocess.run(
        [sys.executable, *command], check=True, capture_output=True, text=True, timeout=60
    ).stdout


def search_s(folder: Path) -> tuple[float, float]:
    """From the start of python to its exit, everything closed; and the CPU time of all."""
    script = folder / "one_trial.py"
    script.write_text(SEARCH)
    begin, before = time.perf_counter(), os.times()
    assert float(run(script)) == 0.5
    seconds, after = time.perf_counter() - begin, os.times()
    cpu = after.children_user - before.children_user
    return seconds, cpu + after.children_system - before.children_system


def main() -> None:
    given = parser(__doc__, repeats=9).parse_args()
    bare, whole, searches, cpus = [], [], [], []
    with scratch() as folder:
        run("-c", "import distsearch")  # so that it is compiled, and read from the disk
        for _ in range(given.repeats):
            bare.append(float(run("-c", IMPORT.format(more=""))))
            whole.append(float(run("-c", IMPORT.format(more="distsearch.scheduler"))))
            seconds, cpu = search_s(folder)
            searches.append(seconds)
            cpus.append(cpu)
    figures = [
        Figure("import distsearch", bare, "s", at_most=0.5),
        Figure("import it and its scheduler", whole, "s", at_most=0.5),
        Figure("a search of one trial", searches, "s", at_most=0.35),
        Figure("a search of one trial: CPU time", cpus, "s"),
    ]
    show("Start", figures, given.json)


if __name__ == "__main__":
    main()
