"""The train function of a LaNAS cell; a driver needs no torch to hold it.

scheduler = FIFOScheduler(train_cell, searcher="lanas", args={"data": "digits", "epochs": 10})
"""

from __future__ import annotations

from typing import Any

from ...core.decorators import args as arguments
from ..recipes import SMALL
from .cells import VALIDATION, parts


@arguments(
    data="digits",
    data_root=None,
    seed=0,
    **{**SMALL, "validation": VALIDATION},
    test=False,
    **parts(),
)
def train_cell(args: Any, reporter: Any) -> None:
    """Train the network of a cell; the settings are those of `recipes.settings_for`.

    Reports for each epoch what `nas.trials.train_network` does, `accuracy` on the validation part,
    by which cells are chosen, and `parameters`. With `test` it also reports, after the last epoch
    alone, `test_accuracy`. Goes on from the last epoch that was saved.

    Raises, and so ends the trial: DataError, OptionError, and Diverged when the loss
    becomes NaN.
    """
    import torch  # noqa: F401  # named here, it is imported once for all trials of a node

    from . import training

    training.train(args, reporter)
