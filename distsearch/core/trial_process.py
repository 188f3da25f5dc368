"""What runs in a trial's own process: take a job, call the train function, tell how it ended.

The launcher calls `main` in a process that already has its session, folder, GPUs and environment,
often before there is a job for it. A job comes as one line of JSON; reports go back as lines
`R seq due {...}`, a checkpoint as `S step 0 {...}`, the end as `E 0 0 {...}`. Before it forks the
first one, the launcher calls `set_up`.
"""

from __future__ import annotations

import contextlib
import errno
import json
import os
import pickle
import random
import signal
import socket
import sys
import threading
import traceback
from pathlib import Path
from types import TracebackType
from typing import Any

# Unpickling needs cloudpickle, `arrival` and `decorators`; the launcher imports them for all.
import cloudpickle as cloudpickle

from ..errors import Diverged
from ..resource.cache import delete_newer, inherit
from ..resource.lacks import NO_SPACE, SHORTAGES, with_remedy
from ..resource.output import stream
from ..resource.private import make_folder, private
from ..space.domains import Real
from ..space.namespace import Arguments
from . import arrival, surroundings
from . import decorators as decorators
from . import returned as returned_value
from .metrics import is_one_number
from .reporter import Reporter, StopTrial
from .storage import Shelf

_AROUND = (__file__, decorators.__file__, arrival.__file__)
# Errors with which a trial has not begun: the machine lacks something, or a file was deleted.
NOT_BEGUN = (*SHORTAGES, errno.ENOENT)
REHEARSALS = 20  # Python has made most of its changes to a function after 8 calls
_functions: dict[str, Any] = {}
_current: list[Reporter] = []


def main(channel: socket.socket, threads: int) -> int:
    """Serve jobs until the agent closes the channel; return the exit code."""
    signal.signal(signal.SIGTERM, _on_term)
    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGHUP, signal.SIG_DFL)
    # A child that the trial forks may be sent a SIGTERM before it could forget the trial's handler.
    os.register_at_fork(
        before=_block_term, after_in_parent=_unblock_term, after_in_child=_forget_trial
    )
    end: dict[str, Any] = {"code": 0}
    own_pid = os.getpid()
    try:
        # The launcher has blocked these: one that ends all ranks may come before this rank begins.
        signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGTERM, signal.SIGINT))
        limit_threads(threads)
        while given := read_job(channel):
            job, heard = given
            end = run(job, channel, heard)
            if os.getpid() != own_pid:  # the train function forked, and its child came back too
                _tell_own_error(end)
                break
            _flush()
            tell_end(channel, end)
            if not job["reuse"] or end["how"] == "stopped":
                break
    except StopTrial:
        return 0  # SIGTERM between two jobs
    except OSError:
        return 1  # the agent is gone
    wait_for_threads()
    return int(end["code"])


def set_up(text: str) -> None:
    """In the launcher, once for all that it forks: see `surroundings.set_up`, and `rehearse`."""
    surroundings.set_up(text)
    rehearse()


def rehearse() -> None:
    """Do in the launcher what every trial does, so that each trial has less to do.

    A forked process shares the launcher's memory until either writes to a page: that is then copied
    (2 us on the machine of `benchmarks/README.md`). At the first calls of a function Python writes
    into its code, and the linker looks up what a library calls: here that happens once for all.
    Of 880 pages that a trial copies which does nothing, this saves 55, and 0.2 ms of its 3.2.

    Nothing here is the user's, nothing is written to a disk, and no trial sees a difference.
    """

    def train_function(args: Arguments, reporter: Reporter) -> None:
        reporter(epoch=1, accuracy=args.x)

    rehearsed = decorators.args(x=Real(0, 1))(train_function)
    whole = b"".join(map(cloudpickle.dumps, (rehearsed, {}, {})))
    cargo = pickle.dumps(arrival.Cargo(None, __name__, None, None, whole, ""))
    job: dict[str, Any] = {
        "config": {"x": 0.5},
        "folder": ".",
        "time_attr": "epoch",
        "due": None,
        "parents": [],
        "attempt": 1,
        "keep": 1,
        "rank": 0,
        "ranks": None,
        "args": {"task_id": 0},
    }
    ours, theirs = socket.socketpair()
    with ours, theirs:
        for _ in range(REHEARSALS):
            ours.sendall(json.dumps(job).encode() + b"\n")
            given = read_job(theirs)
            assert given is not None
            reporter = reporter_of(given[0], theirs, None)
            arrived: arrival.Cargo = pickle.loads(cargo)
            function, *_ = arrived.unpacked()
            returned = function(values_of(function, given[0]), reporter)
            tell_end(theirs, {"how": "returned", "returned": returned_value.as_text(returned)})
            ours.recv(1 << 16)


def read_job(channel: socket.socket) -> tuple[dict[str, Any], bytes] | None:
    """The next job, and what the agent has said after it; None when there will be no job.

    (Where another rank has begun earlier, something may have been decided already.)
    """
    data = b""
    while b"\n" not in data:
        more = channel.recv(1 << 16)
        if not more:
            return None
        data += more
    line, _, heard = data.partition(b"\n")
    return json.loads(line), heard


def tell_end(channel: socket.socket, end: dict[str, Any]) -> None:
    """Tell the agent how a job has ended."""
    channel.sendall(b"E 0 0 " + json.dumps(end).encode() + b"\n")


def run(job: dict[str, Any], channel: socket.socket, heard: bytes) -> dict[str, Any]:
    """Call the train function; say how it ended: 'returned', 'stopped', 'raised' or 'exit'.

    Or 'not begun': the disk has no room for its output, say, or a folder is gone.
    """
    end: dict[str, Any] = {"how": "returned", "code": 0, "error": "", "traceback": ""}
    shelf = shelf_of(job)
    reporter = reporter_of(job, channel, shelf, heard)
    begun = False
    try:
        prepare(job, reporter, shelf)
        begun = True
        train_function = load_function(job["function"])
        values = values_of(train_function, job)
        seed_all((job["seed"] + job["rank"]) % 2**32)
        _current.append(reporter)
        returned = train_function(values, reporter)
        end["returned"] = returned_value.as_text(returned)
        if job["is_final"] and job["rank"] == 0:
            end["kept"] = returned_value.keep(returned, job["folder"], job["attempt"])
        is_only_returned = not (job["has_reported"] or reporter.has_reported)
        if is_one_number(returned) and is_only_returned and job["rank"] == 0:
            report_reward(job, reporter, returned)
        reporter.leave_parents()
    except StopTrial:
        end["how"] = "stopped"
    except SystemExit as exit_:
        # As the interpreter does it: no code is 0, a text is printed and counts as 1.
        code = exit_.code
        if code is not None and not isinstance(code, int):
            with contextlib.suppress(Exception):  # the user may have put anything there
                sys.stderr.write(f"{code}\n")
        left_with = code if isinstance(code, int) else int(code is not None)
        end.update(how="exit", code=left_with, error=str(getattr(exit_, "reason", "")))
    except BaseException as error:
        number = errno_of(error)
        if not begun and number in NOT_BEGUN:
            return {**end, "how": "not begun", "error": with_remedy(in_words(error)[:2000], number)}
        end.update(raised(error))
    finally:
        _current.clear()
    if job["reuse"]:
        reporter.close()  # what its threads still say would count for the next trial
    return end


def raised(error: BaseException) -> dict[str, Any]:
    """The end of a job whose train function has raised an error."""
    text = ""
    if not isinstance(error, Diverged):
        text = "".join(traceback.format_exception(type(error), error, own_part(error)))
    return {
        "how": "raised",
        "code": 1,
        "error": in_words(error)[:2000],
        "traceback": text[-20_000:],
        # Known by its name: torch's error, which is about a GPU, is no MemoryError.
        "memory": isinstance(error, MemoryError) or type(error).__name__ == "OutOfMemoryError",
        "no_space": errno_of(error) in NO_SPACE,
    }


def reporter_of(
    job: dict[str, Any], channel: socket.socket, shelf: Shelf | None, heard: bytes = b""
) -> Reporter:
    """What the train function reports to; `heard`: what the search has decided before."""
    return Reporter(
        channel,
        folder=job["folder"],
        time_attr=job["time_attr"],
        due=job["due"],
        parents=dict(job["parents"]),
        attempt=job["attempt"],
        keep=job["keep"],
        shelf=shelf,
        rank=None if job["ranks"] is None else job["rank"],
        heard=heard,
    )


def values_of(train_function: Any, job: dict[str, Any]) -> Arguments:
    """The trial's arguments: its configuration, and constants with the values that it gives."""
    constants, config = train_function.space.constants_of(job["config"])
    space = train_function.space
    for path, value in constants.items():
        space = space.replace_at(path, value)
    return Arguments(space.build(config), {**job["args"], "folder": job["folder"]})


def prepare(job: dict[str, Any], reporter: Reporter, shelf: Shelf | None) -> None:
    """Make ready all that has to be there before the train function is loaded."""
    os.chdir(job["cwd"] or own_work_folder(job))  # (an earlier trial may have left the folder)
    redirect_output(job["output"])
    if job["ranks"] is not None:  # (ranks find their checkpoints in place: the agent did that)
        enter_gang(job["ranks"])
    elif shelf is None:
        if job["resume"]:
            delete_newer(reporter.checkpoints, job["saved_step"])
        if job["parents"]:
            siblings = reporter.folder.parent
            sources = [siblings / str(one) for _, one in job["parents"] if one is not None]
            inherit(reporter.checkpoints, sources)
    put_first(job["work_folder"])


def errno_of(error: BaseException | None) -> int | None:
    """The number of the system's error that an error is, or comes from."""
    seen: set[int] = set()  # (errors may be causes of each other)
    while error is not None and id(error) not in seen:
        if isinstance(error, OSError):
            return error.errno
        seen.add(id(error))
        error = error.__cause__
    return None


def own_work_folder(job: dict[str, Any]) -> str:
    """A working folder that is the trial's own, in which the uploads are linked."""
    folder = f"{job['folder']}/work"
    make_folder(folder)
    for entry in os.scandir(job["work_folder"]):
        # (There may be a link of an earlier attempt, or a file of the trial's own.)
        with contextlib.suppress(FileExistsError):
            os.symlink(entry.path, f"{folder}/{entry.name}")
    return folder


def shelf_of(job: dict[str, Any]) -> Shelf | None:
    """Where the trial's checkpoints are, if they are in a storage."""
    about = job["storage"]
    if about is None:
        return None
    folder = Path(job["folder"])
    return Shelf(
        about["url"],
        about["node"],
        folder.parent,
        int(folder.name),
        job["attempt"],
        about["own"],
        dict(about["sources"]),
    )


def enter_gang(ranks: dict[str, str]) -> None:
    """Put what torchrun gives its processes into the environment.

    An interface that the user has chosen stays.
    """
    for name, value in ranks.items():
        if not name.endswith("_IFNAME") or name not in os.environ:
            os.environ[name] = value


def put_first(folder: str) -> None:
    """Let `import` look in a folder first, also for what the launcher has imported from elsewhere.

    Modules of the standard library and this package stay as they are: too much depends on them.
    """
    if folder not in sys.path:
        sys.path.insert(0, folder)
    for entry in os.listdir(folder):
        name = entry.removesuffix(".py")
        if name in sys.stdlib_module_names or name == __name__.partition(".")[0]:
            continue
        loaded = getattr(sys.modules.get(name), "__file__", None)
        there = os.path.join(folder, entry if entry.endswith(".py") else f"{entry}/__init__.py")
        if loaded is None or loaded == there or not os.path.isfile(there):
            continue
        for other in [key for key in sys.modules if key == name or key.startswith(f"{name}.")]:
            del sys.modules[other]


def in_words(error: BaseException) -> str:
    """The type and the text of an error, if its text can be made."""
    try:
        return f"{type(error).__name__}: {error}"
    except BaseException as another:  # (that of `sys.exit()`, too)
        return f"{type(error).__name__} (whose text could not be made: {type(another).__name__})"


def own_part(error: BaseException) -> TracebackType | None:
    """The traceback of an error from the train function on, without the frames around it."""
    frames = error.__traceback__
    while frames is not None and frames.tb_frame.f_code.co_filename in _AROUND:
        frames = frames.tb_next
    return frames or error.__traceback__


def report_reward(job: dict[str, Any], reporter: Reporter, reward: Any) -> None:
    """Report what a train function that never reports has returned, where there is one reward."""
    # (A trial that goes on from a checkpoint may have had nothing left to report.)
    goes_on = job["resume"] or job["parents"]
    if job["reward_attr"] is not None and not goes_on:
        reporter(**{job["reward_attr"]: reward})


def redirect_output(path: str) -> None:
    """Let standard output and error, of grandchildren too, go to the end of a file."""
    _flush()
    output = private(path, os.O_WRONLY | os.O_CREAT | os.O_APPEND)
    for descriptor, name in ((1, "stdout"), (2, "stderr")):
        os.dup2(output, descriptor)
        text: Any = getattr(sys, f"__{name}__")
        try:
            text.reconfigure(line_buffering=True)
        except (AttributeError, ValueError):  # an earlier trial has closed or replaced the stream
            text = stream(descriptor)
        setattr(sys, name, text)
        setattr(sys, f"__{name}__", text)
    if output > 2:
        os.close(output)


def load_function(path: str) -> Any:
    """The train function that the driver sent, which the agent keeps in a file."""
    if path not in _functions:
        _functions[path] = arrival.load(path)
    return _functions[path]


def limit_threads(threads: int) -> None:
    """Let NumPy's, torch's and OpenMP's libraries use as many threads as the trial has CPUs.

    The environment says so to what is loaded later; what the launcher has loaded is told here.
    """
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.set_num_threads(threads)
    elif threads > 1 and "numpy" in sys.modules:
        from threadpoolctl import threadpool_limits

        threadpool_limits(threads)


def seed_all(seed: int) -> None:
    """Seed the global generators that are loaded: forked trials would all draw the same numbers.

    These are Python's, NumPy's and torch's; a library that is loaded later seeds its own.
    """
    random.seed(seed)
    numpy_random = sys.modules.get("numpy.random")
    if numpy_random is not None:
        numpy_random.seed(seed)
    torch = sys.modules.get("torch")
    if torch is not None:
        torch.manual_seed(seed)  # (those of GPUs too)


def wait_for_threads() -> None:
    """As at the end of any Python program: wait for threads that are not daemons, run atexit."""
    # These calls end the threads of open executors, which would be waited for in vain.
    for call in reversed(getattr(threading, "_threading_atexits", ())):
        call()
    for thread in threading.enumerate():
        if thread is not threading.current_thread() and not thread.daemon:
            thread.join()
    atexit = sys.modules.get("atexit")
    if atexit is not None:
        atexit._run_exitfuncs()
    _flush()


def _tell_own_error(end: dict[str, Any]) -> None:
    """Print what a forked process raised, as Python does: the search does not hear of it."""
    with contextlib.suppress(Exception):
        sys.stderr.write(end["traceback"])


def _flush() -> None:
    for output in (sys.stdout, sys.stderr):
        with contextlib.suppress(Exception):  # the user may have closed or replaced the stream
            output.flush()


def _forget_trial() -> None:
    """In a process that the trial forks: end at SIGTERM as any other does."""
    _current.clear()
    if signal.getsignal(signal.SIGTERM) is _on_term:
        signal.signal(signal.SIGTERM, signal.SIG_DFL)
    _unblock_term()


def _block_term() -> None:
    signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM,))


def _unblock_term() -> None:
    signal.pthread_sigmask(signal.SIG_UNBLOCK, (signal.SIGTERM,))


def _on_term(number: int, frame: Any) -> None:
    if _current:
        _current[-1].request_stop()
    else:
        raise StopTrial
