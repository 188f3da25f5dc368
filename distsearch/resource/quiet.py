"""Keeps off the terminal what Dask, asyncssh and asyncio log of lost nodes."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Iterator

CHATTERERS = {"asyncssh", "distributed", "tornado"}
BROKEN_SOCKET = "socket.send() raised exception."  # asyncio logs it when a socket is lost


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep what Dask and asyncssh log in this thread off the terminal, until the block is left.

    The same goes for asyncio's words on broken sockets. Other threads log as before, so also what
    the user does with Dask.
    """
    thread = threading.get_ident()

    def is_wanted(record: logging.LogRecord) -> bool:
        is_noise = record.name != "asyncio" or record.msg == BROKEN_SOCKET
        return record.thread != thread or not is_noise

    names = [name for name in logging.root.manager.loggerDict if name.split(".")[0] in CHATTERERS]
    # (Of these three, some may be imported inside the block.)
    loggers = [logging.getLogger(name) for name in {*names, *CHATTERERS, "asyncio"}]
    for logger in loggers:
        logger.addFilter(is_wanted)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(is_wanted)
