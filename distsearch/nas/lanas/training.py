"""The network of a cell, and its training, which looks at the test part once at most."""

from __future__ import annotations

from typing import Any

import torch

from ...data import Facts, Images, load_images
from ...train import process_group
from ..network import CellNetwork, parameters
from ..operations import NASNET
from ..ranks import Ranks
from ..recipes import LARGE_SIDE
from ..retrain import Training
from ..training import run_epochs, seed_everything
from .cells import genotype_of


def train(args: Any, reporter: Any) -> None:
    """Train a cell; see `distsearch.nas.lanas.trials.train_cell`."""
    images = load_images(args.data, args.data_root)
    with process_group() as device:
        network = network_of(args, images.facts)
        training = CellTraining(network, images, args, Ranks(), device)
        run_epochs(training, args.epochs, reporter, reporter.load())


def network_of(args: Any, facts: Facts) -> CellNetwork:
    """The network of a cell and settings for a data set; its weights come from the seed."""
    seed_everything(args.seed)
    return CellNetwork(
        genotype_of(list(args.operations), list(args.inputs)),
        channels=args.channels,
        layers=args.layers,
        classes=len(facts.classes),
        channels_in=facts.shape[0],
        auxiliary=args.auxiliary > 0,
        large=max(facts.shape[1:]) >= LARGE_SIDE,
        operations=NASNET,
    )


class CellTraining(Training):
    """The training of a cell's network, compared on the validation part."""

    def __init__(
        self,
        network: CellNetwork,
        images: Images,
        args: Any,
        ranks: Ranks,
        device: torch.device,
    ) -> None:
        super().__init__(network, images, args, ranks, device)
        self.count = parameters(network)

    def train(self, epoch: int) -> dict[str, Any]:
        """Train one epoch, counted from 0; returns what is reported of the epoch."""
        report = {**super().train(epoch), "parameters": self.count}
        if self.args.test and self.done == self.args.epochs:
            whole = torch.arange(len(self.pixels.images.test))
            report["test_accuracy"] = self.score(self.pixels.test, whole).accuracy
        return report
