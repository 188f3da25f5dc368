"""A fake object store: files of this machine behind the manners of one.

It has no rename, and its listings are those of the moment at which each folder was first listed.
"""

from __future__ import annotations

import fsspec
from fsspec.implementations.local import LocalFileSystem


class FakeBucket(LocalFileSystem):
    """A fake object store: no rename, stale listings, no folders to make."""

    protocol = "fakebucket"
    old_listings: dict = {}
    auto_mkdir = True

    def __init__(self, **options):
        super().__init__(auto_mkdir=True, **options)

    def mv(self, *arguments, **options):
        raise NotImplementedError("an object store has no rename")

    mv_file = rename = move = mv

    def ls(self, path, detail=False, **options):
        key = (self._strip_protocol(path), detail)
        if key not in self.old_listings:
            self.old_listings[key] = super().ls(path, detail=detail, **options)
        return self.old_listings[key]


fsspec.register_implementation("fakebucket", FakeBucket, clobber=True)
