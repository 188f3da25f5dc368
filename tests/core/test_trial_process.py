"""The process of a trial, before and between its jobs."""

from __future__ import annotations

import subprocess
import sys

ENDED_BEFORE_IT_BEGAN = """
import os, signal, socket, sys
from distsearch.core.trial_process import main

ours, theirs = socket.socketpair()
signal.pthread_sigmask(signal.SIG_BLOCK, (signal.SIGTERM, signal.SIGINT))  # as the launcher does
os.kill(os.getpid(), signal.SIGTERM)
sys.exit(main(theirs, 1))
"""


def test_a_process_that_is_told_to_end_before_it_has_begun_ends_in_peace():
    """In a gang this would be the rank that is said to have failed first."""
    done = subprocess.run(
        [sys.executable, "-c", ENDED_BEFORE_IT_BEGAN], capture_output=True, text=True, timeout=60
    )
    assert (done.returncode, done.stderr) == (0, "")


REHEARSED = """
import logging, os, random, sys, threading
from distsearch.core import trial_process

def what_trials_find():
    descriptors = sorted(os.listdir("/proc/self/fd")) if sys.platform == "linux" else []
    handlers = [logging.root.handlers[:], logging.root.level]
    threads = threading.active_count()
    return (
        os.getcwd(), os.listdir(), dict(os.environ), sys.path[:], sys.argv[:], descriptors,
        handlers, threads, random.getstate(), sys.modules["__main__"],
        dict(trial_process._functions),
    )

before = what_trials_find()
trial_process.rehearse()
assert what_trials_find() == before
"""


def test_a_rehearsal_succeeds_and_leaves_nothing_behind_that_trials_would_find(tmp_path):
    subprocess.run([sys.executable, "-c", REHEARSED], check=True, timeout=60, cwd=tmp_path)
