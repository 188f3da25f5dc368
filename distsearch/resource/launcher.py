"""The launcher: one single-threaded process per node that forks a fresh process for each trial.

It has already imported what trials import, so that a trial starts in milliseconds. It never
touches CUDA and never runs user code itself. Its parent (the node's agent) speaks to it through
a socket, one JSON object a line:

    configure  preload, sys_path, entry, surroundings      import these modules, set these up
    fork       key, env, folder, threads (and one file descriptor: the trial's own socket)
    kill       key, signal                     to the trial's whole process group
    ping

and hears `configured`, `started` (key, pid), `exited` (key, code or signal, peak memory, CPU
seconds) and `pong`; or, of a launcher that ends as it can start no process, `cannot_run` (reason).
When the agent's end closes, for whatever reason, every trial is killed and the
launcher ends. Between the two stands a guard (`guard.py`), the launcher's parent for the system.

Started by `command(FD)`.
"""

from __future__ import annotations

import contextlib
import gc
import importlib
import json
import os
import select
import signal
import socket
import subprocess
import sys
from collections import deque
from pathlib import Path
from typing import Any, NoReturn

from .guard import (
    LINUX,
    PR_SET_CHILD_SUBREAPER,
    PR_SET_PDEATHSIG,
    become_guarded,
    begin_with_own_signals,
    end_children,
    forget_guard,
    set_process_option,
    wake_guard,
)
from .lacks import with_remedy
from .output import make_patient
from .proc import children, kill

PARENT_PERIOD_MS = 1000
THREAD_VARIABLES = (
    "OMP_NUM_THREADS",
    "OPENBLAS_NUM_THREADS",
    "MKL_NUM_THREADS",
    "NUMEXPR_NUM_THREADS",
    "VECLIB_MAXIMUM_THREADS",
)
# Not by `python -m`, in whose path the current folder is, which may have a json.py.
_START = (
    "import sys; sys.path[:] = filter(None, sys.path); sys.path[:0] = {sys.argv[1]} - {*sys.path}; "
    "from distsearch.resource.launcher import main; main(sys.argv[2:])"
)


def command(*arguments: str) -> list[str]:
    """What to execute for a launcher (one argument: a descriptor), or a spawned trial; see `main`.

    It takes its own modules from Python and from where this package lies, whatever the current
    folder has.
    """
    return [sys.executable, "-c", _START, str(Path(__file__).resolve().parents[2]), *arguments]


class Launcher:
    """Forks, watches and kills the processes of trials; see the module's text."""

    def __init__(self, control: socket.socket) -> None:
        self.control = control
        self.entry = ""
        self.spawn = not LINUX  # elsewhere forking is unsafe once a framework is loaded
        self.keys: dict[int, str] = {}
        self.pids: dict[str, int] = {}
        self.unread = b""
        self.descriptors: deque[int] = deque()

    def run(self) -> None:
        """Serve until the parent's end of the socket closes; then leave nothing behind."""
        # No signal may reach a trial before it has its own handlers, which unblock them.
        signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGINT))
        wake_read, wake_write = os.pipe()
        os.set_blocking(wake_write, False)
        os.set_blocking(wake_read, False)
        signal.set_wakeup_fd(wake_write, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        poll = select.poll()
        poll.register(self.control, select.POLLIN)
        poll.register(wake_read, select.POLLIN)
        parent = os.getppid()
        # The end of the socket is not enough: a child of the agent may hold it open.
        while os.getppid() == parent:
            ready = [descriptor for descriptor, _ in poll.poll(PARENT_PERIOD_MS)]
            if wake_read in ready:
                with contextlib.suppress(BlockingIOError):
                    os.read(wake_read, 4096)
                self.reap()
            if self.control.fileno() in ready and not self.read_requests():
                break
        self.kill_everything()
        wake_guard()  # (a guard that was stopped would stay for ever)

    def read_requests(self) -> bool:
        """Do what the parent asks; False once it is gone."""
        try:
            data, descriptors, _, _ = socket.recv_fds(self.control, 1 << 16, 64)
        except ConnectionResetError:
            return False
        self.descriptors.extend(descriptors)
        if not data:
            return False
        *lines, self.unread = (self.unread + data).split(b"\n")
        for line in lines:
            request = json.loads(line)
            getattr(self, "do_" + request.pop("op"))(**request)
        return True

    def tell(self, **message: Any) -> None:
        """Send a message to the parent; if that is gone, the next read ends the launcher."""
        with contextlib.suppress(BrokenPipeError, ConnectionResetError):
            self.control.sendall(json.dumps(message).encode() + b"\n")

    def do_configure(
        self, preload: list[str], sys_path: list[str], entry: str, spawn: bool, surroundings: str
    ) -> None:
        """Import and set up what trials need, then keep the garbage collector off those pages."""
        self.entry = entry
        self.spawn = self.spawn or spawn
        import_entry(entry, sys_path)
        path = [*sys_path, *(one for one in sys.path if one not in sys_path)]
        sys.path[:] = sorted(path, key=is_of_python, reverse=True)
        for name in () if self.spawn else preload:
            # What fails here fails in the trial too, where the user sees it.
            with contextlib.suppress(Exception):
                importlib.import_module(name)
        sys.path[:] = path
        if not self.spawn:
            with contextlib.suppress(Exception):
                sys.modules[entry].set_up(surroundings)
        gc.collect()
        gc.freeze()
        self.tell(op="configured")

    def do_fork(self, key: str, env: dict[str, str], folder: str, threads: int) -> None:
        """Start a process that runs the entry's `main(socket, threads)`."""
        descriptor = self.descriptors.popleft()
        try:
            if self.spawn:
                pid = self.spawn_trial(descriptor, env, folder, threads)
            else:
                pid = os.fork()
                if pid == 0:
                    self.become_trial(descriptor, env, folder, threads)
        except OSError as error:
            self.tell(
                op="exited",
                key=key,
                code=None,
                signal=None,
                error=with_remedy(str(error), error.errno),
            )
            return
        finally:
            os.close(descriptor)
        self.keys[pid] = key
        self.pids[key] = pid
        self.tell(op="started", key=key, pid=pid)

    def become_trial(
        self, descriptor: int, env: dict[str, str], folder: str, threads: int
    ) -> NoReturn:
        """In the forked child: leave the launcher's world, enter the trial's, never return."""
        code = 1
        try:
            launcher = os.getppid()
            set_process_option(PR_SET_PDEATHSIG, signal.SIGKILL)
            set_process_option(PR_SET_CHILD_SUBREAPER, 1)
            os.setsid()
            signal.set_wakeup_fd(-1)
            forget_guard()
            signal.signal(signal.SIGCHLD, signal.SIG_DFL)
            self.control.close()
            for other in self.descriptors:
                os.close(other)
            for name, value in env.items():
                if os.environ.get(name) != value:  # setenv copies pages that are shared until then
                    os.environ[name] = value
            with contextlib.suppress(OSError):  # (the job names the folder again, and says why)
                os.chdir(folder)
            if os.getppid() == launcher:  # else the launcher died before the death signal was set
                channel = waiting(socket.socket(fileno=os.dup(descriptor)))
                code = sys.modules[self.entry].main(channel, threads)
        except BaseException:
            import traceback

            traceback.print_exc()
        finally:
            leave(code)

    def spawn_trial(self, descriptor: int, env: dict[str, str], folder: str, threads: int) -> int:
        """Where fork is unsafe: start a new interpreter."""
        process = subprocess.Popen(
            command(str(descriptor), self.entry, str(threads), json.dumps(sys.path)),
            pass_fds=[descriptor],
            env={**os.environ, **env},
            cwd=folder,
            stdin=subprocess.DEVNULL,
            start_new_session=True,
        )
        process.returncode = 0  # `reap` waits for it, and not subprocess
        return process.pid

    def do_kill(self, key: str, signal: int) -> None:
        """Send a signal to the trial's process group."""
        pid = self.pids.get(key)
        if pid is not None:
            signal_group(pid, signal)

    def do_ping(self) -> None:
        """Show that the launcher is neither stopped nor stuck."""
        self.tell(op="pong")

    def reap(self) -> None:
        """Report every child that has ended, after ending what it left behind."""
        while True:
            try:
                pid, status, usage = os.wait4(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            key = self.keys.pop(pid, None)
            if key is None:  # a trial's orphan, which came to this process, its subreaper
                self.kill_orphans()
                continue
            del self.pids[key]
            with contextlib.suppress(ProcessLookupError, PermissionError):
                os.killpg(pid, signal.SIGKILL)
            self.kill_orphans()
            self.tell(
                op="exited",
                key=key,
                code=os.WEXITSTATUS(status) if os.WIFEXITED(status) else None,
                signal=os.WTERMSIG(status) if os.WIFSIGNALED(status) else None,
                max_rss_bytes=usage.ru_maxrss * (1024 if LINUX else 1),
                cpu_s=round(usage.ru_utime + usage.ru_stime, 4),
            )

    def kill_orphans(self) -> None:
        """Kill what trials have left: orphans, which this process gets when their trial ends."""
        for pid in children():
            if pid not in self.keys:
                kill(pid)

    def kill_everything(self) -> None:
        """Kill all trials and their orphans, and wait until they are gone."""
        for pid in list(self.keys):
            signal_group(pid, signal.SIGKILL)
        self.keys.clear()
        end_children()


def leave(code: int) -> NoReturn:
    """End this process at once, after writing what it has printed, if its output still works."""
    for stream in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):
            stream.flush()
    os._exit(code & 0xFF)  # what the system makes of any number, and Python of those it can hold


def waiting(channel: socket.socket) -> socket.socket:
    """The socket, which waits for as long as it takes, also after `socket.setdefaulttimeout`.

    Where that was called, a new socket does not wait, nor does any other process that gets it.
    """
    channel.setblocking(True)
    return channel


def signal_group(pid: int, number: int) -> None:
    """Signal a process group, or the process if it has not yet made its group."""
    with contextlib.suppress(ProcessLookupError, PermissionError):
        try:
            os.killpg(pid, number)
        except ProcessLookupError:
            os.kill(pid, number)


def import_entry(name: str, path: list[str]) -> Any:
    """Import the entry; what it needs comes from `path` only where it is nowhere else.

    There may be a json.py or a queue.py of the user's own, which is not meant for this package.
    """
    sys.path += [one for one in path if one not in sys.path]
    return importlib.import_module(name)


def is_of_python(path: str) -> bool:
    """Whether a folder of `sys.path` is one of the standard library."""
    return path.startswith(os.path.dirname(os.__file__)) and "-packages" not in path


def main(arguments: list[str]) -> None:
    """Be a launcher (one argument: a descriptor), or a spawned trial (with its entry)."""
    descriptor, *trial = arguments
    control = waiting(socket.socket(fileno=int(descriptor)))
    make_patient()
    begin_with_own_signals()
    if not trial:
        for number in (signal.SIGINT, signal.SIGTERM, signal.SIGHUP):
            signal.signal(number, signal.SIG_IGN)  # the end of its socket ends the launcher
        launcher = Launcher(control)
        try:
            become_guarded(control)
        except OSError as error:
            launcher.tell(op="cannot_run", reason=with_remedy(str(error), error.errno))
            return
        launcher.run()
        return
    set_process_option(PR_SET_PDEATHSIG, signal.SIGKILL)
    set_process_option(PR_SET_CHILD_SUBREAPER, 1)
    name, threads, path = trial[0], int(trial[1]), json.loads(trial[2])
    entry = import_entry(name, path)
    sys.path[:] = path
    leave(entry.main(control, threads))
