"""What belongs to a log beside it: no search goes on from what another one has left."""

from __future__ import annotations

import asyncio

import pytest

import distsearch as ag
from distsearch.core import store
from distsearch.core.store import Store

ONE = ag.Node("localhost", num_cpus=1)


@ag.args(x=ag.Real(0.0, 1.0), name="")
def train_fn(args, reporter):
    found = reporter.load()
    reporter.save({"name": args.name})
    reporter(epoch=1, accuracy=args.x, found=None if found is None else found["name"])


def search(folder, name, num_trials=2):
    """Run a search; what its trials found of checkpoints, and what was put aside."""
    options = {"args": {"name": name}, "local": ONE, "verbose": 0, "checkpoint": folder}
    with ag.scheduler.FIFOScheduler(train_fn, **options) as scheduler:
        scheduler.run(num_trials=num_trials)
        assert scheduler.join_jobs(timeout=30)
        found = [
            report["found"] for reports in scheduler.training_history.values() for report in reports
        ]
        return found, scheduler._store.put_aside


@pytest.mark.parametrize("moved", [("events.db",), ("events.db", "events.end")], ids=len)
def test_a_search_that_starts_where_a_log_was_moved_away_starts_from_nothing(tmp_path, moved):
    folder = tmp_path / "mine"
    assert search(folder, "old") == ([None, None], None)
    for name in moved:
        (folder / name).rename(tmp_path / name)
    found, aside = search(folder, "new")
    assert found == [None, None]
    assert aside == folder / "put-aside-1"
    old = ag.open(folder).load_checkpoint(0)
    assert old["name"] == "new"
    assert len(list((aside / "trials").glob("*/checkpoints/*/manifest.json"))) == 2
    assert search(folder, "new", num_trials=3)[1] is None  # which goes on


def test_a_log_that_was_put_in_the_place_of_another_one_does_not_get_its_weights(tmp_path):
    search(tmp_path / "one", "one")
    search(tmp_path / "other", "other")
    (tmp_path / "one" / store.FILE).replace(tmp_path / "other" / store.FILE)
    _, aside = search(tmp_path / "other", "one", num_trials=3)
    assert aside == tmp_path / "other" / "put-aside-1"
    assert len(list((aside / "trials").glob("*/checkpoints/*/manifest.json"))) == 2


def test_a_folder_that_was_copied_goes_on_with_its_own_weights(tmp_path):
    search(tmp_path / "mine", "mine")
    (tmp_path / "mine").rename(tmp_path / "moved")
    found, aside = search(tmp_path / "moved", "mine", num_trials=3)
    assert (found, aside) == ([None] * 3, None)


def test_what_is_left_of_a_write_ahead_log_is_kept_and_not_mixed_into_a_new_log(tmp_path):
    left = b"what could not be saved"
    (tmp_path / "events.db-wal").write_bytes(left)

    async def write():
        log = Store(tmp_path)
        log.append("report", 0, 1, 1, {})
        await log.flush()
        log.close()
        return log.put_aside

    aside = asyncio.run(write())
    assert (aside / "events.db-wal").read_bytes() == left
    assert [event.seq for event in store.read(tmp_path)] == [1]
