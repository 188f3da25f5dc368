"""What a node is given before trials can run there: imports, the function, the user's files."""

from __future__ import annotations

import asyncio
from collections.abc import Callable, Sequence

from ..errors import DistsearchError
from ..resource.remote import Remote
from ..resource.stock import FUNCTION, UPLOADS
from . import modules
from .orders import function_of, preload_of
from .settings import Settings


class Supplies:
    """Gives nodes what trials need, and asks them what they lack.

    supplies.send(remote)                        # to a node that has just come
    supplies.ask_for_modules(remote)             # asks once; `say_lacking` takes the answer
    supplies.send_again(remote, ["function"])    # what an agent has lost
    """

    def __init__(self, settings: Settings, say: Callable[[str], None]) -> None:
        self._settings = settings
        self._say = say
        self._asked: set[int] = set()  # the ids of nodes that were asked for modules
        self._uploads: set[asyncio.Task[None]] = set()

    def send(self, remote: Remote) -> None:
        """Have a node's launcher import what trials do, and hold the train function."""
        remote.send(preload_of(self._settings, remote))
        remote.send(function_of(self._settings, remote))

    def ask_for_modules(self, remote: Remote) -> None:
        """Have a node say, before its first trial, which modules it lacks."""
        names = modules.needed(self._settings.packed)
        if names and not remote.is_local and remote.remote_id not in self._asked:
            self._asked.add(remote.remote_id)
            remote.send({"op": "find", "modules": names})

    def say_lacking(self, remote: Remote, names: Sequence[str]) -> None:
        """Tell the user which modules a node lacks, and what installs them there."""
        self._say(modules.lacking(self._settings.packed, remote.host, names))

    def send_again(self, remote: Remote, lacks: Sequence[str]) -> None:
        """Give a node again what it has lost."""
        if FUNCTION in lacks:
            remote.send(function_of(self._settings, remote))
        if UPLOADS in lacks:
            task = asyncio.get_running_loop().create_task(self._upload_again(remote))
            self._uploads.add(task)
            task.add_done_callback(self._uploads.discard)

    async def _upload_again(self, remote: Remote) -> None:
        try:
            await remote.upload_again()
        except (DistsearchError, OSError) as error:  # (the next trial there will ask again)
            self._say(f"{remote.host}: {error}")
