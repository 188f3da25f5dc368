"""Generators and discriminators: MLPs for any examples, DCGANs for square images.

Source: Radford et al., "Unsupervised Representation Learning with Deep Convolutional Generative
Adversarial Networks", arXiv:1511.06434 (2016).
"""

from __future__ import annotations

from collections.abc import Sequence
from itertools import pairwise
from typing import Any

import torch
from torch import Tensor, nn

from ..errors import OptionError
from .settings import Settings

SLOPE = 0.2
FIRST = 4  # the smallest layer of a DCGAN has so many pixels a side
DEEPEST, WIDEST = 64, 512  # channels of the layer next to the image, and of any layer


def generator(settings: Settings, shape: Sequence[int]) -> nn.Module:
    """A network from `latent` random numbers to examples of this shape, from -1 to 1.

    `shape`: (2,) for points, (channels, height, width) for images. Points are not bounded.
    """
    if settings.network == "mlp":
        size = _size(shape)
        bounded = [nn.Tanh()] if len(shape) > 1 else []
        layers = _mlp([settings.latent, *settings.hidden, size])
        return nn.Sequential(*layers, *bounded, nn.Unflatten(1, tuple(shape)))
    widths = _widths(shape)[::-1]
    layers = [
        nn.Unflatten(1, (settings.latent, 1, 1)),
        nn.ConvTranspose2d(settings.latent, widths[0], FIRST, bias=False),
    ]
    for before, after in zip(widths, [*widths[1:], None], strict=True):
        layers += [nn.BatchNorm2d(before), nn.ReLU()]
        channels = shape[0] if after is None else after
        layers.append(nn.ConvTranspose2d(before, channels, 4, 2, 1, bias=after is None))
    return _drawn(nn.Sequential(*layers, nn.Tanh()))


def discriminator(settings: Settings, shape: Sequence[int]) -> nn.Module:
    """A network from examples to one number each: the logit that it is real (of WGAN: a score)."""
    if settings.network == "mlp":
        layers = _mlp([_size(shape), *settings.hidden, 1])
        return nn.Sequential(nn.Flatten(), *layers, nn.Flatten(0))
    widths = _widths(shape)
    layers = [nn.Conv2d(shape[0], widths[0], 4, 2, 1), nn.LeakyReLU(SLOPE)]
    for before, after in pairwise(widths):
        layers.append(nn.Conv2d(before, after, 4, 2, 1, bias=False))
        layers += [nn.BatchNorm2d(after), nn.LeakyReLU(SLOPE)]
    return _drawn(nn.Sequential(*layers, nn.Conv2d(widths[-1], 1, FIRST), nn.Flatten(0)))


def draw(network: nn.Module, latent: int, count: int, rng: torch.Generator) -> Tensor:
    """Examples that a generator makes of `count` x `latent` normal random numbers."""
    device = next(network.parameters()).device
    noise = torch.randn(count, latent, generator=rng)
    return network(noise.to(device))


def _size(shape: Sequence[int]) -> int:
    size = 1
    for side in shape:
        size *= side
    return size


def _mlp(widths: Sequence[int]) -> list[Any]:
    layers: list[Any] = []
    for before, after in pairwise(widths):
        layers += [nn.Linear(before, after), nn.LeakyReLU(SLOPE)]
    return layers[:-1]


def _widths(shape: Sequence[int]) -> list[int]:
    """The channels of a DCGAN's layers, from the image on: 64-128-256-512 for 64 x 64 pixels."""
    side = 0
    widths: list[int] = []
    if len(shape) == 3 and shape[1] == shape[2]:
        side = shape[1]
    while side > FIRST and side % 2 == 0:
        widths.append(min(DEEPEST << len(widths), WIDEST))
        side //= 2
    if side != FIRST or not widths:
        raise OptionError(
            f"network='dcgan' makes square images of 8, 16, 32, 64, ... pixels, not examples of "
            f"the shape {tuple(shape)}; take network='mlp', or scale the images"
        )
    return widths


def _drawn(network: nn.Module) -> nn.Module:
    """Draw the weights as the paper does: N(0, 0.02), those of batch norms N(1, 0.02)."""
    for module in network.modules():
        if isinstance(module, (nn.Conv2d, nn.ConvTranspose2d)):
            nn.init.normal_(module.weight, 0.0, 0.02)
        elif isinstance(module, nn.BatchNorm2d):
            nn.init.normal_(module.weight, 1.0, 0.02)
    return network
