"""The first all-reduce of the processes that torchrun starts; needs torch, nothing of distsearch.

torchrun ... benchmarks/torchrun_peer.py FILE     # the first rank writes there when it was done
"""

from __future__ import annotations

import sys
import time
from pathlib import Path


def first_collective() -> tuple[float, bool]:
    """Join the group and add up a number; the time when that was done, and whether we are first."""
    import torch
    import torch.distributed as dist

    dist.init_process_group("gloo")
    total = torch.ones(1)
    dist.all_reduce(total)
    done = time.time()
    is_first = dist.get_rank() == 0
    dist.destroy_process_group()
    return done, is_first


def main(file: str) -> None:
    done, is_first = first_collective()
    if is_first:
        Path(file).write_text(repr(done))


if __name__ == "__main__":
    main(sys.argv[1])
