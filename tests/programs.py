"""Programs of their own, which tests run to see what arrives in another process."""

from __future__ import annotations

import subprocess
import sys
import textwrap
from pathlib import Path

BOUND_S = 60


def written_by(script: Path, text: str) -> bytes:
    """What a script of this text writes to its standard output."""
    script.write_text(textwrap.dedent(text))
    done = subprocess.run(
        [sys.executable, script], capture_output=True, check=True, timeout=BOUND_S
    )
    return done.stdout


def printed(code: str, given: bytes) -> str:
    """What Python prints when it runs this code with these bytes on its standard input."""
    done = subprocess.run(
        [sys.executable, "-c", code], input=given, capture_output=True, timeout=BOUND_S
    )
    assert done.returncode == 0, done.stderr.decode()
    return done.stdout.decode().strip()
