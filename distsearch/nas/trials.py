"""The train function of a network of cells; a driver needs no torch to hold it.

scheduler = FIFOScheduler(train_network, args={"genotype": genotype.as_text(), "epochs": 600})
"""

from __future__ import annotations

from typing import Any

from ..core.decorators import args as arguments
from .genotype import NAMED
from .recipes import SMALL


@arguments(
    data="digits",
    data_root=None,
    seed=0,
    genotype=NAMED["pc-darts-cifar10"].as_text(),
    **SMALL,
)
def train_network(args: Any, reporter: Any) -> None:
    """Train the network of a genotype; the settings are those of `settings_for`.

    Reports for each epoch `loss` and `train_accuracy`, `accuracy` and `top5` on the validation part
    (or the test part, where there is none), `lr`, `images_per_s` of all ranks and `peak_memory_mb`
    of each. Goes on from the last epoch that was saved.

    Raises, and so ends the trial: DataError, OptionError, SpaceError, and Diverged when
    the loss becomes NaN.
    """
    import torch  # noqa: F401  # named here, it is imported once for all trials of a node

    from . import retrain

    retrain.train(args, reporter)
