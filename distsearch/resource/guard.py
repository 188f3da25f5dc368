"""The guard: a process between a node's agent and its launcher, which outlives both by a moment.

It is there for the case that both are killed, or that the launcher cannot act (it is stopped, or in
the midst of an import). The guard imports nothing and holds nothing: when its parent, the agent, or
its child, the launcher, is gone, it kills all its descendants. It is a subreaper, so that orphans
of trials become its children, in whatever session and with whatever environment. If the guard
itself is killed, the launcher does the same.
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
NAME = b"distsearch"  # (not "python", which people kill by its name)
PERIOD_S = 1.0  # so often the guard looks whether the agent lives
END_ALL = signal.SIGUSR1  # tells the guard to end the launcher and all its descendants


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
    """Hear all signals again: a driver may have blocked some, and nohup and cron ignore some.

    Else a trial would not hear that it is to end, nor its parent that it has ended.
    """
    for number in signal.valid_signals():
        is_python_s = number in (signal.SIGPIPE, signal.SIGXFSZ)  # (Python always ignores these)
        if signal.getsignal(number) is signal.SIG_IGN and not is_python_s:
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def become_guarded(control: socket.socket) -> None:
    """Fork: this process becomes the guard, and the call returns in the child, the launcher.

    `control`: the launcher's end of the socket to the agent. Where the system is not Linux there is
    no guard, and the call returns in this process.
    """
    if not LINUX:
        return
    agent = os.getppid()
    poll = select.poll()
    poll.register(control, 0)
    if poll.poll(0):  # (the agent had gone already)
        os._exit(0)
    set_process_option(PR_SET_CHILD_SUBREAPER, 1)
    mask = signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGCHLD, END_ALL))
    guard = os.getpid()
    launcher = os.fork()
    if launcher:
        control.close()  # (so that the agent sees when the launcher's end is closed)
        _guard(agent, launcher)
    set_process_option(PR_SET_CHILD_SUBREAPER, 1)
    # (A signal is heard also in the midst of an import, when nothing else is looked at.)
    signal.signal(_guard_died(), _end_all)
    set_process_option(PR_SET_PDEATHSIG, _guard_died())
    signal.pthread_sigmask(signal.SIG_SETMASK, mask)
    if os.getppid() != guard:
        os._exit(0)


def wake_guard() -> None:
    """In a launcher that ends: continue a guard that somebody has stopped, so that it ends, too."""
    if LINUX:
        with contextlib.suppress(ProcessLookupError, PermissionError):
            os.kill(os.getppid(), signal.SIGCONT)


def forget_guard() -> None:
    """In a child of the launcher: forget what makes it a launcher."""
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
    """Kill all children of this process, also orphans that come to it, until none is left."""
    while True:
        for pid in children():
            kill(pid)
        try:
            os.wait4(-1, 0)
        except ChildProcessError:
            return
