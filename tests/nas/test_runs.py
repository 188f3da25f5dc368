"""A search and a training in a folder: what they leave there, also after kills; bad input."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import threading
import time

import numpy as np
import psutil
import pytest

import distsearch
from distsearch.cli.main import main
from distsearch.core.travel import pack
from distsearch.core.words import Status
from distsearch.errors import DataError, OptionError, ResourceError, SpaceError, TrialFailed
from distsearch.nas.genotype import NAMED
from distsearch.nas.genotype import find as find_genotype
from distsearch.nas.lanas.trials import train_cell
from distsearch.nas.pc_darts.lineage import search_then_retrain
from distsearch.nas.pc_darts.runs import genotype_of_trial, run_retrain, run_search, run_test
from distsearch.nas.pc_darts.trials import train_supernet
from distsearch.nas.runs import Machines
from distsearch.nas.trials import train_network
from tests.hosts import Hosts

torch = pytest.importorskip("torch")

LOCAL = distsearch.Node("localhost", num_cpus=2)
TWO = Machines(ranks=2, local=LOCAL)
ONE = Machines(local=LOCAL)
TINY = {"channels": 4, "layers": 3, "batch_size": 16}


@pytest.fixture(scope="module")
def stripes(tmp_path_factory):
    """An .npz file of 80 images with horizontal or vertical stripes."""
    rng = np.random.default_rng(0)
    labels = np.arange(100) % 2
    images = np.zeros((100, 8, 8), np.uint8)
    images[labels == 0, ::2] = 200
    images[labels == 1, :, ::2] = 200
    images += rng.integers(0, 40, images.shape, dtype=np.uint8)
    path = tmp_path_factory.mktemp("data") / "stripes.npz"
    np.savez(path, x_train=images[:80], y_train=labels[:80], x_test=images[80:], y_test=labels[80:])
    return path


@pytest.fixture(scope="module")
def nodes(tmp_path_factory):
    """Two nodes over SSH on this machine, with room for a rank each, as ~/.ssh/config has them."""
    home = tmp_path_factory.mktemp("home")
    (home / ".ssh").mkdir()
    with pytest.MonkeyPatch.context() as patch, Hosts() as hosts:
        patch.setenv("HOME", str(home))
        (home / ".ssh" / "config").write_bytes(hosts.config.read_bytes())
        ports = [hosts.start(env={**os.environ, "OMP_NUM_THREADS": "1"}).port for _ in range(2)]
        yield [
            distsearch.Node("127.0.0.1", port=port, python=sys.executable, num_cpus=1)
            for port in ports
        ]


@pytest.fixture(scope="module")
def searched(stripes, nodes, tmp_path_factory):
    """The folder of a search by two ranks on two nodes, one of which was killed; what it found."""
    out = tmp_path_factory.mktemp("runs") / "search"
    killed = []

    def kill_a_rank():
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and not killed:
            time.sleep(0.02)
            if not list(out.glob("trials/0/checkpoints/*-step-2/manifest.json")):
                continue
            killed.append(rank_1())
            killed[0].kill()

    thread = threading.Thread(target=kill_a_rank)
    thread.start()
    try:
        found = run_search(
            out,
            data=stripes,
            machines=Machines(ranks=2, nodes=nodes, local=False),
            epochs=4,
            warm_up=1,
            part=2,
            verbose=0,
            **TINY,
        )
    finally:
        thread.join(65)
    assert len(killed) == 1
    return out, found


def rank_1():
    """The process of rank 1 of the trial that runs."""
    started = psutil.Process().children(recursive=True)
    outputs = {one: os.path.realpath(f"/proc/{one.pid}/fd/1") for one in started}
    (rank,) = [one for one, output in outputs.items() if output.endswith("/0/output-rank1.txt")]
    return rank


def test_a_search_whose_rank_was_killed_has_each_epoch_once(searched):
    out, _ = searched
    record = distsearch.open(out)
    (trial,) = record.trials
    assert trial.status is Status.FINISHED
    assert trial.attempt == 2
    assert trial.hosts == ("127.0.0.1", "127.0.0.1")  # which have room for one each
    history = record.training_history[0]
    assert [report["epoch"] for report in history] == [1, 2, 3, 4]
    assert len({report["architecture"] for report in history}) == 4
    assert all(len(report["peak_memory_mb"]) == 2 for report in history)


def test_a_search_leaves_a_genotype_pictures_and_a_checkpoint_that_can_be_tested(searched):
    out, found = searched
    assert find_genotype(out) == found.genotype
    for name in ("cells.png", "curves.png"):
        assert (out / name).read_bytes().startswith(b"\x89PNG")
    assert [path for path in out.rglob("*") if path.stat().st_mode & 0o077] == []
    tested = run_test(out)
    assert tested["accuracy"] == pytest.approx(found.report["test_accuracy"])
    assert (tested["images"], tested["data"], tested["epoch"]) == (20, "stripes", 4)


def test_what_was_found_is_trained_and_tested_from_the_shell(searched, stripes, tmp_path, capsys):
    out, _ = searched
    command = [sys.executable, "-m", "distsearch.cli", "pc-darts"]
    options = ["--epochs", "2", "--channels", "4", "--layers", "3", "--batch-size", "16"]
    trained = tmp_path / "network"
    said = subprocess.run(
        [*command, "retrain", "--genotype", out, "--data", stripes, "--out", trained, *options],
        capture_output=True,
        text=True,
        timeout=100,
    )
    assert said.returncode == 0, said.stderr
    lines = said.stdout.splitlines()
    epochs = [number for number, line in enumerate(lines) if line.startswith("epoch ")]
    assert [lines[number].partition(":")[0] for number in epochs] == ["epoch 1/2", "epoch 2/2"]
    assert epochs[1] == epochs[0] + 1  # no line on how the search stands is in between
    assert "loss" in lines[epochs[0]]
    assert "accuracy" in lines[epochs[0]]
    with pytest.raises(SystemExit, match="0"):
        main(["pc-darts", "test", str(trained), "--json"])
    assert json.loads(capsys.readouterr().out)["images"] == 20
    again = run_retrain(
        trained, out, data=stripes, machines=Machines(), epochs=2, verbose=0, **TINY
    )
    assert again.report["epoch"] == 2  # nothing was left to do
    with pytest.raises(SpaceError, match=r"trial 0 .* has found no genotype: it is finished"):
        genotype_of_trial(trained, 0)


def test_a_genotype_is_found_by_the_trial_that_has_searched_for_it(searched):
    out, found = searched
    assert genotype_of_trial(out, 0) == found.genotype
    with pytest.raises(SpaceError, match="has no trial 7; its trials: 0"):
        run_retrain("unused", out, trial=7)


def test_a_folder_goes_on_with_what_began_it_alone(searched, stripes):
    out, _ = searched
    before = distsearch.open(out).ledger.last_id
    options = {"data": stripes, "machines": ONE, "verbose": 0}
    with pytest.raises(OptionError, match=r"have ended, .* epochs=7 \(it was 4\)"):
        run_search(out, epochs=7, warm_up=1, part=2, **TINY, **options)
    with pytest.raises(OptionError, match="the folder of `distsearch pc-darts search`"):
        run_retrain(out, "pc-darts-cifar10", **TINY, **options)
    assert distsearch.open(out).ledger.last_id == before


def test_a_test_on_images_of_another_kind_is_refused(searched):
    out, _ = searched
    with pytest.raises(DataError, match=r"in 10 classes, but .* was trained on .* in 2 classes"):
        run_test(out, data="digits")


def test_a_loss_that_becomes_nan_is_the_reason_of_the_trial(stripes, tmp_path):
    wild = {**TINY, "lr": 1e30, "clip": 1e30, "epochs": 2}
    with pytest.raises(TrialFailed, match=r"in epoch 1/2, at a learning rate of 1e\+30"):
        run_retrain(
            tmp_path / "wild", "pc-darts-cifar10", data=stripes, machines=ONE, verbose=0, **wild
        )


@pytest.mark.parametrize(
    "given, error, told",
    [
        ({"data": "digit"}, DataError, "did you mean 'digits'"),
        ({"epoch": 3}, OptionError, "no setting 'epoch'; did you mean 'epochs'"),
        ({"part": 3}, OptionError, "part=3 does not divide channels=8"),
        ({"batch_size": 1000}, OptionError, "half of the training images are 719, too few"),
        ({"batch_size": 101, "machines": TWO}, OptionError, "2 ranks do not divide it"),
        ({"batch_size": 2, "machines": TWO}, OptionError, "leaves a rank 1 image"),
        ({"layers": 2}, OptionError, "3 at least"),
        ({"epochs": 3}, OptionError, "warm_up=3 and epochs=3: the architecture would rest"),
        ({"epochs": 0}, OptionError, "epochs=0; it has to be at least 1"),
        ({"momentum": 1.0}, OptionError, "momentum=1.0; it has to be below 1"),
        ({"lr": float("nan")}, OptionError, "lr=nan; give a number"),
        ({"operations": "none,skip"}, OptionError, "no 'skip'; .*'skip_connect'"),
        ({"machines": Machines(ranks=2, ranks_per_node=3)}, ResourceError, "does not divide"),
        ({"precision": "fp16"}, OptionError, "no 'fp16'; did you mean 'bf16'|'fp32'"),
        ({"seeds": (1, 1)}, OptionError, "each once"),
        ({"machines": Machines(ranks=9, local=LOCAL), "batch_size": 99}, ResourceError, "9"),
    ],
)
def test_what_cannot_be_searched_is_refused_before_anything_starts(given, error, told, tmp_path):
    with pytest.raises(error, match=told):
        run_search(tmp_path / "out", **{"machines": ONE, "verbose": 0, **given})
    assert not list(tmp_path.iterdir())


def test_ranks_have_to_be_whole_and_their_gpus_their_own():
    with pytest.raises(OptionError, match="ranks=0"):
        Machines(ranks=0)
    with pytest.raises(OptionError, match=r"gpus=0.5; each of several ranks"):
        Machines(ranks=2, gpus=0.5)
    with pytest.raises(OptionError, match="local=False, and no nodes"):
        Machines(local=False)


def test_an_unknown_genotype_is_refused_before_anything_starts(tmp_path):
    with pytest.raises(SpaceError, match="did you mean 'pc-darts-imagenet'"):
        run_retrain(tmp_path / "out", "pc-darts-imagenets", machines=ONE)
    assert not (tmp_path / "out").exists()
    assert len(NAMED) == 2


@pytest.mark.parametrize(
    "train_fn", [train_supernet, train_network, search_then_retrain, train_cell]
)
def test_a_node_imports_torch_once_for_all_trials_that_train_networks(train_fn):
    assert "torch" in pack(train_fn).modules
