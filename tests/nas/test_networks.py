"""Networks of cells have the published sizes, and the supernet computes what the paper says."""

from __future__ import annotations

import pytest

torch = pytest.importorskip("torch")

from benchmarks.pc_darts_peer import PlainSupernet  # noqa: E402
from distsearch.nas.genotype import NAMED, OPERATIONS  # noqa: E402
from distsearch.nas.network import AuxiliaryHead, CellNetwork, parameters  # noqa: E402
from distsearch.nas.operations import PC_DARTS, FactorizedReduce, drop_path  # noqa: E402
from distsearch.nas.pc_darts.supernet import Architecture, Supernet  # noqa: E402


def test_the_supernet_has_as_many_weights_as_published():
    assert parameters(Supernet(channels=16, layers=8, classes=10)) == 299_578
    assert parameters(Architecture()) == 2 * (14 * 8 + 14)


def test_the_published_cifar_network_has_as_many_weights_as_published():
    network = CellNetwork(
        NAMED["pc-darts-cifar10"], channels=36, layers=20, classes=10, auxiliary=True
    )
    assert parameters(network.auxiliary_head) == 476_426
    assert parameters(network) == 3_634_678 + 476_426


def test_the_published_imagenet_network_has_as_many_weights_as_published():
    network = CellNetwork(
        NAMED["pc-darts-imagenet"], channels=48, layers=14, classes=1000, large=True
    )
    assert parameters(network) == 5_342_464


def with_weights_of(supernet, part):
    """The plain supernet with the weights of one whose edges are computed in groups."""
    plain = PlainSupernet(channels=8, layers=3, classes=5, part=part)
    for own, other in zip(plain.cells, supernet.cells, strict=True):
        own.preprocess0.load_state_dict(other.preprocess0.state_dict())
        own.preprocess1.load_state_dict(other.preprocess1.state_dict())
        row = 0
        for node in range(4):
            for source in range(2 + node):
                group = node - max(0, source - 1)
                leaving = other.leaving[source]
                for name, operation in own.edges[row].operations.items():
                    grouped = dict(leaving.operations[name].named_parameters())
                    for key, value in operation.named_parameters():
                        value.data.copy_(grouped[key].data.chunk(leaving.edges)[group])
                row += 1
    plain.stem.load_state_dict(supernet.stem.state_dict())
    plain.classifier.load_state_dict(supernet.classifier.state_dict())
    return plain


@pytest.mark.parametrize("part", [4, 2, 1])
def test_edges_that_are_computed_together_give_what_each_gives_alone(part):
    torch.manual_seed(0)
    supernet = Supernet(channels=8, layers=3, classes=5, part=part).double()
    plain = with_weights_of(supernet, part).double()
    architecture = Architecture().double()
    for parameter in architecture.parameters():
        torch.nn.init.normal_(parameter)
    images = torch.randn(6, 3, 8, 8, dtype=torch.double)
    pairs = [
        (getattr(architecture, f"alpha_{kind}"), getattr(architecture, f"beta_{kind}"))
        for kind in ("normal", "reduce")
    ]
    ours, theirs = supernet(images, architecture.mixes()), plain(images, *pairs)
    assert torch.allclose(ours, theirs, atol=1e-9)
    parts = list(architecture.parameters())
    for gradient, other in zip(
        torch.autograd.grad(ours.square().sum(), parts),
        torch.autograd.grad(theirs.square().sum(), parts),
        strict=True,
    ):
        assert torch.allclose(gradient, other, atol=1e-8)


@pytest.mark.parametrize("size", [8, 7, 28])
def test_networks_take_images_of_any_size(size):
    images = torch.randn(2, 1, size, size)
    supernet = Supernet(channels=4, layers=3, classes=3, channels_in=1, part=2)
    assert supernet(images, Architecture().mixes()).shape == (2, 3)
    network = CellNetwork(
        NAMED["pc-darts-cifar10"],
        channels=4,
        layers=3,
        classes=3,
        channels_in=1,
        auxiliary=True,
    )
    logits, auxiliary = network(images, drop=0.5)
    assert logits.shape == auxiliary.shape == (2, 3)
    assert network.eval()(images)[1] is None


def test_the_auxiliary_head_pools_as_published():
    features = torch.randn(2, 4, 8, 8)
    head = AuxiliaryHead(4, 3)
    pooled = torch.nn.AvgPool2d(5, 3, count_include_pad=False)(features.relu())
    assert torch.equal(head._two_by_two(features.relu()), pooled)


def test_every_operation_keeps_the_channels_and_halves_the_size_at_stride_2():
    features = torch.randn(2, 6, 9, 9)
    for name, make in PC_DARTS.items():
        assert make(6, 1, True, 1)(features).shape == (2, 6, 9, 9), name
        assert make(6, 2, True, 3)(features).shape == (2, 6, 5, 5), name


def test_a_reduction_in_groups_keeps_the_groups_apart():
    reduce = FactorizedReduce(8, 8, affine=False, groups=2).eval()
    features = torch.randn(1, 8, 4, 4)
    changed = features.clone()
    changed[:, :4] += 1
    differs = (reduce(features) != reduce(changed)).any((2, 3))[0]
    assert differs.tolist() == [True] * 4 + [False] * 4


def test_the_drop_path_drops_whole_images_and_keeps_the_mean():
    torch.manual_seed(0)
    dropped = drop_path(torch.ones(4000, 2, 3, 3), 0.25)
    assert dropped.unique().tolist() == pytest.approx([0, 4 / 3])
    assert torch.equal(dropped.amax((1, 2, 3)), dropped.amin((1, 2, 3)))
    assert dropped.mean().item() == pytest.approx(1, abs=0.05)


def test_the_drop_path_leaves_identities_alone():
    torch.manual_seed(0)
    network = CellNetwork(NAMED["pc-darts-cifar10"], channels=4, layers=3, classes=2).train()
    cell = network.cells[0]
    states = [torch.ones(50, 4, 8, 8)]
    assert torch.equal(cell._edge(torch.nn.Identity(), 0, states, 0.9), states[0])
    assert (cell._edge(torch.nn.MaxPool2d(1), 0, states, 0.9) == 0).any()


def test_the_genotype_has_the_two_edges_of_each_node_whose_best_operation_weighs_most():
    architecture = Architecture()
    with torch.no_grad():
        for parameter in architecture.parameters():
            parameter.zero_()
        alpha, beta = architecture.alpha_normal, architecture.beta_normal
        alpha[:, 0] = 9  # 'none' is never chosen
        alpha[0, OPERATIONS.index("sep_conv_5x5")] = 2
        alpha[1, OPERATIONS.index("skip_connect")] = 3
        alpha[2:5, OPERATIONS.index("max_pool_3x3")] = 4
        beta[3] = -5  # the second node then reads 0 and 2
    normal = architecture.genotype().normal
    assert normal.nodes[0] == (("skip_connect", 1), ("sep_conv_5x5", 0))
    assert normal.nodes[1] == (("max_pool_3x3", 0), ("max_pool_3x3", 2))
    assert normal.concat == (2, 3, 4, 5)


def test_edge_weights_are_normalised_for_each_node_or_1_without_it():
    mix, _ = Architecture().mixes()
    by_node = [part.sum().item() for part in mix.edges.split([2, 3, 4, 5])]
    assert by_node == pytest.approx([1, 1, 1, 1])
    assert mix.operations.sum(1).tolist() == pytest.approx([1] * 14)
    bare = Architecture(edge_normalisation=False)
    assert parameters(bare) == 2 * 14 * 8
    assert bare.mixes()[0].edges.tolist() == [1] * 14
