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
    said = run(tmp_path, "02_digits_torch.py", "--trials", "2")
    assert "2 trials in" in said
    assert "2 done, 0 failed" in said
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


def test_asha_and_pbt_spend_few_epochs_and_show_their_schedules(tmp_path):
    for module in ("torch", "sklearn"):
        pytest.importorskip(module)
    said = run(tmp_path, "04_asha_and_pbt.py", "--trials", "12", "--population", "4")
    assert "in all about 36 epochs (9.0 times fewer than 324 of full training)" in said
    spent = re.search(r"ASHA trained (\d+) epochs in place of 324", said)
    assert 12 < int(spent[1]) < 110
    assert int(re.search(r"(\d+) of 12 trials were paused and went on later", said)[1]) > 0
    accuracies = re.findall(r"^best accuracy: ([\d.]+)", said, re.MULTILINE)
    assert [float(accuracy) > 0.8 for accuracy in accuracies] == [True, True]
    _, schedule = said.split("how the best came about")
    assert re.search(r"^    epochs  1 to +\d+: task +\d with \{'lr':", schedule, re.MULTILINE)
    weights = Path(re.search(r"weights after \d+ epochs are below (\S+)", said)[1])
    assert list(weights.glob("*/torch.safetensors"))
    assert picture_named_in(said, tmp_path).startswith(b"\x89PNG")


def test_asha_and_pbt_take_the_users_own_images(tmp_path):
    for module in ("torch", "sklearn"):
        pytest.importorskip(module)
    import numpy as np

    # Two kinds of images that anything can tell apart: light ones and dark ones.
    labels = np.arange(80) % 2
    images = (labels[:, None, None] * np.ones((28, 28)) * 255).astype("uint8")
    np.savez(tmp_path / "mine.npz", x_train=images, y_train=labels)
    arguments = ("--data", "mine.npz", "--trials", "3", "--population", "2")
    said = run(tmp_path, "04_asha_and_pbt.py", *arguments)
    assert re.findall(r"^best accuracy: ([\d.]+)", said, re.MULTILINE) == ["1.0000", "1.0000"]


def test_an_own_rule_stops_laggards_and_is_replayed_to_the_same_decisions(tmp_path):
    said = run(tmp_path, "05_own_rule.py")
    assert int(re.search(r"^(\d+) of 30 trials were stopped early", said, re.MULTILINE)[1]) >= 15
    assert int(re.search(r"epochs trained: (\d+) in place of 600", said)[1]) < 400
    assert float(re.search(r"^best accuracy: ([\d.]+)", said, re.MULTILINE)[1]) > 0.9
    assert "a replay of the log came to the same decisions" in said
    assert picture_named_in(said, tmp_path).startswith(b"\x89PNG")


def test_an_own_searcher_finds_more_than_random_search(tmp_path):
    said = run(tmp_path, "06_own_searcher.py")
    medians = dict(re.findall(r"^ *([\w ]+): median of the best .* ([\d.]+)$", said, re.MULTILINE))
    assert 1 >= float(medians["around the best"]) > float(medians["random"]) + 0.05
    assert float(re.search(r"^best accuracy: ([\d.]+)", said, re.MULTILINE)[1]) > 0.9
    assert picture_named_in(said, tmp_path).startswith(b"\x89PNG")


def test_several_objectives_end_with_a_front_of_which_no_network_beats_another(tmp_path):
    for module in ("torch", "sklearn"):
        pytest.importorskip(module)
    said = run(tmp_path, "07_several_objectives.py", "--trials", "8")
    assert "8 done, 0 failed" in said
    found = re.findall(r"^task (\d+): accuracy ([\d.]+) with (\d+) parameters", said, re.MULTILINE)
    assert f"{len(found)} of 8 networks are in the Pareto front" in said
    accuracies = [float(accuracy) for _, accuracy, _ in found]
    parameters = [int(number) for _, _, number in found]
    assert accuracies == sorted(accuracies, reverse=True)
    assert parameters == sorted(parameters, reverse=True)
    assert min(accuracies) >= 0.8
    chosen = re.search(r"task (\d+)$", said, re.MULTILINE)[1]
    assert chosen in {task for task, _, _ in found}
    path = re.search(r"Picture of the front: (\S+\.png)", said)[1]
    assert (tmp_path / path).read_bytes().startswith(b"\x89PNG")


def test_children_of_evolution_start_better_than_the_same_networks_from_scratch(tmp_path):
    for module in ("torch", "sklearn"):
        pytest.importorskip(module)
    arguments = ("--trials", "10", "--population", "4", "--seeds", "1")
    said = run(tmp_path, "08_evolution_with_inheritance.py", *arguments)
    assert "10 trials, of which 6 are children" in said
    medians = re.findall(
        r"^all .* (before|after) the first epoch: ([\d.]+) with .*, ([\d.]+) from scratch$",
        said,
        re.MULTILINE,
    )
    assert [when for when, _, _ in medians] == ["before", "after"]
    for _, inherited, scratch in medians:
        assert float(inherited) < float(scratch)
    assert re.search(r"a child inherited [2-6](\.5)? of 8 layers", said)
    for path in re.findall(r"picture of .*: (\S+\.png)", said):
        assert (tmp_path / path).read_bytes().startswith(b"\x89PNG")


@pytest.mark.parametrize("where", [[], ["--loopback"]])
def test_all_children_read_their_fathers_bytes_on_one_machine_and_on_two(tmp_path, where):
    said = run(tmp_path, "09_weight_sharing_selftest.py", *where)
    assert "9 of 9 children read the bytes of their father; 0 started too early" in said
    digests = re.findall(r"^task \d \(.*\) on \w+: ([0-9a-f]{64})$", said, re.MULTILINE)
    assert len(digests) == 10 and len(set(digests)) == 1
    hosts = set(re.findall(r"^task \d .* on (\w+):", said, re.MULTILINE))
    assert hosts <= ({"east", "west"} if where else {"localhost"})


def test_a_script_for_torchrun_becomes_a_search_whose_trials_have_two_ranks(tmp_path):
    for module in ("torch", "sklearn"):
        pytest.importorskip(module)
    said = run(tmp_path, "10_one_trial_many_gpus.py", "--trials", "3")
    assert said.count("rank 0 on localhost, rank 1 on localhost") == 3
    assert 0.8 < float(re.search(r"Best accuracy: ([\d.]+)", said)[1]) <= 1


def test_pc_darts_finds_a_network_trains_it_and_tests_it(tmp_path):
    for module in ("torch", "sklearn"):
        pytest.importorskip(module)
    sizes = ("--search-epochs", "4", "--epochs", "2", "--ranks", "1")
    said = run(tmp_path, "11_pc_darts.py", *sizes)
    assert re.findall(r"^normal cell, node (\d): ", said, re.MULTILINE) == ["0", "1", "2", "3"]
    assert float(re.search(r"Test accuracy: ([\d.]+)", said)[1]) > 0.5
    assert (tmp_path / "pc_darts_results/search/cells.png").exists()


def test_lanas_finds_the_best_of_a_table_and_trains_the_cell_that_it_has_found(tmp_path):
    for module in ("torch", "sklearn"):
        pytest.importorskip(module)
    said = run(tmp_path, "12_lanas.py", "--trials", "2", "--epochs", "1", "--runs", "2")
    missing = re.findall(r"^  (\w+) .* 200 evaluations ([\d.]+) points", said, re.MULTILINE)
    assert [name for name, _ in missing] == ["lanas", "evolution", "random"]
    assert float(missing[0][1]) < float(missing[2][1])
    assert len(re.findall(r"^  node \d: ", said, re.MULTILINE)) == 7
    assert re.search(r"^test accuracy of that cell, trained anew: [01]\.\d+$", said, re.MULTILINE)
    for path in ("lanas-race.png", "lanas-tree.png"):
        assert (tmp_path / path).read_bytes().startswith(b"\x89PNG")


def test_coevolving_gans_end_with_a_mixture_and_pictures(tmp_path):
    for module in ("torch", "sklearn"):
        pytest.importorskip(module)
    said = run(tmp_path, "13_coevolving_gans.py", "--generations", "2", "--grid", "2x1")
    assert "the classifier for scores is right on 9" in said
    assert "4 trials in" in said and "4 done, 0 failed" in said
    assert re.search(r"^best mixture: FID [\d.]+, TVD 0\.\d+$", said, re.MULTILINE)
    weights = re.findall(r"^    ([\d.]+) of cell [01], generation \d$", said, re.MULTILINE)
    assert sum(map(float, weights)) == pytest.approx(1, abs=0.011)
    assert "1000 images of (1, 8, 8), made by 2" in said
    for path in re.findall(r"picture: (\S+\.png)", said):
        assert (tmp_path / path).read_bytes().startswith(b"\x89PNG")


def test_a_search_from_the_shell_does_what_it_is_told(tmp_path):
    said = run(tmp_path, "14_from_the_shell.py")
    assert "trial 0 is paused until `go-on`: it goes on from its newest checkpoint" in said
    assert "the search is paused until `go-on`: nothing more starts" in said
    assert "the search goes on" in said and "it is trial " in said
    assert "Error" not in said and "nothing more is launched" in said
    assert re.search(r"^ended; .*best accuracy", said, re.MULTILINE)
