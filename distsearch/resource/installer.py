"""Makes an environment of packages on a node: `python -m distsearch.resource.installer`.

It reads one line of JSON from its standard input:

    {"name": "environment-3f9c...", "wanted": ["numpy==2.1.0"], "constraints": ["six==1.17.0"]}

and prints lines of JSON: `{"progress": "..."}` while it works, at the end `{"python": "/path"}` or
`{"failed": "...", "mend": "..."}`. The environment lies beside the distsearch that drivers send. It
is whole once the file `complete` is in it, with the list of what was wanted; an environment without
that file is made anew. The end of its input ends the installer, with all that it has started.
"""

from __future__ import annotations

import contextlib
import fcntl
import importlib.metadata
import importlib.util
import json
import os
import shutil
import signal
import subprocess
import sys
import threading
import time
from collections import deque
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from .starter import cache_folder, delete_old, is_private

COMPLETE = "complete"
WAIT_S = 3600.0  # so long it waits for another driver that makes the same environment
LOOK_S = 0.5
TOLD = ("Downloading", "Building", "Installing", "Successfully", "Installed")
LAST_LINES, LAST_CHARACTERS = 12, 1200
QUIETLY = ("install", "--no-input", "--progress-bar", "off")
PIP_WITH_PYTHON = (22, 3)  # the first pip that installs into other interpreters


class Failed(Exception):
    """The environment cannot be made: why, and what mends it."""

    def __init__(self, why: str, mend: str = "") -> None:
        super().__init__(why)
        self.mend = mend


def main() -> None:
    spec = json.loads(sys.stdin.readline())
    threading.Thread(target=_end_with_input, daemon=True).start()
    try:
        python = make(spec["name"], spec["wanted"], spec["constraints"])
    except Failed as failure:
        say(failed=str(failure), mend=failure.mend)
    except OSError as error:
        say(failed=f"{error.filename or 'it'}: {error.strerror or error}", mend="df -h; ls -ld ~")
    else:
        say(python=str(python))


def make(name: str, wanted: list[str], constraints: list[str]) -> Path:
    """Make the environment of this name, unless it is there; returns its interpreter.

    Raises Failed and OSError.
    """
    cache = Path(cache_folder())
    cache.mkdir(mode=0o700, parents=True, exist_ok=True)
    if not is_private(str(cache)):
        raise Failed(f"others can write into {cache}", f"chmod go-w {cache}")
    home = cache / name
    python = home / "bin" / "python"
    with _locked(cache / f"{name}.lock") as lock:
        if not (home / COMPLETE).is_file():
            say(progress=f"making {name} with {len(wanted)} packages")
            delete_old(str(cache))
            shutil.rmtree(home, ignore_errors=True)
            home.mkdir(mode=0o700)
            lists = {"wanted.txt": wanted, "constraints.txt": constraints}
            for file, lines in lists.items():
                (home / file).write_text("\n".join(lines) + "\n")
            _Maker(home, python, lock).make()
            (home / "wanted.txt").replace(home / COMPLETE)
        os.utime(home)  # the environment was used now: see `delete_old`
    return python


class _Maker:
    """Makes an environment with the tool that this machine has for it: uv, or pip."""

    def __init__(self, home: Path, python: Path, lock: int) -> None:
        self.home = home
        self.python = str(python)
        self.lock = lock

    def make(self) -> None:
        """Make the environment, with all packages. Raises Failed."""
        venv = [sys.executable, "-m", "venv", str(self.home)]
        if uv := os.environ.get("UV"):  # uv has found this Python, or got it
            self._run([uv, "venv", "--allow-existing", "--python", sys.executable, str(self.home)])
            self._install([uv, "pip", "install", "--python", self.python])
        elif _version_of_pip() >= PIP_WITH_PYTHON:
            self._run([*venv, "--without-pip"])
            self._install([sys.executable, "-m", "pip", "--python", self.python, *QUIETLY])
        elif importlib.util.find_spec("ensurepip") is not None:
            self._run(venv)
            self._install([self.python, "-m", "pip", *QUIETLY])
        else:
            raise Failed(
                f"{sys.executable} has neither pip nor ensurepip, and there is no uv",
                f"sudo apt install python{sys.version_info[0]}.{sys.version_info[1]}-venv",
            )

    def _install(self, command: list[str]) -> None:
        lists = ["-r", str(self.home / "wanted.txt"), "-c", str(self.home / "constraints.txt")]
        self._run([*command, *lists])

    def _run(self, command: list[str]) -> None:
        """Run a command to its end, and pass on what it prints of its progress. Raises Failed."""
        last: deque[str] = deque(maxlen=LAST_LINES)
        # What a login puts on its path is not what the environment has.
        env = {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}
        process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            errors="replace",
            env={**env, "PIP_DISABLE_PIP_VERSION_CHECK": "1"},
            pass_fds=[self.lock],  # (the command holds it, too, if this process is killed)
        )
        assert process.stdout is not None
        for line in process.stdout:
            last.append(line.rstrip())
            if line.lstrip().startswith(TOLD):
                say(progress=line.strip()[:200])
        if process.wait() != 0:
            shown = "\n".join(last)[-LAST_CHARACTERS:].replace("\n", "\n    | ")
            began = " ".join(command[:4])
            raise Failed(f"'{began} ...' ended with {process.returncode}:\n    | {shown}")


def say(**message: Any) -> None:
    """Tell the driver something, in one line of JSON."""
    print(json.dumps(message), flush=True)


@contextlib.contextmanager
def _locked(path: Path) -> Iterator[int]:
    """Hold the lock of an environment, for which other drivers wait. Raises Failed."""
    lock = os.open(path, os.O_RDWR | os.O_CREAT | os.O_CLOEXEC, 0o600)
    try:
        deadline = time.monotonic() + WAIT_S
        told = False
        while not _lock(lock):
            if time.monotonic() > deadline:
                raise Failed(f"another driver has held {path} for {WAIT_S:g} s", f"rm {path}")
            if not told:
                say(progress="another driver is making it; waiting for that")
                told = True
            time.sleep(LOOK_S)
        yield lock
    finally:
        os.close(lock)


def _lock(file: int) -> bool:
    try:
        fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
    except BlockingIOError:
        return False
    return True


def _version_of_pip() -> tuple[int, ...]:
    try:
        parts = importlib.metadata.version("pip").split(".")[:2]
    except importlib.metadata.PackageNotFoundError:
        return ()
    return tuple(int(part) for part in parts if part.isdigit())


def _end_with_input() -> None:
    """End this process group, with all that was started, when the starter is gone."""
    sys.stdin.read()
    os.killpg(0, signal.SIGKILL)


if __name__ == "__main__":
    main()
