"""A network of cells, as a genotype describes them; it is trained once the search is over.

Sources: DARTS (arXiv 1806.09055), NASNet (Zoph et al., CVPR 2018, arXiv 1707.07012).
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from .genotype import Cell, Genotype
from .operations import PC_DARTS, FactorizedReduce, Operation, drop_path, relu_conv_bn


class CellModule(nn.Module):
    """One cell of a network: two feature maps in, one out.

    `operations`: those that the genotype may name. `before` and `before_that`: the channels of the
    last cell and of the one before it; `halved`: whether the last one had half the height of the
    one before it.
    """

    def __init__(
        self,
        cell: Cell,
        operations: Mapping[str, Operation],
        *,
        before_that: int,
        before: int,
        channels: int,
        reduces: bool,
        halved: bool,
    ) -> None:
        super().__init__()
        self.concat = cell.concat
        self.channels_out = channels * len(cell.concat)
        if halved:
            self.preprocess0 = FactorizedReduce(before_that, channels, affine=True)
        else:
            self.preprocess0 = relu_conv_bn(before_that, channels, affine=True)
        self.preprocess1 = relu_conv_bn(before, channels, affine=True)
        self.sources = [source for node in cell.nodes for _, source in node]
        self.operations = nn.ModuleList(
            operations[name](channels, 2 if reduces and source < 2 else 1, True, 1)
            for node in cell.nodes
            for name, source in node
        )

    def forward(self, before_that: Tensor, before: Tensor, drop: float) -> Tensor:
        """`drop`: the probability with which the drop-path takes an edge from an image."""
        states = [self.preprocess0(before_that), self.preprocess1(before)]
        edges = list(zip(self.operations, self.sources, strict=True))
        for first, second in zip(edges[::2], edges[1::2], strict=True):
            states.append(self._edge(*first, states, drop) + self._edge(*second, states, drop))
        return torch.cat([states[node] for node in self.concat], 1)

    def _edge(self, operation: nn.Module, source: int, states: list[Tensor], drop: float) -> Tensor:
        features = operation(states[source])
        if drop > 0 and self.training and not isinstance(operation, nn.Identity):
            return drop_path(features, drop)
        return features


class AuxiliaryHead(nn.Module):
    """A second classifier, at two thirds of the depth, so that gradients reach the early cells.

    `for_large`: as it is for ImageNet, without the second batch norm. Source: Szegedy et al. 2015.
    """

    def __init__(self, channels: int, classes: int, for_large: bool = False) -> None:
        super().__init__()
        self.for_large = for_large
        norm = [] if for_large else [nn.BatchNorm2d(768)]
        self.features = nn.Sequential(
            nn.Conv2d(channels, 128, 1, bias=False),
            nn.BatchNorm2d(128),
            nn.ReLU(),
            nn.Conv2d(128, 768, 2, bias=False),
            *norm,
            nn.ReLU(),
        )
        self.classifier = nn.Linear(768, classes)

    def forward(self, features: Tensor) -> Tensor:
        small = self._two_by_two(functional.relu(features))
        return self.classifier(self.features(small).flatten(1))

    def _two_by_two(self, features: Tensor) -> Tensor:
        """Pool as published for 32 (or 224) pixels, and evenly for images of other sizes."""
        side, stride = (7, 2) if self.for_large else (8, 3)
        if features.shape[2:] == (side, side):
            return functional.avg_pool2d(features, 5, stride, count_include_pad=False)
        return functional.adaptive_avg_pool2d(features, 2)


class CellNetwork(nn.Module):
    """A stack of the cells of a genotype: the reduction cell at 1/3 and 2/3 of the depth.

        network = CellNetwork(genotype, channels=36, layers=20, classes=10, auxiliary=True)
        network(images, drop=0.1)       # logits, and those of the auxiliary head, else None

    `images`: float, count x `channels_in` x height x width. `channels`: those of the first cells;
    each reduction doubles them. `large`: for images of 224 pixels, which a stem of three
    convolutions first reduces to 28. `operations`: those that the genotype may name.
    """

    def __init__(
        self,
        genotype: Genotype,
        *,
        channels: int,
        layers: int,
        classes: int,
        channels_in: int = 3,
        auxiliary: bool = False,
        large: bool = False,
        operations: Mapping[str, Operation] = PC_DARTS,
    ) -> None:
        super().__init__()
        if large:
            self.stem0 = nn.Sequential(
                nn.Conv2d(channels_in, channels // 2, 3, 2, padding=1, bias=False),
                nn.BatchNorm2d(channels // 2),
                nn.ReLU(),
                nn.Conv2d(channels // 2, channels, 3, 2, padding=1, bias=False),
                nn.BatchNorm2d(channels),
            )
            self.stem1 = relu_conv_bn(channels, channels, kernel=3, stride=2, affine=True)
            before_that, before, halved = channels, channels, True
        else:
            self.stem0 = nn.Sequential(
                nn.Conv2d(channels_in, 3 * channels, 3, padding=1, bias=False),
                nn.BatchNorm2d(3 * channels),
            )
            self.stem1 = nn.Identity()
            before_that, before, halved = 3 * channels, 3 * channels, False
        self.cells = nn.ModuleList()
        self.auxiliary_at = 2 * layers // 3 if auxiliary else None
        for layer in range(layers):
            reduces = layer in reductions(layers)
            channels *= 1 + reduces
            cell = CellModule(
                genotype.reduce if reduces else genotype.normal,
                operations,
                before_that=before_that,
                before=before,
                channels=channels,
                reduces=reduces,
                halved=halved,
            )
            self.cells.append(cell)
            before_that, before, halved = before, cell.channels_out, reduces
            if layer == self.auxiliary_at:
                self.auxiliary_head = AuxiliaryHead(before, classes, large)
        self.classifier = nn.Linear(before, classes)

    def forward(self, images: Tensor, drop: float = 0.0) -> tuple[Tensor, Tensor | None]:
        before_that = self.stem0(images)
        before = self.stem1(before_that)
        auxiliary = None
        for layer, cell in enumerate(self.cells):
            before_that, before = before, cell(before_that, before, drop)
            if layer == self.auxiliary_at and self.training:
                auxiliary = self.auxiliary_head(before)
        return self.classifier(before.mean((2, 3))), auxiliary


def reductions(layers: int) -> tuple[int, int]:
    """At which layers cells halve the height and width."""
    return layers // 3, 2 * layers // 3


def parameters(network: Any) -> int:
    """How many numbers a network learns."""
    return sum(parameter.numel() for parameter in network.parameters())
