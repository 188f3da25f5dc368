"""All nodes of one search: bringing them up, adding, removing, uploading, closing."""

from __future__ import annotations

import asyncio
import os
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import Any, Protocol

from ..errors import ResourceError
from .local import LocalRemote
from .node import Node
from .remote import Listener, Remote


class Owner(Listener, Protocol):
    """The experiment: hears from the nodes and is told when one comes."""

    def add_remote(self, remote: Remote) -> None:
        """Use a node."""


class Fleet:
    """The nodes of one search; used in the loop's thread."""

    def __init__(
        self,
        folder: Path,
        owner: Owner,
        *,
        tunnel: bool | None,
        ssh_config: Sequence[str | os.PathLike[str]] | None,
        say: Callable[[str], None],
    ) -> None:
        self.folder = folder
        self.owner = owner
        self.remotes: list[Remote] = []
        self.uploaded: dict[str, Path] = {}
        self._say = say

    async def start(self, *, local: bool | Node, addresses: Sequence[Node], client: Any) -> None:
        """Bring all nodes up at once."""
        if local:
            node = local if isinstance(local, Node) else None
            remote = await LocalRemote.start(0, self.folder, self.owner, node)
            remote.trial_cwd = os.getcwd()
            self._use(remote)

    def _use(self, remote: Remote) -> None:
        self.remotes.append(remote)
        self.owner.add_remote(remote)

    async def upload(self, files: Mapping[str, Path]) -> None:
        """Put files on every node, those that come later too."""
        self.uploaded.update(files)
        for remote in self.remotes:
            remote.trial_cwd = None
        await asyncio.gather(*(self._upload_to(remote, files) for remote in self.remotes))

    async def _upload_to(self, remote: Remote, files: Mapping[str, Path]) -> None:
        for name, path in files.items():
            await remote.upload(name, path)

    async def close(self) -> None:
        """End everything on every node."""
        await asyncio.gather(*(remote.close() for remote in self.remotes))
