"""Play many seeds, or one with its whole trace: see the package's text."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Sequence
from concurrent.futures import ProcessPoolExecutor

from .story import SeedFailed, Story, play


def check(seeds: Sequence[int]) -> list[tuple[int, str]]:
    """Play some seeds; what went wrong, as text."""
    failed = []
    for seed in seeds:
        try:
            play(seed)
        except SeedFailed as error:
            failed.append((seed, str(error)))
    return failed


def main() -> None:
    """Play what the command line says."""
    options = argparse.ArgumentParser(description=__doc__)
    options.add_argument("seeds", nargs="?", type=int, default=3000, help="how many")
    options.add_argument("--first", type=int, default=0)
    options.add_argument("--seed", type=int, help="this one alone, with its whole trace")
    options.add_argument("--processes", type=int, default=2)
    given = options.parse_args()
    if given.seed is not None:
        tell(given.seed)
        return
    begun, done = time.perf_counter(), 0
    failed: list[tuple[int, str]] = []
    seeds = range(given.first, given.first + given.seeds)
    chunks = [seeds[n : n + 20] for n in range(0, len(seeds), 20)]
    with ProcessPoolExecutor(given.processes) as pool:
        for found in pool.map(check, chunks):
            failed += found
            done += 20
            for _, text in found[:1] if len(failed) <= 3 else []:
                print(text, flush=True)
            seconds = time.perf_counter() - begun
            done = min(done, len(seeds))
            line = f"{done} of {len(seeds)} seeds, {len(failed)} failed, {seconds:.0f} s"
            print(line, end="\n" if done % 500 == 0 else "\r", flush=True)
    print()
    if failed:
        sys.exit(f"failed: {' '.join(str(seed) for seed, _ in failed)}")


def tell(seed: int) -> None:
    """Play one seed, and print its whole trace."""
    story = Story(seed)
    error: Exception | None = None
    try:
        story.tell()
    except Exception as caught:
        error = caught
    for at, words in story.world.trace:
        print(f"{at:9.3f}  ", *words)
    print(f"seed {seed}: {story}\n{story.world.steps} steps, {story.world.now:.0f} s")
    if error is not None:
        raise error


if __name__ == "__main__":
    main()
