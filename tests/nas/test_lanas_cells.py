"""The space of NASNet's cells, its network and its pools."""

from __future__ import annotations

import numpy as np
import pytest

from distsearch.errors import OptionError
from distsearch.nas.lanas import cells
from distsearch.nas.lanas.trials import train_cell
from distsearch.searcher.pool import Pool
from distsearch.space import Namespace

SKIPS = {"operations": ["skip_connect"] * 14, "inputs": [0, 1] * 7}
CHAIN = {
    "operations": ["conv_3x3", "max_pool_3x3"] * 7,
    "inputs": [source for node in range(7) for source in (1 + node, 0)],
}
SETTINGS = {"channels": 4, "layers": 3, "auxiliary": 0.0, "seed": 0}


def network(cell, **more):
    pytest.importorskip("torch")
    from distsearch.data import Facts
    from distsearch.nas.lanas.training import network_of

    facts = Facts("noise", tuple("abcdefghij"), (1, 8, 8), 100, 20)
    return network_of(Namespace({**SETTINGS, **cell, **more}), facts)


def test_a_cell_has_28_numbers_and_a_node_reads_only_what_comes_before_it():
    space = cells.space()
    assert len(space.parameters) == 28
    for number in range(50):
        genotype = cells.genotype_of_config(space.sample(np.random.default_rng(number)))
        assert len(genotype.normal.nodes) == 7
        for node, edges in enumerate(genotype.normal.nodes):
            assert all(0 <= source < 2 + node for _, source in edges)
        assert genotype.reduce == genotype.normal


def test_the_output_of_a_cell_are_the_nodes_that_no_other_one_reads():
    assert cells.cell_of(**SKIPS).concat == (2, 3, 4, 5, 6, 7, 8)
    assert cells.cell_of(**CHAIN).concat == (8,)


def test_the_train_function_searches_for_the_cell_and_nothing_else():
    assert set(train_cell.space.parameters) == set(cells.space().parameters)


# A stem of 12 channels (3 x 3 weights and the norm's two each); cells of 4, 8 and 16 channels, of
# which the last two halve the images; a linear layer for ten classes.
STEM = 9 * 12 + 2 * 12


def test_the_parameters_of_a_network_that_only_skips_worked_by_hand():
    first = 2 * (12 * 4 + 2 * 4)  # what makes four channels of both inputs
    halving = 14 * (8 * 8 + 2 * 8)  # a skip that halves is two 1 x 1 convolutions of half of them
    second = (12 * 8 + 2 * 8) + (28 * 8 + 2 * 8) + halving
    third = (28 * 16 + 2 * 16) + (56 * 16 + 2 * 16) + 14 * (16 * 16 + 2 * 16)
    linear = 7 * 16 * 10 + 10
    made = network(SKIPS)
    from distsearch.nas.network import parameters

    assert parameters(made) == STEM + first + second + third + linear == 8286


def test_the_parameters_of_a_chain_of_convolutions_worked_by_hand():
    def convolutions(channels):
        return 7 * (9 * channels**2 + 2 * channels)

    first = 2 * (12 * 4 + 2 * 4) + convolutions(4)
    second = (12 * 8 + 2 * 8) + (4 * 8 + 2 * 8) + convolutions(8)
    third = (4 * 16 + 2 * 16) + (8 * 16 + 2 * 16) + convolutions(16)
    made = network(CHAIN)
    from distsearch.nas.network import parameters

    assert parameters(made) == STEM + first + second + third + (16 * 10 + 10) == 22390


def test_the_auxiliary_head_and_drop_path_work_on_small_images():
    torch = pytest.importorskip("torch")
    from distsearch.nas.network import parameters

    made = network(SKIPS, auxiliary=0.4)
    head = 112 * 128 + 2 * 128 + 128 * 768 * 4 + 2 * 768 + 768 * 10 + 10
    assert parameters(made) == 8286 + head
    logits, auxiliary = made(torch.randn(4, 1, 8, 8), drop=0.5)
    assert logits.shape == auxiliary.shape == (4, 10)


def test_every_cell_of_a_sample_can_be_built_and_learns():
    torch = pytest.importorskip("torch")
    for number in range(4):
        config = cells.space().sample(np.random.default_rng(number))
        edges = range(14)
        cell = {name: [config[f"{name}.{n}"] for n in edges] for name in ("operations", "inputs")}
        logits, _ = network(cell)(torch.randn(4, 1, 8, 8))
        logits.sum().backward()
        assert torch.isfinite(logits).all()


class Interrupted:
    """A reporter that keeps the last checkpoint, and stops a training after some epochs."""

    def __init__(self, epochs, saved=None):
        self.epochs, self.saved, self.reports = epochs, saved, []

    def load(self):
        return self.saved

    def save(self, state, step):
        import copy

        self.saved = copy.deepcopy(state)
        if step == self.epochs:
            raise KeyboardInterrupt

    def __call__(self, **report):
        self.reports.append(report)


def test_a_training_goes_on_in_the_middle_bit_for_bit_and_tests_once_at_its_end(
    images, monkeypatch
):
    from distsearch.nas.lanas import training

    monkeypatch.setattr(training, "load_images", lambda data, root: images)
    constants = {name: train_cell.args[name] for name in train_cell.args}
    tiny = {"channels": 4, "layers": 3, "batch_size": 16, "epochs": 2, "num_gpus": 0, "test": True}
    args = Namespace({**constants, **tiny, **CHAIN})

    whole = Interrupted(epochs=99)
    training.train(args, whole)
    first = Interrupted(epochs=1)
    with pytest.raises(KeyboardInterrupt):
        training.train(args, first)
    second = Interrupted(epochs=99, saved=first.saved)
    training.train(args, second)

    def compared(reports):
        names = ("epoch", "loss", "accuracy", "parameters", "test_accuracy")
        return [{name: one.get(name) for name in names} for one in reports]

    assert compared(first.reports + second.reports) == compared(whole.reports)
    assert ["test_accuracy" in report for report in whole.reports] == [False, True]


# Pools


def test_a_pool_has_different_cells_of_the_space_and_is_the_same_for_the_same_seed():
    pool = cells.pool(5000, seed=3)
    assert pool.shape == (5000, 28)
    assert pool.dtype == np.uint8
    assert len(np.unique(pool, axis=0)) == 5000
    assert (pool == cells.pool(5000, seed=3)).all()
    assert (pool != cells.pool(5000, seed=4)).any()
    assert len(Pool.of(cells.space(), pool)) == 5000
    assert len(Pool.of(train_cell.space, pool)) == 5000


@pytest.mark.parametrize("size", [0, -1, 10**9])
def test_a_pool_of_a_size_that_makes_no_sense_is_refused(size):
    with pytest.raises(OptionError, match="10,000,000 rows"):
        cells.pool(size)
