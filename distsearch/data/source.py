"""What a data set is, before and after it is loaded."""

from __future__ import annotations

from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Protocol

from ..errors import DataError

if TYPE_CHECKING:
    from numpy.typing import NDArray
    from torch import Tensor

HELD_OUT = 0.2  # what is for testing where a data set has no such part
SPLIT_SEED = 20201  # always the same split
LEAST_SIZE = 4  # pixels


@dataclass(frozen=True)
class Facts:
    """A data set that is not loaded: `shape` is (channels, height, width) of every image."""

    name: str
    classes: tuple[str, ...]
    shape: tuple[int, int, int]
    train: int
    test: int


@dataclass(frozen=True)
class Images:
    """A data set in memory.

    `train` and `test`: uint8 tensors of count x channels x height x width, from 0 to 255. Their
    labels are int64 tensors of positions in `classes`.
    """

    name: str
    classes: tuple[str, ...]
    train: Tensor
    train_labels: Tensor
    test: Tensor
    test_labels: Tensor

    @property
    def shape(self) -> tuple[int, int, int]:
        """Channels, height and width of every image."""
        channels, height, width = self.train.shape[1:]
        return channels, height, width

    @property
    def facts(self) -> Facts:
        """How many there are, and what they are like."""
        return Facts(self.name, self.classes, self.shape, len(self.train), len(self.test))


class Source(Protocol):
    """Where images come from: told what they are like, or loaded."""

    def facts(self) -> Facts:
        """What there is, as far as can be told without loading all of it."""

    def load(self) -> Images:
        """All of it."""


def images_of(
    name: str,
    classes: tuple[str, ...],
    train: tuple[NDArray[Any], NDArray[Any]],
    test: tuple[NDArray[Any], NDArray[Any]],
) -> Images:
    """Images of arrays: each part a pair of uint8 images (count x channels x ...) and labels."""
    import torch

    def tensors(part: tuple[NDArray[Any], NDArray[Any]]) -> tuple[Any, Any]:
        pixels, labels = part
        return torch.from_numpy(pixels), torch.from_numpy(labels.astype("int64"))

    return Images(name, classes, *tensors(train), *tensors(test))


def checked(facts: Facts) -> Facts:
    """The facts of a data set that networks can learn from; DataError for others."""
    _, height, width = facts.shape
    if len(facts.classes) < 2:
        raise DataError(
            f"{facts.name} has {len(facts.classes)} class ({', '.join(facts.classes)}); "
            "at least 2 can be told apart"
        )
    if min(height, width) < LEAST_SIZE:
        raise DataError(
            f"the images of {facts.name} have {width} x {height} pixels; at least "
            f"{LEAST_SIZE} x {LEAST_SIZE} are needed"
        )
    if not facts.train or not facts.test:
        raise DataError(
            f"{facts.name} has {facts.train} images to train with and {facts.test} to test with; "
            "both are needed"
        )
    return facts
