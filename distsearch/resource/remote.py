"""A node as the driver sees it: an address, its slots, and messages to and from its agent."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable, Generator
from pathlib import Path
from typing import Any, Protocol
from weakref import WeakValueDictionary

from ..errors import NodeError, UploadError
from .cache import MANIFEST, Piece, delete, inside, pieces, receive_piece
from .messages import Message
from .node import NodeFacts
from .pace import Pace
from .slots import NodeResourceManager

PIECE_BYTES = 1 << 20  # the largest piece of an upload, so that other messages overtake the rest
# So many pieces of a checkpoint are under way at once. With half as many, decisions would wait a
# third less behind them, but a checkpoint would take a third longer.
MOVED_AT_ONCE = 4
HOLD_TRIES = 10


class Listener(Protocol):
    """Hears from remotes; its methods are called in the event loop in which the remotes live."""

    def on_messages(self, remote: Remote, messages: list[Message]) -> None:
        """Take messages of the node's agent, in the order in which it sent them."""

    def retire(self, remote: Remote) -> None:
        """Hear that a node is about to go: nothing more starts there, and `on_lost` follows."""

    def on_lost(self, remote: Remote, reason: str, confirmed_dead: bool) -> None:
        """Hear that a node is gone; `confirmed_dead`: nothing can be running there any more."""


class Remote:
    """One node: its slots, and messages to and from its agent.

        remote.send({"op": "start", "trial": 3, ...})        # at once, in order
        await remote.put_checkpoint(3, folder)

    `address` is what `print(scheduler)` shows, `host` the name before lines that its trials print,
    `is_local` whether it is the driver's own machine. `trial_cwd` is the folder in which its trials
    run: on this machine the driver's current folder; None if each trial has a folder of its own, in
    which uploads are linked.
    """

    is_local = False

    def __init__(self, remote_id: int, host: str, address: str, facts: NodeFacts) -> None:
        self.remote_id = remote_id
        self.host = host
        self.address = address
        self.facts = facts
        self.slots = NodeResourceManager(facts)
        self.pace = Pace()
        self.trial_cwd: str | None = None
        self.lost_because: str | None = None
        self._uploads: dict[str, asyncio.Future[None]] = {}
        self._uploaded: dict[str, Path] = {}  # the source of each file, by its name on the node
        self._uploading = asyncio.Lock()
        self._putting = asyncio.Lock()
        self._moving = asyncio.Semaphore(MOVED_AT_ONCE)
        self._fetching: WeakValueDictionary[int, asyncio.Lock] = WeakValueDictionary()
        self._calls: set[asyncio.Future[Any]] = set()
        self._gone = ""

    def use(self, facts: NodeFacts) -> None:
        """Use only these slots of the node; to be called before trials run there."""
        self.facts, self.slots = facts, NodeResourceManager(facts)

    def send(self, message: Message) -> None:
        """Send a message to the agent: at once, in order, without waiting."""
        raise NotImplementedError

    async def close(self) -> bool:
        """End every trial on the node, and all else that was started there.

        Returns whether surely nothing is left there.
        """
        raise NotImplementedError

    async def room(self) -> None:
        """Wait until the node has taken most of what it was sent, or is lost."""
        await asyncio.sleep(0)

    async def upload(self, name: str, source: Path) -> None:
        """Put a file into the node's work folder as `name`; return when it is there and whole.

        One file goes after the other. Messages overtake a large file between its pieces, as answers
        that come too late end the node's trials. Raises UploadError when the node refuses the file
        or cannot store it.
        """
        async with self._uploading:
            await self._upload(name, source)
            self._uploaded[name] = source

    async def upload_again(self) -> None:
        """Put all uploaded files there again, which a trial has deleted."""
        for name, source in list(self._uploaded.items()):
            await self.upload(name, source)

    async def _upload(self, name: str, source: Path) -> None:
        arrived = self._uploads[name] = asyncio.get_running_loop().create_future()
        digest = hashlib.sha256()
        with open(source, "rb") as file:
            mode = source.stat().st_mode & 0o777
            data = file.read(min(PIECE_BYTES, self.pace.piece_bytes))
            while True:
                following = file.read(min(PIECE_BYTES, self.pace.piece_bytes))
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

    async def fetch_checkpoint(self, trial: int, folder: Path) -> Path | None:
        """Copy the newest checkpoint of a trial from the node into `folder`.

        Returns where it is; None if the node has none. A checkpoint that is there is not copied
        again. Raises NodeError when the node is lost meanwhile or cannot read the checkpoint,
        OSError when it cannot be written here.
        """
        async with self._fetching.setdefault(trial, asyncio.Lock()):
            return await self._fetch_checkpoint(trial, folder)

    async def _fetch_checkpoint(self, trial: int, folder: Path) -> Path | None:
        for _ in range(HOLD_TRIES):
            name = await self._ask("newest", trial)
            if name is None:
                return None
            target = inside(folder, name)
            if (target / MANIFEST).exists():
                return target
            while (sizes := await self._ask("hold", trial, name)) == {}:
                pass  # the node is still copying
            if sizes is not None:
                break
        else:
            raise NodeError(f"trial {trial} replaces its checkpoints on {self.host} too fast")

        async def fetch(piece: Piece) -> None:
            async with self._moving:
                with self.pace.timed(piece.size):
                    data = await self._ask(
                        "read", trial, name, piece.path, piece.offset, piece.size
                    )
            if len(data) != piece.size:
                raise NodeError(f"{name}/{piece.path} on {self.host} is shorter than it was")
            await asyncio.to_thread(receive_piece, target, piece.lands_as, piece.offset, data)

        try:
            await self._move(sizes, fetch)
        except BaseException:
            delete(target)
            raise
        finally:
            if not self._gone:
                await self._ask("release", trial, name)
        return target

    async def put_checkpoint(self, trial: int, checkpoint: Path) -> int:
        """Copy a checkpoint of a trial (a folder here) to the node, unless it is there.

        Returns how many bytes were sent. Raises NodeError; OSError when it cannot be read here.
        """
        name = checkpoint.name
        async with self._putting:  # (so that a second child on the node finds it there)
            digest = hashlib.sha256((checkpoint / MANIFEST).read_bytes()).hexdigest()
            if await self._ask("has", trial, name, digest):
                return 0
            sizes = {
                path.relative_to(checkpoint).as_posix(): path.stat().st_size
                for path in sorted(checkpoint.rglob("*"))
                if path.is_file()
            }
            if MANIFEST not in sizes:
                raise FileNotFoundError(f"{checkpoint} was deleted meanwhile")

            async def put(piece: Piece) -> None:
                data = await asyncio.to_thread(_read, checkpoint / piece.path, piece)
                async with self._moving:
                    with self.pace.timed(piece.size):
                        await self._ask("write", trial, name, piece.lands_as, piece.offset, data)

            await self._move(sizes, put)
            return sum(sizes.values())

    async def delete_checkpoint(self, trial: int, name: str) -> None:
        """Delete a checkpoint from the node. Raises NodeError."""
        await self._ask("delete", trial, name)

    async def _move(self, sizes: dict[str, int], move: Callable[[Piece], Awaitable[None]]) -> None:
        """Move all files in pieces, a few at a time; the manifest comes last, and commits them."""
        files = {path: size for path, size in sizes.items() if path != MANIFEST}
        todo = pieces(files, lambda: self.pace.piece_bytes)
        movers = (_move_each(todo, move) for _ in range(MOVED_AT_ONCE))
        for result in await asyncio.gather(*movers, return_exceptions=True):
            if isinstance(result, BaseException):
                raise result
        manifest = {MANIFEST: sizes[MANIFEST]}
        await _move_each(pieces(manifest, lambda: self.pace.piece_bytes), move)

    async def use_cache(self, verb: str, *arguments: Any) -> Any:
        """Call a method of the node's `CheckpointCache`.

        Raises errors of many kinds when that fails, or when nothing moves for too long.
        """
        raise NotImplementedError

    async def _ask(self, verb: str, *arguments: Any) -> Any:
        if self._gone:
            raise NodeError(f"{self.host}: the node is gone: {self._gone}")
        call = asyncio.ensure_future(self.use_cache(verb, *arguments))
        self._calls.add(call)
        try:
            return await call
        except asyncio.CancelledError:
            if self._gone:
                raise NodeError(f"{self.host}: the node is gone: {self._gone}") from None
            raise
        except Exception as error:  # (of many kinds: by the node's disk, or the connection)
            raise NodeError(f"{self.host}: {error or repr(error)}") from error
        finally:
            self._calls.discard(call)

    def on_gone(self, reason: str) -> None:
        """Take note that the node is lost: let fail what is under way to or from it."""
        for name in list(self._uploads):
            self.on_uploaded(name, f"the node is gone: {reason}")
        self._gone = reason
        for call in list(self._calls):
            call.cancel()

    def __repr__(self) -> str:
        gigabytes = self.facts.memory_bytes / 1e9
        return (
            f"(Remote: Remote REMOTE_ID: {self.remote_id},\n"
            f"\t<Remote: '{self.address}' processes=1 threads={self.facts.num_cpus}, "
            f"memory={gigabytes:.2f} GB>, Resource: {self.slots!r})"
        )


async def _move_each(
    todo: Generator[Piece, None, None], move: Callable[[Piece], Awaitable[None]]
) -> None:
    """Move pieces, until there are no more, or one of those who move them has failed."""
    try:
        for piece in todo:
            await move(piece)
    except BaseException:
        todo.close()
        raise


def _read(path: Path, piece: Piece) -> bytes:
    with open(path, "rb") as file:
        file.seek(piece.offset)
        return file.read(piece.size)
