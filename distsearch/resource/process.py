"""A process in which trials run, and who hears what becomes of it."""

from __future__ import annotations

import socket
from dataclasses import dataclass
from typing import Any, Protocol


@dataclass(eq=False)
class Process:
    """A process of the launcher; `work` is what its owner has given it to do."""

    key: str
    channel: socket.socket
    setting: tuple[Any, ...]  # environment, threads and folder, which cannot be changed any more
    reuse: bool
    pid: int | None = None
    unread: bytes = b""
    unsent: bytes = b""
    work: Any = None
    reading: bool = False
    exited: bool = False


class ProcessListener(Protocol):
    """Who hears what processes do."""

    def on_started(self, process: Process) -> None:
        """Hear that a process lives; its `pid` is known now."""

    def on_lines(self, process: Process, lines: list[bytes]) -> None:
        """Take whole lines that a process has said."""

    def on_exit(self, process: Process, exit_: dict[str, Any]) -> None:
        """Hear that a process is reaped, after all that it said; `exit_` is the launcher's word."""

    def on_launcher_died(self, reason: str) -> None:
        """Hear that all processes are about to go, as the launcher has."""

    def on_trouble(self, text: str) -> None:
        """Hear what the user should know: it goes on, but not as it should."""

    def on_given_up(self, reason: str) -> None:
        """Hear that no launcher lives long enough to start a process: there is none any more."""
