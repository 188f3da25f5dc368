"""The processes of a node's trials: the launcher that forks them, their channels, their signals.

What an agent decides becomes here a fork, a line, a signal; what processes do becomes a call of
its `ProcessListener`. One loop drives both, and nothing here waits for a process.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import socket
import subprocess
from collections import deque
from pathlib import Path
from typing import Any

from .guard import END_ALL
from .lacks import SHORTAGES, with_remedy
from .launcher import THREAD_VARIABLES, command, signal_group, waiting
from .private import private
from .proc import MARK, kill_marked, mark_of
from .process import Process, ProcessListener

LOG_FILE = "launcher.log"
LAUNCHERS = 5  # so many launchers in a row may die before the next one has to wait
LONGEST_REST_S = 30.0  # for so long a launcher waits at most
IMPORT_S = 300.0  # a launcher that imports for longer than that is taken for hanging
PING_S = 5.0  # how often the launcher is asked for a sign of life
PINGS = 6  # so many without an answer mean that it will give none
CLEAN_S = 2.0  # the guard of a launcher cleans up after it in that time
REAP_S = 5.0  # a killed launcher that takes longer to end is held by a disk
SOON_S = 0.05


class Processes:
    """Forks, hears, signals and reaps the processes of one node.

        processes = Processes(folder, listener)
        processes.start()
        process = processes.fork(setting, folder=work_folder, threads=2, env={}, reuse=False)
        processes.write(process, b'{"function": ...}\\n')
        processes.signal(process, signal.SIGTERM)
        await processes.close()

    `folder`: where the launcher's log is. A launcher that dies is replaced: at once, unless more
    than `LAUNCHERS` in a row have died without a process that ended by itself in between; then
    after a rest. One that is stopped is made to go on, and replaced when it does not. When so many
    have died before they had started any process, the node is given up. Where the machine lacks
    what another process takes, a launcher is started again and again, after a rest each time. One
    that imports for longer than `IMPORT_S` is replaced by one that leaves imports to the trials;
    after one that does not even start in that time there is no other.
    """

    def __init__(self, folder: Path, listener: ProcessListener) -> None:
        self._folder = folder
        self._listener = listener
        self._all: dict[str, Process] = {}
        self._count = 0
        self._launcher: subprocess.Popen[bytes] | None = None  # (the launcher's guard, to be exact)
        self._control = socket.socket()
        self._control.close()
        self._configuration: dict[str, Any] = {}
        self._importing: asyncio.TimerHandle | None = None  # runs until the launcher is configured
        # What the launcher is still to be told, with the socket that it gets, if any.
        self._outbox: deque[tuple[bytes, socket.socket | None]] = deque()
        self._is_full = False  # whether the socket to the launcher takes no more
        self._mark = ""
        self._deaths = 0  # of launchers in a row, without a process that ended by itself
        self._useless = 0  # of these launchers: how many in a row had not started a process
        self._failed_starts = 0  # how many starts of a launcher failed in a row
        self._has_started_one = False  # whether this launcher has started a process
        self._restart: asyncio.TimerHandle | None = None  # runs while there is no launcher
        self._ping: asyncio.TimerHandle | None = None
        self._unanswered = 0  # pings in a row

    def start(self) -> None:
        """Start the launcher; to be called in the loop.

        Where the machine lacks something for that, it is started later. Raises OSError for any
        other reason.
        """
        try:
            self._start()
        except OSError as error:
            if error.errno not in SHORTAGES:
                raise
            self._start_later(with_remedy(str(error), error.errno))

    def _start(self) -> None:
        """Start the launcher; kill first what an earlier agent of this folder has left behind."""
        self._loop = asyncio.get_running_loop()
        if not self._mark:
            self._mark = mark_of(self._folder)
            kill_marked(self._mark)
        self._control_unread = b""
        control, theirs = waiting_pair()
        try:
            with theirs, open(self._folder / LOG_FILE, "ab", opener=private) as log:
                self._launcher = subprocess.Popen(
                    command(str(theirs.fileno())),
                    pass_fds=[theirs.fileno()],
                    stdin=subprocess.DEVNULL,
                    stdout=log,
                    stderr=log,
                    # One thread while modules load, so that forking stays safe.
                    env={**os.environ, MARK: self._mark, **dict.fromkeys(THREAD_VARIABLES, "1")},
                    start_new_session=True,
                )
        except BaseException:
            control.close()
            raise
        control.setblocking(False)
        self._control = control
        self._has_started_one, self._unanswered = False, 0
        self._loop.add_reader(control, self._read_launcher)
        self._ping = self._loop.call_later(PING_S, self._ask_for_life)
        if self._configuration:
            self.configure(**self._configuration)

    def configure(self, **configuration: Any) -> None:
        """Tell the launcher, and each that follows it, what to import and how to fork."""
        self._configuration = configuration
        if self._control.fileno() < 0:
            return  # the next launcher is told when it starts
        with contextlib.suppress(OSError):  # if it has died, `_read_launcher` notices
            # This is the first that a launcher hears: its socket has room.
            self._control.sendall(_as_line(op="configure", **configuration))
        self._stop_timer()
        self._importing = self._loop.call_later(IMPORT_S, self._imports_too_long)

    def _stop_timer(self) -> None:
        if self._importing is not None:
            self._importing.cancel()
            self._importing = None

    def _imports_too_long(self) -> None:
        """Start another launcher, which imports nothing; requests for processes wait for it."""
        self._end_launcher()
        modules: list[str] = self._configuration["preload"]
        if not modules or self._configuration["spawn"]:  # another launcher would be no better
            self._give_up(f"the node's launcher did not start within {IMPORT_S:g} s")
            return
        names = ", ".join(sorted({name.partition(".")[0] for name in modules}))
        self._listener.on_trouble(
            f"importing {names} took longer than {IMPORT_S:g} s: is the disk that it is on slow or "
            "gone? From now on each trial imports for itself"
        )
        self._configuration["preload"] = []
        self.start_again()

    def _ask_for_life(self) -> None:
        """Ping the launcher; make it go on if it was stopped, and give it up if that is no help.

        Pings are counted, not seconds, as this process may have been stopped itself.
        """
        self._ping = self._loop.call_later(PING_S, self._ask_for_life)
        if self._importing is not None:
            return  # imports have a bound of their own
        if not self._unanswered:
            self._tell_launcher(_as_line(op="ping"))
        else:
            self._signal_launcher(signal.SIGCONT)
        self._unanswered += 1
        if self._unanswered > PINGS:
            self._launcher_died(
                f"the node's launcher has given no sign of life for {PINGS * PING_S:g} s"
            )

    async def close(self) -> None:
        """Kill all processes and the launcher, and wait until they are gone (9 s at most).

        Silently: the listener hears nothing of it. `start()` makes another launcher.
        """
        if self._restart is not None:
            self._restart.cancel()
            self._restart = None
        self._close_control()  # at which the launcher kills all it has, and ends
        if self._importing is not None:  # while a launcher imports it reads nothing
            self._stop_timer()
            self._signal_launcher(END_ALL)
        self._forget_outbox()
        for process in list(self._all.values()):
            self._close_channel(process)
        for _ in range(400):
            if self._launcher is None or self._launcher.poll() is not None:
                break
            await asyncio.sleep(0.01)
        else:
            self._kill_launcher()
        self._all.clear()
        if self._mark:
            kill_marked(self._mark)

    def fork(
        self,
        setting: tuple[Any, ...],
        *,
        folder: str,
        threads: int,
        env: dict[str, str],
        reuse: bool,
    ) -> Process:
        """Ask for a process; OSError when there are too many open files for that."""
        ours, theirs = waiting_pair()
        ours.setblocking(False)
        self._count += 1
        process = self._all[str(self._count)] = Process(str(self._count), ours, setting, reuse)
        request = _as_line(
            op="fork",
            key=process.key,
            env={**dict.fromkeys(THREAD_VARIABLES, str(threads)), **env},
            folder=folder,
            threads=threads,
        )
        self._tell_launcher(request, theirs)
        self.listen(process)
        return process

    def signal(self, process: Process, number: int) -> None:
        """Send a signal to the group of a process that has started and not ended."""
        if process.pid is not None and not process.exited:
            self._tell_launcher(_as_line(op="kill", key=process.key, signal=int(number)))

    def write(self, process: Process, data: bytes) -> None:
        """Send to a process without ever waiting for it."""
        if process.unsent:
            process.unsent += data
            return
        try:
            sent = process.channel.send(data)
        except BlockingIOError:
            sent = 0
        except OSError:
            return  # the process has ended; the launcher will say how
        process.unsent = data[sent:]
        if process.unsent:
            self._loop.add_writer(process.channel.fileno(), self._write_on, process)

    def _write_on(self, process: Process) -> None:
        data, process.unsent = process.unsent, b""
        self._loop.remove_writer(process.channel.fileno())
        self.write(process, data)

    def listen(self, process: Process) -> None:
        """Hear a process (again); a new one is heard from the start."""
        if not process.reading and not process.exited:
            process.reading = True
            self._loop.add_reader(process.channel.fileno(), self._read, process)

    def hold_back(self, process: Process) -> None:
        """Hear a process no longer: the process will wait when its channel is full."""
        if process.reading:
            process.reading = False
            self._loop.remove_reader(process.channel.fileno())

    def _read(self, process: Process) -> None:
        try:
            data = process.channel.recv(1 << 18)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if data:
            self._take(process, data)
        else:
            self.hold_back(process)

    def _take(self, process: Process, data: bytes) -> None:
        *lines, process.unread = (process.unread + data).split(b"\n")
        if lines:
            self._listener.on_lines(process, lines)

    def _tell_launcher(self, line: bytes, theirs: socket.socket | None = None) -> None:
        self._outbox.append((line, theirs))
        self._send_on()

    def _send_on(self) -> None:
        """Send what waits, but never wait for room in the socket, nor send while modules load."""
        if self._control.fileno() < 0:
            if self._restart is None:  # the node was given up
                self._forget_outbox()
            return
        while self._outbox and self._importing is None:
            line, theirs = self._outbox[0]
            try:
                if theirs is None:
                    sent = self._control.send(line)
                else:
                    sent = socket.send_fds(self._control, [line], [theirs.fileno()])
            except (BrokenPipeError, ConnectionResetError):
                return  # the launcher has died, which `_read_launcher` notices
            except BlockingIOError:
                self._loop.add_writer(self._control, self._send_on)
                self._is_full = True
                return
            except OSError:  # too many descriptors are on their way: try again soon
                self._loop.call_later(SOON_S, self._send_on)
                return
            if theirs is not None:
                theirs.close()
            self._outbox.popleft()
            if sent < len(line):
                self._outbox.appendleft((line[sent:], None))
        if self._is_full:
            self._loop.remove_writer(self._control)
            self._is_full = False

    def _forget_outbox(self) -> None:
        for _, theirs in self._outbox:
            if theirs is not None:
                theirs.close()
        self._outbox.clear()

    def _read_launcher(self) -> None:
        try:
            data = self._control.recv(1 << 16)
        except BlockingIOError:
            return
        except OSError:
            data = b""
        if not data:
            cause = self._last_words() or "killed, perhaps for want of memory"
            self._launcher_died(f"the node's launcher died ({cause})")
            return
        *lines, self._control_unread = (self._control_unread + data).split(b"\n")
        for line in lines:
            message = json.loads(line)
            if message["op"] == "cannot_run":
                self._end_launcher()
                self._start_later(message["reason"])
                return
            self._failed_starts = 0
            if message["op"] == "configured":
                self._stop_timer()
                self._send_on()
                continue
            if message["op"] == "pong":
                self._unanswered = 0
                continue
            process = self._all.get(message["key"])
            if process is None:
                continue
            if message["op"] == "exited":
                self._deaths = self._useless = 0
                self._exited(process, message)
            else:
                self._has_started_one = True
                process.pid = message["pid"]
                self._listener.on_started(process)

    def _exited(self, process: Process, exit_: dict[str, Any]) -> None:
        """A process is reaped: read what it still had to say, then tell how it ended."""
        process.exited = True
        with contextlib.suppress(OSError):
            while data := process.channel.recv(1 << 18):
                self._take(process, data)
        self._close_channel(process)
        del self._all[process.key]
        self._listener.on_exit(process, exit_)

    def _close_channel(self, process: Process) -> None:
        self.hold_back(process)
        if process.unsent:
            self._loop.remove_writer(process.channel.fileno())
        process.channel.close()

    def _last_words(self) -> str:
        with contextlib.suppress(OSError):
            return (self._folder / LOG_FILE).read_text(errors="replace")[-2000:].strip()
        return ""

    def _launcher_died(self, reason: str) -> None:
        """Give up all processes, which died with the launcher, and start another."""
        self._end_launcher()
        self._deaths += 1
        self._useless = 0 if self._has_started_one else self._useless + 1
        if self._useless > LAUNCHERS:
            self._give_up(reason)
            return
        self._lose_all(reason)
        if self._deaths <= LAUNCHERS:
            self.start_again()
            return
        rest_s = min(LONGEST_REST_S, 2.0 ** (self._deaths - LAUNCHERS - 1))
        self._listener.on_trouble(
            f"{self._deaths} launchers in a row died; the next one starts in {rest_s:g} s"
        )
        self._restart = self._loop.call_later(rest_s, self.start_again)

    def start_again(self) -> None:
        """Start a launcher; where there are no descriptors or processes for it, try again later."""
        self._restart = None
        try:
            self._start()
        except OSError as error:
            self._start_later(with_remedy(str(error), error.errno))

    def _start_later(self, reason: str) -> None:
        """Start a launcher after a rest; the processes that wait for one are lost."""
        self._failed_starts += 1
        rest_s = min(LONGEST_REST_S, 2.0 ** (self._failed_starts - 1))
        self._restart = self._loop.call_later(rest_s, self.start_again)
        if self._all:  # (the driver tells the user why their trials cannot run)
            self._lose_all(reason)
        elif self._failed_starts == 1:
            self._listener.on_trouble(f"it cannot run trials now: {reason}; it tries again")

    def _give_up(self, reason: str) -> None:
        self._lose_all(reason)
        self._listener.on_given_up(reason)

    def _end_launcher(self) -> None:
        """Leave nothing of the launcher, nor of what its processes or imports have started."""
        self._close_control()
        self._stop_timer()
        self._kill_launcher()
        kill_marked(self._mark)
        for process in self._all.values():
            if process.pid is not None:
                signal_group(process.pid, signal.SIGKILL)

    def _lose_all(self, reason: str) -> None:
        self._forget_outbox()
        self._listener.on_launcher_died(reason)
        for process in list(self._all.values()):
            self._exited(process, {"code": None, "signal": signal.SIGKILL})

    def _close_control(self) -> None:
        if self._ping is not None:
            self._ping.cancel()
            self._ping = None
        if self._control.fileno() >= 0:
            self._loop.remove_reader(self._control)
            self._loop.remove_writer(self._control)
        self._is_full = False
        self._control.close()

    def _kill_launcher(self) -> None:
        """End the launcher and all below it: its guard does that, or both are killed."""
        assert self._launcher is not None
        self._signal_launcher(signal.SIGCONT)
        self._signal_launcher(END_ALL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._launcher.wait(CLEAN_S)
            return
        self._signal_launcher(signal.SIGKILL)
        with contextlib.suppress(subprocess.TimeoutExpired):
            self._launcher.wait(REAP_S)

    def _signal_launcher(self, number: int) -> None:
        """Send a signal to the launcher and its guard, which are a process group."""
        if self._launcher is not None and self._launcher.poll() is None:
            signal_group(self._launcher.pid, number)


def waiting_pair() -> tuple[socket.socket, socket.socket]:
    """Two connected sockets, whatever the program has said of all its sockets."""
    ours, theirs = socket.socketpair()
    return waiting(ours), waiting(theirs)


def _as_line(**message: Any) -> bytes:
    return json.dumps(message).encode() + b"\n"
