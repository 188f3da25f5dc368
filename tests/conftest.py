"""What holds for the whole suite."""

from __future__ import annotations

import os
import sys

import pytest

# The tests start thousands of interpreters. Each would compile the package again on a machine that
# has been told to keep no bytecode: a quarter of the time that a small search takes.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)

# As many tests run at once as there are cores. Where each of them computes on all cores, they wait
# for each other's threads: small networks then train five times slower. (Trials are not concerned:
# their threads follow num_cpus.)
for library in ("OMP", "MKL", "OPENBLAS"):
    os.environ.setdefault(f"{library}_NUM_THREADS", "1")


@pytest.fixture(autouse=True)
def no_search_goes_on():
    """Close the searches that a test leaves open: they hold slots that later tests wait for."""
    from distsearch.scheduler import registry

    before = registry.all_open()
    yield
    for scheduler in registry.all_open():
        if scheduler not in before:
            scheduler.close()
