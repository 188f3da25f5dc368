"""Files and folders for nobody else: their modes whatever the umask, and never through a link.

Somebody else may have prepared the folder in which a search is to live, with links that lead to
files of yours. So what is written there is opened without following them.
"""

from __future__ import annotations

import errno
import os
import stat
from pathlib import Path

FILE_MODE, FOLDER_MODE = 0o600, 0o700
_NO_LINK = getattr(os, "O_NOFOLLOW", 0)  # Windows has no such flag


def private(path: str | os.PathLike[str], flags: int) -> int:
    """Open a file that nobody else can read, and that is no link: the `opener` of `open`.

    Raises OSError (ELOOP) that says so for a link, and for what is no file at all.
    """
    try:
        # (Not to wait for who reads the other end, where somebody has put a pipe.)
        file = os.open(path, flags | _NO_LINK | os.O_NONBLOCK | os.O_CLOEXEC, FILE_MODE)
    except OSError as error:
        if os.path.islink(path):
            raise link_error(path) from error
        raise
    try:
        mode = os.fstat(file).st_mode
        if not stat.S_ISREG(mode):
            raise OSError(errno.ELOOP, "it is no file, and nothing is written there", str(path))
        if stat.S_IMODE(mode) != FILE_MODE and flags & (os.O_WRONLY | os.O_RDWR):
            os.fchmod(file, FILE_MODE)
    except BaseException:
        os.close(file)
        raise
    return file


def make_folder(path: str | os.PathLike[str]) -> None:
    """Make a folder that nobody else can enter, unless there is one: then it becomes private.

    Its parents have to be there. Raises OSError (ELOOP) that says so for a link.
    """
    try:
        os.mkdir(path, FOLDER_MODE)
    except FileExistsError:
        if os.path.islink(path):
            raise link_error(path) from None
        if not os.path.isdir(path):
            raise
    if stat.S_IMODE(os.lstat(path).st_mode) == FOLDER_MODE:
        return
    folder = os.open(path, os.O_RDONLY | os.O_DIRECTORY | _NO_LINK | os.O_CLOEXEC)
    try:
        os.fchmod(folder, FOLDER_MODE)
    finally:
        os.close(folder)


def make_folders(path: Path, above: Path) -> None:
    """Make a folder below `above`, and those in between, all of them private."""
    for part in reversed([path, *path.parents][: len(path.relative_to(above).parts)]):
        make_folder(part)


def make_private(folder: Path) -> None:
    """Take from everybody else what libraries have written below a folder."""
    for parent, _, files in os.walk(folder):
        os.chmod(parent, FOLDER_MODE)
        for name in files:
            path = os.path.join(parent, name)
            if not os.path.islink(path):
                os.chmod(path, FILE_MODE)


def link_error(path: str | os.PathLike[str]) -> OSError:
    """The error for a link where a file or a folder of the search is to be."""
    text = "it is a link, which a search does not follow in its own folder; delete it, or move it"
    return OSError(errno.ELOOP, text, os.fspath(path))
