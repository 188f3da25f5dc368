"""Keeps a node's process up for as long as the driver is there, and leaves nothing behind.

Its source text is what SSH runs (`python -c`), so that nothing needs to be copied first; hence only
the standard library, and nothing of distsearch. Lines of JSON on standard input and output:

    node:   {"op": "ready"}                        what a start-up file has read before is not ours
    driver: {"env": {...}, "packages": [...], "distsearch": "5f3c..."}
                                                   environment of the node; packages to look for;
                                                   the hash of the driver's distsearch
    node:   {"op": "hello", "python": [3, 11, 7], "packages": {...}, "port": 40123,
             "has_distsearch": false, ...}
    driver: {"piece": "<base64>"}                  that distsearch as a zip, where it is lacking
    driver: {"command": [...], "spec": {...}, "lease_s": 30, "grace_s": 5}
    node:   {"op": "output", "line": "..."}        what the node's process prints
    driver: an empty line every few seconds        "I am here"
    driver: {"input": {...}}                       a line for the standard input of that command
    node:   {"op": "gone", "reason": "..."}        nothing of the node is left: processes, folder

Each line that the node says begins a line anew, as a start-up file may have printed half of one.

It ends everything at the end of its input, when no line came for `lease_s` (a cut link sends no end
of input), at TERM or HUP, and when the node's process ends by itself. Nor does it wait for its
orders without end.
"""

from __future__ import annotations

import sys

sys.path[:] = [path for path in sys.path if path]  # import no json.py of the home folder

import base64  # noqa: E402
import contextlib  # noqa: E402
import ctypes  # noqa: E402
import hashlib  # noqa: E402
import importlib.metadata  # noqa: E402
import importlib.util  # noqa: E402
import io  # noqa: E402
import json  # noqa: E402
import os  # noqa: E402
import queue  # noqa: E402
import shutil  # noqa: E402
import signal  # noqa: E402
import socket  # noqa: E402
import stat  # noqa: E402
import subprocess  # noqa: E402
import tempfile  # noqa: E402
import threading  # noqa: E402
import time  # noqa: E402
import zipfile  # noqa: E402
from typing import Any  # noqa: E402

PR_SET_CHILD_SUBREAPER = 36
LINE_LIMIT = 2000
ORDERS_S = 45  # so long the starter waits for its orders
CACHE_DAYS = 60  # a distsearch that no driver has asked for in so long is deleted
NO_WORD = "no word from the driver"
ASKED_TO = "the driver closed the connection"

speaking = threading.Lock()


def main() -> None:
    hear_all_signals()
    signal.alarm(ORDERS_S)  # a link that is cut now brings no orders; there is nothing to end yet
    say(op="ready")
    request = next_message()
    if request is None:
        return
    os.environ.update(request["env"])
    reserved = reserve_port()
    about = about_this_node(request["packages"])
    note_use()
    home = home_of_distsearch(request["distsearch"])
    has_it = home is not None
    say(op="hello", port=reserved.getsockname()[1], has_distsearch=has_it, **about)
    parcel, order = parcel_and_order()
    if order is None:
        return
    signal.alarm(0)
    adopt_orphans()
    # The one queue that a signal handler may use.
    events: queue.SimpleQueue[Any] = queue.SimpleQueue()
    for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGINT, signal.SIGCHLD):
        signal.signal(number, lambda number, frame: events.put(number))
    folder = tempfile.mkdtemp(prefix="distsearch-")
    if home is None:
        home = unpack(parcel, request["distsearch"], folder)
    node = start_node(order, folder, home)
    threading.Thread(target=listen, args=(events, node.stdin), daemon=True).start()
    output = threading.Thread(target=forward, args=(node.stdout,), daemon=True)
    output.start()
    reason = watch(events, node, order["lease_s"])
    ask_to_end(node, order["grace_s"])
    # The node had died before it was asked to end.
    if node.returncode not in (None, 0, -signal.SIGTERM):
        reason = by_itself(node)
    kill_what_is_left(node)
    output.join(1)  # the last lines tell why the node has ended
    shutil.rmtree(folder, ignore_errors=True)
    # If nobody reads any more, this would wait for ever: hence a thread, and a bound.
    last_word = threading.Thread(target=say, kwargs={"op": "gone", "reason": reason}, daemon=True)
    last_word.start()
    last_word.join(1)
    os._exit(0)


def hear_all_signals() -> None:
    """Hear all signals again, some of which a login shell or sshd's parent may block or ignore.

    Else this process would hear of no end: neither its own, nor that of the node's process.
    """
    for number in signal.valid_signals():
        # (Python ignores these two signals always.)
        is_python_s = number in (signal.SIGPIPE, signal.SIGXFSZ)
        if signal.getsignal(number) is signal.SIG_IGN and not is_python_s:
            signal.signal(number, signal.SIG_DFL)
    signal.pthread_sigmask(signal.SIG_SETMASK, ())


def next_message() -> dict[str, Any] | None:
    """What the driver says next; None at the end. Where the login was slow, pings come before."""
    while line := sys.stdin.readline():
        if line.strip():
            message: dict[str, Any] = json.loads(line)
            return message
    return None


def parcel_and_order() -> tuple[bytes, dict[str, Any] | None]:
    """The pieces of the driver's distsearch, put together, and what comes after them."""
    pieces = []
    message = next_message()
    while message is not None and "piece" in message:
        signal.alarm(ORDERS_S)  # orders may take long on a slow link: each has its time
        pieces.append(base64.b64decode(message["piece"]))
        message = next_message()
    return b"".join(pieces), message


def note_use() -> None:
    """An environment that `setup` has made is in use: see `delete_old`."""
    if os.path.exists(os.path.join(sys.prefix, "complete")):
        with contextlib.suppress(OSError):
            os.utime(sys.prefix)


def home_of_distsearch(content: str) -> str | None:
    """Where the driver's very distsearch is here: "" if this Python has it, None if it is lacking.

    Else it is the folder into which an earlier driver has sent it.
    """
    with contextlib.suppress(ImportError, AttributeError, ValueError):
        found = importlib.util.find_spec("distsearch")
        origin = None if found is None else found.origin
        if origin is not None and content_of(os.path.dirname(origin)) == content:
            return ""
    return sent_before(content)


def sent_before(content: str) -> str | None:
    home = os.path.join(cache_folder(), content)
    if not is_private(cache_folder()) or not is_private(home):
        return None
    if content_of(os.path.join(home, "distsearch")) != content:
        return None
    with contextlib.suppress(OSError):
        os.utime(home)  # the environment is in use: see `delete_old`
    return home


def content_of(package: str) -> str:
    """A hash over the Python files of a package: their names and what they hold."""
    names = []
    for where, _, files in os.walk(package):
        names += [os.path.join(where, name) for name in files if name.endswith(".py")]
    digest = hashlib.sha256()
    for name in sorted(os.path.relpath(name, package) for name in names):
        try:
            with open(os.path.join(package, name), "rb") as file:
                held = hashlib.sha256(file.read()).hexdigest()
        except OSError:
            held = "unreadable"
        digest.update(f"{name} {held}\n".encode())
    return digest.hexdigest()


def cache_folder() -> str:
    """Where this user keeps what drivers have sent."""
    cache = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return os.path.join(cache, "distsearch")


def is_private(folder: str) -> bool:
    """Whether a folder is this user's, and nobody else can put anything into it."""
    try:
        about = os.lstat(folder)
    except OSError:
        return False
    return stat.S_ISDIR(about.st_mode) and about.st_uid == os.getuid() and not about.st_mode & 0o022


def unpack(parcel: bytes, content: str, folder: str) -> str:
    """Put the driver's distsearch into the cache, else into the node's own folder; say where."""
    with contextlib.suppress(OSError):  # there is no home, or a full or read-only one
        return put_into_cache(parcel, content)
    home = os.path.join(folder, "code")
    try:
        extract(parcel, home)
    except OSError:
        shutil.rmtree(folder, ignore_errors=True)
        raise
    return home


def put_into_cache(parcel: bytes, content: str) -> str:
    cache = cache_folder()
    os.makedirs(cache, mode=0o700, exist_ok=True)
    if not is_private(cache):
        raise PermissionError(f"others can write into {cache}")
    delete_old(cache)
    new, home = tempfile.mkdtemp(prefix="new-", dir=cache), os.path.join(cache, content)
    try:
        extract(parcel, new)
        if sent_before(content) is None:  # another node with this home may have been faster
            shutil.rmtree(home, ignore_errors=True)
            os.rename(new, home)
        return home
    finally:
        shutil.rmtree(new, ignore_errors=True)


def extract(parcel: bytes, folder: str) -> None:
    with zipfile.ZipFile(io.BytesIO(parcel)) as packed:
        packed.extractall(folder)


def delete_old(cache: str) -> None:
    """Delete what no driver has asked for in a long time, and what was not finished."""
    for name in os.listdir(cache):
        path = os.path.join(cache, name)
        with contextlib.suppress(OSError):
            if time.time() - os.lstat(path).st_mtime > CACHE_DAYS * 86400:
                shutil.rmtree(path, ignore_errors=True)


def about_this_node(packages: list[str]) -> dict[str, Any]:
    extra = [path for path in os.environ.get("PYTHONPATH", "").split(os.pathsep) if path]
    sys.path[:0] = [path for path in extra if path not in sys.path]
    return {
        "python": list(sys.version_info[:3]),
        "executable": sys.executable,
        "packages": {name: version_of(name) for name in packages},
        "address": (os.environ.get("SSH_CONNECTION", "").split() + [""] * 4)[2],
    }


def version_of(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def reserve_port() -> socket.socket:
    """Bind a free port without listening: the node's process can take it, nobody else gets it."""
    reserved = socket.socket()
    reserved.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
    reserved.bind(("127.0.0.1", 0))
    return reserved


def adopt_orphans() -> None:
    """Become the parent of whatever the node's processes leave behind (Linux)."""
    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(PR_SET_CHILD_SUBREAPER, 1, 0, 0, 0)


def start_node(order: dict[str, Any], folder: str, home: str) -> subprocess.Popen[bytes]:
    path = filter(None, [home, os.environ.get("PYTHONPATH", "")])
    node = subprocess.Popen(
        [sys.executable, *order["command"]],
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        cwd=folder,
        env={**os.environ, "PYTHONPATH": os.pathsep.join(path)},
        start_new_session=True,
    )
    assert node.stdin is not None
    with contextlib.suppress(BrokenPipeError):  # the node has ended already; its output tells why
        node.stdin.write(json.dumps({**order["spec"], "folder": folder}).encode() + b"\n")
        node.stdin.flush()  # the pipe stays open: its end tells the node that the starter is gone
    return node


def listen(events: queue.SimpleQueue[Any], node_input: Any) -> None:
    for line in sys.stdin:
        events.put("ping")
        if line.strip():
            with contextlib.suppress(OSError):  # the process has ended
                node_input.write(json.dumps(json.loads(line)["input"]).encode() + b"\n")
                node_input.flush()
    events.put("end of input")


def forward(output: Any) -> None:
    while True:
        line = output.readline(LINE_LIMIT)
        if not line:
            return
        say(op="output", line=line.decode(errors="replace").rstrip("\n"))


def say(**message: Any) -> None:
    line = b"\n" + json.dumps(message).encode() + b"\n"
    with speaking, contextlib.suppress(OSError):  # the end of input tells that the driver is gone
        while line:
            line = line[os.write(1, line) :]


def watch(events: queue.SimpleQueue[Any], node: subprocess.Popen[bytes], lease_s: float) -> str:
    """Wait for a reason to end; meanwhile bury orphans."""
    deadline = time.monotonic() + lease_s
    while True:
        try:
            event = events.get(timeout=max(0, deadline - time.monotonic()))
        except queue.Empty:
            return f"{NO_WORD} for {lease_s:g} s"
        if event == "ping":
            deadline = time.monotonic() + lease_s
        elif event == "end of input":
            return ASKED_TO
        elif event == signal.SIGCHLD:
            bury(node)
            if node.returncode is not None:
                return by_itself(node)
        else:
            return f"signal {event:d}"


def bury(node: subprocess.Popen[bytes]) -> None:
    """Reap every child that has ended; `node.returncode` says how the node's process did."""
    try:
        while True:
            pid, status = os.waitpid(-1, os.WNOHANG)
            if not pid:
                return
            if pid == node.pid:
                signaled = os.WIFSIGNALED(status)
                node.returncode = -os.WTERMSIG(status) if signaled else os.WEXITSTATUS(status)
    except ChildProcessError:
        return


def by_itself(node: subprocess.Popen[bytes]) -> str:
    code = node.returncode
    how = f"exit code {code}" if code >= 0 else f"killed by signal {-code}"
    return f"the node's process ended by itself ({how})"


def ask_to_end(node: subprocess.Popen[bytes], grace_s: float) -> None:
    """TERM to the node's process; return when it has ended or `grace_s` are over."""
    deadline = time.monotonic() + grace_s
    bury(node)
    if node.returncode is None:
        kill(node.pid, signal.SIGTERM)
    while node.returncode is None and time.monotonic() < deadline:
        time.sleep(0.01)
        bury(node)


def kill_what_is_left(node: subprocess.Popen[bytes]) -> None:
    """KILL to the node's process and all its orphans, until there are none (10 s at most)."""
    deadline = time.monotonic() + 10
    while time.monotonic() < deadline:
        left = descendants() or ([node.pid] if node.returncode is None else [])
        if not left:
            return
        for pid in left:
            kill(pid, signal.SIGKILL)
        time.sleep(0.01)
        bury(node)


def kill(pid: int, number: int) -> None:
    with contextlib.suppress(OSError):  # the process has ended by itself
        os.kill(pid, number)


def descendants() -> set[int]:
    """Every process below this one."""
    parents = parents_of_all()
    family = {os.getpid()}
    while True:
        more = {pid for pid, parent in parents.items() if parent in family} - family
        if not more:
            return family - {os.getpid()}
        family |= more


def parents_of_all() -> dict[int, int]:
    parents: dict[int, int] = {}
    pids = (
        [name for name in os.listdir("/proc") if name.isdigit()] if os.path.isdir("/proc") else []
    )
    for pid in pids:
        with contextlib.suppress(OSError), open(f"/proc/{pid}/stat", "rb") as file:
            parents[int(pid)] = int(file.read().rpartition(b")")[2].split()[1])
    return parents


if __name__ == "__main__":
    main()
