"""The SQLite store passes the kit of stores."""

from __future__ import annotations

from distsearch.core import store
from distsearch.testing.stores import SQLStoreKit


class TestStore(SQLStoreKit):
    where = "distsearch.core.store:Store"
    file = store.FILE

    def make(self, folder):
        return store.Store(folder)

    def read(self, folder):
        return list(store.read(folder))
