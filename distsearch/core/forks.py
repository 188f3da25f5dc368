"""A fork of the driver waits, for a moment, until no background thread is in the midst of work.

A forked child has one thread, that which forked. A lock that another thread held at that moment
stays locked for ever in the child, and a module that it was importing stays half made: NumPy loads
`numpy.random` when a searcher first draws, SQLite has locks of its own. So background threads work
inside `undisturbed`, and the loop stands still during a fork (`loop.py`).

    with undisturbed():
        commit(rows)
"""

from __future__ import annotations

import os
import threading

WAIT_S = 5.0  # neither a fork nor a thread waits longer for the other


class Gate:
    """Open for all threads that work, closed while one forks.

    `with gate:` is work, which begins once no thread forks; there may be more of it inside.
    """

    def __init__(self) -> None:
        self._changed = threading.Condition()
        self._inside: dict[int, int] = {}  # threads that work, and how deep in such work they are
        self._forking = 0

    def __enter__(self) -> None:
        me = threading.get_ident()
        with self._changed:
            depth = self._inside.get(me, 0)
            if self._forking and not depth:
                self._changed.wait_for(lambda: not self._forking, WAIT_S)
            self._inside[me] = depth + 1

    def __exit__(self, *error: object) -> None:
        me = threading.get_ident()
        with self._changed:
            self._inside[me] -= 1
            if not self._inside[me]:
                del self._inside[me]
                self._changed.notify_all()

    def close(self) -> None:
        """Let no thread begin, and wait until all others have ended their work; 5 s at most."""
        me = threading.get_ident()
        with self._changed:
            self._forking += 1
            self._changed.wait_for(lambda: self._inside.keys() <= {me}, WAIT_S)

    def open(self) -> None:
        """Let all threads go on: the fork is over."""
        with self._changed:
            self._forking -= 1
            self._changed.notify_all()


_gate = Gate()


def undisturbed() -> Gate:
    """Work that no fork of this process is to cut in two; a fork waits for it, up to 5 s."""
    return _gate


def _begin_anew() -> None:
    """In a forked child: no other thread is at work, as there is none."""
    global _gate
    _gate = Gate()


os.register_at_fork(
    before=lambda: _gate.close(), after_in_parent=lambda: _gate.open(), after_in_child=_begin_anew
)
