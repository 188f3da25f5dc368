"""The tutorials run as they are, end well and say what they should."""

from __future__ import annotations

import re
import subprocess
import sys
from pathlib import Path

import pytest

TUTORIALS = Path(__file__).resolve().parents[1] / "tutorials"


def run(folder: Path, name: str, *arguments: str) -> str:
    """Run a tutorial as a user does; return what it printed."""
    done = subprocess.run(
        [sys.executable, str(TUTORIALS / name), *arguments],
        cwd=folder,
        capture_output=True,
        text=True,
        timeout=110,
    )
    assert done.returncode == 0, done.stdout + done.stderr
    assert done.stderr == ""
    return done.stdout


def picture_named_in(said: str, folder: Path) -> bytes:
    (path,) = re.findall(r"^.*curves.*: +(\S+\.png)$", said, re.MULTILINE)
    return (folder / path).read_bytes()


def test_the_first_search_finds_the_right_learning_rate_and_draws_its_curves(tmp_path):
    said = run(tmp_path, "01_first_search.py")
    assert len(re.findall(r"^task \d+: lr ", said, re.MULTILINE)) == 12
    assert 0.003 < float(re.search(r"best configuration: \{'lr': ([\d.e-]+)", said)[1]) < 0.03
    assert float(re.search(r"best accuracy: +([\d.]+)", said)[1]) > 0.9
    assert "task 0: finished" in said
    assert picture_named_in(said, tmp_path).startswith(b"\x89PNG")


def test_the_digits_search_ends_with_an_honest_test_accuracy_and_trained_weights(tmp_path):
    for module in ("torch", "sklearn"):
        pytest.importorskip(module)
    said = run(tmp_path, "02_digits_torch.py", "--trials", "3")
    assert "3 trials in" in said
    assert "3 done, 0 failed" in said
    assert re.search(r"^    network: (Conv|Dense)$", said, re.MULTILINE)
    assert 0.95 < float(re.search(r"Best validation accuracy: ([\d.]+)", said)[1]) <= 1
    assert 0.95 < float(re.search(r"Test accuracy .*: ([\d.]+)", said)[1]) <= 1
    weights = Path(re.search(r"Trained weights .*: +(\S+)", said)[1])
    assert list(weights.glob("*.safetensors"))
    assert picture_named_in(said, tmp_path).startswith(b"\x89PNG")


def test_without_addresses_many_machines_are_two_test_hosts_and_both_run_trials(tmp_path):
    said = run(tmp_path, "03_many_machines.py")
    assert "No addresses given: starting two test hosts on loopback" in said
    ran = dict(re.findall(r"^(\w+) ran (\d+) trials", said, re.MULTILINE))
    assert set(ran) == {"east", "west"}
    assert sum(map(int, ran.values())) == 16
    assert "16 done, 0 failed" in said
    for host in ran:
        assert f"[ worker {host} ] : task" in said
    assert float(re.search(r"best error: ([\d.]+)", said)[1]) < 0.1
    assert list(tmp_path.iterdir()) == [tmp_path / "distsearch_results"]


def test_many_machines_says_which_address_cannot_be_reached(tmp_path):
    done = subprocess.run(
        [sys.executable, str(TUTORIALS / "03_many_machines.py"), "127.0.0.1:1"],
        cwd=tmp_path,
        capture_output=True,
        text=True,
        timeout=60,
    )
    assert done.returncode == 1
    assert "NodeError" in done.stderr
    assert "127.0.0.1:1" in done.stderr


def test_several_objectives_end_with_a_front_of_which_no_network_beats_another(tmp_path):
    for module in ("torch", "sklearn"):
        pytest.importorskip(module)
    said = run(tmp_path, "07_several_objectives.py", "--trials", "12")
    assert "12 done, 0 failed" in said
    found = re.findall(r"^task (\d+): accuracy ([\d.]+) with (\d+) parameters", said, re.MULTILINE)
    assert f"{len(found)} of 12 networks are in the Pareto front" in said
    accuracies = [float(accuracy) for _, accuracy, _ in found]
    parameters = [int(number) for _, _, number in found]
    assert accuracies == sorted(accuracies, reverse=True)
    assert parameters == sorted(parameters, reverse=True)
    assert min(accuracies) >= 0.8
    chosen = re.search(r"task (\d+)$", said, re.MULTILINE)[1]
    assert chosen in {task for task, _, _ in found}
    path = re.search(r"Picture of the front: (\S+\.png)", said)[1]
    assert (tmp_path / path).read_bytes().startswith(b"\x89PNG")
