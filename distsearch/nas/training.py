"""The parts of a training loop: batches of an epoch, scores, schedules, reports.

All randomness of an epoch comes from (seed, epoch, rank): training that goes on from the checkpoint
of epoch 7 is, bit for bit, the training that was never interrupted.
"""

from __future__ import annotations

import math
import resource
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Any, NamedTuple, Protocol

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional

from ..data.augment import Augmentation, Standard
from ..data.source import Images
from ..data.splits import permutation
from ..errors import Diverged
from .ranks import Ranks

Batch = tuple[Tensor, Tensor]  # float images, labels
EVALUATED = 500  # so many images are evaluated at once


class Work(Protocol):
    """Something that is trained epoch by epoch, and can be saved in between."""

    done: int  # how many epochs are done

    def train(self, epoch: int) -> dict[str, Any]:
        """Train the epoch of this number, counted from 0; returns what is reported of the epoch."""

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds."""

    def go_on_from(self, state: dict[str, Any]) -> None:
        """Take over what a checkpoint holds."""


def run_epochs(work: Work, epochs: int, reporter: Any, saved: Any) -> None:
    """Train up to so many epochs; each is reported, then saved, by all ranks alike.

    `saved`: the checkpoint to go on from, None for a fresh start.
    """
    if saved is not None:
        work.go_on_from(saved)
    for epoch in range(work.done, epochs):
        report = work.train(epoch)
        reporter(**report)
        reporter.save(work.state(), step=epoch + 1)


def about(args: Mapping[str, Any], images: Images) -> dict[str, Any]:
    """What a checkpoint says of its training: settings, the images' shape, the classes' number."""
    plain = (str, int, float, bool, type(None))
    settings = {name: value for name, value in args.items() if isinstance(value, plain)}
    return {"args": settings, "shape": list(images.shape), "classes": len(images.classes)}


def seed_everything(*seeds: int) -> torch.Generator:
    """Seed torch from these numbers; returns a generator (CPU) that draws other numbers."""
    state = np.random.SeedSequence(seeds).generate_state(2, np.uint64)
    torch.manual_seed(int(state[0] >> 1))
    return torch.Generator().manual_seed(int(state[1] >> 1))


@dataclass(frozen=True)
class Pixels:
    """A data set on a device, with what makes batches of it.

    pixels = Pixels.of(load_images("digits"), device)
    images, labels = pixels.train(indices)
    """

    images: Images
    standard: Standard

    @classmethod
    def of(cls, images: Images, device: torch.device) -> Pixels:
        """The images on a device, as bytes."""
        moved = Images(
            images.name,
            images.classes,
            *(
                tensor.to(device)
                for tensor in (images.train, images.train_labels, images.test, images.test_labels)
            ),
        )
        return cls(moved, Standard(images.train))

    def train(self, indices: Tensor) -> Batch:
        """Standardised training images and their labels."""
        where = indices.to(self.images.train.device)
        return self.standard(self.images.train[where]), self.images.train_labels[where]

    def test(self, indices: Tensor) -> Batch:
        """Standardised test images and their labels."""
        where = indices.to(self.images.test.device)
        return self.standard(self.images.test[where]), self.images.test_labels[where]


class Epoch:
    """The batches of one epoch for one rank: shuffled anew, disjoint from those of other ranks.

    `indices`: of the training images that there are; `batch_size`: of all ranks together. What is
    left over at the end is left out.
    """

    def __init__(
        self,
        pixels: Pixels,
        indices: Tensor,
        *,
        batch_size: int,
        ranks: Ranks,
        augmentation: Augmentation,
        seeds: tuple[int, ...],
    ) -> None:
        self.pixels = pixels
        self.batch_size = batch_size
        self.ranks = ranks
        self.augmentation = augmentation
        self.order = indices[permutation(len(indices), *seeds)]
        draws = np.random.SeedSequence((*seeds, 1 + ranks.rank)).generate_state(1, np.uint64)
        device = pixels.images.train.device
        self.generator = torch.Generator(device).manual_seed(int(draws[0] >> 1))

    def __len__(self) -> int:
        return len(self.order) // self.batch_size

    def __iter__(self) -> Iterator[Batch]:
        for number in range(len(self)):
            whole = self.order[number * self.batch_size : (number + 1) * self.batch_size]
            images, labels = self.pixels.train(whole[self.ranks.rank :: self.ranks.world_size])
            yield self.augmentation(images, self.generator), labels


class Score(NamedTuple):
    """How well images were told apart: the mean loss, and the top-1 and top-5 accuracies."""

    loss: float
    accuracy: float
    top5: float


class Tally:
    """Sums up losses and hits of batches on the device, without waiting for the device."""

    def __init__(self, device: torch.device) -> None:
        self.sums = torch.zeros(4, dtype=torch.float64, device=device)

    def add(self, loss: Tensor, logits: Tensor, labels: Tensor) -> None:
        """Count a batch: its mean loss, the network's logits, and the labels."""
        with torch.no_grad():
            best = logits.topk(min(5, logits.shape[1]), 1).indices == labels[:, None]
            count = torch.full_like(self.sums[0], len(labels))
            new = torch.stack([loss.double() * count, best[:, 0].sum(), best.sum(), count])
            self.sums += new

    def score(self, ranks: Ranks) -> Score:
        """The means over the batches of all ranks."""
        loss, first, first5, count = ranks.total(self.sums).tolist()
        return Score(loss / count, first / count, first5 / count)


def evaluate(
    logits_of: Callable[[Tensor], Tensor],
    network: nn.Module,
    batch_of: Callable[[Tensor], Batch],
    indices: Tensor,
    ranks: Ranks,
) -> Score:
    """The score of a network, each rank looking at its part of the images."""
    was_training = network.training
    network.eval()
    tally = Tally(next(network.parameters()).device)
    with torch.no_grad():
        for part in indices[ranks.rank :: ranks.world_size].split(EVALUATED):
            images, labels = batch_of(part)
            logits = logits_of(images).float()
            tally.add(functional.cross_entropy(logits, labels), logits, labels)
    network.train(was_training)
    return tally.score(ranks)


def cosine(lr: float, epoch: int, epochs: int) -> float:
    """The learning rate of an epoch, counted from 0: from `lr` to 0 along half a cosine."""
    return lr * (1 + math.cos(math.pi * epoch / epochs)) / 2


def linear(lr: float, epoch: int, epochs: int) -> float:
    """The learning rate of an epoch, counted from 0: from `lr` to 0 in a straight line."""
    return lr * (1 - epoch / epochs)


def set_lr(optimizer: Any, lr: float) -> None:
    """Let an optimizer go on with this learning rate."""
    for group in optimizer.param_groups:
        group["lr"] = lr


def set_gradients(parameters: list[nn.Parameter], gradients: tuple[Tensor, ...]) -> None:
    """Give parameters their gradients, as `backward()` would, but no others."""
    for parameter, gradient in zip(parameters, gradients, strict=True):
        parameter.grad = gradient


def reduced_precision(device: torch.device, precision: str) -> AbstractContextManager[Any]:
    """Inside, matrix products and convolutions are as precise as 'fp32' or 'bf16'."""
    context: AbstractContextManager[Any] = torch.autocast(
        device.type, torch.bfloat16, enabled=precision == "bf16"
    )
    return context


def check_loss(loss: float, epoch: int, epochs: int, lr: float) -> None:
    """End the trial when its loss is not a number any more.

    Raises Diverged, whose text becomes the reason of the trial.
    """
    if not math.isfinite(loss):
        raise Diverged(
            f"the loss became {loss} in epoch {epoch}/{epochs}, at a learning rate of {lr:.4g}; "
            "start with a lower one"
        )


def peak_memory_mb(device: torch.device) -> float:
    """The most memory that this process has taken so far: of its GPU, else of the machine."""
    if device.type == "cuda":
        return float(torch.cuda.max_memory_allocated(device)) / 1e6
    unit = 1 if sys.platform == "darwin" else 1024  # (bytes on macOS, KiB elsewhere)
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit / 1e6
