"""What is done to a batch of images before a network learns from it, all images at once.

Sources: crops and flips as in He et al. 2016 (arXiv 1512.03385, section 4.2); cutout by DeVries and
Taylor 2017 (arXiv 1708.04552).
"""

from __future__ import annotations

from dataclasses import dataclass

import torch
from torch import Generator, Tensor

from .source import Facts


@dataclass(frozen=True)
class Augmentation:
    """Random changes of training images.

        change = Augmentation(crop=4, flip=True, cutout=16)
        change(images, generator)       # float, count x channels x height x width

    `crop`: by how many pixels an image is padded with zeros on every side, before a part of the old
    size is cut out of it. `flip`: left and right are exchanged in half of the images. `cutout`: the
    side of a square around a random pixel that becomes zero; 0 for none. The generator has to be
    on the device of the images. What is zero should be an image's mean: standardise first.
    """

    crop: int = 0
    flip: bool = False
    cutout: int = 0

    def __call__(self, images: Tensor, generator: Generator) -> Tensor:
        """The changed images; those that were given stay as they are."""
        if self.crop:
            images = _cropped(images, self.crop, generator)
        if self.flip:
            images = _flipped(images, generator)
        if self.cutout:
            images = _cut_out(images, self.cutout, generator)
        return images


def usual(facts: Facts) -> Augmentation:
    """What is usual for such images: of photos crops and flips, of grey symbols crops alone.

    >>> usual(facts_of("cifar10", root))
    Augmentation(crop=4, flip=True, cutout=0)
    """
    channels, height, width = facts.shape
    side = min(height, width)
    return Augmentation(crop=side // 8, flip=True) if channels == 3 else Augmentation(side // 14)


class Standard:
    """Pixels as floats with mean 0 and deviation 1 in every channel, as they are in `reference`.

    standard = Standard(images.train)           # uint8
    batch = standard(images.train[:96])         # float32
    """

    def __init__(self, reference: Tensor) -> None:
        channels = [_histogram(reference[:, channel]) for channel in range(reference.shape[1])]
        self.mean = [_mean(count) for count in channels]
        self.deviation = [_deviation(count) for count in channels]

    def __call__(self, images: Tensor) -> Tensor:
        """The images as floats, of the same shape and on the same device."""
        mean, deviation = torch.tensor([self.mean, self.deviation], device=images.device)
        return (images.float() - mean[:, None, None]) / deviation[:, None, None]


def _histogram(pixels: Tensor) -> Tensor:
    """How often each of the 256 values occurs: exact, and without a copy as floats."""
    return torch.bincount(pixels.flatten(), minlength=256).double()


def _mean(count: Tensor) -> float:
    values = torch.arange(256, dtype=torch.float64, device=count.device)
    return float((count * values).sum() / count.sum())


def _deviation(count: Tensor) -> float:
    """At least half a level of grey, so that a channel without contrast divides by no zero."""
    values = torch.arange(256, dtype=torch.float64, device=count.device)
    variance = (count * (values - _mean(count)) ** 2).sum() / count.sum()
    return max(0.5, float(variance**0.5))


def _integers(high: int, count: int, generator: Generator) -> Tensor:
    return torch.randint(high, (count,), generator=generator, device=generator.device)


def _cropped(images: Tensor, padding: int, generator: Generator) -> Tensor:
    count, channels, height, width = images.shape
    padded = torch.nn.functional.pad(images, [padding] * 4)
    top = _integers(2 * padding + 1, count, generator)
    left = _integers(2 * padding + 1, count, generator)
    rows = top[:, None] + torch.arange(height, device=images.device)
    columns = left[:, None] + torch.arange(width, device=images.device)
    which = torch.arange(count, device=images.device)[:, None, None, None]
    channel = torch.arange(channels, device=images.device)[:, None, None]
    return padded[which, channel, rows[:, None, :, None], columns[:, None, None, :]]


def _flipped(images: Tensor, generator: Generator) -> Tensor:
    turned = _integers(2, len(images), generator).bool()
    return torch.where(turned[:, None, None, None], images.flip(3), images)


def _cut_out(images: Tensor, side: int, generator: Generator) -> Tensor:
    """A square around a random pixel is zero; near an edge only what of it is inside."""
    count, _, height, width = images.shape

    def kept(size: int) -> Tensor:
        start = _integers(size, count, generator)[:, None] - side // 2
        place = torch.arange(size, device=images.device)
        return (place < start) | (place >= start + side)

    rows, columns = kept(height), kept(width)
    return images * (rows[:, None, :, None] | columns[:, None, None, :])
