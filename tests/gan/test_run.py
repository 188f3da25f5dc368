"""A grid that is trained from the shell: what it leaves, and what can be done with it."""

from __future__ import annotations

import contextlib
import io
import json
import shutil

import numpy as np
import pytest
import torch

import distsearch as ag
from distsearch.cli.main import main
from distsearch.errors import DataError, OptionError, StoreError
from distsearch.gan import Settings, saved, train
from distsearch.gan.saved import Mixture, Run

SMALL = {"grid": "2x1", "generations": 3, "hidden": 32, "samples": 200, "score-samples": 200}
TRAIN = ["train", *(word for name, value in SMALL.items() for word in (f"--{name}", value))]


def distsearch(*arguments, code=0):
    said = io.StringIO()
    with (
        contextlib.redirect_stdout(said),
        contextlib.redirect_stderr(said),
        pytest.raises(SystemExit) as ended,
    ):
        main(["gan", *map(str, arguments)])
    assert ended.value.code == code, said.getvalue()
    return said.getvalue()


@pytest.fixture(scope="module")
def trained(tmp_path_factory):
    folder = tmp_path_factory.mktemp("runs") / "digits"
    return folder, distsearch(*TRAIN, "--out", folder)


def test_what_is_trained_and_how_good_it_is_are_said(trained):
    folder, said = trained
    assert "digits: 1438 images; the classifier for scores is right on 9" in said
    assert "best fid" in said and "best mixture: FID" in said
    for name in ("samples.png", "heatmap.png", "fid.png", "mixture.safetensors"):
        assert (folder / name).stat().st_size > 1000
    record = Run(folder).record
    assert [trial.status.value for trial in record.ledger.trials.values()] == ["finished"] * 6
    assert len(list(folder.glob("search/trials/*/checkpoints/*/manifest.json"))) <= 3


def test_the_best_mixture_is_of_the_newest_generators_where_these_are_better(trained, monkeypatch):
    run = Run(trained[0])
    untrained = saved.generators_of(run)
    for generator in untrained.values():
        for weights in generator.network.parameters():
            torch.nn.init.zeros_(weights)  # it makes the same gray example each time
    monkeypatch.setattr(saved, "generators_of", lambda run: untrained)
    members = saved.best_mixture(run).generators
    assert all(next(member.network.parameters()).any() for member in members)


def test_the_page_and_the_report_show_the_grid_with_samples_of_each_cell(trained):
    pytest.importorskip("bokeh")
    from distsearch.page.panels import answer
    from distsearch.page.searches import open_view

    view = open_view(trained[0])
    shown = answer("grid", [view], {})
    assert not shown["empty"] and shown["item"]
    columns = answer("grid", [view], {}, known=shown["shape"])["columns"]
    assert columns["cells"]["text"][0].startswith("cell 0: FID ")
    assert len(columns["cells"]["text"]) == 2


def test_the_same_command_trains_nothing_again(trained):
    folder, _ = trained
    before = len(Run(folder).record.ledger.trials)
    scores = Mixture.read(folder).scores
    said = distsearch(*TRAIN, "--out", folder)
    assert "of 6 trials 6 have ended" in said
    assert len(Run(folder).record.ledger.trials) == before
    assert Mixture.read(folder).scores == scores


def test_another_configuration_in_the_same_folder_is_refused_with_the_difference(trained):
    folder, _ = trained
    said = distsearch(*TRAIN, "--lr", "0.1", "--loss", "mse", "--out", folder, code=2)
    assert "lr: 0.0005 there, 0.1 here" in said
    assert "loss: 'bce' there, 'mse' here" in said


def test_a_folder_with_something_else_is_left_alone(tmp_path):
    (tmp_path / "thesis.txt").write_text("mine")
    with pytest.raises(OptionError, match="holds something else already"):
        train(Settings(), tmp_path)


@pytest.mark.parametrize(
    "option, value, told",
    [
        ("--cpus", 500, "num_cpus=500 fits on no node"),
        ("--minutes", -1, "'--minutes': -1.0 is not in the range x>0"),
        ("--data", "digit", "did you mean 'digits'"),
    ],
)
def test_of_what_is_refused_nothing_is_left(option, value, told, tmp_path):
    assert told in distsearch(*TRAIN, option, value, "--out", tmp_path / "new" / "run", code=2)
    assert not list(tmp_path.iterdir())


def test_samples_have_exactly_the_shares_of_the_mixture(trained, tmp_path):
    folder, _ = trained
    distsearch("generate", folder, "--samples", "50", "--seed", "3", "--out", tmp_path)
    images, makers = np.load(tmp_path / "samples.npy"), np.load(tmp_path / "makers.npy")
    assert (images.shape, images.dtype) == ((50, 1, 8, 8), np.uint8)
    assert (tmp_path / "samples.png").stat().st_size > 1000
    mixture = Mixture.read(folder)
    shares = np.bincount(makers, minlength=len(mixture.weights)) / 50
    assert np.abs(shares - mixture.weights).max() <= 1 / 50
    few, _ = mixture.sample(5, seed=1)
    assert not torch.equal(few, mixture.sample(5, seed=2)[0])


def test_a_mixture_reproduces_the_classes_that_its_generators_make(trained):
    folder, _ = trained
    mixture, judge = Mixture.read(folder), Run(folder).judge
    rng = torch.Generator().manual_seed(0)
    own = [judge.features(one.make(4000, rng)) for one in mixture.generators]
    each = [judge.statistics(features).frequencies for features in own]
    expected = sum(w * one for w, one in zip(mixture.weights, each, strict=True))
    drawn, _ = mixture.sample(4000, seed=5)
    found = judge.statistics(judge.features(drawn)).frequencies
    assert np.abs(found - expected).sum() / 2 < 0.05


def test_scores_are_one_object_of_json(trained):
    folder, _ = trained
    scores = json.loads(distsearch("score", folder, "--json"))
    assert set(scores) == {"fid", "tvd", "inception_score"}
    assert scores == Mixture.read(folder).scores._asdict()


def test_an_ensemble_mixes_the_cells_of_several_runs_and_is_used_like_one(trained, tmp_path):
    folder, _ = trained
    said = distsearch("ensemble", folder, folder, "--out", tmp_path / "both")
    assert said.startswith("FID")
    assert len(Mixture.read(tmp_path / "both").weights) == 4
    again = distsearch("score", tmp_path / "both")
    assert again.startswith("FID")


def test_what_is_no_run_is_said(tmp_path):
    assert "there is no settings.json" in distsearch("score", tmp_path, code=2)
    with pytest.raises(StoreError, match="give the folder of a run"):
        Mixture.read(tmp_path)


def test_a_damaged_file_of_a_run_and_a_path_that_cannot_be_are_said(trained, tmp_path):
    for name in ("settings.json", "judge.safetensors", "mixture.safetensors"):
        whole = (trained[0] / name).read_bytes()
        shutil.copytree(trained[0], tmp_path / name, ignore=lambda *_: ["search"])
        (tmp_path / name / name).write_bytes(whole[:100])
        words = ["ensemble", tmp_path / name, "--out", tmp_path / "both"]
        if name == "mixture.safetensors":
            words = ["score", tmp_path / name]
        assert f"{name} is damaged" in distsearch(*words, code=1)
    (tmp_path / "file").touch()
    assert "Not a directory" in distsearch("train", "--out", tmp_path / "file" / "a", code=1)


def test_an_unknown_data_set_and_an_empty_folder_are_refused(tmp_path):
    with pytest.raises(DataError, match="did you mean 'circular'"):
        train(Settings(data="circula"), tmp_path / "a")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match=r"empty holds no image .*; give a folder of images"):
        train(Settings(data=f"{tmp_path}/empty"), tmp_path / "b")


def test_a_loss_that_is_nan_everywhere_ends_in_plain_words(tmp_path):
    said = distsearch(*TRAIN, "--data", "circular", "--lr", 1e30, "--out", tmp_path / "a", code=1)
    assert "is nan, at a learning rate of" in said
    assert "it goes on from new random weights (1 of 3 in a row)" in said
    assert "\nError: " in said and "Traceback" not in said


def test_a_function_of_ones_own_is_learned_without_classes(tmp_path, monkeypatch):
    (tmp_path / "mine.py").write_text(
        "import numpy as np\n"
        "def faces():\n"
        "    return np.random.default_rng(0).integers(0, 255, (60, 3, 8, 8), dtype=np.uint8)\n"
    )
    monkeypatch.syspath_prepend(tmp_path)
    settings = Settings(
        data="mine:faces",
        grid="2x1",
        generations=1,
        network="dcgan",
        batch=20,
        samples=20,
        score_samples=100,
    )
    mixture = train(settings, tmp_path / "run", local=ag.Node("localhost", num_cpus=2), verbose=0)
    assert mixture.scores.tvd is None and mixture.scores.fid > 0
    assert mixture.sample(3)[0].shape == (3, 3, 8, 8)
