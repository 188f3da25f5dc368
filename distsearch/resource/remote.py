"""A node as the driver sees it: an address, its slots, and messages to and from its agent."""

from __future__ import annotations

import asyncio
import base64
import hashlib
import itertools
import os
from pathlib import Path
from typing import Any, Protocol

from ..errors import NodeError, UploadError
from .node import NodeFacts
from .slots import NodeResourceManager

Message = dict[str, Any]
PIECE_BYTES = 1 << 20
ANSWER_S = 120


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
        self._answers: dict[int, asyncio.Future[Any]] = {}
        self._numbers = itertools.count()

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

    async def upload(self, name: str, source: Path, trial: int | None = None) -> None:
        """Put a file into the node's work folder as `name`; return when it is there and whole.

        With `trial` it goes to the checkpoints of that trial. One file after the other. Other
        messages overtake a large one between its pieces: answers that came too late would end the
        node's trials. Raises UploadError when the node refuses the file or cannot store it.
        """
        async with self._uploading:
            await self._upload(name, source, trial)

    async def _upload(self, name: str, source: Path, trial: int | None) -> None:
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
                        "trial": trial,
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

    async def fetch_checkpoint(self, trial: int, folder: Path) -> None:
        """Copy the newest checkpoint of a trial from the node to below `folder`.

        Raises NodeError when the node is lost meanwhile or cannot read it.
        """
        for name, size in (await self._ask(op="list", trial=trial)).items():
            path = folder / name
            if ".." in path.parts or not path.is_relative_to(folder):
                raise NodeError(f"{self.host} named the file {name!r} as part of a checkpoint")
            if path.exists() and path.stat().st_size == size:
                continue  # it came before; a checkpoint never changes
            path.parent.mkdir(parents=True, exist_ok=True, mode=0o700)
            # The node may go meanwhile, and the same may be fetched twice at once.
            unfinished = path.with_name(f".{path.name}.{next(self._numbers)}.part")
            try:
                await self._read_into(unfinished, trial, name, size)
                os.replace(unfinished, path)
            finally:
                unfinished.unlink(missing_ok=True)

    async def _read_into(self, path: Path, trial: int, name: str, size: int) -> None:
        with open(path, "wb") as file:
            while file.tell() < size:
                where = {"offset": file.tell(), "bytes": min(PIECE_BYTES, size - file.tell())}
                data = base64.b64decode(await self._ask(op="read", trial=trial, path=name, **where))
                if not data:
                    raise NodeError(f"{name} on {self.host} is shorter than it was")
                file.write(data)

    async def put_checkpoint(self, trial: int, checkpoint: Path) -> None:
        """Copy a checkpoint of a trial (its folder here) to the node."""
        for path in sorted(checkpoint.rglob("*"), key=lambda path: path.name == "manifest.json"):
            if path.is_file():
                name = path.relative_to(checkpoint.parent).as_posix()
                await asyncio.wait_for(self.upload(name, path, trial), ANSWER_S)

    async def _ask(self, **message: Any) -> Any:
        number = next(self._numbers)
        answer = self._answers[number] = asyncio.get_running_loop().create_future()
        self.send({**message, "number": number})
        try:
            return await asyncio.wait_for(answer, ANSWER_S)
        except asyncio.TimeoutError:
            raise NodeError(f"{self.host} gave no answer in {ANSWER_S} s") from None
        finally:
            del self._answers[number]

    def on_answer(self, message: Message) -> None:
        """Take the agent's answer to a question."""
        answer = self._answers.get(message["number"])
        if answer is None or answer.done():
            return
        if message.get("error"):
            answer.set_exception(NodeError(f"{self.host}: {message['error']}"))
        else:
            answer.set_result(message["value"])

    def on_gone(self, reason: str) -> None:
        """The node is lost: what is under way to or from it fails."""
        for name in list(self._uploads):
            self.on_uploaded(name, f"the node is gone: {reason}")
        for number in list(self._answers):
            self.on_answer({"number": number, "error": f"the node is gone: {reason}"})

    def __repr__(self) -> str:
        gigabytes = self.facts.memory_bytes / 1e9
        return (
            f"(Remote: Remote REMOTE_ID: {self.remote_id},\n"
            f"\t<Remote: '{self.address}' processes=1 threads={self.facts.num_cpus}, "
            f"memory={gigabytes:.2f} GB>, Resource: {self.slots!r})"
        )
