"""A task that one operation alone can solve, on one mixed edge that everything has to pass.

    trained = train_edge(OPERATIONS_BUT_ONE, seed=1)
    trained.weights[PLANTED], trained.accuracy

The images are noise in which pixels 8 apart are equal, in columns (class 0) or in rows (class 1).
Of the operations only `dil_conv_5x5` has two such pixels in its window; `sep_conv_5x5`, which is
two convolutions in a row and sees as far, is not offered.
"""

from __future__ import annotations

import math
from typing import NamedTuple

import numpy as np
import torch
from torch import nn

from distsearch.nas.genotype import OPERATIONS
from distsearch.nas.pc_darts.steps import Steps
from distsearch.nas.pc_darts.supernet import MixedEdges
from distsearch.nas.ranks import Ranks
from distsearch.nas.training import Tally, set_lr

PLANTED = "dil_conv_5x5"
OFFERED = tuple(name for name in OPERATIONS if name != "sep_conv_5x5")
BLIND = tuple(name for name in OFFERED if name != PLANTED)
CHANNELS, BATCH, LR, ARCH_LR = 8, 32, 0.1, 0.01


class Trained(NamedTuple):
    """The softmax of alpha by operation, and the share of held-out images that are told apart."""

    weights: dict[str, float]
    accuracy: float


class Edge(nn.Module):
    """Pixels one by one, a mixed edge, and channels one by one: only the edge looks around."""

    def __init__(self, names: tuple[str, ...]) -> None:
        super().__init__()
        self.before = nn.Sequential(nn.Conv2d(1, CHANNELS, 1), nn.BatchNorm2d(CHANNELS))
        self.edge = MixedEdges(CHANNELS, 1, 1, names)
        self.after = nn.Sequential(
            nn.ReLU(), nn.Conv2d(CHANNELS, 16, 1, bias=False), nn.BatchNorm2d(16), nn.ReLU()
        )
        self.classifier = nn.Linear(16, 2)

    def forward(self, images: torch.Tensor, weights: torch.Tensor) -> torch.Tensor:
        mixed = self.edge(self.before(images), weights)[:, 0]
        return self.classifier(self.after(mixed).mean((2, 3)))


class Alpha(nn.Module):
    """The architecture: one row of alpha."""

    def __init__(self, names: tuple[str, ...]) -> None:
        super().__init__()
        self.alpha = nn.Parameter(1e-3 * torch.randn(1, len(names)))

    def mixes(self) -> torch.Tensor:
        return self.alpha.softmax(1)


def train_edge(names: tuple[str, ...], seed: int, steps: int = 120, warm_up: int = 40) -> Trained:
    """Search on one edge, by the steps of PC-DARTS, which of these operations it is to have."""
    torch.manual_seed(seed)
    data = far_apart(seed, count=1200, size=16, distance=8, redrawn=0.2)
    images = torch.from_numpy(data["x_train"]).float()[:, None] / 200 - 0.5
    labels = torch.from_numpy(data["y_train"])
    half = len(images) // 2
    network, architecture = Edge(names), Alpha(names)
    of_weights = torch.optim.SGD(network.parameters(), LR, momentum=0.9, weight_decay=3e-4)
    of_alpha = torch.optim.Adam(
        architecture.parameters(), ARCH_LR, betas=(0.5, 0.999), weight_decay=1e-3
    )
    search = Steps(network, architecture, of_weights, of_alpha, Ranks())  # type: ignore[arg-type]
    tally = Tally(torch.device("cpu"))
    for step in range(steps):
        set_lr(of_weights, LR * (1 + math.cos(math.pi * step / steps)) / 2)
        learn, held_out = (start + torch.randperm(half)[:BATCH] for start in (0, half))
        if step >= warm_up:
            search.architecture(
                (images[held_out], labels[held_out]), (images[learn], labels[learn])
            )
        search.weights((images[learn], labels[learn]), tally)
    network.eval()
    with torch.no_grad():
        weights = architecture.mixes()
        right = network(images[half:], weights).argmax(1) == labels[half:]
    return Trained(dict(zip(names, weights[0].tolist(), strict=True)), right.float().mean().item())


def far_apart(
    seed: int, count: int = 2400, size: int = 12, distance: int = 4, redrawn: float = 0.4
) -> dict[str, np.ndarray]:
    """Noise in which pixels so far apart are equal: in columns (class 0) or in rows (class 1).

    A share of the pixels is drawn anew: a loss that fell to 0 in the warm-up would leave nothing
    for alpha to improve.
    """
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    noise = rng.integers(0, 2, (count, size, size))
    for start in range(distance, size, distance):
        noise[:, start : start + distance] = noise[:, :distance]
    turned = labels == 1
    noise[turned] = noise[turned].transpose(0, 2, 1)
    noise = np.where(rng.random(noise.shape) < redrawn, rng.integers(0, 2, noise.shape), noise)
    images = (noise * 200 + rng.integers(0, 40, noise.shape)).astype(np.uint8)
    part = count * 5 // 6
    return {
        "x_train": images[:part],
        "y_train": labels[:part],
        "x_test": images[part:],
        "y_test": labels[part:],
    }
