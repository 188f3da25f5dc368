"""Searchers, rules, stores and storages with a fault, which their kits have to find."""

from __future__ import annotations

import asyncio
import itertools
import random

import fsspec
import pytest

from distsearch.core import store
from distsearch.scheduler import Continue, FIFOScheduler, Launch, Stop
from distsearch.searcher import RandomSearcher
from distsearch.testing import (
    SchedulerKit,
    SearcherKit,
    SeveralObjectivesKit,
    SQLStoreKit,
    StorageKit,
)
from tests.bucket import FakeBucket


class TestOutsideTheSpace(SearcherKit):
    class make(RandomSearcher):
        def suggest(self, trial_id, rng):
            return {**super().suggest(trial_id, rng), "more": 1}


class TestUnseeded(SearcherKit):
    class make(RandomSearcher):
        def __init__(self, space, *, seed, **options):
            super().__init__(space, seed=random.getrandbits(32), **options)


class TestAlwaysTheSame(SearcherKit):
    class make(RandomSearcher):
        def __init__(self, space, *, seed, **options):
            super().__init__(space, seed=7, **options)


class TestForgetsThePoints(SearcherKit):
    class make(RandomSearcher):
        def __init__(self, space, *, points_to_evaluate=None, **options):
            super().__init__(space, points_to_evaluate=[], **options)


class TestNeverEnds(SearcherKit):
    class make(RandomSearcher):
        def suggest(self, trial_id, rng):
            return self.space.sample(rng)


class TestLearnsAndDoesNotSaySo(SearcherKit):
    class make(RandomSearcher):
        last = 0

        def tell(self, trial_id, config, reward, violations=()):
            super().tell(trial_id, config, reward, violations)
            self.last = trial_id

        def suggest(self, trial_id, rng):
            for _ in range(self.last):
                rng.random()
            return super().suggest(trial_id, rng)


class TestCannotBearAFailure(SearcherKit):
    class make(RandomSearcher):
        def tell(self, trial_id, config, reward, violations=()):
            assert reward > 0


class TestRemembersBeyondItsLife(SearcherKit):
    class make(RandomSearcher):
        made = itertools.count()

        def suggest(self, trial_id, rng):
            for _ in range(next(self.made)):
                rng.random()
            return super().suggest(trial_id, rng)


class TestNamesAParentOutsideTheSpace(SearcherKit):
    class make(RandomSearcher):
        def suggest(self, trial_id, rng):
            found = super().suggest(trial_id, rng)
            return None if found is None else Launch({**found, "more": 1}, parents=(0,))


class TestTakesOneReward(SeveralObjectivesKit):
    class make(RandomSearcher):
        def tell(self, trial_id, config, reward, violations=()):
            super().tell(trial_id, config, None if reward is None else float(reward), violations)


class TestARuleOfWhims(SchedulerKit):
    stops = True

    class make(FIFOScheduler):
        def on_report(self, trial, report):
            return Stop() if random.random() < 0.5 else Continue()


class TestARuleThatStopsAndDoesNotSaySo(SchedulerKit):
    class make(FIFOScheduler):
        def on_report(self, trial, report):
            return Stop()


class HastyStore(store.Store):
    """Calls back before anything is written."""

    def when_durable(self, callback):
        asyncio.get_running_loop().call_soon(callback)


class TestAHastyStore(SQLStoreKit):
    where = "tests.testing.broken:HastyStore"
    file = store.FILE

    def make(self, folder):
        return HastyStore(folder)

    def read(self, folder):
        return store.read(folder)


class LossyBucket(FakeBucket):
    """Loses the end of what is large."""

    protocol = "lossybucket"

    def put_file(self, source, target, **options):
        super().put_file(source, target, **options)
        with self.open(target, "r+b") as file:
            file.truncate(1 << 20)


class KeepingBucket(FakeBucket):
    """Deletes nothing."""

    protocol = "keepingbucket"

    def rm_file(self, path):
        pass

    def rm(self, path, recursive=False):
        pass


for bucket in (LossyBucket, KeepingBucket):
    fsspec.register_implementation(bucket.protocol, bucket, clobber=True)


class TestALossyBucket(StorageKit):
    @pytest.fixture(autouse=True)
    def put_it_somewhere(self, tmp_path):
        self.place = f"lossybucket://{tmp_path}"


class TestABucketThatKeepsAll(StorageKit):
    @pytest.fixture(autouse=True)
    def put_it_somewhere(self, tmp_path):
        self.place = f"keepingbucket://{tmp_path}"
