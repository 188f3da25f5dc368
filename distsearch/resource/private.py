"""Files and folders that no other user can read, whatever the umask; never through a link.

Another user may have prepared the folder of a search, with links that lead to files of yours. So
files are opened there without following links.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import os
import shutil
import stat
from pathlib import Path

FILE_MODE, FOLDER_MODE = 0o600, 0o700
_NO_LINK = getattr(os, "O_NOFOLLOW", 0)  # Windows has no such flag


def private(path: str | os.PathLike[str], flags: int) -> int:
    """Open a file that no other user can read, and that is no link; the `opener` of `open`.

        with open(path, "wb", opener=private) as file: ...

    Raises OSError for a link (ELOOP), and for what is no file, and says so.
    """
    try:
        # (O_NONBLOCK: not to wait for a reader, where another user has put a named pipe.)
        file = os.open(path, flags | _NO_LINK | os.O_NONBLOCK | os.O_CLOEXEC, FILE_MODE)
    except OSError as error:
        if os.path.islink(path):
            raise link_error(path) from error
        if os.path.exists(path) and not os.path.isfile(path):
            raise _no_file_error(path) from error
        raise
    try:
        mode = os.fstat(file).st_mode
        if not stat.S_ISREG(mode):
            raise _no_file_error(path)
        if stat.S_IMODE(mode) != FILE_MODE and flags & (os.O_WRONLY | os.O_RDWR):
            os.fchmod(file, FILE_MODE)
    except BaseException:
        os.close(file)
        raise
    return file


def make_folder(path: str | os.PathLike[str]) -> bool:
    """Make a folder that no other user can enter; one that is there becomes private.

    Its parents have to be there. Returns whether the folder was made. Raises OSError (ELOOP) for a
    link, and says so.
    """
    is_new = True
    try:
        os.mkdir(path, FOLDER_MODE)
    except FileExistsError:
        if os.path.islink(path):
            raise link_error(path) from None
        if not os.path.isdir(path):
            raise
        is_new = False
    if stat.S_IMODE(os.lstat(path).st_mode) != FOLDER_MODE:
        os.chmod(path, FOLDER_MODE)
    return is_new


def make_folders(path: Path) -> None:
    """Make a folder, and missing folders above it, all private."""
    if not path.parent.exists():
        make_folders(path.parent)
    make_folder(path)


def make_private(path: Path) -> None:
    """Close a file, or a folder with all in it, to other users; links are left as they are."""
    mode = os.lstat(path).st_mode
    if stat.S_ISREG(mode) and stat.S_IMODE(mode) != private_mode(mode):
        os.chmod(path, private_mode(mode))
    elif stat.S_ISDIR(mode):
        make_folder(path)
        for inner in path.iterdir():
            make_private(inner)


def replace(path: Path, content: bytes) -> Path:
    """Write a file that nobody else can read, all at once and through no link; its path."""
    unfinished = path.with_name(f".{path.name}.part")
    try:
        with open(unfinished, "wb", opener=private) as file:
            file.write(content)
        return unfinished.replace(path)
    except OSError:  # of a full disk: what was there stays
        with contextlib.suppress(OSError):
            unfinished.unlink()
        raise


def delete(path: Path) -> None:
    """Delete a file, a folder with all in it, or a link (not what it leads to), if it is there."""
    if path.is_dir() and not path.is_symlink():
        shutil.rmtree(path)
    else:
        path.unlink(missing_ok=True)


def private_mode(mode: int) -> int:
    """The mode of a private file, which its owner can run if he could before.

    >>> oct(private_mode(0o755))
    '0o700'
    """
    return FILE_MODE | mode & stat.S_IXUSR


def name_of(pickled: bytes) -> str:
    """The file name of a pickled train function: a hash, by which the content is checked."""
    # (Not sha256, which is OpenSSL's: its first use takes a forked process 0.2 ms.)
    return f"{hashlib.blake2b(pickled, digest_size=32).hexdigest()}.pickle"


def link_error(path: str | os.PathLike[str]) -> OSError:
    """The error for a link where a file or a folder of the search is to be."""
    text = "it is a link, which a search does not follow in its own folder; delete it, or move it"
    return OSError(errno.ELOOP, text, os.fspath(path))


def _no_file_error(path: str | os.PathLike[str]) -> OSError:
    text = "it is no file, but a folder, a pipe or a device; move it away"
    return OSError(errno.ELOOP, text, os.fspath(path))
