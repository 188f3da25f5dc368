"""The training of a network of cells from scratch, between its epochs."""

from __future__ import annotations

import time
from dataclasses import replace
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional

from ..data import Facts, Images, load_images
from ..data.augment import usual
from ..data.splits import split
from ..train import process_group
from .genotype import of_text
from .network import CellNetwork
from .ranks import Ranks
from .recipes import LARGE_SIDE, check
from .training import (
    Epoch,
    Pixels,
    Score,
    Tally,
    about,
    check_loss,
    cosine,
    evaluate,
    linear,
    peak_memory_mb,
    reduced_precision,
    run_epochs,
    seed_everything,
    set_lr,
)

SCHEDULES = {"cosine": cosine, "linear": linear}


def train(args: Any, reporter: Any) -> None:
    """Train the network of a genotype; see `distsearch.nas.trials.train_network`."""
    images = load_images(args.data, args.data_root)
    saved = reporter.load()  # when a child starts for the first time, this is its parent's
    own = saved if saved is not None and "network" in saved else None
    with process_group() as device:
        training = Training(network_of(args, images.facts), images, args, Ranks(), device)
        run_epochs(training, args.epochs, reporter, own)


def network_of(args: Any, facts: Facts) -> CellNetwork:
    """The network of a genotype and settings for a data set; its weights come from the seed."""
    seed_everything(args.seed)
    return CellNetwork(
        of_text(args.genotype, "genotype"),
        channels=args.channels,
        layers=args.layers,
        classes=len(facts.classes),
        channels_in=facts.shape[0],
        auxiliary=args.auxiliary > 0,
        large=max(facts.shape[1:]) >= LARGE_SIDE,
    )


class Training:
    """The training of a network of cells, between two epochs.

        with process_group() as device:
            training = Training(network, load_images("digits"), args, Ranks(), device)
            run_epochs(training, args.epochs, reporter, reporter.load())

    `network` takes images and the probability of drop-path, and gives logits and those of an
    auxiliary head, or None. `args`: the settings, with `seed`.
    """

    def __init__(
        self,
        network: nn.Module,
        images: Images,
        args: Any,
        ranks: Ranks,
        device: torch.device,
    ) -> None:
        count = len(images.train)
        check(args, count, ranks.world_size)
        self.args, self.ranks, self.device = args, ranks, device
        self.pixels = Pixels.of(images, self.device)
        self.augmentation = replace(usual(images.facts), cutout=args.cutout)
        if args.validation:
            shares = (1 - args.validation, args.validation)
            self.learn, self.compared = split(count, shares, args.seed)
            self.batch_of = self.pixels.train
        else:
            self.learn, self.compared = torch.arange(count), torch.arange(len(images.test))
            self.batch_of = self.pixels.test
        self.network = network.to(self.device)
        if args.precision == "bf16":
            self.network.to(memory_format=torch.channels_last)
        self.parameters = list(network.parameters())
        self.optimizer = torch.optim.SGD(
            self.parameters, lr=args.lr, momentum=args.momentum, weight_decay=args.weight_decay
        )
        self.about = about(args, images)
        self.done = 0

    def train(self, epoch: int) -> dict[str, Any]:
        """Train one epoch, counted from 0; returns what is reported of the epoch."""
        args = self.args
        seed_everything(args.seed, epoch, self.ranks.rank)
        lr = SCHEDULES[args.schedule](args.lr, epoch, args.epochs)
        set_lr(self.optimizer, lr)
        start = time.perf_counter()
        tally = Tally(self.device)
        batches = Epoch(
            self.pixels,
            self.learn,
            batch_size=args.batch_size,
            ranks=self.ranks,
            augmentation=self.augmentation,
            seeds=(args.seed, epoch),
        )
        self.network.train()
        for images, labels in batches:
            self._step(images, labels, args.drop_path * epoch / args.epochs, tally)
        trained = tally.score(self.ranks)
        seconds = time.perf_counter() - start
        check_loss(trained.loss, epoch + 1, args.epochs, lr)
        self.ranks.average_buffers(self.network)
        self.done = epoch + 1
        score = self.score(self.batch_of, self.compared)
        return {
            "epoch": self.done,
            "loss": trained.loss,
            "train_accuracy": trained.accuracy,
            "accuracy": score.accuracy,
            "top5": score.top5,
            "lr": lr,
            "images_per_s": round(len(batches) * args.batch_size / seconds, 1),
            "peak_memory_mb": self.ranks.gathered(peak_memory_mb(self.device), self.device),
        }

    def _step(self, images: Tensor, labels: Tensor, drop: float, tally: Tally) -> None:
        smoothing = self.args.label_smoothing
        with reduced_precision(self.device, self.args.precision):
            logits, auxiliary = self.network(images, drop)
        logits = logits.float()
        loss = functional.cross_entropy(logits, labels, label_smoothing=smoothing)
        both = loss
        if auxiliary is not None:
            second = functional.cross_entropy(auxiliary.float(), labels, label_smoothing=smoothing)
            both = loss + self.args.auxiliary * second
        self.optimizer.zero_grad(set_to_none=True)
        both.backward()
        self.ranks.average(p.grad for p in self.parameters if p.grad is not None)
        nn.utils.clip_grad_norm_(self.parameters, self.args.clip)
        self.optimizer.step()
        tally.add(loss.detach(), logits.detach(), labels)

    def score(self, batch_of: Any, indices: Tensor) -> Score:
        """How well the network tells images apart."""

        def logits_of(images: Tensor) -> Tensor:
            with reduced_precision(self.device, self.args.precision):
                logits, _ = self.network(images)
            return logits

        return evaluate(logits_of, self.network, batch_of, indices, self.ranks)

    def state(self) -> dict[str, Any]:
        """What a checkpoint holds."""
        return {
            "epoch": self.done,
            "network": self.network.state_dict(),
            "optimizer": self.optimizer.state_dict(),
            **self.about,
        }

    def go_on_from(self, state: dict[str, Any]) -> None:
        """Take over what a checkpoint holds."""
        self.done = state["epoch"]
        self.network.load_state_dict(state["network"])
        self.optimizer.load_state_dict(state["optimizer"])
