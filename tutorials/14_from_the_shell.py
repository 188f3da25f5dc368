"""A search from the shell: start it, look at it, steer it, go on with it.

    python tutorials/14_from_the_shell.py

Each line with a `$` is a command as you would type it; what is below it is what it prints. The
search runs in a process of its own. Whoever sees its folder can look at it and steer it, from
another terminal, over SSH, or on another machine that has the folder by NFS: there is no port.
"""

from __future__ import annotations

import shlex
import subprocess
import sys
import tempfile
import time
from pathlib import Path

TUNE = """\
import time

import distsearch as ag


@ag.args(lr=ag.Real(1e-3, 1.0, log=True), epochs=8)
def train_fn(args, reporter):
    start = (reporter.load() or {"epoch": 0})["epoch"]
    for epoch in range(start + 1, args.epochs + 1):
        time.sleep(0.3)
        reporter.save({"epoch": epoch}, step=epoch)
        reporter(epoch=epoch, accuracy=(1 - abs(args.lr - 0.1)) * epoch / (epoch + 1))
"""
SEARCH = "run tune.py --trials 6 --seed 1 --out runs/tune"
SOON_S = 20.0


def call(words: str) -> list[str]:
    """The command in the form in which this interpreter has it."""
    return [sys.executable, "-m", "distsearch.cli", *shlex.split(words)]


def shell(folder: Path, words: str, *, until: str = "") -> None:
    """Run a command and show it; again and again, if need be, `until` it prints a certain text."""
    deadline = time.monotonic() + SOON_S
    while True:
        done = subprocess.run(
            call(words), cwd=folder, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
        )
        if until in done.stdout or time.monotonic() > deadline:
            print(f"$ distsearch {words}\n{done.stdout}", flush=True)
            return
        time.sleep(0.2)


def main() -> None:
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        (folder / "tune.py").write_text(TUNE)
        print(f"$ distsearch {SEARCH} &\n", flush=True)
        search = subprocess.Popen(call(SEARCH), cwd=folder, stdout=subprocess.DEVNULL)
        try:
            # What runs, and how far it is.
            shell(folder, "show runs/tune --sort id", until="running")
            # A trial gives its slot back, and goes on from its checkpoint when it is told to.
            shell(folder, "pause runs/tune 0", until="is paused")
            shell(folder, "why runs/tune 0", until="it waits for")
            shell(folder, "go-on runs/tune 0")
            # A configuration of your own comes before the next one of the searcher.
            (folder / "mine.json").write_text('{"lr": 0.1}')
            shell(folder, "add runs/tune mine.json")
            # The whole machine is needed for something else: the search waits, whoever runs it.
            shell(folder, "pause runs/tune")
            shell(folder, "why runs/tune", until="the search is paused")
            shell(folder, "go-on runs/tune")
            # Enough: nothing more starts, and what has been found stays.
            shell(folder, "stop runs/tune")
            search.wait(SOON_S)
            shell(folder, "show runs/tune --sort id")
        finally:
            search.kill()
            search.wait()


if __name__ == "__main__":
    main()
