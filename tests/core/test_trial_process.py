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
