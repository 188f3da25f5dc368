"""What the ranks of a trial do together: the mean of gradients, sums, and being alike."""

from __future__ import annotations

import hashlib
from collections.abc import Iterable, Sequence

import torch
from torch import Tensor, distributed, nn


class Ranks:
    """This process among the ranks of its trial, as torch.distributed knows them; else alone.

        with process_group():
            ranks = Ranks()
            gradients = torch.autograd.grad(loss, parameters)
            ranks.average(gradients)

    Every rank has to call the same methods in the same order.
    """

    def __init__(self) -> None:
        together = distributed.is_available() and distributed.is_initialized()
        self.rank: int = distributed.get_rank() if together else 0
        self.world_size: int = distributed.get_world_size() if together else 1

    def average(self, tensors: Iterable[Tensor]) -> None:
        """Make each tensor the mean over all ranks, in place: one message for all of them."""
        own = list(tensors)
        if self.world_size == 1 or not own:
            return
        flat = torch.cat([tensor.detach().flatten() for tensor in own])
        distributed.all_reduce(flat)
        flat /= self.world_size
        for tensor, mean in zip(own, flat.split([t.numel() for t in own]), strict=True):
            tensor.detach().copy_(mean.view_as(tensor))

    def average_buffers(self, network: nn.Module) -> None:
        """Give all ranks the mean of their running statistics, so that they evaluate alike."""
        self.average(buffer for buffer in network.buffers() if buffer.is_floating_point())

    def total(self, values: Tensor) -> Tensor:
        """The sum over all ranks."""
        if self.world_size > 1:
            values = values.clone()
            distributed.all_reduce(values)
        return values

    def gathered(self, value: float, device: torch.device) -> list[float]:
        """The value of every rank, by rank."""
        own = torch.tensor([value], dtype=torch.float64, device=device)
        if self.world_size == 1:
            return [value]
        parts = [torch.empty_like(own) for _ in range(self.world_size)]
        distributed.all_gather(parts, own)
        return [float(part) for part in parts]

    def check_alike(self, tensors: Sequence[Tensor], what: str) -> str:
        """The hash of tensors, which have to be the same on all ranks, bit for bit.

        Raises RuntimeError that names the ranks which differ from rank 0.
        """
        digest = hashlib.sha256()
        for tensor in tensors:
            digest.update(tensor.detach().cpu().contiguous().view(torch.uint8).numpy().tobytes())
        # 48 bits are exact in the floating-point numbers that travel.
        number = float(int.from_bytes(digest.digest()[:6], "big"))
        device = tensors[0].device
        everyone = self.gathered(number, device)
        if others := [rank for rank, of in enumerate(everyone) if of != everyone[0]]:
            raise RuntimeError(
                f"{what} is not alike on all ranks: {', '.join(map(str, others))} differ from "
                "rank 0, so that they have taken different steps"
            )
        return digest.hexdigest()[:12]
