"""Several objectives: networks that read digits well, and networks that are small.

    pip install torch scikit-learn
    python tutorials/07_several_objectives.py

The best network is large, the smallest is bad, and what is worth how much is not for the search to
decide. So it is asked for both, `reward_attr=["accuracy", "parameters"]`, and finds the Pareto
front: the networks for which no other is as accurate and smaller, or as small and more accurate.
You choose one of them. A constraint leaves out what is of no use at any size.
"""

from __future__ import annotations

import argparse
import itertools

import torch
from sklearn.datasets import load_digits
from sklearn.model_selection import train_test_split
from torch import nn

import distsearch as ag


@ag.args(
    width=ag.Int(4, 128, log=True),
    layers=ag.Int(1, 3),
    lr=ag.Real(5e-3, 3e-2, log=True),
    epochs=8,
    seed=0,
)
def train_digits(args, reporter):
    torch.manual_seed(args.seed)
    (images, labels), (held_out_images, held_out_labels) = digits()
    widths = [64, *[args.width] * args.layers]
    parts = []
    for before, after in itertools.pairwise(widths):
        parts += [nn.Linear(before, after), nn.ReLU()]
    network = nn.Sequential(*parts, nn.Linear(args.width, 10))
    parameters = sum(parameter.numel() for parameter in network.parameters())

    optimizer = torch.optim.AdamW(network.parameters(), lr=args.lr)
    for epoch in range(1, args.epochs + 1):
        for batch in torch.randperm(len(images)).split(64):
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(images[batch]), labels[batch]).backward()
            optimizer.step()
        with torch.no_grad():
            guesses = network(held_out_images).argmax(1)
        accuracy = (guesses == held_out_labels).float().mean().item()
        # Every objective in one report. Of a trial the last such report counts: that is the
        # network which it leaves behind.
        reporter(epoch=epoch, accuracy=accuracy, parameters=parameters)


def digits():
    """The 1,797 digits that come with scikit-learn: 75% to learn from, 25% to compare by."""
    images, labels = load_digits(return_X_y=True)
    split = train_test_split(images / 16, labels, test_size=0.25, stratify=labels, random_state=0)
    learn, measure, learn_labels, measure_labels = split
    return [
        (torch.tensor(x, dtype=torch.float32), torch.tensor(y))
        for x, y in ((learn, learn_labels), (measure, measure_labels))
    ]


def main():
    parser = argparse.ArgumentParser(description="Search for accurate and small networks.")
    parser.add_argument("--trials", type=int, default=24, help="how many (default: 24)")
    options = parser.parse_args()

    with ag.scheduler.FIFOScheduler(
        train_digits,
        reward_attr=["accuracy", "parameters"],
        mode=["max", "min"],
        constraints="accuracy >= 0.8",
        searcher="evolution",  # or 'nsga2', 'tpe', 'gp', 'random', ...
        search_options={"population": 12, "sample": 6, "mutation_probability": 0.5},
        seed=0,
    ) as scheduler:
        scheduler.run(num_trials=options.trials)
        scheduler.join_jobs()

        front = scheduler.get_pareto_front()
        print(f"\n{len(front)} of {options.trials} networks are in the Pareto front:")
        for task_id, config, values in front:
            print(
                f"task {task_id}: accuracy {values['accuracy']:.4f} with "
                f"{values['parameters']:.0f} parameters "
                f"(width {config['width']}, layers {config['layers']})"
            )
        picture = scheduler.folder / "front.png"
        scheduler.draw_pareto_front(picture)
        # One way to choose: the smallest that loses no more than a point to the most accurate.
        good_enough = front[0].values["accuracy"] - 0.01
        chosen = min(
            (member for member in front if member.values["accuracy"] >= good_enough),
            key=lambda member: member.values["parameters"],
        )
        print(f"Chosen, within 0.01 of the most accurate: task {chosen.task_id}")
        print(f"Picture of the front: {picture}")


if __name__ == "__main__":
    main()
