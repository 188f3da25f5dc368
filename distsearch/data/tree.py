"""Images in a folder or a tar file, a folder per class."""

from __future__ import annotations

import io
import tarfile
from collections import Counter
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path, PurePosixPath
from typing import Any, NamedTuple

import numpy as np
from numpy.typing import NDArray

from ..errors import DataError, MissingPackage
from .source import HELD_OUT, SPLIT_SEED, Facts, Images, checked, images_of
from .splits import held_out_of, hold_out

ARCHIVES = (".tar", ".tar.gz", ".tgz")
IMAGES = (".png", ".jpg", ".jpeg", ".bmp", ".gif", ".webp", ".tif", ".tiff", ".ppm", ".pgm")
CHANNELS = {"1": ("L", 1), "L": ("L", 1), "RGB": ("RGB", 3)}  # by Pillow's mode of a file
PARTS = {"train", "test"}
LAYOUT = "put the images of each class into a folder of its own: cat/1.png, dog/1.png, ..."


class _File(NamedTuple):
    """An image file: its part ('train', 'test', or '' for neither), its class, where it is."""

    part: str
    label: str
    path: PurePosixPath
    content: Path | bytes


@dataclass(frozen=True)
class Tree:
    """A folder or a tar file with a folder per class, perhaps below `train` and `test`.

    All images have to be of one size, and all grey or all RGB.
    """

    path: Path

    def facts(self) -> Facts:
        """What there is: every file's size and channels are looked at, no pixel is decoded."""
        counts: Counter[tuple[str, str]] = Counter()
        shape: tuple[int, int, int] | None = None
        first = PurePosixPath()
        for file in self._files():
            own = self._shape(file)
            if shape is None:
                shape, first = own, file.path
            elif own != shape:
                raise DataError(
                    f"the images in {self.path} differ: {first} has {_told(shape)}, {file.path} "
                    f"has {_told(own)}; make all alike"
                )
            counts[file.part, file.label] += 1
        if shape is None:
            raise DataError(self._why_none())
        parts = {part for part, _ in counts}
        classes = tuple(sorted({label for _, label in counts}))
        if parts == {""}:
            single = [label for label in classes if counts["", label] < 2]
            if single:
                raise DataError(
                    f"class {single[0]!r} in {self.path} has 1 image; give it 2 or more"
                )
            test = sum(held_out_of(counts["", label], HELD_OUT) for label in classes)
            return self._checked(Facts(self._name, classes, shape, counts.total() - test, test))
        for part in sorted(PARTS):
            if missing := [label for label in classes if not counts[part, label]]:
                raise DataError(f"{self.path} has no images of {missing[0]!r} in {part}/")
        train = sum(counts["train", label] for label in classes)
        return self._checked(Facts(self._name, classes, shape, train, counts.total() - train))

    def load(self) -> Images:
        facts = self.facts()
        count, position = facts.train + facts.test, {of: n for n, of in enumerate(facts.classes)}
        pixels = np.empty((count, *facts.shape), np.uint8)
        labels = np.empty(count, np.int64)
        is_test = np.zeros(count, np.bool_)
        is_split = False
        for at, file in enumerate(self._files()):
            pixels[at] = self._pixels(file)
            labels[at] = position[file.label]
            is_test[at] = file.part == "test"
            is_split |= bool(file.part)
        if is_split:
            train, test = np.flatnonzero(~is_test), np.flatnonzero(is_test)
        else:
            train, test = hold_out(labels, HELD_OUT, SPLIT_SEED)
        parts = [(pixels[part], labels[part]) for part in (train, test)]
        return images_of(facts.name, facts.classes, *parts)

    @property
    def has_classes(self) -> bool:
        """Whether there are images in more than one folder."""
        if self.path.is_file():
            return True
        images = [path for path in self.path.rglob("*") if path.suffix.lower() in IMAGES]
        return len({path.parent for path in images}) > 1

    def _checked(self, facts: Facts) -> Facts:
        return checked(facts)

    @property
    def _name(self) -> str:
        name = self.path.name
        for ending in sorted(ARCHIVES, key=len, reverse=True):
            name = name.removesuffix(ending)
        return name

    def _files(self) -> Iterator[_File]:
        """The image files, in the order of their paths (in a tar file: as they lie there)."""
        found = self._in_tar() if self.path.is_file() else self._in_folder()
        for path, content in found:
            if path.suffix.lower() not in IMAGES or any(of.startswith(".") for of in path.parts):
                continue
            *above, label, _ = ("", "", *path.parts) if len(path.parts) == 1 else path.parts
            part = above[-1] if above else ""
            if not label or (above and part not in PARTS):
                raise DataError(f"{path} in {self.path} is in no folder of a class; {LAYOUT}")
            yield _File(part if part in PARTS else "", label, path, content)

    def _in_folder(self) -> Iterator[tuple[PurePosixPath, Path]]:
        for path in sorted(self.path.rglob("*")):
            if path.is_file():
                yield PurePosixPath(path.relative_to(self.path).as_posix()), path

    def _in_tar(self) -> Iterator[tuple[PurePosixPath, bytes]]:
        try:
            with tarfile.open(self.path) as tar:
                for member in tar:
                    content = tar.extractfile(member) if member.isfile() else None
                    if content is not None:
                        yield PurePosixPath(member.name.removeprefix("./")), content.read()
        except (tarfile.TarError, EOFError, OSError) as error:
            raise DataError(f"{self.path} cannot be read as a tar file: {error}") from error

    def _why_none(self) -> str:
        none = f"no folder in it holds an image ({', '.join(IMAGES[:4])}, ...)"
        return f"{self.path} has no classes: {none}; {LAYOUT}"

    def _shape(self, file: _File) -> tuple[int, int, int]:
        with self._opened(file) as image:
            if image.mode not in CHANNELS:
                raise DataError(
                    f"{file.path} in {self.path} has pixels of the kind {image.mode!r}; convert it "
                    "to grey or RGB"
                )
            return CHANNELS[image.mode][1], image.height, image.width

    def _pixels(self, file: _File) -> NDArray[Any]:
        """Channels x height x width."""
        try:
            with self._opened(file) as image:
                pixels = np.asarray(image.convert(CHANNELS[image.mode][0]))
        except OSError as error:
            raise DataError(f"{file.path} in {self.path} is damaged: {error}") from error
        return pixels[None] if pixels.ndim == 2 else pixels.transpose(2, 0, 1)

    def _opened(self, file: _File) -> Any:
        try:
            from PIL import Image
        except ImportError as error:
            raise MissingPackage("images are read by Pillow: pip install pillow") from error
        content = file.content
        try:
            return Image.open(io.BytesIO(content) if isinstance(content, bytes) else content)
        except OSError as error:
            raise DataError(f"{file.path} in {self.path} is no image: {error}") from error


class Unlabelled(Tree):
    """Images that are all in one folder, so that no class is known; their labels are -1."""

    def load(self) -> Images:
        import torch

        images = super().load()
        nowhere = [torch.full_like(of, -1) for of in (images.train_labels, images.test_labels)]
        return replace(images, classes=(), train_labels=nowhere[0], test_labels=nowhere[1])

    def _checked(self, facts: Facts) -> Facts:
        return facts

    def _why_none(self) -> str:
        kinds = ", ".join(IMAGES[:4])
        return (
            f"{self.path} holds no image ({kinds}, ...); give a folder of images, all of one size"
        )

    def _files(self) -> Iterator[_File]:
        for path, content in self._in_folder():
            if path.suffix.lower() in IMAGES and not path.name.startswith("."):
                yield _File("", "image", path, content)


def _told(shape: tuple[int, int, int]) -> str:
    channels, height, width = shape
    return f"{width} x {height} pixels with {channels} channel{'s' * (channels > 1)}"
