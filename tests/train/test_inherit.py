"""Layers get the parent's tensors exactly where their whole ancestry is unchanged."""

from __future__ import annotations

from itertools import pairwise

import pytest

torch = pytest.importorskip("torch")

from hypothesis import given, settings  # noqa: E402
from hypothesis import strategies as st  # noqa: E402
from torch import nn  # noqa: E402

from distsearch.core import checkpoint  # noqa: E402
from distsearch.errors import CheckpointError, LineageError  # noqa: E402
from distsearch.train.inherit import (  # noqa: E402
    Layer,
    inherit,
    layer_hashes,
    state_by_hash,
)


def mlp(*widths, activation=nn.ReLU):
    layers = []
    for before, width in pairwise(widths):
        layers += [nn.Linear(before, width), activation()]
    return nn.Sequential(*layers)


def through_disk(state, folder):
    """What a child loads of what its parent has saved."""
    checkpoint.save({"layers": state}, folder, 1)
    return checkpoint.load(folder)["layers"]


def bits(tensor):
    return tensor.detach().reshape(-1).view(torch.uint8).tolist()


def test_a_child_gets_all_layers_before_the_one_that_changed_bit_for_bit(tmp_path):
    parent, child = mlp(4, 8, 8, 3), mlp(4, 8, 9, 3)
    with torch.no_grad():  # what equality of numbers would not notice
        parent[0].bias[0], parent[0].bias[1] = float("nan"), -0.0
    before = {name: bits(tensor) for name, tensor in child.state_dict().items()}
    found = inherit(child, through_disk(state_by_hash(parent), tmp_path))
    assert found == (("0",), ("2", "4"))
    for name, tensor in child.state_dict().items():
        expected = bits(parent.state_dict()[name]) if name.startswith("0.") else before[name]
        assert bits(tensor) == expected


def test_an_identical_child_gets_everything_buffers_too(tmp_path):
    def network():
        return nn.Sequential(nn.Conv2d(1, 4, 3), nn.BatchNorm2d(4), nn.ReLU(), nn.Flatten())

    parent, child = network(), network()
    parent(torch.randn(5, 1, 8, 8))
    found = inherit(child, through_disk(state_by_hash(parent), tmp_path))
    assert found == (("0", "1"), ())
    assert child[1].num_batches_tracked == 1
    for mine, theirs in zip(child.state_dict().values(), parent.state_dict().values(), strict=True):
        assert bits(mine) == bits(theirs)


@pytest.mark.parametrize(
    "changed",
    [
        mlp(5, 8, 8, 3),
        mlp(4, 8, 8, 3).double(),
        nn.Sequential(nn.Dropout(0.1), *mlp(4, 8, 8, 3)),
        nn.Sequential(nn.Linear(4, 8, bias=False), *list(mlp(4, 8, 8, 3))[1:]),
    ],
)
def test_a_change_of_the_first_layer_leaves_nothing_to_inherit(changed):
    assert inherit(changed, state_by_hash(mlp(4, 8, 8, 3))).layers == ()


def test_a_layer_without_weights_counts_as_an_ancestor_too():
    parent, child = mlp(4, 8, 3), mlp(4, 8, 3, activation=nn.Tanh)
    assert inherit(child, state_by_hash(parent)).layers == ("0",)


def test_names_do_not_count_and_nested_sequences_are_one_sequence():
    flat = mlp(4, 8, 3)
    nested = nn.Sequential(nn.Sequential(flat[0], flat[1]), nn.Sequential(flat[2], flat[3]))
    assert list(layer_hashes(nested).values()) == list(layer_hashes(flat).values())
    assert list(layer_hashes(nested)) == ["0.0", "0.1", "1.0", "1.1"]


class Cells(nn.Module):
    """Cells that each read the image or another cell; the head reads all of them."""

    def __init__(self, *cells):
        super().__init__()
        widths = {"image": 6}
        self.cells = nn.ModuleDict()
        for name, source, width in cells:
            self.cells[name] = nn.Linear(widths[source], width)
            widths[name] = width
        self.head = nn.Linear(sum(widths.values()) - 6, 2)
        self.graph = {
            **{
                f"cells.{name}": [source if source == "image" else f"cells.{source}"]
                for name, source, _ in cells
            },
            "all": Layer([f"cells.{name}" for name, _, _ in cells], "concat"),
            "head": ["all"],
        }


def test_in_a_graph_only_what_descends_from_a_change_is_fresh():
    parent = Cells(("a", "image", 4), ("b", "a", 5), ("c", "image", 7), ("d", "c", 3))
    child = Cells(("a", "image", 4), ("b", "a", 5), ("c", "image", 8), ("d", "c", 3))
    found = inherit(child, state_by_hash(parent, parent.graph), child.graph)
    assert found == (("cells.a", "cells.b"), ("cells.c", "cells.d", "head"))
    assert torch.equal(child.cells["b"].weight, parent.cells["b"].weight)


def test_another_source_of_the_same_size_is_a_change():
    parent = Cells(("a", "image", 4), ("b", "a", 4), ("c", "b", 5))
    child = Cells(("a", "image", 4), ("b", "a", 4), ("c", "a", 5))
    found = inherit(child, state_by_hash(parent, parent.graph), child.graph)
    assert found.layers == ("cells.a", "cells.b")


def test_twins_keep_their_own_weights_and_so_do_their_children():
    cells = ("a", "image", 4), ("b", "image", 4), ("x", "a", 3), ("y", "b", 3)
    parent, child = Cells(*cells), Cells(*cells)
    assert len(set(layer_hashes(parent, parent.graph).values())) == 6
    found = inherit(child, state_by_hash(parent, parent.graph), child.graph)
    assert found.fresh == ()
    for name in "abxy":
        assert torch.equal(child.cells[name].weight, parent.cells[name].weight)
    moved = Cells(("a", "image", 4), ("b", "image", 4), ("x", "b", 3))
    inherit(moved, state_by_hash(parent, parent.graph), moved.graph)
    assert torch.equal(moved.cells["x"].weight, parent.cells["y"].weight)


def test_the_order_in_which_a_graph_is_described_does_not_count():
    network = Cells(("a", "image", 4), ("b", "a", 5))
    backwards = dict(reversed(network.graph.items()))
    assert layer_hashes(network, backwards) == layer_hashes(network, network.graph)


widths = st.lists(st.integers(1, 4), min_size=2, max_size=6)


@given(widths, widths)
@settings(deadline=None, max_examples=40)
def test_of_two_sequences_the_common_beginning_is_inherited_and_no_more(one, other):
    parent, child = mlp(3, *one), mlp(3, *other)
    before = [tensor.clone() for tensor in child.parameters()]
    common = 0
    while common < min(len(one), len(other)) and one[common] == other[common]:
        common += 1
    found = inherit(child, state_by_hash(parent))
    assert len(found.layers) == common
    for number, (mine, old) in enumerate(zip(child.parameters(), before, strict=True)):
        theirs = list(parent.parameters())
        assert torch.equal(mine, theirs[number] if number < 2 * common else old)


@pytest.mark.parametrize(
    ("network", "graph", "text"),
    [
        (nn.Linear(2, 2), None, "Linear is no nn.Sequential"),
        (mlp(2, 2), {"stem": ["image"]}, "'stem' is no submodule"),
        (mlp(2, 2), {"1": ["image"]}, "'0.weight' belongs to no layer"),
        (mlp(2, 2), {"0": ["1"], "1": ["0"]}, "reads its own output"),
        (mlp(2, 2), {"0": ["0"]}, "reads its own output"),
    ],
)
def test_a_network_that_is_described_wrongly_is_refused(network, graph, text):
    with pytest.raises(LineageError, match=text):
        layer_hashes(network, graph)


def test_a_plain_state_dict_is_refused():
    with pytest.raises(CheckpointError, match="no state_by_hash"):
        inherit(mlp(2, 2), mlp(2, 2).state_dict())


def test_tensors_of_another_shape_under_the_same_hash_are_refused():
    parent = state_by_hash(mlp(2, 2))
    spoilt = {own: {name: t[:1] for name, t in named.items()} for own, named in parent.items()}
    with pytest.raises(CheckpointError, match="layer '0'"):
        inherit(mlp(2, 2), spoilt)
