"""One step of the search: the architecture on held-out images, then the weights on the others.

Sources: DARTS (arXiv 1806.09055), equations 5 to 8; PC-DARTS (arXiv 1907.05737).

Architecture and weights are two disjoint sets of parameters. Each step asks for the gradient of its
own set alone, averages it over the ranks, and moves nothing else.
"""

from __future__ import annotations

from collections.abc import Iterator
from contextlib import contextmanager

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..ranks import Ranks
from ..training import Batch, Tally, reduced_precision, set_gradients
from .supernet import Architecture, Supernet


class Steps:
    """The two kinds of step, over the optimizers of both sets of parameters.

        steps = Steps(supernet, architecture, of_weights, of_architecture, Ranks())
        steps.architecture(held_out, learn)
        steps.weights(learn, tally)

    `second_order`: the architecture's gradient takes into account how the next step of the weights
    depends on it, by a finite difference; else it takes the weights as they are. `clip`: the
    largest norm of the weights' gradient. `precision`: 'fp32' or 'bf16'.
    """

    def __init__(
        self,
        supernet: Supernet,
        architecture: Architecture,
        of_weights: torch.optim.SGD,
        of_architecture: torch.optim.Optimizer,
        ranks: Ranks,
        *,
        clip: float = 5.0,
        second_order: bool = False,
        precision: str = "fp32",
    ) -> None:
        self.supernet = supernet
        self.searched = architecture
        self.of_weights = of_weights
        self.of_architecture = of_architecture
        self.ranks = ranks
        self.clip = clip
        self.second_order = second_order
        self.precision = precision
        self._weights = list(supernet.parameters())
        self._architecture = list(architecture.parameters())

    def architecture(self, held_out: Batch, learn: Batch) -> None:
        """Move the architecture towards a lower loss on held-out images.

        `learn` is the batch of the weights' next step, of which only the second order makes use.
        """
        if self.second_order:
            gradients = self._unrolled_gradient(held_out, learn)
        else:
            gradients = torch.autograd.grad(self.loss(held_out), self._architecture)
            self.ranks.average(gradients)
        set_gradients(self._architecture, gradients)
        self.of_architecture.step()
        self.of_architecture.zero_grad(set_to_none=True)

    def weights(self, learn: Batch, tally: Tally) -> None:
        """Move the weights towards a lower loss on the images to learn from."""
        logits = self.logits(learn[0])
        loss = functional.cross_entropy(logits, learn[1])
        gradients = torch.autograd.grad(loss, self._weights)
        self.ranks.average(gradients)
        set_gradients(self._weights, gradients)
        nn.utils.clip_grad_norm_(self._weights, self.clip)
        self.of_weights.step()
        self.of_weights.zero_grad(set_to_none=True)
        tally.add(loss.detach(), logits.detach(), learn[1])

    def logits(self, images: Tensor) -> Tensor:
        """The supernet's logits of images, mixed by the architecture as it is."""
        with reduced_precision(images.device, self.precision):
            logits = self.supernet(images, self.searched.mixes())
        return logits.to(images.dtype)

    def loss(self, batch: Batch) -> Tensor:
        """The mean cross entropy of a batch."""
        images, labels = batch
        return functional.cross_entropy(self.logits(images), labels)

    def _unrolled_gradient(self, held_out: Batch, learn: Batch) -> tuple[Tensor, ...]:
        """The architecture's gradient of the held-out loss after one more step of the weights."""
        before = [weight.detach().clone() for weight in self._weights]
        with self._statistics_kept(), self._weights_kept(before):
            step, rate = self._next_step(learn)
            self._set_weights(before, step, -rate)
            gradients = torch.autograd.grad(
                self.loss(held_out), [*self._architecture, *self._weights]
            )
            self.ranks.average(gradients)
            direct = gradients[: len(self._architecture)]
            direction = gradients[len(self._architecture) :]
            reach = 0.01 / float(torch.cat([part.flatten() for part in direction]).norm())
            sides = []
            for sign in (1, -1):
                self._set_weights(before, direction, sign * reach)
                sides.append(torch.autograd.grad(self.loss(learn), self._architecture))
            through = [(up - down) / (2 * reach) for up, down in zip(*sides, strict=True)]
            self.ranks.average(through)
        return tuple(one - rate * other for one, other in zip(direct, through, strict=True))

    def _next_step(self, learn: Batch) -> tuple[list[Tensor], float]:
        """By how much, times the learning rate, the weights would fall in their next step."""
        gradients = torch.autograd.grad(self.loss(learn), self._weights)
        self.ranks.average(gradients)
        (group,) = self.of_weights.param_groups
        step = []
        for weight, gradient in zip(self._weights, gradients, strict=True):
            change = gradient + group["weight_decay"] * weight.detach()
            speed = self.of_weights.state[weight].get("momentum_buffer")
            step.append(change if speed is None else change + group["momentum"] * speed)
        return step, group["lr"]

    def _set_weights(
        self, before: list[Tensor], direction: list[Tensor] | tuple[Tensor, ...], by: float
    ) -> None:
        with torch.no_grad():
            for weight, old, change in zip(self._weights, before, direction, strict=True):
                weight.copy_(old + by * change)

    @contextmanager
    def _weights_kept(self, before: list[Tensor]) -> Iterator[None]:
        try:
            yield
        finally:
            with torch.no_grad():
                for weight, old in zip(self._weights, before, strict=True):
                    weight.copy_(old)

    @contextmanager
    def _statistics_kept(self) -> Iterator[None]:
        """Inside, running statistics may change; afterwards they are as before."""
        kept = [buffer.clone() for buffer in self.supernet.buffers()]
        yield
        for buffer, old in zip(self.supernet.buffers(), kept, strict=True):
            buffer.copy_(old)
