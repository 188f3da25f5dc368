"""What holds for the whole suite."""

from __future__ import annotations

import os
import sys

# The tests start thousands of interpreters. Each would compile the package again on a machine that
# has been told to keep no bytecode: a quarter of the time that a small search takes.
sys.dont_write_bytecode = False
os.environ.pop("PYTHONDONTWRITEBYTECODE", None)
