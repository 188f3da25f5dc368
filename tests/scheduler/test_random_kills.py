"""Random SIGKILLs of the driver, the launcher and trials, each followed by the same command.

The benchmark `benchmarks/kill.py` does it a thousand times, and on nodes over SSH too.
"""

from __future__ import annotations

import random
from pathlib import Path

import pytest

from benchmarks.kill import Search, kill_randomly

KILLS = 16
BOUND_S = 15.0  # no new search is begun after that


@pytest.mark.timeout(180)
def test_random_kills_lose_nothing_repeat_nothing_and_leave_nothing(capfd):
    seed = random.SystemRandom().randrange(1 << 30)
    count = kill_randomly(KILLS, seed, jobs=2, ssh_share=0, bound_s=BOUND_S)
    with capfd.disabled():
        print(f"\n{count.kills.total()} kills, seed {seed}: {dict(count.kills)}", end=" ")
    assert count.wrong == [], f"python -m benchmarks.kill --ssh-share 0 --seed {seed}"
    assert count.kills.total() >= 5 and count.acknowledged > 0


@pytest.mark.parametrize(
    ("told", "wrong"),
    [
        ("trains 7 1 0.1\nanswered 7 1 0.2\n", "lost: trial 0, process 7, epoch 1"),
        ("overlap 7 0 0.1\n", "two at once: trial 0, process 7"),
    ],
)
def test_the_judge_of_these_kills_sees_what_is_wrong(tmp_path: Path, told, wrong):
    search = Search(tmp_path, "local", 1, None, trials=1)
    (tmp_path / "notes" / "0.txt").write_text(told)
    (tmp_path / "told.json").write_text('{"ends": ["finished"], "shown": [[1, 2, 3, 4, 5, 6]]}')
    search.judge()
    assert wrong in search.count.wrong


def test_the_judge_of_these_kills_compares_the_log_with_what_a_reader_had_seen(tmp_path: Path):
    search = Search(tmp_path, "local", 1, None, trials=1)
    search.seen = {1: (1, "report", 0, 1, 1, "{}")}
    (tmp_path / "told.json").write_text('{"ends": ["finished"], "shown": [[2, 1, 1]]}')
    search.judge()
    assert search.count.of("lost") == 1 and search.count.of("duplicate") == 1
