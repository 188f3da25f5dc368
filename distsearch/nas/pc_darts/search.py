"""The search: a supernet and its architecture are trained, epoch by epoch.

Half of the training images teach the weights, the other half the architecture.
"""

from __future__ import annotations

import time
from typing import Any

import torch

from ...data import halves, load_images
from ...data.augment import usual
from ...train import process_group
from ..ranks import Ranks
from ..training import (
    Epoch,
    Pixels,
    Score,
    Tally,
    about,
    check_loss,
    cosine,
    evaluate,
    peak_memory_mb,
    run_epochs,
    seed_everything,
    set_lr,
)
from .settings import check, operations_of
from .steps import Steps
from .supernet import Architecture, Supernet

ARCH_BETAS = (0.5, 0.999)  # Adam's betas for the architecture
LEARN, HELD_OUT = 0, 1  # the two halves of the images: numbers that seed their orders


def train(args: Any, reporter: Any) -> None:
    """Search; see `distsearch.nas.pc_darts.trials.train_supernet`."""
    with process_group() as device:
        run_epochs(Search(args, Ranks(), device), args.epochs, reporter, reporter.load())


class Search:
    """A search between two epochs."""

    def __init__(self, args: Any, ranks: Ranks, device: torch.device) -> None:
        self.args, self.ranks, self.device = args, ranks, device
        images = load_images(args.data, args.data_root)
        check(args, len(images.train) // 2, ranks.world_size)
        self.pixels = Pixels.of(images, self.device)
        self.augmentation = usual(images.facts)
        self.learn, self.held_out = halves(len(images.train), args.seed)
        seed_everything(args.seed)  # the same weights on all ranks
        operations = operations_of(args.operations)
        self.supernet = Supernet(
            channels=args.channels,
            layers=args.layers,
            classes=len(images.classes),
            channels_in=images.shape[0],
            part=args.part,
            operations=operations,
        ).to(self.device)
        self.architecture = Architecture(args.edge_normalisation, operations).to(self.device)
        if args.precision == "bf16":
            self.supernet.to(memory_format=torch.channels_last)
        self.of_weights = torch.optim.SGD(
            self.supernet.parameters(),
            lr=args.lr,
            momentum=args.momentum,
            weight_decay=args.weight_decay,
        )
        self.of_architecture = torch.optim.Adam(
            self.architecture.parameters(),
            lr=args.arch_lr,
            betas=ARCH_BETAS,
            weight_decay=args.arch_weight_decay,
        )
        self.steps = Steps(
            self.supernet,
            self.architecture,
            self.of_weights,
            self.of_architecture,
            ranks,
            clip=args.clip,
            second_order=args.second_order,
            precision=args.precision,
        )
        self.about = about(args, images)
        self.done = 0

    def train(self, epoch: int) -> dict[str, Any]:
        """Train one epoch, counted from 0; returns what is reported of the epoch."""
        args = self.args
        seed_everything(args.seed, epoch, self.ranks.rank)
        lr = cosine(args.lr, epoch, args.epochs)
        set_lr(self.of_weights, lr)
        start = time.perf_counter()
        tally = Tally(self.device)
        learn, held_out = self._batches(epoch, LEARN), self._batches(epoch, HELD_OUT)
        for learned_from, compared_on in zip(learn, held_out, strict=True):
            if epoch >= args.warm_up:
                self.steps.architecture(compared_on, learned_from)
            self.steps.weights(learned_from, tally)
        trained = tally.score(self.ranks)
        seconds = time.perf_counter() - start
        check_loss(trained.loss, epoch + 1, args.epochs, lr)
        same = self.ranks.check_alike(list(self.architecture.parameters()), "the architecture")
        self.ranks.average_buffers(self.supernet)
        self.done = epoch + 1
        score = self.score(self.pixels.train, self.held_out)
        report = {
            "epoch": self.done,
            "loss": trained.loss,
            "train_accuracy": trained.accuracy,
            "accuracy": score.accuracy,
            "top5": score.top5,
            "lr": lr,
            "architecture": same,
            "images_per_s": round(len(learn) * args.batch_size / seconds, 1),
            "peak_memory_mb": self.ranks.gathered(peak_memory_mb(self.device), self.device),
        }
        if self.done == args.epochs:
            test = self.score(self.pixels.test, torch.arange(len(self.pixels.images.test)))
            report["test_accuracy"] = test.accuracy
            report["genotype"] = self.architecture.genotype().as_json()
        return report

    def score(self, batch_of: Any, indices: torch.Tensor) -> Score:
        """How well the supernet tells images apart."""
        return evaluate(self.steps.logits, self.supernet, batch_of, indices, self.ranks)

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds."""
        return {
            "epoch": self.done,
            "supernet": self.supernet.state_dict(),
            "architecture": self.architecture.state_dict(),
            "of_weights": self.of_weights.state_dict(),
            "of_architecture": self.of_architecture.state_dict(),
            "genotype": self.architecture.genotype().as_text(),
            **self.about,
        }

    def go_on_from(self, state: dict[str, Any]) -> None:
        """Take over what a checkpoint holds."""
        self.done = state["epoch"]
        self.supernet.load_state_dict(state["supernet"])
        self.architecture.load_state_dict(state["architecture"])
        self.of_weights.load_state_dict(state["of_weights"])
        self.of_architecture.load_state_dict(state["of_architecture"])

    def _batches(self, epoch: int, half: int) -> Epoch:
        return Epoch(
            self.pixels,
            self.held_out if half == HELD_OUT else self.learn,
            batch_size=self.args.batch_size,
            ranks=self.ranks,
            augmentation=self.augmentation,
            seeds=(self.args.seed, epoch, half),
        )
