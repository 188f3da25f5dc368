"""The command of the shell: it loads what it needs, and says what it does not know."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest


def distsearch(*arguments, code=0):
    done = subprocess.run(
        [sys.executable, "-X", "importtime", "-m", "distsearch.cli", *arguments],
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == code, done.stderr
    said = [line for line in done.stderr.splitlines() if not line.startswith("import time:")]
    loaded = {line.rsplit("|", 1)[-1].strip() for line in done.stderr.splitlines()}
    return done.stdout + "\n".join(said), loaded


@pytest.mark.parametrize("option", ["--help", "--version"])
def test_help_and_version_load_no_heavy_library(option):
    said, loaded = distsearch(option)
    assert "distsearch" in said
    assert not loaded & {"torch", "numpy", "matplotlib", "distributed", "sklearn"}


def test_python_runs_the_package_as_the_command():
    command = [sys.executable, "-m", "distsearch", "--version"]
    done = subprocess.run(command, capture_output=True, text=True, timeout=60)
    assert done.stdout.startswith("distsearch, version ")


def test_an_unknown_command_is_refused_with_what_there_is():
    said, _ = distsearch("pc-dart", code=2)
    assert "no command 'pc-dart'" in said


def test_an_unknown_option_is_refused_with_the_nearest():
    said, _ = distsearch("data", "show", "--dat", "digits", code=2)
    assert "No such option" in said
    assert "--data" in said


def test_a_data_set_is_shown_and_one_that_is_not_there_is_wrong_input(tmp_path):
    said, loaded = distsearch("data", "show", "--json")
    assert json.loads(said)["classes"] == list("0123456789")
    assert "torch" not in loaded
    said, _ = distsearch("data", "show", "--data", "digit", code=2)
    assert said.startswith("Error: there is no data set 'digit'")
    assert "did you mean 'digits'?" in said


def test_what_is_wrong_in_a_file_of_nodes_is_wrong_input(tmp_path):
    (tmp_path / "nodes.toml").write_text("[gpu1]\nprot = 22")
    given = ["--nodes", f"a,{tmp_path}/nodes.toml", "--out", str(tmp_path / "run")]
    said, _ = distsearch("gan", "train", *given, code=2)
    assert "nodes.toml: table [gpu1] has no key 'prot'; did you mean 'port'?" in said
    assert not (tmp_path / "run").exists()
