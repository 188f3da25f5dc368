"""PC-DARTS's supernet and search step, written edge by edge as the paper has it, for one process.

It is what the search of `distsearch.nas` is measured against, and has to compute the same.
"""

from __future__ import annotations

import torch
from torch import nn
from torch.nn import functional

from distsearch.nas.genotype import NODES, OPERATIONS
from distsearch.nas.network import reductions
from distsearch.nas.operations import PC_DARTS, FactorizedReduce, relu_conv_bn


class PlainEdge(nn.Module):
    """One edge: a part of the channels through every operation, the rest past them."""

    def __init__(self, channels: int, part: int, stride: int) -> None:
        super().__init__()
        self.taken, self.part, self.stride = channels // part, part, stride
        self.operations = nn.ModuleDict()
        for name in OPERATIONS[1:]:
            operation = PC_DARTS[name](self.taken, stride, False, 1)
            if "pool" in name:
                norm = nn.BatchNorm2d(self.taken, affine=False)
                operation = nn.Sequential(operation, norm)
            self.operations[name] = operation

    def forward(self, features, weights):
        taken, rest = features[:, : self.taken], features[:, self.taken :]
        mixed = sum(
            weight * self.operations[name](taken)
            for name, weight in zip(OPERATIONS[1:], weights[1:], strict=True)
        )
        if self.part == 1:
            return mixed
        if self.stride == 2:
            rest = functional.max_pool2d(rest, 2, 2)
        return functional.channel_shuffle(torch.cat([mixed, rest], 1), self.part)


class PlainCell(nn.Module):
    """One cell of the supernet, with a module for each of its 14 edges."""

    def __init__(self, before_that, before, channels, part, reduces, halved) -> None:
        super().__init__()
        self.reduces = reduces
        make = FactorizedReduce if halved else relu_conv_bn
        self.preprocess0 = make(before_that, channels, affine=False)
        self.preprocess1 = relu_conv_bn(before, channels, affine=False)
        self.edges = nn.ModuleList(
            PlainEdge(channels, part, 2 if reduces and source < 2 else 1)
            for node in range(NODES)
            for source in range(2 + node)
        )

    def forward(self, before_that, before, alpha, beta):
        states = [self.preprocess0(before_that), self.preprocess1(before)]
        first = 0
        for node in range(NODES):
            rows = range(first, first + 2 + node)
            weights = beta[first : first + 2 + node].softmax(0)
            states.append(
                sum(
                    weights[source] * self.edges[row](states[source], alpha[row].softmax(0))
                    for source, row in enumerate(rows)
                )
            )
            first += 2 + node
        return torch.cat(states[2:], 1)


class PlainSupernet(nn.Module):
    """The supernet; alpha and beta of both cells are given with the images."""

    def __init__(self, channels, layers, classes, channels_in=3, part=4) -> None:
        super().__init__()
        before_that = before = 3 * channels
        self.stem = nn.Sequential(
            nn.Conv2d(channels_in, before, 3, padding=1, bias=False), nn.BatchNorm2d(before)
        )
        self.cells, halved = nn.ModuleList(), False
        for layer in range(layers):
            reduces = layer in reductions(layers)
            channels *= 1 + reduces
            self.cells.append(PlainCell(before_that, before, channels, part, reduces, halved))
            before_that, before, halved = before, NODES * channels, reduces
        self.classifier = nn.Linear(before, classes)

    def forward(self, images, normal, reduce):
        before_that = before = self.stem(images)
        for cell in self.cells:
            alpha, beta = reduce if cell.reduces else normal
            before_that, before = before, cell(before_that, before, alpha, beta)
        return self.classifier(before.mean((2, 3)))


def plain_step(network, architecture, optimizers, learn, held_out):
    """One first-order step: the architecture on held-out images, then the weights on the others.

    `architecture`: [(alpha, beta), (alpha, beta)]; `optimizers`: of the architecture, of the
    weights; `learn` and `held_out`: images and labels.
    """
    of_architecture, of_weights = optimizers
    arch = [tensor for pair in architecture for tensor in pair]
    weights = list(network.parameters())
    for optimizer, parameters, (images, labels) in (
        (of_architecture, arch, held_out),
        (of_weights, weights, learn),
    ):
        loss = functional.cross_entropy(network(images, *architecture), labels)
        for parameter, gradient in zip(
            parameters, torch.autograd.grad(loss, parameters), strict=True
        ):
            parameter.grad = gradient
        if optimizer is of_weights:
            nn.utils.clip_grad_norm_(weights, 5.0)
        optimizer.step()
    return loss.item()
