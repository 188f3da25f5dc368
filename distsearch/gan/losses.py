"""The losses that generators and discriminators make small; from logits, so that none is inf.

Sources: Goodfellow et al. 2014 (arXiv:1406.2661), Mao et al. 2017 (least squares,
arXiv:1611.04076), Arjovsky et al. 2017 (Wasserstein, arXiv:1701.07875), Toutouh et al., "Spatial
Evolutionary Generative Adversarial Networks" (Mustangs, arXiv:1905.12702).
"""

from __future__ import annotations

import torch
from torch import Tensor
from torch.nn.functional import logsigmoid, softplus

MUSTANGS = ("bce", "mse", "heuristic")  # Mustangs draws one of these


def generator_loss(name: str, fake: Tensor) -> Tensor:
    """The loss of a generator, from what a discriminator says of its examples.

    bce: -E log D. mse: E (D - 1)^2. heuristic: -1/2 E log D. wgan: -E D.
    """
    if name == "wgan":
        return -fake.mean()
    if name == "mse":
        return (torch.sigmoid(fake) - 1).square().mean()
    factor = 0.5 if name == "heuristic" else 1.0
    return -factor * logsigmoid(fake).mean()


def discriminator_loss(name: str, real: Tensor, fake: Tensor) -> Tensor:
    """The loss of a discriminator, from what it says of real examples and of made ones.

    mse: E (D(real) - 1)^2 + E D(fake)^2. wgan: E D(fake) - E D(real). All others:
    -E log D(real) - E log(1 - D(fake)).
    """
    if name == "wgan":
        return fake.mean() - real.mean()
    if name == "mse":
        return (torch.sigmoid(real) - 1).square().mean() + torch.sigmoid(fake).square().mean()
    return softplus(-real).mean() + softplus(fake).mean()
