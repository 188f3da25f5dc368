"""A node as the driver sees it: an address, its slots, and messages to and from its agent."""

from __future__ import annotations

import asyncio
import hashlib
from pathlib import Path
from typing import Any, Protocol

from ..errors import UploadError
from .node import NodeFacts
from .slots import NodeResourceManager

Message = dict[str, Any]
PIECE_BYTES = 1 << 20


class Listener(Protocol):
    """Who hears from a remote; both are called in the event loop that drives it."""

    def on_messages(self, remote: Remote, messages: list[Message]) -> None:
        """Take messages of the node's agent, in the order in which it sent them."""

    def retire(self, remote: Remote) -> None:
        """Start nothing more on a node, which is about to go; `on_lost` follows."""

    def on_lost(self, remote: Remote, reason: str, confirmed_dead: bool) -> None:
        """Hear that the node is gone; `confirmed_dead`: nothing of it can be running any more."""


class Remote:
    """One node: the agent that lives on it, wherever that is, and its slots.

    `address` is what `print(scheduler)` shows, `host` the name in front of the lines that its
    trials print, `is_local` whether it is the driver's own machine. `trial_cwd` is the folder in
    which its trials run: on this machine the driver's own; None for the work folder, in which
    uploads land.
    """

    is_local = False

    def __init__(self, remote_id: int, host: str, address: str, facts: NodeFacts) -> None:
        self.remote_id = remote_id
        self.host = host
        self.address = address
        self.facts = facts
        self.slots = NodeResourceManager(facts)
        self.trial_cwd: str | None = None
        self.lost_because: str | None = None
        self._uploads: dict[str, asyncio.Future[None]] = {}
        self._uploading = asyncio.Lock()

    def send(self, message: Message) -> None:
        """Send a message to the agent: at once, in order, without waiting."""
        raise NotImplementedError

    async def close(self) -> bool:
        """End every trial on the node, and whatever else this project started on it.

        Tells whether it is certain that nothing of it is left there.
        """
        raise NotImplementedError

    async def room(self) -> None:
        """Wait until the node has taken most of what it was sent, or is lost."""
        await asyncio.sleep(0)

    async def upload(self, name: str, source: Path) -> None:
        """Put a file into the node's work folder as `name`; return when it is there and whole.

        One file after the other. Other messages overtake a large one between its pieces: answers
        that came too late would end the node's trials. Raises UploadError when the node refuses
        the file or cannot store it.
        """
        async with self._uploading:
            await self._upload(name, source)

    async def _upload(self, name: str, source: Path) -> None:
        arrived = self._uploads[name] = asyncio.get_running_loop().create_future()
        digest = hashlib.sha256()
        with open(source, "rb") as file:
            mode = source.stat().st_mode & 0o777
            data = file.read(PIECE_BYTES)
            while True:
                following = file.read(PIECE_BYTES)
                digest.update(data)
                self.send(
                    {
                        "op": "upload",
                        "path": name,
                        "data": data,
                        "done": not following,
                        "sha256": digest.hexdigest(),
                        "mode": mode,
                    }
                )
                if not following:
                    break
                data = following
                await self.room()
        await arrived

    def on_uploaded(self, name: str, error: str) -> None:
        """Hear from the agent that a file is there, or why it is not."""
        arrived = self._uploads.pop(name, None)
        if arrived is None or arrived.done():
            return
        if error:
            arrived.set_exception(UploadError(f"{name} cannot be uploaded to {self.host}: {error}"))
        else:
            arrived.set_result(None)

    def on_gone(self, reason: str) -> None:
        """The node is lost: uploads that are under way to it fail."""
        for name in list(self._uploads):
            self.on_uploaded(name, f"the node is gone: {reason}")

    def __repr__(self) -> str:
        gigabytes = self.facts.memory_bytes / 1e9
        return (
            f"(Remote: Remote REMOTE_ID: {self.remote_id},\n"
            f"\t<Remote: '{self.address}' processes=1 threads={self.facts.num_cpus}, "
            f"memory={gigabytes:.2f} GB>, Resource: {self.slots!r})"
        )
