"""Random damages to the log of a real small search: each is found and said, none is silent.

    python -m benchmarks.damage --damages 1000

A search is run twice: once its driver is killed, so that much of its log is in the write-ahead log,
once it ends in order. Copies of both are damaged at random: a bit flips, a file ends early, a page
is zeroed, two pages are swapped, in the database or in the write-ahead log. Then the log is opened
three times: by `distsearch.open`, by a driver, and after `distsearch.rescue`.

    found   all that opened it raised StoreError, and changed no byte
    whole   what was hit was not in use: every event was read as it had been written
    silent  it was opened, with other events than had been written
    raw     another error than a StoreError was raised
    rescue  what `rescue` took the log back to is no beginning of it
"""

from __future__ import annotations

import random
import shutil
import subprocess
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterable
from pathlib import Path

import distsearch as ag
from distsearch.core import store
from distsearch.errors import StoreError

from .common import Figure, parser, scratch, show

PAGE = 4096
SEARCH = """
import os, sys
import distsearch as ag

@ag.args(x=ag.Real(0, 1))
def train_fn(args, reporter):
    for epoch in range(1, 8):
        reporter(epoch=epoch, accuracy=args.x * epoch, note="some text of a report" * 3)

with ag.scheduler.FIFOScheduler(
    train_fn, checkpoint=sys.argv[1], local=ag.Node("localhost", num_cpus=1), verbose=0, seed=7
) as scheduler:
    for trials in (10, 30):
        scheduler.run(num_trials=trials)
        scheduler.join_jobs()
    if sys.argv[2] == "killed":
        os.kill(os.getpid(), 9)
"""


def flip(data: bytearray, draw: random.Random) -> bytearray:
    """One bit is another one."""
    data[draw.randrange(len(data))] ^= 1 << draw.randrange(8)
    return data


def cut(data: bytearray, draw: random.Random) -> bytearray:
    """The file ends early."""
    return data[: draw.randrange(len(data))]


def zero(data: bytearray, draw: random.Random) -> bytearray:
    """One page is zeros."""
    start = draw.randrange(len(data) // PAGE or 1) * PAGE
    data[start : start + PAGE] = bytes(len(data[start : start + PAGE]))
    return data


def swap(data: bytearray, draw: random.Random) -> bytearray:
    """Two pages are in each other's place."""
    one, other = (draw.randrange(len(data) // PAGE or 1) * PAGE for _ in range(2))
    pages = data[one : one + PAGE], data[other : other + PAGE]
    if len(pages[0]) == len(pages[1]):
        data[one : one + PAGE], data[other : other + PAGE] = pages[1], pages[0]
    return data


DAMAGES: tuple[Callable[[bytearray, random.Random], bytearray], ...] = (flip, cut, zero, swap)


def events(folder: Path) -> list[store.Event]:
    """All that the log says."""
    return list(store.read(folder))


def by_a_driver(folder: Path) -> list[store.Event]:
    """All that a driver that takes the log over finds in it."""
    log = store.Store(folder)
    try:
        return events(folder)
    finally:
        log.close()


def by_open(folder: Path) -> list[store.Event]:
    """All that is read after the search was opened for its results."""
    record = ag.open(folder)
    return events(record.folder)


def outcome(folder: Path, written: list[store.Event]) -> str:
    """What becomes of a damaged log."""
    before = contents(folder)
    found = []
    for look in (by_open, by_a_driver):
        try:
            found.append("whole" if look(folder) == written else "silent")
        except StoreError:
            found.append("found" if contents(folder) == before else "changed")
        except BaseException as error:
            return f"raw: {type(error).__name__}: {error}"
    worst = min(found, key=["changed", "silent", "whole", "found"].index)
    return worst if worst != "found" else rescued(folder, written)


def rescued(folder: Path, written: list[store.Event]) -> str:
    """Whether the log that is rescued is the beginning of the one that was written."""
    try:
        number = ag.rescue(folder)
    except StoreError as error:
        is_said = error.is_damage  # nothing is whole
        return "found" if is_said else f"rescue: {error}"
    return "found" if by_a_driver(folder) == written[:number] else "rescue"


def contents(folder: Path) -> dict[str, bytes]:
    """The log's own files, without the shared memory."""
    return {
        path.name: path.read_bytes()
        for path in folder.glob("events*")
        if not path.name.endswith("-shm") and path.stat().st_size
    }


def copied(source: Path, target: Path) -> None:
    """Copy a log, as a killed driver has left it."""
    shutil.rmtree(target, ignore_errors=True)
    target.mkdir()
    for path in source.glob("events*"):
        if not path.name.endswith("-shm"):
            shutil.copy2(path, target)


def searched(folder: Path, how: str) -> Path:
    """Run the search in a process of its own."""
    subprocess.run([sys.executable, "-c", SEARCH, str(folder), how], timeout=120, check=False)
    return folder


def tried(bases: Iterable[Path], count: int, seed: int) -> Counter[str]:
    """Damage copies of the logs at random; how often each outcome was seen."""
    draw = random.Random(seed)
    files = [(base, path) for base in bases for path in contents(base) if path != "events.end"]
    written = {base: events(base) for base, _ in files}
    outcomes: Counter[str] = Counter()
    for number in range(count):
        base, name = draw.choice(files)
        damage = draw.choice(DAMAGES)
        folder = base.with_name("copy")
        copied(base, folder)
        before = (folder / name).read_bytes()
        after = bytes(damage(bytearray(before), draw))
        (folder / name).write_bytes(after)
        seen = "whole" if after == before else outcome(folder, written[base])
        outcomes[seen.partition(":")[0]] += 1
        if seen not in ("found", "whole"):
            print(f"{number}: {damage.__name__} in {name} of {base.name}: {seen}", flush=True)
    return outcomes


def main() -> None:
    options = parser(__doc__)
    options.add_argument("--damages", type=int, default=1000)
    options.add_argument("--seed", type=int, default=0)
    given = options.parse_args()
    with scratch() as place:
        bases = [searched(place / how, how) for how in ("killed", "ended")]
        begin = time.perf_counter()
        outcomes = tried(bases, given.damages, given.seed)
        seconds = time.perf_counter() - begin
    bad = sum(number for name, number in outcomes.items() if name not in ("found", "whole"))
    figures = [
        Figure("damages found and said", [outcomes["found"]], ""),
        Figure("nothing in use was hit", [outcomes["whole"]], ""),
        Figure("silent, raw or changed", [bad], "", at_most=0),
        Figure("one damage", [1e3 * seconds / max(1, given.damages)], "ms"),
    ]
    show("Damages to the log", figures, given.json)
    sys.exit(bool(bad))


if __name__ == "__main__":
    main()
