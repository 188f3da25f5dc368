"""A real network: find how to train it on handwritten digits, then train it and test it once.

    pip install torch scikit-learn
    python tutorials/02_digits_torch.py

The 1,797 digits (8 x 8 pixels, they come with scikit-learn) are split in three: trials learn from
the training part, the search compares them on the validation part, and the test part is not looked
at before the very end. `make demo` runs this file.
"""

from __future__ import annotations

import argparse
import functools
import itertools
from dataclasses import dataclass

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn

import distsearch as ag

# The space. An option of a Choice may have parameters of its own: only a trial that draws `conv`
# draws `channels`, and only one that draws `sgd` draws `momentum`. With `@ag.obj` and `@ag.func`
# the train function gets the finished thing: args.network is a Dense or a Conv, args.optimizer is
# what `sgd` or `adamw` returned.


@ag.obj(hidden=ag.Int(32, 256, log=True), layers=ag.Int(1, 3), dropout=ag.Real(0.0, 0.5))
@dataclass
class Dense:
    """Fully connected layers."""

    hidden: int
    layers: int
    dropout: float

    def build(self) -> nn.Module:
        widths = [64, *[self.hidden] * self.layers]
        parts: list[nn.Module] = [nn.Flatten()]
        for before, after in itertools.pairwise(widths):
            parts += [nn.Linear(before, after), nn.ReLU(), nn.Dropout(self.dropout)]
        return nn.Sequential(*parts, nn.Linear(self.hidden, 10))


@ag.obj(channels=ag.Int(8, 24, log=True), dropout=ag.Real(0.0, 0.5))
@dataclass
class Conv:
    """Two convolutions, then one linear layer."""

    channels: int
    dropout: float

    def build(self) -> nn.Module:
        return nn.Sequential(
            nn.Conv2d(1, self.channels, 3, padding=1),
            nn.BatchNorm2d(self.channels),
            nn.ReLU(),
            nn.MaxPool2d(2),
            nn.Conv2d(self.channels, 2 * self.channels, 3, padding=1),
            nn.BatchNorm2d(2 * self.channels),
            nn.ReLU(),
            nn.Flatten(),
            nn.Dropout(self.dropout),
            nn.Linear(2 * self.channels * 16, 10),
        )


@ag.func(lr=ag.Real(1e-2, 5e-1, log=True), momentum=ag.Real(0.5, 0.95))
def sgd(lr, momentum):
    return functools.partial(torch.optim.SGD, lr=lr, momentum=momentum, nesterov=True)


@ag.func(lr=ag.Real(5e-4, 5e-2, log=True), weight_decay=ag.Real(1e-4, 1e-1, log=True))
def adamw(lr, weight_decay):
    return functools.partial(torch.optim.AdamW, lr=lr, weight_decay=weight_decay)


@ag.args(
    network=ag.Choice(Conv, Dense),
    optimizer=ag.Choice(sgd, adamw),
    batch_size=ag.Choice(32, 64, 128),
    epochs=12,
    final=False,  # True: learn from training + validation, measure on test
    seed=0,
)
def train_digits(args, reporter):
    torch.manual_seed(args.seed)  # the same weights, batches and dropout every time
    device = "cuda" if args.num_gpus else "cpu"  # a trial sees only the GPU that was leased to it
    (images, labels), (held_out_images, held_out_labels) = digits(args.final, device)

    network = args.network.build().to(device)
    optimizer = args.optimizer(network.parameters())
    schedule = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, args.epochs)
    for epoch in range(1, args.epochs + 1):
        network.train()
        for batch in torch.randperm(len(images)).split(args.batch_size):
            optimizer.zero_grad()
            loss = nn.functional.cross_entropy(network(images[batch]), labels[batch])
            loss.backward()
            optimizer.step()
        schedule.step()
        network.eval()
        with torch.no_grad():
            guesses = network(held_out_images).argmax(1)
        accuracy = (guesses == held_out_labels).float().mean().item()
        # The metric that the search compares, once per epoch: these points become the curves.
        reporter(epoch=epoch, accuracy=accuracy, loss=loss.item())

    weights = reporter.save(network.state_dict()) if args.final else None
    return {"accuracy": accuracy, "weights": str(weights)}  # for run_with_config


def digits(final, device):
    """What to learn from and what to measure on: train and validation, or if `final` both and test.

    Always the same split: 60% train, 20% validation, 20% test, each with its share of every digit.
    """
    images, labels = load_digits(return_X_y=True)
    images = torch.tensor(images, dtype=torch.float32, device=device).view(-1, 1, 8, 8) / 16
    labels = torch.tensor(labels, device=device)
    everything = range(len(labels))
    rest, test = train_test_split(everything, test_size=0.2, stratify=labels.cpu(), random_state=0)
    train, validation = train_test_split(
        rest, test_size=0.25, stratify=labels.cpu()[rest], random_state=0
    )
    learn, measure = (rest, test) if final else (train, validation)
    return (images[learn], labels[learn]), (images[measure], labels[measure])


def main():
    parser = argparse.ArgumentParser(description="Search for a network that reads digits.")
    parser.add_argument("--trials", type=int, default=20, help="how many (default: 20)")
    parser.add_argument("--gpus", type=float, default=0, help="per trial; 0.25: four share a GPU")
    parser.add_argument("--curves", help="where to write the picture of the curves")
    options = parser.parse_args()
    resource = {"num_cpus": 1, "num_gpus": options.gpus}

    print(f"Searching: {options.trials} trials, as many at a time as there are free CPUs.")
    with ag.scheduler.FIFOScheduler(train_digits, resource=resource, seed=0) as scheduler:
        scheduler.run(num_trials=options.trials)
        scheduler.join_jobs()
        best_config = scheduler.get_best_config()
        print(f"\nBest validation accuracy: {scheduler.get_best_reward():.4f}")
        print("Best configuration:")
        for name, value in best_config.items():
            print(f"    {name}: {round(value, 6) if isinstance(value, float) else value}")
        picture = options.curves or str(scheduler.folder / "curves.png")
        scheduler.get_training_curves(filename=picture)

    # The best configuration once more, on training + validation. `args=` replaces the constant
    # `final`, so that this is the first and only time that the test part is used.
    with ag.scheduler.FIFOScheduler(
        train_digits, args={"final": True}, resource=resource, verbose=0
    ) as scheduler:
        result = scheduler.run_with_config(best_config)
    print(f"Test accuracy of this configuration: {result['accuracy']:.4f}")
    print(f"Trained weights (safetensors):       {result['weights']}")
    print(f"Picture of the training curves:      {picture}")


if __name__ == "__main__":
    main()
