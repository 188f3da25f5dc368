"""What the trials of a node need of its disk: the train function, uploaded files, their folders."""

from __future__ import annotations

import hashlib
import importlib.util
import os
import shutil
from pathlib import Path
from typing import Any

from .lacks import with_remedy
from .messages import Message
from .private import delete, make_folder, make_folders, private, private_mode

FUNCTION, UPLOADS = "the train function", "the uploaded files"  # what a node may lack
FOLDERS = ("functions", "trials", "work")


class Stock:
    """Keeps what the driver sends, in the agent's folder.

    stock = Stock(folder)
    stock.begin()
    stock.take_function(message); stock.take_upload(message)     # whole, or a piece
    stock.lacks("train-1f")                                      # what is missing; [] if nothing
    stock.make_folder_of(7)
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._folders = {name: str(folder / name) for name in FOLDERS}  # (quicker than Path)
        self.work = self._folders["work"]  # the folder with the uploaded files
        self._unfinished: dict[str, Any] = {}  # hashes of uploads that are not whole yet
        self._uploaded: set[str] = set()  # names that have to be in the work folder
        self._trouble = ""  # why the train function that came last could not be stored

    def begin(self) -> None:
        """Make the folders."""
        self._folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        delete(self._folder / "functions")  # (another user may have put something there)
        for name in FOLDERS:
            make_folder(self._folder / name)

    def take_function(self, message: Message) -> None:
        """Take a pickled train function, or a piece of it; `why_lacking` tells if that fails."""
        try:
            if self._store_function(message):
                self._trouble = ""
        except OSError as error:
            self._trouble = with_remedy(str(error), error.errno)

    def _store_function(self, message: Message) -> bool:
        """Store a train function, or a piece of it; whether it is whole now."""
        path = self._folder / "functions" / message["name"]
        unfinished = path.with_name(f".{path.name}.part")
        self._make_folders()
        if not message.get("offset"):
            delete(unfinished)
        elif not unfinished.exists() or unfinished.stat().st_size != message["offset"]:
            return False  # (a piece is missing)
        with open(unfinished, "ab", opener=private) as file:
            file.write(message["data"])
        is_whole = bool(message.get("done", True))  # (a small function comes whole)
        if is_whole:
            os.replace(unfinished, path)
        return is_whole

    def take_upload(self, message: Message) -> None:
        """Take a piece of a file. Raises OSError, and ValueError for what makes no sense."""
        try:
            add_to_upload(Path(self.work), self._unfinished, message)
        except (OSError, ValueError):
            self._unfinished.pop(message["path"], None)
            raise
        if message["done"]:
            self._uploaded.add(Path(message["path"]).parts[0])

    def finds(self, module: str) -> bool:
        """Whether trials here can import a module of this top name."""
        if any(os.path.exists(f"{self.work}/{name}") for name in (module, f"{module}.py")):
            return True
        try:
            return importlib.util.find_spec(module) is not None
        except (ImportError, ValueError):
            return False

    def path_of(self, function: str) -> str:
        """The file of a train function that the driver has sent."""
        return f"{self._folders['functions']}/{function}"

    def lacks(self, function: str) -> list[str]:
        """What the driver has to send again before a trial can start. Raises OSError."""
        if not os.path.isdir(self.work):
            self._make_folders()
        lacks = []
        if not os.path.exists(self.path_of(function)):
            lacks.append(FUNCTION)
        if not all(os.path.lexists(f"{self.work}/{name}") for name in self._uploaded):
            lacks.append(UPLOADS)
        return lacks

    def why_lacking(self, lacks: list[str]) -> str:
        """Why that is missing which `lacks` has found missing."""
        if FUNCTION in lacks and self._trouble:
            return f"{FUNCTION} cannot be stored: {self._trouble}"
        return f"a trial has deleted what all of them need: {' and '.join(lacks)}"

    def make_folder_of(self, trial: int) -> tuple[str, bool]:
        """The folder of a trial, and whether it was made just now. Raises OSError."""
        folder = f"{self._folders['trials']}/{trial}"
        try:
            return folder, make_folder(folder)
        except FileNotFoundError:  # a trial has deleted the folder of all trials
            self._make_folders()
            return folder, make_folder(folder)

    def _make_folders(self) -> None:
        """Make the folders of this node, also those that a trial has deleted."""
        for folder in self._folders.values():
            if not os.path.isdir(folder):
                make_folders(Path(folder))


def add_to_upload(folder: Path, open_files: dict[str, Any], message: Message) -> None:
    """Add a piece to an upload; after the last piece check the hash, and put the file in place.

    Raises ValueError for a path outside the folder or a wrong hash.
    """
    path = Path(message["path"])
    if path.is_absolute() or ".." in path.parts or not path.parts:
        raise ValueError(f"the path {message['path']!r} leaves the work folder")
    target = folder / path
    if not target.parent.resolve().is_relative_to(folder.resolve()):
        raise ValueError(f"the path {message['path']!r} leads through a link out of the folder")
    temporary = target.with_name(f".{target.name}.part")
    if message["path"] not in open_files:
        make_folders(target.parent)
        temporary.unlink(missing_ok=True)
        open_files[message["path"]] = hashlib.sha256()
    with open(temporary, "ab", opener=private) as file:
        file.write(message["data"])
    digest = open_files[message["path"]]
    digest.update(message["data"])
    if message["done"]:
        del open_files[message["path"]]
        if digest.hexdigest() != message["sha256"]:
            temporary.unlink()
            raise ValueError(f"{message['path']!r} arrived damaged")
        if target.is_dir() and not target.is_symlink():
            shutil.rmtree(target)
        os.chmod(temporary, private_mode(message["mode"]))
        os.replace(temporary, target)
