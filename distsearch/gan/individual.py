"""A generator or a discriminator with what is evolved beside its weights; what a cell publishes."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import torch
from torch import nn

from ..errors import Diverged
from . import networks
from .settings import Settings

BETAS = (0.5, 0.999)
LR_STEP = 1e-4  # a mutation changes a learning rate by about this part of the rate
CLAMP = 0.01  # the weights of a WGAN's critic stay within this


@dataclass
class Individual:
    """A network, its learning rate, its optimizer's state, and the loss that it is trained by."""

    network: nn.Module
    lr: float
    loss: str
    optimizer: torch.optim.Optimizer

    @classmethod
    def new(
        cls, kind: str, settings: Settings, shape: tuple[int, ...], loss: str, device: torch.device
    ) -> Individual:
        """A random 'generator' or 'discriminator' (by torch's global generator)."""
        network = _build(kind)(settings, shape).to(device)
        return cls(network, settings.lr, loss, _optimizer(network, settings.lr, settings.loss))

    def clone(self, settings: Settings) -> Individual:
        """A copy that can be trained without changing this one."""
        network = copy.deepcopy(self.network)
        optimizer = _optimizer(network, self.lr, settings.loss)
        optimizer.load_state_dict(copy.deepcopy(self.optimizer.state_dict()))
        return Individual(network, self.lr, self.loss, optimizer)

    def mutate_lr(self, settings: Settings, rng: np.random.Generator) -> None:
        """With the probability of the settings, change the learning rate a little."""
        if rng.random() >= settings.lr_mutation:
            return
        step = LR_STEP * rng.normal(-settings.lr / 10, settings.lr)
        self.lr = max(0.0, self.lr + step)
        for group in self.optimizer.param_groups:
            group["lr"] = self.lr

    def step(self, loss: torch.Tensor, name: str, clamp: bool = False) -> None:
        """Make a loss of this network smaller.

        Raises Diverged if it is not finite: the generation is given up.
        """
        value = loss.item()
        if not math.isfinite(value):
            raise Diverged(
                f"the loss of the {name} is {value}, at a learning rate of {self.lr:.4g}"
            )
        self.optimizer.zero_grad(set_to_none=True)
        loss.backward()
        self.optimizer.step()
        if clamp:
            with torch.no_grad():
                for parameter in self.network.parameters():
                    parameter.clamp_(-CLAMP, CLAMP)

    def to_state(self) -> dict[str, Any]:
        """What a checkpoint holds of the individual."""
        return {
            "weights": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            "lr": self.lr,
            "loss": self.loss,
        }

    @classmethod
    def of_state(
        cls,
        kind: str,
        state: Mapping[str, Any],
        settings: Settings,
        shape: tuple[int, ...],
        device: torch.device,
    ) -> Individual:
        """The individual, from what `to_state` has returned."""
        network = network_of(kind, state["weights"], settings, shape).to(device)
        optimizer = _optimizer(network, state["lr"], settings.loss)
        optimizer.load_state_dict(dict(state["optimizer"]))
        return cls(network, state["lr"], state["loss"], optimizer)


def network_of(
    kind: str, weights: Mapping[str, Any], settings: Settings, shape: tuple[int, ...]
) -> nn.Module:
    """A network with these weights; no random numbers are drawn for it."""
    with torch.device("meta"):
        network = _build(kind)(settings, shape)
    network.load_state_dict(dict(weights), assign=True)
    return network.requires_grad_(True)


def _build(kind: str) -> Callable[[Settings, tuple[int, ...]], nn.Module]:
    return networks.generator if kind == "generator" else networks.discriminator


def _optimizer(network: nn.Module, lr: float, loss: str) -> torch.optim.Optimizer:
    if loss == "wgan":
        return torch.optim.RMSprop(network.parameters(), lr=lr)
    return torch.optim.Adam(network.parameters(), lr=lr, betas=BETAS, fused=True)
