"""The lock of a folder: one driver has it, as long as it lives, and nobody else for it."""

from __future__ import annotations

import errno
import fcntl
import os
import signal
import subprocess
import sys

import pytest

from distsearch.core.lock import Lock
from distsearch.core.store import Store
from distsearch.errors import StoreError, StoreLocked

FORKS = """
import os, sys, time
from pathlib import Path
from distsearch.core.lock import Lock

lock = Lock(Path(sys.argv[1]))
if not os.fork():
    print(os.getpid(), flush=True)
time.sleep(60)
"""


def test_a_process_that_a_killed_driver_had_forked_does_not_keep_its_lock(tmp_path):
    command = [sys.executable, "-c", FORKS, str(tmp_path)]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as driver:
        child = int(driver.stdout.readline())
        try:
            with pytest.raises(StoreLocked, match=f"process {driver.pid} on"):
                Lock(tmp_path)
            driver.kill()
            driver.wait(30)
            Lock(tmp_path).release()
            os.kill(child, 0)  # which lives on
        finally:
            os.kill(child, signal.SIGKILL)


def test_a_forked_child_does_not_free_what_its_parent_has(tmp_path):
    lock = Lock(tmp_path)
    child = os.fork()
    if not child:
        lock.release()
        os._exit(0)
    os.waitpid(child, 0)
    with pytest.raises(StoreLocked):
        Lock(tmp_path)
    lock.release()


def test_who_is_refused_by_its_own_process_is_told_to_close_and_not_to_end_it(tmp_path):
    lock = Lock(tmp_path)
    with pytest.raises(StoreLocked, match=r"this very process.*Call close\(\)") as error:
        Lock(tmp_path)
    assert "end it" not in str(error.value)
    lock.release()
    Lock(tmp_path).release()


def test_a_lock_that_was_put_aside_with_its_folder_is_no_lock_of_the_new_one(tmp_path):
    """A driver opens the lock, and before it locks it, another one archives the folder."""
    folder = tmp_path / "mine"
    archived = []

    class Late(Lock):
        def _lock(self, file):
            if not archived:
                archived.append(folder.rename(tmp_path / "mine.1"))
            super()._lock(file)

    lock = Late(folder)
    assert (folder / "lock").read_text() == (f"process {os.getpid()} on {os.uname().nodename}")
    with pytest.raises(StoreLocked):
        Lock(folder)
    Lock(tmp_path / "mine.1").release()
    lock.release()


def test_a_folder_that_was_replaced_after_it_was_locked_gets_no_second_writer(tmp_path):
    for name in ("mine", "another"):
        Store(tmp_path / name).close()
    lock = Lock(tmp_path / "mine")
    (tmp_path / "mine").rename(tmp_path / "moved")
    (tmp_path / "another").rename(tmp_path / "mine")
    with pytest.raises(StoreError, match="moved away, or replaced by another one"):
        Store(tmp_path / "mine", lock)
    for name in ("mine", "moved"):
        Store(tmp_path / name).close()


def test_a_lock_that_is_a_file_of_somebody_by_another_name_is_made_anew(tmp_path):
    (tmp_path / "thesis").write_text("all of it")
    (tmp_path / "mine").mkdir()
    os.link(tmp_path / "thesis", tmp_path / "mine" / "lock")
    lock = Lock(tmp_path / "mine")
    assert (tmp_path / "thesis").read_text() == "all of it"
    with pytest.raises(StoreLocked):
        Lock(tmp_path / "mine")
    lock.release()


def test_a_disk_without_locks_is_called_that_and_not_another_driver(tmp_path, monkeypatch):
    def no_locks(file, operation):
        raise OSError(errno.ENOLCK, os.strerror(errno.ENOLCK))

    monkeypatch.setattr(fcntl, "flock", no_locks)
    with pytest.raises(StoreError, match="its disk gives no locks") as error:
        Lock(tmp_path)
    assert not isinstance(error.value, StoreLocked)


def test_the_lock_is_written_to_no_other_file_through_a_link(tmp_path):
    (tmp_path / "thesis").write_text("all of it")
    (tmp_path / "mine").mkdir()
    (tmp_path / "mine" / "lock").symlink_to(tmp_path / "thesis")
    with pytest.raises(StoreError, match="is a link"):
        Lock(tmp_path / "mine")
    assert (tmp_path / "thesis").read_text() == "all of it"
