"""The supernet: every operation on every edge, on a part of the channels, mixed by weights.

Source: PC-DARTS (Xu et al., ICLR 2020, arXiv 1907.05737), sections 3.2 and 3.3.

An edge takes the first 1/K of the channels of what it reads through all operations, whose sum is
weighted by the softmax of alpha; the other channels pass by. A node is the sum of its edges,
weighted by the softmax of beta. All edges that read the same feature map are computed together:
what has no weights of its own (pools, identity, the channels that pass by) once for all of them,
and convolutions as groups of one. That is the same sum in fewer and larger steps.
"""

from __future__ import annotations

from typing import NamedTuple

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..genotype import NODES, OPERATIONS, Cell, Edge, Genotype
from ..network import reductions
from ..operations import PC_DARTS, FactorizedReduce, relu_conv_bn

EDGES = sum(range(2, 2 + NODES))  # 14


class Mix(NamedTuple):
    """How the edges of a cell are mixed: `operations` (EDGES x 8) and `edges` (EDGES)."""

    operations: Tensor
    edges: Tensor


class Architecture(nn.Module):
    """What is searched, for both kinds of cell: alpha for the operations, beta for the edges.

        architecture = Architecture()
        supernet(images, architecture.mixes())
        architecture.genotype()

    `edge_normalisation=False` leaves beta out: every edge has weight 1, as in DARTS. `operations`
    are those that a search is offered, by default all.
    """

    def __init__(
        self, edge_normalisation: bool = True, operations: tuple[str, ...] = OPERATIONS
    ) -> None:
        super().__init__()
        self.operations = operations
        self.edge_normalisation = edge_normalisation
        for kind in ("normal", "reduce"):
            alpha = 1e-3 * torch.randn(EDGES, len(operations))
            self.register_parameter(f"alpha_{kind}", nn.Parameter(alpha))
            if edge_normalisation:
                beta = 1e-3 * torch.randn(EDGES)
                self.register_parameter(f"beta_{kind}", nn.Parameter(beta))

    def mixes(self) -> tuple[Mix, Mix]:
        """The weights of the normal and of the reduction cell."""
        return self._mix("normal"), self._mix("reduce")

    def _mix(self, kind: str) -> Mix:
        alpha = getattr(self, f"alpha_{kind}").softmax(1)
        if not self.edge_normalisation:
            return Mix(alpha, torch.ones_like(alpha[:, 0]))
        by_node = getattr(self, f"beta_{kind}").split([2 + node for node in range(NODES)])
        return Mix(alpha, torch.cat([beta.softmax(0) for beta in by_node]))

    def genotype(self) -> Genotype:
        """For each node the two edges whose best operation, other than 'none', weighs most."""
        with torch.no_grad():
            return Genotype(*(self._cell(mix) for mix in self.mixes()))

    def _cell(self, mix: Mix) -> Cell:
        scores = (mix.operations * mix.edges[:, None]).double().cpu()
        nodes: list[tuple[Edge, Edge]] = []
        start = 0
        for node in range(NODES):
            candidates = []
            for source, score in enumerate(scores[start : start + 2 + node].tolist()):
                value, name = max(
                    (value, name)
                    for value, name in zip(score, self.operations, strict=True)
                    if name != "none"
                )
                candidates.append((value, -source, name))
            start += 2 + node
            first, second = sorted(candidates, reverse=True)[:2]
            nodes.append(((first[2], -first[1]), (second[2], -second[1])))
        return Cell(tuple(nodes), tuple(range(2, 2 + NODES)))


class MixedEdges(nn.Module):
    """The edges from one feature map of a cell to all later nodes.

    `channels`: those that take part, of each edge. Of each operation with weights there is one
    module with as many groups as there are edges.
    """

    def __init__(self, channels: int, stride: int, edges: int, names: tuple[str, ...]) -> None:
        super().__init__()
        self.names = names
        self.edges = edges
        self.operations = nn.ModuleDict()
        for name in names:
            if name.endswith("pool_3x3"):
                self.operations[name] = nn.Sequential(
                    PC_DARTS[name](channels, stride, False, 1),
                    nn.BatchNorm2d(channels, affine=False),
                )
            elif name != "none":
                self.operations[name] = PC_DARTS[name](channels * edges, stride, False, edges)

    def forward(self, features: Tensor, weights: Tensor) -> Tensor:
        """The weighted sum of the operations of each edge: count x edges x channels x ...

        `weights`: edges x operations.
        """
        copies = features.repeat(1, self.edges, 1, 1)
        mixed: Tensor | None = None
        for number, name in enumerate(self.names):
            if name == "none":
                continue
            operation = self.operations[name]
            if name.endswith("pool_3x3") or isinstance(operation, nn.Identity):
                result = operation(features)[:, None]  # one result for all edges
            else:
                result = operation(copies).unflatten(1, (self.edges, -1))
            part = result * weights[:, number, None, None, None].to(result.dtype)
            mixed = part if mixed is None else mixed + part
        assert mixed is not None
        return mixed


class MixedCell(nn.Module):
    """A cell of the supernet."""

    def __init__(
        self,
        *,
        before_that: int,
        before: int,
        channels: int,
        part: int,
        reduces: bool,
        halved: bool,
        names: tuple[str, ...],
    ) -> None:
        super().__init__()
        self.taken = channels // part
        self.part = part
        self.reduces = reduces
        if halved:
            self.preprocess0 = FactorizedReduce(before_that, channels, affine=False)
        else:
            self.preprocess0 = relu_conv_bn(before_that, channels, affine=False)
        self.preprocess1 = relu_conv_bn(before, channels, affine=False)
        self.leaving = nn.ModuleList(
            MixedEdges(
                self.taken,
                2 if reduces and source < 2 else 1,
                NODES - _first(source),
                names,
            )
            for source in range(NODES + 1)
        )

    def forward(self, before_that: Tensor, before: Tensor, mix: Mix) -> Tensor:
        states = [self.preprocess0(before_that), self.preprocess1(before)]
        weights = mix.operations * mix.edges[:, None]
        mixed: list[Tensor] = []  # for each state and each node that reads the state
        passing: list[Tensor] = []  # for each state, the channels that take no part
        for node in range(NODES):
            for source in range(len(mixed), len(states)):
                rows = [_edge(later, source) for later in range(_first(source), NODES)]
                taken = states[source][:, : self.taken]
                mixed.append(self.leaving[source](taken, weights[rows]))
            state = _sum([mixed[s][:, node - _first(s)] for s in range(2 + node)])
            if self.part > 1:
                passing += [self._bypass(states[s], s) for s in range(len(passing), len(states))]
                beta = [mix.edges[_edge(node, s)].to(state.dtype) for s in range(2 + node)]
                rest = _sum([features * of for features, of in zip(passing, beta, strict=True)])
                state = functional.channel_shuffle(torch.cat([state, rest], 1), self.part)
            states.append(state)
        return torch.cat(states[2:], 1)

    def _bypass(self, state: Tensor, source: int) -> Tensor:
        features = state[:, self.taken :]
        if self.reduces and source < 2:
            return functional.max_pool2d(features, 2, 2, ceil_mode=True)
        return features


class Supernet(nn.Module):
    """The network in which all architectures share their weights.

        supernet = Supernet(channels=16, layers=8, classes=10)
        logits = supernet(images, architecture.mixes())

    `images`: float, count x `channels_in` x height x width. `part`: K, one channel in K takes part
    in the operations; it divides `channels`. `operations` are those of the architecture.
    """

    def __init__(
        self,
        *,
        channels: int,
        layers: int,
        classes: int,
        channels_in: int = 3,
        part: int = 4,
        operations: tuple[str, ...] = OPERATIONS,
    ) -> None:
        super().__init__()
        before_that = before = 3 * channels
        self.stem = nn.Sequential(
            nn.Conv2d(channels_in, before, 3, padding=1, bias=False), nn.BatchNorm2d(before)
        )
        self.cells = nn.ModuleList()
        halved = False
        for layer in range(layers):
            reduces = layer in reductions(layers)
            channels *= 1 + reduces
            cell = MixedCell(
                before_that=before_that,
                before=before,
                channels=channels,
                part=part,
                reduces=reduces,
                halved=halved,
                names=operations,
            )
            self.cells.append(cell)
            before_that, before, halved = before, NODES * channels, reduces
        self.classifier = nn.Linear(before, classes)

    def forward(self, images: Tensor, mixes: tuple[Mix, Mix]) -> Tensor:
        normal, reduce = mixes
        before_that = before = self.stem(images)
        for cell in self.cells:
            mix = reduce if cell.reduces else normal
            before_that, before = before, cell(before_that, before, mix)
        return self.classifier(before.mean((2, 3)))


def _edge(node: int, source: int) -> int:
    """The row of alpha and beta of an edge; sources 0 and 1 are the inputs of the cell."""
    return sum(range(2, 2 + node)) + source


def _first(source: int) -> int:
    """The first node that can read a source."""
    return max(0, source - 1)


def _sum(parts: list[Tensor]) -> Tensor:
    total = parts[0]
    for part in parts[1:]:
        total = total + part
    return total
