"""How much to send at a time over a link whose speed is not known."""

from __future__ import annotations

import asyncio
import contextlib
from collections.abc import Iterator

SMALLEST_PIECE, LARGEST_PIECE = 16 << 10, 4 << 20
QUICK_S, LONG_S = 1.0, 3.0


class Pace:
    """The size of pieces, in bytes: about what the link carries in one to three seconds.

        pace = Pace()
        with pace.timed(pace.piece_bytes):          # at the end the next piece may be larger
            await send(data[: pace.piece_bytes])

    So however slow the link is, a very late answer means that nothing moves, and other messages
    never wait long behind pieces. As long as nothing is known, pieces are small.
    """

    def __init__(self, piece_bytes: int = SMALLEST_PIECE) -> None:
        self.piece_bytes = piece_bytes

    @contextlib.contextmanager
    def timed(self, size: int) -> Iterator[None]:
        """Learn from the time that the block takes to send `size` bytes, also if it fails."""
        loop = asyncio.get_running_loop()
        begin = loop.time()
        try:
            yield
        finally:
            self.note(size, loop.time() - begin)

    def note(self, size: int, seconds: float) -> None:
        """Learn that `size` bytes took `seconds`.

        A piece that was cut before the last change of the size says nothing about the new size.
        """
        if seconds > LONG_S and size <= self.piece_bytes:
            would_be_quick = int(self.piece_bytes * QUICK_S / seconds)
            self.piece_bytes = max(SMALLEST_PIECE, would_be_quick)
        elif seconds < QUICK_S and size >= self.piece_bytes:
            self.piece_bytes = min(LARGEST_PIECE, 2 * self.piece_bytes)
