"""Data sets in the form in which torchvision downloads them; they are read by torchvision."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError, MissingPackage
from .source import Facts, Images, images_of


class _Set(NamedTuple):
    kind: str  # torchvision's class
    folder: str  # in which it keeps the files, below the root
    classes: int
    shape: tuple[int, int, int]
    train: int


SETS = {
    "mnist": _Set("MNIST", "MNIST/raw", 10, (1, 28, 28), 60_000),
    "fashion-mnist": _Set("FashionMNIST", "FashionMNIST/raw", 10, (1, 28, 28), 60_000),
    "cifar10": _Set("CIFAR10", "cifar-10-batches-py", 10, (3, 32, 32), 50_000),
    "cifar100": _Set("CIFAR100", "cifar-100-python", 100, (3, 32, 32), 50_000),
}
TEST = 10_000  # of each


@dataclass(frozen=True)
class Downloaded:
    """A data set that torchvision has downloaded below a root."""

    name: str
    root: Path

    @property
    def folder(self) -> Path:
        """Where torchvision keeps the files."""
        return self.root / SETS[self.name].folder

    @property
    def is_there(self) -> bool:
        """Whether there is such a folder."""
        return self.folder.is_dir()

    def facts(self) -> Facts:
        """What the set is known to have; whether its files are whole is seen when they load."""
        if importlib.util.find_spec("torchvision") is None:
            raise MissingPackage(
                f"{self.folder} is read by torchvision: pip install torch torchvision"
            )
        known = SETS[self.name]
        classes = tuple(map(str, range(known.classes)))  # torchvision, when it loads, has names
        return Facts(self.name, classes, known.shape, known.train, TEST)

    def load(self) -> Images:
        self.facts()
        from torchvision import datasets

        kind = getattr(datasets, SETS[self.name].kind)

        def part(train: bool) -> tuple[Any, tuple[NDArray[Any], NDArray[Any]]]:
            try:
                found = kind(str(self.root), train=train, download=False)
            except (RuntimeError, OSError) as error:
                raise DataError(f"{self.name} in {self.root} cannot be read: {error}") from error
            pixels = np.asarray(found.data)
            pixels = pixels[:, None] if pixels.ndim == 3 else pixels.transpose(0, 3, 1, 2)
            return found.classes, (np.ascontiguousarray(pixels), np.asarray(found.targets))

        classes, train = part(True)
        _, test = part(False)
        return images_of(self.name, tuple(classes), train, test)
