"""The train function of a PC-DARTS search; a driver needs no torch to hold it.

scheduler = FIFOScheduler(
    train_supernet,
    args={"data": "digits", "seed": Choice(0, 1, 2)},   # three searches
    searcher="grid",
    resource={"num_cpus": 1, "world_size": 2},          # each of two ranks
)
"""

from __future__ import annotations

from typing import Any

from ...core.decorators import args as arguments
from .settings import SMALL


@arguments(data="digits", data_root=None, seed=0, **SMALL)
def train_supernet(args: Any, reporter: Any) -> None:
    """Search; the settings are those of `settings_for`.

    Reports for each epoch `loss` and `train_accuracy` of the weights, `accuracy` and `top5` on the
    held-out half, `lr`, `images_per_s` of all ranks, `peak_memory_mb` of each, and `architecture`,
    the hash of alpha and beta, which is the same on all ranks. The last one has `test_accuracy` and
    the `genotype`. Goes on from the last epoch that was saved.

    Raises, and so ends the trial: DataError, OptionError, and Diverged when the loss
    becomes NaN.
    """
    import torch  # noqa: F401  # named here, it is imported once for all trials of a node

    from . import search

    search.train(args, reporter)
