"""Images that are arrays already: scikit-learn's digits, and .npz files."""

from __future__ import annotations

import importlib.util
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError, MissingPackage
from .source import HELD_OUT, SPLIT_SEED, Facts, Images, checked, images_of
from .splits import hold_out

DIGITS = tuple(map(str, range(10)))
PARTS = ("x_train", "y_train", "x_test", "y_test")


class Digits:
    """The 1,797 handwritten digits of scikit-learn, 8 x 8 pixels in 17 levels of grey.

    Source: E. Alpaydin and C. Kaynak, Optical Recognition of Handwritten Digits, UCI, 1998.
    """

    def facts(self) -> Facts:
        if importlib.util.find_spec("sklearn") is None:
            raise MissingPackage("the digits come with scikit-learn: pip install scikit-learn")
        return Facts("digits", DIGITS, (1, 8, 8), train=1438, test=359)

    def load(self) -> Images:
        self.facts()
        from sklearn.datasets import load_digits

        pixels, labels = load_digits(return_X_y=True)
        pixels = np.rint(pixels * (255 / 16)).astype(np.uint8).reshape(-1, 1, 8, 8)
        train, test = hold_out(labels, HELD_OUT, SPLIT_SEED)
        parts = [(pixels[part], labels[part]) for part in (train, test)]
        return images_of("digits", DIGITS, *parts)


@dataclass(frozen=True)
class Npz:
    """A file of four arrays: x_train and x_test are uint8 images, y_train and y_test their labels.

    Images are count x height x width, or have their channels (1 or 3) last, as Keras keeps them.
    """

    path: Path

    def facts(self) -> Facts:
        try:
            with zipfile.ZipFile(self.path) as file:
                shapes = {name: self._shape(file, name) for name in PARTS}
            labels = self._array("y_train"), self._array("y_test")
        except DataError:
            raise
        except (OSError, zipfile.BadZipFile, EOFError, ValueError) as error:
            raise DataError(f"{self.path} cannot be read as .npz: {error}") from error
        for part in ("train", "test"):
            images, count = shapes[f"x_{part}"], shapes[f"y_{part}"]
            if count != images[:1]:
                raise DataError(
                    f"{self.path} has {images[0]} images x_{part}, y_{part} has {count[0]}"
                )
        if shapes["x_train"][1:] != shapes["x_test"][1:]:
            raise DataError(
                f"{self.path}: x_train has images of {shapes['x_train'][1:]}, x_test of "
                f"{shapes['x_test'][1:]}; all have to be alike"
            )
        classes = self._classes(*labels)
        height, width, *channels = shapes["x_train"][1:]
        return checked(
            Facts(
                self.path.stem,
                classes,
                (channels[0] if channels else 1, height, width),
                len(labels[0]),
                len(labels[1]),
            )
        )

    def load(self) -> Images:
        facts = self.facts()

        def part(name: str) -> tuple[NDArray[Any], NDArray[Any]]:
            pixels = self._array(f"x_{name}")
            pixels = pixels[:, None] if pixels.ndim == 3 else pixels.transpose(0, 3, 1, 2)
            return np.ascontiguousarray(pixels), self._array(f"y_{name}")

        return images_of(facts.name, facts.classes, part("train"), part("test"))

    def _array(self, name: str) -> NDArray[Any]:
        with np.load(self.path, allow_pickle=False) as arrays:
            return np.asarray(arrays[name])

    def _shape(self, file: zipfile.ZipFile, name: str) -> tuple[int, ...]:
        """The shape of an array, of which the pixels are not read."""
        if f"{name}.npy" not in file.namelist():
            there = ", ".join(sorted(Path(of).stem for of in file.namelist()))
            raise DataError(
                f"{self.path} has no {name}, but {there}; {', '.join(PARTS)} are needed"
            )
        with file.open(f"{name}.npy") as array:
            read = {
                (1, 0): np.lib.format.read_array_header_1_0,
                (2, 0): np.lib.format.read_array_header_2_0,
            }
            shape, _, kind = read[np.lib.format.read_magic(array)](array)
        is_image = kind == np.uint8 and (
            len(shape) == 3 or (len(shape) == 4 and shape[3] in (1, 3))
        )
        is_labels = kind.kind in "iu" and len(shape) == 1
        if not (is_image if name.startswith("x") else is_labels):
            wanted = "uint8 images" if name.startswith("x") else "one integer per image"
            raise DataError(f"{self.path}: {name} is {kind} of shape {shape}, not {wanted}")
        return tuple(shape)

    def _classes(self, train: NDArray[Any], test: NDArray[Any]) -> tuple[str, ...]:
        """The labels from 0 to the largest, as text."""
        every = np.unique(np.concatenate([train, test])) if len(train) else np.array([-1])
        if every[0] != 0 or every[-1] != len(every) - 1:
            raise DataError(
                f"{self.path} has the labels {', '.join(map(str, every[:12]))}; they have to be "
                "0, 1, 2, ... without a gap"
            )
        return tuple(map(str, every))
