"""A network of cells is trained from scratch, and goes on from any epoch as if never stopped."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from distsearch.data import facts_of  # noqa: E402
from distsearch.errors import OptionError  # noqa: E402
from distsearch.nas.genotype import NAMED  # noqa: E402
from distsearch.nas.ranks import Ranks  # noqa: E402
from distsearch.nas.recipes import SMALL, settings_for  # noqa: E402
from distsearch.nas.retrain import Training, network_of  # noqa: E402
from distsearch.space import Namespace  # noqa: E402


@pytest.fixture
def training(images):
    def make(**others):
        sizes = {"channels": 4, "layers": 3, "batch_size": 16, "epochs": 2, "cutout": 2}
        named = {"seed": 0, "genotype": NAMED["pc-darts-cifar10"].as_text()}
        args = Namespace({**SMALL, **sizes, **named, **others})
        return Training(network_of(args, images.facts), images, args, Ranks(), torch.device("cpu"))

    return make


def test_a_training_that_goes_on_ends_bit_for_bit_as_one_that_never_stopped(training):
    whole = training()
    reports = [whole.train(epoch) for epoch in range(2)]
    first = training()
    first.train(0)
    rest = training()
    rest.go_on_from(first.state())
    again = rest.train(1)
    assert (again["loss"], again["accuracy"]) == (reports[1]["loss"], reports[1]["accuracy"])
    for one, other in zip(whole.network.parameters(), rest.network.parameters(), strict=True):
        assert torch.equal(one, other)


def test_a_validation_part_is_held_out_of_the_training_images(training):
    work = training(validation=0.25, label_smoothing=0.1, schedule="linear", precision="bf16")
    assert len(work.learn) == 48
    assert not {*work.learn.tolist()} & {*work.compared.tolist()}
    assert work.batch_of == work.pixels.train
    assert 0 <= work.train(0)["accuracy"] <= 1


def test_what_is_usual_depends_on_the_size_of_the_images(tmp_path):
    digits = facts_of("digits")
    photos = type(digits)("photos", ("a", "b"), (3, 224, 224), 5000, 100)
    assert settings_for(digits, {})["layers"] == 5
    large = settings_for(photos, {"epochs": 3})
    assert (large["lr"], large["schedule"], large["epochs"]) == (0.5, "linear", 3)
    with pytest.raises(OptionError, match="schedule: there is no 'cosin'; did you mean 'cosine'"):
        settings_for(digits, {"schedule": "cosin"})
    with pytest.raises(OptionError, match="validation=1; it has to be below 1"):
        settings_for(digits, {"validation": 1})
