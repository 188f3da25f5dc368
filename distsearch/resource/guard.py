"""The guard: a process between a node's agent and its launcher, which outlives both by a moment.

Nobody else could clean up when both are killed, or when the launcher cannot (it is stopped, or
amid an import). The guard imports nothing, holds nothing and has one thought: when its parent, the
agent, or its child, the launcher, is gone, it kills whatever descends from it. As it is a
subreaper, what trials leave comes to it, in whatever session and with whatever environment. Were
the guard itself killed, the launcher would do the same.
"""

from __future__ import annotations

import contextlib
import os
import select
import signal
import socket
import sys
from types import FrameType
from typing import Any, NoReturn

from .proc import children, kill

LINUX = sys.platform.startswith("linux")
PR_SET_PDEATHSIG, PR_SET_NAME, PR_SET_CHILD_SUBREAPER = 1, 15, 36
NAME = b"distsearch"  # not "python": who kills all of these means others
PERIOD_S = 1.0  # so often the guard looks whether the agent lives
END_ALL = signal.SIGUSR1  # to the guard: end the launcher and all that descends from it


def set_process_option(option: int, value: int | bytes) -> None:
    """Call prctl(2), on Linux; nothing elsewhere."""
    if LINUX:
        _libc().prctl(option, value, 0, 0, 0)


_loaded_libc: list[Any] = []


def _libc() -> Any:
    if not _loaded_libc:
        import ctypes

        _loaded_libc.append(ctypes.CDLL(None, use_errno=True))
    return _loaded_libc[0]


def begin_with_own_signals() -> None:
    """Hear all signals again: a driver may have blocked some, or nohup and cron ignore them.

    Else no trial would hear of its end, and nobody of the end of a child.
    """
    for number in signal.valid_signals():
        is_python_s = number in (signal.SIGPIPE, signal.SIGXFSZ)  # which Python always ignores
        if signal.getsignal(number) is signal.SIG_IGN and not is_python_s:
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def become_guarded(control: socket.socket) -> None:
    """Return in a child, which is to be the launcher, while this process becomes its guard.

    `control`: the launcher's end of the socket to the agent. Elsewhere than on Linux there is no
    guard, and this process returns.
    """
    if not LINUX:
        return
    agent = os.getppid()
    poll = select.poll()
    poll.register(control, 0)
    if poll.poll(0):  # the agent had gone before it could be watched
        os._exit(0)
    set_process_option(PR_SET_CHILD_SUBREAPER, 1)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGCHLD, END_ALL))
    guard = os.getpid()
    launcher = os.fork()
    if launcher:
        control.close()  # the agent sees its end when the launcher has gone
        _guard(agent, launcher)
    set_process_option(PR_SET_CHILD_SUBREAPER, 1)
    # A signal of its own comes through amid an import, where nothing else is looked at.
    signal.signal(_guard_died(), _end_all)
    set_process_option(PR_SET_PDEATHSIG, _guard_died())
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    if os.getppid() != guard:
        os._exit(0)


def wake_guard() -> None:
    """In a launcher that ends: make its guard go on if somebody has stopped it, so that it ends."""
    if LINUX:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(os.getppid(), signal.SIGCONT)


def forget_guard() -> None:
    """In a child of the launcher: be no launcher any more."""
    if LINUX:
        signal.signal(_guard_died(), signal.SIG_DFL)


def _guard_died() -> int:
    return signal.SIGRTMAX - 1


def _end_all(number: int, frame: FrameType | None) -> NoReturn:
    end_children()
    os._exit(0)


def _guard(agent: int, launcher: int) -> NoReturn:
    set_process_option(PR_SET_NAME, NAME)
    is_over = False
    while not is_over and os.getppid() == agent:
        heard = signal.sigtimedwait((signal.SIGCHLD, END_ALL), PERIOD_S)
        is_over = heard is not None and (heard.si_signo == END_ALL or _has_ended(launcher))
    end_children()
    os._exit(0)


def _has_ended(pid: int) -> bool:
    return os.waitpid(pid, os.WNOHANG)[0] == pid


def end_children() -> None:
    """Kill all children of this process, and what comes to it when they end, until none is left."""
    while True:
        for pid in children():
            kill(pid)
        try:
            os.wait4(-1, 0)
        except ChildProcessError:
            return
