"""The agent: lives on a node, and speaks for the trials that its supervisor runs there.

It is driven by one asyncio loop (of the node's Dask worker, or of the driver for the local node)
and knows nothing of Dask or SSH: `handle(messages)` takes what the driver says, `send(messages)`
is given what the driver should hear; `messages.py` has the table of both.

Checkpoints travel beside the messages: the driver asks `checkpoints`, the node's `CheckpointCache`.
What stands here is the conversation: who does what the driver says, what the driver hears, and for
how long trials may run while the driver is silent. What becomes of each trial is the business of
`supervisor.py`.
"""

from __future__ import annotations

import asyncio
import time
from collections.abc import Callable, Coroutine
from pathlib import Path
from typing import Any

from .cache import CheckpointCache
from .meeting import MeetingPoints, Network
from .messages import Message
from .proc import MARK_FILE
from .process import ProcessListener
from .processes import LOG_FILE, Processes
from .stock import FOLDERS, Stock
from .supervisor import Supervisor

MADE = (*FOLDERS, LOG_FILE, MARK_FILE)  # all that an agent makes in its folder
SLEEP_AFTER = 1.5  # after so many leases without an answer the node keeps no process


class Agent:
    """Speaks with the driver for one node; see `messages.py` for what it hears and says.

    `folder`: where the node keeps everything of this search. `lease_s`: after that many seconds
    without an answer from the driver to a beat, measured from the *sending* of that beat, the agent
    ends all its trials (None: the agent lives in the driver and needs no lease).
    """

    def __init__(
        self,
        *,
        folder: Path,
        send: Callable[[list[Message]], None],
        lease_s: float | None = 30.0,
        clock: Callable[[], float] = time.monotonic,
        make_processes: Callable[[Path, ProcessListener], Processes] = Processes,
        network: Network | None = None,
    ) -> None:
        self.folder = folder
        self.lease_s = lease_s
        self._send = send
        self._clock = clock
        self._outbox: list[Message] = []
        self._flushing = False
        self._stock = Stock(folder)
        self.checkpoints = CheckpointCache(folder / "trials")
        self._meetings = MeetingPoints(network or Network(), self.checkpoints.begin)
        self.supervisor = Supervisor(
            folder, self._stock, self._meetings, self._tell, clock, make_processes
        )
        self._beats: dict[int, float] = {}  # when those were sent that are not answered yet
        self._beat_number = 0
        self._lease_from = 0.0
        self._is_asleep = False  # the driver has long been silent: there is not even a launcher
        self._tasks: list[asyncio.Task[None]] = []
        self._closing = False
        supervisor = self.supervisor
        self._actions: dict[str, Callable[[Message], None]] = {  # by the `op` of a message
            "ping": self._on_ping,
            "beat": self._on_beat,
            "preload": self._on_preload,
            "function": self._on_function,
            "find": self._on_find,
            "upload": self._on_upload,
            "meet": self._on_meet,
            "reach": self._on_reach,
            "start": self._on_start,
            "decide": supervisor.decide,
            "stop": supervisor.stop,
            "follow": supervisor.follow,
            "ack": supervisor.acknowledge,
        }

    # Life

    async def start(self) -> None:
        """Make the folders and start the launcher."""
        self._loop = asyncio.get_running_loop()
        self._stock.begin()
        self.supervisor.begin()
        if self.lease_s is not None:
            self._lease_from = self._clock()
            self._tasks.append(self._loop.create_task(self._keep_lease(self.lease_s)))

    async def close(self) -> None:
        """Kill every trial and the launcher, and wait until they are gone (about 9 s at most)."""
        if self._closing:
            return
        self._closing = True
        for task in self._tasks:
            task.cancel()
        self._meetings.close()
        await self.supervisor.close()

    # What the driver says

    def handle(self, messages: list[Message]) -> None:
        """Do what the driver says, in order."""
        for message in messages:
            if not self._closing:
                self._actions[message["op"]](message)

    def _on_ping(self, message: Message) -> None:
        pass  # (that the link could deliver the message is all that matters)

    def _on_beat(self, message: Message) -> None:
        sent = self._beats.pop(message["number"], None)
        if sent is not None:
            self._lease_from = max(self._lease_from, sent)
            self._wake_up()

    def _on_preload(self, message: Message) -> None:
        self.supervisor.processes.configure(
            preload=message["modules"],
            sys_path=message["sys_path"],
            entry=message["entry"],
            spawn=message["spawn"],
            surroundings=message["surroundings"],
        )

    def _on_function(self, message: Message) -> None:
        self._stock.take_function(message)  # if that fails, a start will ask for it again

    def _on_find(self, message: Message) -> None:
        lacks = [name for name in message["modules"] if not self._stock.finds(name)]
        if lacks:
            self._tell(op="lacks", modules=lacks)

    def _on_upload(self, message: Message) -> None:
        path = message["path"]
        try:
            self._stock.take_upload(message)
        except (OSError, ValueError) as error:
            self._tell(op="uploaded", path=path, error=str(error))
        else:
            if message["done"]:
                self._tell(op="uploaded", path=path, error="")

    def _on_meet(self, message: Message) -> None:
        self._do(self._meet(message))

    def _on_reach(self, message: Message) -> None:
        self._do(self._reach(message))

    def _do(self, work: Coroutine[Any, Any, None]) -> None:
        task = self._loop.create_task(work)
        self._tasks.append(task)
        task.add_done_callback(self._tasks.remove)

    async def _meet(self, message: Message) -> None:
        answer = await self._meetings.meet(message)
        self._tell(op="meets", trial=message["trial"], attempt=message["attempt"], **answer)

    async def _reach(self, message: Message) -> None:
        answer = await self._meetings.reach(message)
        self._tell(op="reached", trial=message["trial"], attempt=message["attempt"], **answer)

    def _on_start(self, message: Message) -> None:
        self._meetings.give_way(message["trial"], message["attempt"])
        if self.lease_s is not None and self._silent_s > self.lease_s:
            # The message was under way for so long that the trial may run elsewhere by now.
            reason = "the driver was not heard of in time"
            self.supervisor.cannot_start(message, "node_lost", reason)
        else:
            self.supervisor.start(message)

    # The lease: for how long trials may run while the driver is silent

    async def _keep_lease(self, lease_s: float) -> None:
        while True:
            self._beat_number += 1
            self._beats = {n: t for n, t in self._beats.items() if n > self._beat_number - 20}
            self._beats[self._beat_number] = self._clock()
            self._tell(op="beat", number=self._beat_number)
            await asyncio.sleep(lease_s / 6)
            if self._silent_s > lease_s:
                reason = f"the node heard nothing from the driver for {lease_s:g} s"
                self.supervisor.end_all(reason)
            if self._silent_s > SLEEP_AFTER * lease_s and not self._is_asleep:
                await self.supervisor.keep_no_process()
                self._is_asleep = True
                self._wake_up()

    @property
    def _silent_s(self) -> float:
        """How long ago the beat was sent that the driver answered last."""
        return self._clock() - self._lease_from

    def _wake_up(self) -> None:
        """Have a launcher again, once the driver is heard of."""
        if self._is_asleep and self.lease_s is not None and self._silent_s <= self.lease_s:
            self._is_asleep = False
            self.supervisor.processes.start_again()

    # Speaking

    def _tell(self, **message: Any) -> None:
        """Say something to the driver, together with what else is said in this turn of the loop."""
        self._outbox.append(message)
        if not self._flushing:
            self._flushing = True
            self._loop.call_soon(self._flush)

    def _flush(self) -> None:
        self._flushing = False
        messages, self._outbox = self._outbox, []
        self._send(messages)
