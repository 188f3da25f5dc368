"""What Dask, asyncssh and asyncio log of lost nodes is kept off the terminal."""

from __future__ import annotations

import contextlib
import logging
import threading
from collections.abc import Iterator

CHATTERERS = {"asyncssh", "distributed", "tornado"}
BROKEN_SOCKET = "socket.send() raised exception."  # asyncio logs it of a socket just lost


@contextlib.contextmanager
def quiet() -> Iterator[None]:
    """Keep what Dask, asyncssh and asyncio (of broken sockets) log in this thread off the terminal.

    Only the loop's thread is silenced: what the user does with Dask elsewhere is logged as before.
    """
    thread = threading.get_ident()

    def is_wanted(record: logging.LogRecord) -> bool:
        is_noise = record.name != "asyncio" or record.msg == BROKEN_SOCKET
        return record.thread != thread or not is_noise

    names = [name for name in logging.root.manager.loggerDict if name.split(".")[0] in CHATTERERS]
    loggers = [logging.getLogger(name) for name in (*names, "asyncio")]
    for logger in loggers:
        logger.addFilter(is_wanted)
    try:
        yield
    finally:
        for logger in loggers:
            logger.removeFilter(is_wanted)
