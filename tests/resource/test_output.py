"""What trials print, to a disk that is full."""

from __future__ import annotations

import doctest
import os
import subprocess
import sys

import pytest

from distsearch.resource import lacks
from distsearch.resource.output import stream


@pytest.fixture
def descriptor():
    """One that writes to a full disk, and the way to have it write to a file."""
    own = os.open("/dev/full", os.O_WRONLY)
    yield own
    os.close(own)


def test_the_example_of_what_is_lacking_holds():
    assert doctest.testmod(lacks).failed == 0


def test_printing_to_a_full_disk_raises_nothing_and_what_was_lost_is_said(descriptor, tmp_path):
    output = stream(descriptor)
    print("first", file=output)
    print("x" * 100_000, file=output)
    other = os.open(tmp_path / "output.txt", os.O_WRONLY | os.O_CREAT)
    os.dup2(other, descriptor)
    os.close(other)
    print("there is room again", file=output)
    print("and more", file=output)
    text = (tmp_path / "output.txt").read_text()
    assert text == (
        "\n[100007 bytes of output were lost: no space]\nthere is room again\nand more\n"
    )


@pytest.mark.parametrize("errors", ["surrogateescape", "backslashreplace", "strict"])
def test_what_python_can_print_in_this_program_can_be_printed_here(tmp_path, errors):
    code = (
        "import os, sys; from distsearch.resource.output import make_patient; make_patient();"
        "print(sys.stdout.encoding, sys.stdout.errors, chr(233))"
    )
    env = {**os.environ, "PYTHONIOENCODING": f"utf-8:{errors}", "LC_ALL": "C", "PYTHONUTF8": "0"}
    env["PYTHONCOERCECLOCALE"] = "0"
    done = subprocess.run([sys.executable, "-c", code], env=env, capture_output=True, timeout=60)
    assert done.stdout.decode("utf-8") == f"utf-8 {errors} \xe9\n", done.stderr


def test_other_errors_of_output_are_raised(tmp_path):
    path = tmp_path / "file"
    path.touch()
    only_read = os.open(path, os.O_RDONLY)
    with pytest.raises(OSError, match="Bad file descriptor"):
        print("x", file=stream(only_read))
    os.close(only_read)
