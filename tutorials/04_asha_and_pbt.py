"""Train less: ASHA pauses what looks hopeless, PBT changes hyperparameters while it trains.

    pip install torch scikit-learn
    python tutorials/04_asha_and_pbt.py                        # handwritten digits, no download
    python tutorials/04_asha_and_pbt.py --data mnist.npz       # MNIST itself, if you have it

Two ways to spend fewer epochs than full training, on the same train function:

*ASHA* (Hyperband by promotion) gives every configuration one epoch, the best third of them three,
the best third of those nine, and so on. Who is not among the best is paused with a checkpoint, and
goes on, on whichever node is free, as soon as the others turn out worse.

*PBT* trains a population. Every few epochs the worst members end, and copies of the best go on in
their place: with the weights of the best, and with hyperparameters that differ a little. What it
finds is not one learning rate but a schedule of them.

Without `--data` the images are the 1,797 digits that come with scikit-learn, enlarged to MNIST's 28
x 28 pixels and moved about. An `mnist.npz` holds x_train (images, 28, 28), y_train, x_test, y_test;
only 5,000 of its images are used, so that this ends within a minute.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn

import distsearch as ag
from distsearch.core import checkpoint

USED = 5000  # images, of which a fifth is for validation


# One function for both. What they need of it are the lines with `reporter`: it goes on from the
# checkpoint that `load` gives, and saves one before each report, as a trial may be paused at it.
@ag.args(
    lr=ag.Real(1e-4, 1e0, log=True),
    momentum=ag.Real(0.0, 0.98),
    weight_decay=ag.Real(1e-6, 1e-2, log=True),
    epochs=27,
    data=None,
)
def train_fn(args, reporter):
    torch.manual_seed(0)
    (images, labels), (held_out_images, held_out_labels) = read_images(args.data)
    network = nn.Sequential(nn.Flatten(), nn.Linear(784, 64), nn.ReLU(), nn.Linear(64, 10))
    optimizer = torch.optim.SGD(network.parameters(), lr=0.1, momentum=0.9)
    done = 0

    state = reporter.load()  # None when the trial is new
    if state is not None:
        # Its own checkpoint after a pause; that of its parent if PBT has just copied that one.
        network.load_state_dict(state["network"])
        optimizer.load_state_dict(state["optimizer"])
        done = state["epochs"]
    for group in optimizer.param_groups:  # after loading: a copy has other values than its parent
        group.update(lr=args.lr, momentum=args.momentum, weight_decay=args.weight_decay)

    for epoch in range(done + 1, args.epochs + 1):
        for batch in torch.randperm(len(images)).split(64):
            optimizer.zero_grad()
            nn.functional.cross_entropy(network(images[batch]), labels[batch]).backward()
            optimizer.step()
        with torch.no_grad():
            guesses = network(held_out_images).argmax(1)
        reporter.save(
            {
                "network": network.state_dict(),
                "optimizer": optimizer.state_dict(),
                "epochs": epoch,
            },
            step=epoch,
        )
        accuracy = (guesses == held_out_labels).float().mean().item()
        reporter(epoch=epoch, accuracy=accuracy)


def read_images(path):
    """(images, labels) to learn from and to compare on: always the same, of shape (n, 28, 28)."""
    if path is not None:
        with np.load(path) as file:
            images, labels = file["x_train"], file["y_train"]
        some = np.random.default_rng(0).permutation(len(labels))[:USED]
        images, labels = images[some] / 255, labels[some]
    else:
        rng = np.random.default_rng(0)
        small = load_digits()
        labels = small.target
        images = np.pad(np.kron(small.images / 16, np.ones((1, 3, 3))), ((0, 0), (0, 4), (0, 4)))
        for number, (down, right) in enumerate(rng.integers(5, size=(len(labels), 2))):
            images[number] = np.roll(images[number], (down, right), axis=(0, 1))
    images, labels = torch.tensor(images, dtype=torch.float32), torch.tensor(labels).long()
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    held_out, rest = order[: len(order) // 5], order[len(order) // 5 :]
    return (images[rest], labels[rest]), (images[held_out], labels[held_out])


def run_asha(data, num_trials):
    print(f"ASHA: {num_trials} configurations")
    with ag.scheduler.HyperbandScheduler(
        train_fn,
        args={"data": data},
        type="promotion",
        max_t=27,
        grace_period=1,
        reduction_factor=3,
        seed=0,
    ) as scheduler:
        print(scheduler.plan(num_trials=num_trials))  # before anything starts
        scheduler.run(num_trials=num_trials)
        scheduler.join_jobs()

    curves = scheduler.get_training_curves()
    spent, full = sum(map(len, curves.values())), 27 * len(curves)
    resumed = sum(trial.attempt > 1 for trial in scheduler.trials)
    print(f"\nASHA trained {spent} epochs in place of {full}: {full / spent:.1f} times fewer")
    print(f"{resumed} of {len(curves)} trials were paused and went on later")
    print(f"best accuracy: {scheduler.get_best_reward():.4f} (task {scheduler.get_best_task_id()})")
    print(f"best configuration: {rounded(scheduler.get_best_config())}")
    return scheduler


def run_pbt(data, population):
    print(f"\nPBT: a population of {population}")
    with ag.scheduler.PBTScheduler(
        train_fn,
        args={"data": data},
        population_size=population,
        max_t=27,
        perturbation_interval=3,
        quantile_fraction=0.25,
        seed=0,
    ) as scheduler:
        scheduler.run()
        scheduler.join_jobs()

    spent = sum(map(len, scheduler.get_training_curves().values()))
    print(f"\nPBT trained {spent} epochs; {len(scheduler.trials) - population} members are copies")
    print(f"best accuracy: {scheduler.get_best_reward():.4f} (task {scheduler.get_best_task_id()})")
    print("how the best came about (its schedule):")
    for trial_id, first, last in schedule_of(scheduler, scheduler.get_best_task_id()):
        config = rounded(scheduler.config_history[trial_id])
        print(f"    epochs {first:2} to {last:2}: task {trial_id:2} with {config}")

    # What PBT has found are weights, which no single configuration would train again. The trials'
    # checkpoints are in the experiment's folder.
    folder = scheduler.folder / "trials" / str(scheduler.get_best_task_id()) / "checkpoints"
    state = checkpoint.load(folder)
    print(f"its weights after {state['epochs']} epochs are below {folder}")
    return scheduler


def schedule_of(scheduler, trial_id):
    """[(task, first epoch, last epoch)] of a trial and its ancestors, the oldest first."""
    curves = scheduler.get_training_curves()
    (last, _), found = curves[trial_id][-1], []
    while True:
        first, _ = curves[trial_id][0]
        parents = scheduler.trials[trial_id].parents
        if last >= first:
            found.append((trial_id, int(first if parents else 1), int(last)))
        if not parents:
            return found[::-1]
        trial_id, last = parents[0], min(last, first - 1)


def rounded(config):
    return {name: float(f"{value:.2g}") for name, value in config.items()}


def draw(asha, pbt, picture):
    """Every curve of both searches, and the learning rates that PBT has used."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(15, 4.8), layout="constrained")
    left, middle, right = figure.subplots(1, 3)
    left.set_title(f"ASHA: {len(asha.trials)} configurations, few of them train long")
    for task, curve in asha.get_training_curves().items():
        is_best = task == asha.get_best_task_id()
        look = {"color": "tab:red", "lw": 2.5} if is_best else {"color": "tab:blue", "alpha": 0.5}
        left.plot(*zip(*curve, strict=True), marker=".", **look)
    for level in (1, 3, 9):
        left.axvline(level, color="grey", lw=0.8, ls=":")
    left.set_ylabel("validation accuracy")

    middle.set_title("PBT: copies go on where their parents were")
    right.set_title("PBT: learning rates; red: how the best came about")
    lr_of = {task: config["lr"] for task, config in pbt.config_history.items()}
    for task, curve in pbt.get_training_curves().items():
        epochs, accuracies = zip(*curve, strict=True)
        middle.plot(epochs, accuracies, color="tab:blue", alpha=0.6)
        draw_rates(right, pbt.trials[task], epochs[0], epochs[-1], lr_of, color="tab:blue")
    for task, first, last in schedule_of(pbt, pbt.get_best_task_id()):
        part = [(epoch, y) for epoch, y in pbt.get_training_curves()[task] if epoch <= last]
        middle.plot(*zip(*part, strict=True), color="tab:red", lw=2.5)
        draw_rates(right, pbt.trials[task], first, last, lr_of, color="tab:red", lw=2.5)
    right.set_yscale("log")
    right.set_ylabel("learning rate")
    for axes in (left, middle, right):
        axes.set_xlabel("epoch")
    middle.set_ylim(left.get_ylim())
    figure.savefig(picture, dpi=110)


def draw_rates(axes, trial, first, last, lr_of, **look):
    """A trial's learning rate over its epochs, and a dotted line from that of its parent."""
    lr = lr_of[trial.id]
    axes.plot([first - 1, last], [lr, lr], **look)
    for parent in trial.parents:
        axes.plot([first - 1, first - 1], [lr_of[parent], lr], ls=":", **look)


def main():
    parser = argparse.ArgumentParser(description="ASHA and PBT on images of MNIST's size.")
    parser.add_argument("--data", help="an mnist.npz; without it, scikit-learn's digits")
    parser.add_argument("--trials", type=int, default=27, help="of ASHA (default: 27)")
    parser.add_argument("--population", type=int, default=8, help="of PBT (default: 8)")
    options = parser.parse_args()
    # Trials need not run where this program does, so they get the whole path.
    data = None if options.data is None else os.path.abspath(options.data)

    asha = run_asha(data, options.trials)
    pbt = run_pbt(data, options.population)
    picture = Path(pbt.folder) / "asha_and_pbt.png"
    draw(asha, pbt, picture)
    print(f"picture of all curves: {picture}")


if __name__ == "__main__":
    main()
