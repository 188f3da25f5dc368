"""What GANs learn from, on the driver and in every trial: examples from -1 to 1 in one file."""

from __future__ import annotations

import json
import os
from dataclasses import dataclass
from pathlib import Path

import torch
from torch import Tensor

from ..core.checkpoint import write_durably
from ..data import NAMES
from ..data.images import load_for_generation
from ..errors import DataError, StoreError, suggest
from .toys import HELD_OUT, POINTS, TOYS, points

DAMAGED = "is damaged ({}); restore it from a copy, or train in a new folder"


@dataclass(frozen=True)
class Examples:
    """Real examples: those to learn from, and those that are held out.

    `train` and `test` are count x shape; images are uint8 (see `scaled`), points floats. Where
    there are no `classes`, labels are -1.
    """

    name: str
    classes: tuple[str, ...]
    train: Tensor
    train_labels: Tensor
    test: Tensor
    test_labels: Tensor

    @property
    def shape(self) -> tuple[int, ...]:
        """The shape of one example: (2,) or (channels, height, width)."""
        return tuple(self.train.shape[1:])

    @property
    def are_points(self) -> bool:
        """Whether the examples are points in a plane, and no images."""
        return len(self.shape) == 1

    def save(self, path: Path) -> None:
        """Write the examples to a file, for trials."""
        from safetensors.torch import save

        names = ("train", "train_labels", "test", "test_labels")
        about = {"name": self.name, "classes": json.dumps(self.classes)}
        write_durably(path, save({name: getattr(self, name) for name in names}, metadata=about))

    @classmethod
    def read(cls, path: Path, device: str = "cpu") -> Examples:
        """The examples of a file that `save` has written."""
        about, tensors = read_tensors(path, device)
        return cls(about["name"], tuple(json.loads(about["classes"])), **tensors)


def load(data: str, root: str | os.PathLike[str] | None = None) -> Examples:
    """Examples by their name or from where they lie.

        load("digits")
        load("circular")                    # points in a plane: gaussian, circular or grid
        load("mnist", "~/data")             # whatever `distsearch.data.load_images` knows
        load("faces/")                      # a folder of images, with or without a folder per class
        load("package.module:function")     # what your own function returns

    Raises DataError for what is not there, and for images of several sizes.
    """
    if data in TOYS:
        train, train_labels = points(data, POINTS, seed=0)
        test, test_labels = points(data, HELD_OUT, seed=1)
        classes = tuple(map(str, range(len(TOYS[data]()))))
        arrays = map(torch.from_numpy, (train, train_labels, test, test_labels))
        return Examples(data, classes, *arrays)
    known = [*NAMES, *TOYS]
    is_path = os.sep in data or "." in data or ":" in data or Path(data).expanduser().exists()
    if data not in known and not is_path:
        raise DataError(
            f"there is no data set {data!r}, nor a folder of that name here; {suggest(data, known)}"
        )
    images = load_for_generation(data, root)
    parts = (images.train, images.train_labels, images.test, images.test_labels)
    return Examples(images.name, images.classes, *parts)


def read_tensors(path: Path, device: str = "cpu") -> tuple[dict[str, str], dict[str, Tensor]]:
    """The metadata of a file of safetensors, and its tensors by name.

    Raises StoreError for a damaged file.
    """
    from safetensors import SafetensorError, safe_open

    try:
        with safe_open(path, framework="pt", device=device) as file:
            return file.metadata(), {name: file.get_tensor(name) for name in file.keys()}  # noqa: SIM118
    except SafetensorError as error:
        raise StoreError(f"{path} {DAMAGED.format(error)}") from error


def scaled(examples: Tensor) -> Tensor:
    """Examples as networks see them: pixels from 0 to 255 become -1 to 1, points stay."""
    if examples.dtype != torch.uint8:
        return examples.float()
    return examples.float() / 127.5 - 1
