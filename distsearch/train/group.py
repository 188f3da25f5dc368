"""The process group of a trial's ranks."""

from __future__ import annotations

import os
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from ..errors import ResourceError

if TYPE_CHECKING:
    import torch

ALONE = {
    "MASTER_ADDR": "127.0.0.1",
    "MASTER_PORT": "0",  # any that is free: nobody else has to know it
    "RANK": "0",
    "LOCAL_RANK": "0",
    "WORLD_SIZE": "1",
    "LOCAL_WORLD_SIZE": "1",
}


@contextmanager
def process_group() -> Iterator[torch.device]:
    """Join PyTorch's process group of all ranks of this trial, and leave it at the end.

        with process_group() as device:
            model = DistributedDataParallel(Net(args).to(device))

    Gloo on CPUs, NCCL on GPUs. Gives the device of this rank: its own GPU, or the CPU. A trial of
    one process is a group of one. Variables that are set (by distsearch for several ranks, by
    torchrun) are used and never overwritten. Raises ResourceError when only some of them are set,
    and when ranks would have to share a GPU.
    """
    import torch
    import torch.distributed as dist

    given = [name for name in ALONE if name in os.environ]
    if missing := [name for name in ALONE if given and name not in given]:
        raise ResourceError(
            f"{', '.join(given)} are set, {', '.join(missing)} not, and nothing is overwritten: "
            "unset the former, or set all of them, as torchrun and world_size= do"
        )
    own = {} if given else ALONE
    os.environ.update(own)
    try:
        device = torch.device("cpu")
        if torch.cuda.is_available():
            device = torch.device("cuda", _own_gpu(torch.cuda.device_count()))
            torch.cuda.set_device(device)
        dist.init_process_group("nccl" if device.type == "cuda" else "gloo")
        try:
            yield device
        finally:
            dist.destroy_process_group()
    finally:
        for name in own:
            os.environ.pop(name, None)


def _own_gpu(visible: int) -> int:
    """Which of the GPUs that the ranks of a node all see is the first of this rank's."""
    ranks = int(os.environ["LOCAL_WORLD_SIZE"])
    if visible < ranks:
        raise ResourceError(
            f"{ranks} ranks of this node see {visible} GPUs: two would share one, which NCCL "
            "refuses; ask for num_gpus=1 for each rank, or num_gpus=0 to use gloo on CPUs"
        )
    return int(os.environ["LOCAL_RANK"]) * (visible // ranks)
