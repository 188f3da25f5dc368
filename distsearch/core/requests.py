"""What others ask of a search that runs: files that are moved into `requests/` of its folder.

    from distsearch.core import requests

    number = requests.ask(folder, "stop_trial", trial=7)         # any process, any machine
    answer = requests.answer_of(folder, number, within_s=10)     # Answer(is_done=True, said=...)

There is no port: a file that reaches the folder (over NFS, too) reaches the search, and only those
who may write to the folder can steer the search. The driver looks about once a second, distrusts
each file, and logs a `request` event: what was asked, by whom, and what came of it. Then the file
is deleted. Where no driver runs, no request is left behind, unless it may wait for the next driver.
"""

from __future__ import annotations

import contextlib
import getpass
import json
import os
import re
import socket
import time
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from ..errors import NoDriver, NoExperiment, OptionError, StoreError, suggest
from ..resource.private import make_folder, private
from . import store
from .belongings import REQUESTS as FOLDER
from .lock import holder

MAX_BYTES = 64 * 1024
MAX_TEXT = 300  # a name has at most so many characters
MAX_AT_ONCE = 100  # at each look at most so many files are read
OLD_S = 60.0  # the writer of an unfinished file of this age has died
ANSWER_LOOK_S = 0.1

# What can be asked, and which values go with it.
KINDS: Mapping[str, Mapping[str, type]] = {
    "stop_search": {},
    "pause_search": {},
    "search_goes_on": {},
    "stop_trial": {"trial": int},
    "pause_trial": {"trial": int},
    "go_on": {"trial": int},
    "add_config": {"config": dict},
    "add_node": {"node": str},
    "drain_node": {"node": str},
}
LATER = ("go_on", "search_goes_on")  # where no driver runs, these may wait for the next one
_WORDS = {int: "a whole number from 0", dict: "an object of JSON", str: "text"}
_NAME = re.compile(r"\d{20}-[0-9a-f]{8}\.json")


@dataclass(frozen=True)
class Request:
    """What somebody asks: `kind` is one of KINDS, `what` its values, `by` says who asks."""

    id: str
    kind: str
    what: Mapping[str, Any]
    by: str


@dataclass(frozen=True)
class Answer:
    """What came of a request: whether it was done, and the outcome in words."""

    is_done: bool
    said: str


@dataclass(frozen=True)
class Refused:
    """A file that is no request, and why; `id` is its name without the ending."""

    id: str
    why: str


def ask(
    folder: str | os.PathLike[str], kind: str, *, by: str = "", may_wait: bool = False, **what: Any
) -> str:
    """Ask something of the search that runs in a folder; returns the request's id.

        ask("runs/digits", "pause_trial", trial=3, by="the web page")

    `kind` is one of KINDS, `what` its values: `trial=` an id, `config=` a configuration, `node=` an
    address. `by` is added to the user and host that ask. `may_wait`: where no driver runs, a
    request of LATER waits for the next one. `answer_of` tells what comes of the request. Raises
    OptionError for what cannot be asked, NoDriver when no driver runs the search, StoreError when
    the folder holds no search or cannot be written to.
    """
    where = Path(folder).expanduser().absolute()
    text = json.dumps({"kind": kind, "by": _who(by), **_checked(kind, what)}, allow_nan=False)
    if len(text.encode()) > MAX_BYTES:
        raise OptionError(f"this request has more than {MAX_BYTES} bytes; ask for less at once")
    if not (where / store.FILE).is_file():
        raise NoExperiment(f"{where} holds no experiment: there is no {store.FILE} in it")
    waits = may_wait and kind in LATER
    if waits:
        make_folder(where / FOLDER)  # perhaps no driver has made it yet
    else:
        _check_driver(where)
    number = f"{time.time_ns():020d}-{os.urandom(4).hex()}"
    path = where / FOLDER / f"{number}.json"
    unfinished = path.with_name(f".{number}.part")
    try:
        with open(unfinished, "x", encoding="utf-8", opener=private) as file:
            file.write(text)
        unfinished.rename(path)
    except OSError as error:
        with contextlib.suppress(OSError):
            unfinished.unlink()
        raise StoreError(f"the search in {where} cannot be asked: {error}") from error
    try:
        if not waits:
            _check_driver(where)
    except NoDriver:  # the driver has ended meanwhile, and may have taken the request
        with contextlib.suppress(FileNotFoundError):
            path.unlink()
            raise
    return number


def answer_of(
    folder: str | os.PathLike[str], number: str, within_s: float = 10.0, *, after: int = 0
) -> Answer | None:
    """What came of a request; None if the log does not say so within `within_s` seconds.

    `after`: the id of an event that is older than the request, to read less.
    """
    where, until = Path(folder).expanduser().absolute(), time.monotonic() + within_s
    while True:
        for event in store.read(where, "request", after=after):
            after = event.id
            if event.body["id"] == number:
                return Answer(event.body["is_done"], event.body["said"])
        if time.monotonic() >= until:
            return None
        time.sleep(ANSWER_LOOK_S)


def withdraw(folder: str | os.PathLike[str], number: str) -> bool:
    """Take back a request that the driver has not seen yet; False if it has."""
    with contextlib.suppress(FileNotFoundError):
        (Path(folder).expanduser().absolute() / FOLDER / f"{number}.json").unlink()
        return True
    return False


def _check_driver(folder: Path) -> None:
    if holder(folder) is None:
        raise NoDriver(
            f"no driver runs the search in {folder}, so nobody would hear this; start its program "
            "again, which goes on with it (`distsearch resume` does that)"
        )


def _who(by: str) -> str:
    try:
        user = getpass.getuser()
    except (KeyError, OSError):  # (in containers a user may have no name)
        user = f"user {os.getuid()}"
    return f"{user} on {socket.gethostname()}" + (f" ({by})" if by else "")


def _checked(kind: str, what: Mapping[str, Any]) -> Mapping[str, Any]:
    """The values of a request, checked; raises OptionError for what cannot be asked."""
    if kind not in KINDS:
        raise OptionError(f"no request is called {kind!r}; {suggest(str(kind), KINDS)}")
    wanted = KINDS[kind]
    for name in what:
        if name not in wanted:
            raise OptionError(f"{kind!r} takes no {name!r}; {suggest(name, wanted)}")
    for name, needed in wanted.items():
        value = what.get(name)
        is_right = type(value) is needed
        if isinstance(value, int):
            is_right = is_right and value >= 0
        if isinstance(value, str):
            is_right = is_right and bool(value.strip()) and len(value) <= MAX_TEXT
        if not is_right:
            raise OptionError(f"{kind!r} needs {name}= as {_WORDS[needed]}, got {value!r}")
    return what


# The driver's side


def begin(folder: Path) -> list[str]:
    """Make the folder of requests, and name those that an earlier driver has left."""
    make_folder(folder / FOLDER)
    for path in (folder / FOLDER).glob(".*.part"):
        with contextlib.suppress(OSError):
            if time.time() - path.lstat().st_mtime > OLD_S:
                path.unlink()
    return names(folder)


def names(folder: Path) -> list[str]:
    """The ids of the requests that wait, the oldest first."""
    found = [name for name in os.listdir(folder / FOLDER) if _NAME.fullmatch(name)]
    return [name.removesuffix(".json") for name in sorted(found)[:MAX_AT_ONCE]]


def read(folder: Path, number: str) -> Request | Refused:
    """Read a request that anybody may have written: its owner, size and content are checked."""
    path = folder / FOLDER / f"{number}.json"
    try:
        with open(path, "rb", opener=private) as file:
            owner = os.fstat(file.fileno()).st_uid
            if owner != os.geteuid():
                return Refused(number, f"its file belongs to user {owner}, not to the driver's")
            data = file.read(MAX_BYTES + 1)
        if len(data) > MAX_BYTES:
            return Refused(number, f"it has more than {MAX_BYTES} bytes")
        given = json.loads(data, parse_constant=_no_constant)
        if not isinstance(given, dict):
            raise OptionError("it is no object of JSON")
        kind, by = given.pop("kind", None), given.pop("by", None)
        if not isinstance(by, str) or not by or len(by) > MAX_TEXT:
            raise OptionError("it does not say who asks, as text in `by`")
        return Request(number, str(kind), _checked(str(kind), given), by)
    except OSError as error:
        return Refused(number, f"its file cannot be read: {error}")
    except (ValueError, RecursionError) as error:  # JSON and UTF-8, and OptionError
        return Refused(number, str(error) or repr(error))


def delete(folder: Path, number: str) -> None:
    """Delete the file of a request that was answered."""
    with contextlib.suppress(OSError):
        (folder / FOLDER / f"{number}.json").unlink()


def _no_constant(name: str) -> None:
    raise OptionError(f"{name} is no value of JSON")
