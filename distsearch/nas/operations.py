"""Operations of cells: what turns one feature map into another of the same number of channels.

Sources: DARTS (Liu et al., ICLR 2019, arXiv 1806.09055), whose eight operations these are, and
PC-DARTS (Xu et al., ICLR 2020, arXiv 1907.05737).
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn
from torch.nn import functional

Operation = Callable[[int, int, bool, int], nn.Module]  # channels, stride, affine, groups


def relu_conv_bn(
    channels_in: int,
    channels: int,
    *,
    affine: bool,
    kernel: int = 1,
    stride: int = 1,
    groups: int = 1,
) -> nn.Sequential:
    """ReLU, convolution, batch norm; `groups`: independent parts of the channels, side by side."""
    conv = nn.Conv2d(
        channels_in, channels, kernel, stride, padding=kernel // 2, groups=groups, bias=False
    )
    return nn.Sequential(nn.ReLU(), conv, nn.BatchNorm2d(channels, affine=affine))


def _depthwise(
    channels: int, kernel: int, stride: int, dilation: int, affine: bool, groups: int
) -> list[nn.Module]:
    """ReLU, a convolution of each channel by itself, one across channels, batch norm."""
    padding = dilation * (kernel // 2)
    return [
        nn.ReLU(),
        nn.Conv2d(
            channels, channels, kernel, stride, padding, dilation, groups=channels, bias=False
        ),
        nn.Conv2d(channels, channels, 1, groups=groups, bias=False),
        nn.BatchNorm2d(channels, affine=affine),
    ]


def separable(kernel: int) -> Operation:
    """A depthwise separable convolution, twice; the stride is that of the first one."""

    def make(channels: int, stride: int, affine: bool, groups: int) -> nn.Module:
        return nn.Sequential(
            *_depthwise(channels, kernel, stride, 1, affine, groups),
            *_depthwise(channels, kernel, 1, 1, affine, groups),
        )

    return make


def dilated(kernel: int) -> Operation:
    """A depthwise separable convolution with holes of one pixel."""

    def make(channels: int, stride: int, affine: bool, groups: int) -> nn.Module:
        return nn.Sequential(*_depthwise(channels, kernel, stride, 2, affine, groups))

    return make


def max_pool(kernel: int) -> Operation:
    """The largest value in each pixel's neighbourhood."""
    return lambda channels, stride, affine, groups: nn.MaxPool2d(kernel, stride, kernel // 2)


def avg_pool(kernel: int) -> Operation:
    """The mean of each pixel's neighbourhood, without what lies outside the image."""
    return lambda channels, stride, affine, groups: nn.AvgPool2d(
        kernel, stride, kernel // 2, count_include_pad=False
    )


def skip(channels: int, stride: int, affine: bool, groups: int) -> nn.Module:
    """The feature map itself; at stride 2 halved by `FactorizedReduce`."""
    if stride == 1:
        return nn.Identity()
    return FactorizedReduce(channels, channels, affine=affine, groups=groups)


class FactorizedReduce(nn.Module):
    """Half the height and width: two 1x1 convolutions at stride 2, one pixel apart, side by side.

    Of an odd height or width the next larger half.
    """

    def __init__(self, channels_in: int, channels: int, *, affine: bool, groups: int = 1) -> None:
        super().__init__()
        first = channels // groups // 2 * groups
        self.groups = groups
        self.first = nn.Conv2d(channels_in, first, 1, 2, groups=groups, bias=False)
        self.second = nn.Conv2d(channels_in, channels - first, 1, 2, groups=groups, bias=False)
        self.norm = nn.BatchNorm2d(channels, affine=affine)

    def forward(self, features: Tensor) -> Tensor:
        features = functional.relu(features)
        height, width = features.shape[2:]
        features = functional.pad(features, (0, width % 2, 0, height % 2))
        parts = self.first(features), self.second(features[:, :, 1:, 1:])
        if self.groups > 1:  # both parts of the first group come before those of the second
            parts = tuple(part.unflatten(1, (self.groups, -1)) for part in parts)
            return self.norm(torch.cat(parts, 2).flatten(1, 2))
        return self.norm(torch.cat(parts, 1))


# In the order of PC-DARTS's architecture parameters; 'none' comes before them.
PC_DARTS: dict[str, Operation] = {
    "max_pool_3x3": max_pool(3),
    "avg_pool_3x3": avg_pool(3),
    "skip_connect": skip,
    "sep_conv_3x3": separable(3),
    "sep_conv_5x5": separable(5),
    "dil_conv_3x3": dilated(3),
    "dil_conv_5x5": dilated(5),
}


def conv(kernel: int) -> Operation:
    """ReLU, an ordinary convolution, batch norm."""
    return lambda channels, stride, affine, groups: relu_conv_bn(
        channels, channels, affine=affine, kernel=kernel, stride=stride, groups=groups
    )


# The operations of the cells in `lanas/cells.py`.
NASNET: dict[str, Operation] = {**PC_DARTS, "conv_1x1": conv(1), "conv_3x3": conv(3)}


def drop_path(features: Tensor, probability: float) -> Tensor:
    """The features of a batch without some images, the others scaled up to the same mean.

    Source: FractalNet (Larsson et al., ICLR 2017, arXiv 1605.07648).
    """
    kept = 1 - probability
    mask = torch.empty(len(features), 1, 1, 1, device=features.device, dtype=features.dtype)
    return features * mask.bernoulli_(kept) / kept
