"""A process in which trials run, and the listener that hears what becomes of it."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(eq=False)
class Process:
    """A process of the launcher; `work` is what its owner has given it to do."""

    key: str
    channel: socket.socket
    setting: tuple[Any, ...]  # environment, threads and folder, which stay as they are
    reuse: bool
    pid: int | None = None
    unread: bytes = b""
    unsent: bytes = b""
    work: Any = None
    reading: bool = False
    exited: bool = False


class ProcessListener(Protocol):
    """Hears what processes do."""

    def on_started(self, process: Process) -> None:
        """Hear that a process has started; its `pid` is known now."""

    def on_lines(self, process: Process, lines: list[bytes]) -> None:
        """Take whole lines that a process has said."""

    def on_exit(self, process: Process, exit_: dict[str, Any]) -> None:
        """Hear, after all its lines, that a process was reaped; `exit_`: the launcher's message."""

    def on_launcher_died(self, reason: str) -> None:
        """Hear that the launcher has died, so that all processes are about to end."""

    def on_trouble(self, text: str) -> None:
        """Hear of something that the user should know, though all goes on."""

    def on_given_up(self, reason: str) -> None:
        """Hear that launchers die before they can start a process, and none is started any more."""
