"""A folder, an object store and fsspec's own memory pass the kit of storages."""

from __future__ import annotations

import pytest

from distsearch.core import storage
from distsearch.testing import StorageKit
from tests.bucket import FakeBucket


@pytest.fixture(autouse=True)
def impatient(monkeypatch):
    monkeypatch.setattr(storage, "PAUSES_S", (0.01, 0.02))
    FakeBucket.old_listings.clear()


class TestFolder(StorageKit):
    @pytest.fixture(autouse=True)
    def put_it_somewhere(self, tmp_path):
        self.place = str(tmp_path)


class TestBucket(StorageKit):
    @pytest.fixture(autouse=True)
    def put_it_somewhere(self, tmp_path):
        self.place = f"fakebucket://{tmp_path}"


class TestMemory(StorageKit):
    place = "memory://tests"
