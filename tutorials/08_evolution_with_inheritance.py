"""Evolution of networks whose children inherit weights: they need not start from nothing.

    pip install torch scikit-learn
    python tutorials/08_evolution_with_inheritance.py                    # handwritten digits
    python tutorials/08_evolution_with_inheritance.py --data mnist.npz   # MNIST, if you have it

Regularised evolution mutates the best of a few random members of its population, and the oldest
member dies. With `inherit=True` each child names the one that it is a mutation of as its parent, so
it finds the parent's weights in `reporter.load()`.

But a child is another network than its parent. Which weights fit? Those of layers for which nothing
has changed, neither in themselves nor in what they read: `inherit` finds them by a hash of a layer
and of all its ancestors, and copies them. The others are trained from their random beginnings.

Here a network consists of four cells (a layer and its activation), each of which reads the image
or an earlier cell, and has a small head; the guess is the sum of all heads. Each trial trains for a
single epoch. To see what inheritance is worth, every child's architecture is trained once more,
from the same random weights and with the same batches, but without its parent.

Without `--data` the images are scikit-learn's 1,797 digits, enlarged to MNIST's size; of an
`mnist.npz` (x_train, y_train) 5,000 images are used.
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path
from statistics import median

import numpy as np
import torch
from sklearn.datasets import load_digits
from torch import nn

import distsearch as ag
from distsearch.train.inherit import Layer, inherit, state_by_hash

USED = 5000  # images, of which a fifth is for validation
CELLS = 4
ACTIVATIONS = {"relu": nn.ReLU, "tanh": nn.Tanh, "gelu": nn.GELU}


def cell(number):
    """What is searched of one cell; source 0 is the image, source 2 the second cell."""
    return ag.Dict(
        width=ag.Choice(16, 32, 64, 128),
        activation=ag.Choice(*ACTIVATIONS),
        source=ag.Choice(*range(number)),
    )


class Network(nn.Module):
    """Cells, and a head for each of them."""

    def __init__(self, cells):
        super().__init__()
        self.sources = [one.source for one in cells]
        widths = [784] + [one.width for one in cells]
        self.cells = nn.ModuleList(
            nn.Sequential(nn.Linear(widths[one.source], one.width), ACTIVATIONS[one.activation]())
            for one in cells
        )
        self.heads = nn.ModuleList(nn.Linear(one.width, 10) for one in cells)

    def forward(self, images):
        outputs = [images.flatten(1)]
        for source, one in zip(self.sources, self.cells, strict=True):
            outputs.append(one(outputs[source]))
        return sum(head(output) for head, output in zip(self.heads, outputs[1:], strict=True))

    @property
    def graph(self):
        """Which layer reads which: what `inherit` has to know. (An nn.Sequential needs none.)"""
        layers = {}
        for n, source in enumerate(self.sources):
            layers[f"cells.{n}"] = [f"cells.{source - 1}" if source else "image"]
            layers[f"heads.{n}"] = [f"cells.{n}"]
        return {**layers, "guess": Layer([f"heads.{n}" for n in range(CELLS)], "sum")}


@ag.args(cells=ag.List(*(cell(number) for number in range(1, CELLS + 1))), data=None, init=0)
def train_fn(args, reporter):
    (images, labels), held_out = read_images(args.data)
    torch.manual_seed(args.init)
    network = Network(args.cells)
    optimizer = torch.optim.Adam(network.parameters(), lr=1e-3)

    inherited = 0
    state = reporter.load()  # the parent's (after a restart its own); None without a parent
    if state is not None:
        inherited = len(inherit(network, state["layers"], network.graph).layers)
    loss_before, _ = evaluate(network, *held_out)
    for batch in torch.randperm(len(images)).split(64):
        optimizer.zero_grad()
        nn.functional.cross_entropy(network(images[batch]), labels[batch]).backward()
        optimizer.step()
    loss, accuracy = evaluate(network, *held_out)
    reporter.save({"layers": state_by_hash(network, network.graph)})
    reporter(
        epoch=1, accuracy=accuracy, loss=loss, loss_before=loss_before, inherited_layers=inherited
    )


def evaluate(network, images, labels):
    """The loss and the accuracy on images that are not trained on."""
    with torch.no_grad():
        guesses = network(images)
    loss = nn.functional.cross_entropy(guesses, labels)
    return loss.item(), (guesses.argmax(1) == labels).float().mean().item()


def read_images(path):
    """(images, labels) to learn from and to compare on: always the same, of shape (n, 28, 28)."""
    if path is not None:
        with np.load(path) as file:
            images, labels = file["x_train"], file["y_train"]
        some = np.random.default_rng(0).permutation(len(labels))[:USED]
        images, labels = images[some] / 255, labels[some]
    else:
        small = load_digits()
        labels = small.target
        images = np.pad(np.kron(small.images / 16, np.ones((1, 3, 3))), ((0, 0), (2, 2), (2, 2)))
    images, labels = torch.tensor(images, dtype=torch.float32), torch.tensor(labels).long()
    order = torch.randperm(len(labels), generator=torch.Generator().manual_seed(0))
    held_out, rest = order[: len(order) // 5], order[len(order) // 5 :]
    return (images[rest], labels[rest]), (images[held_out], labels[held_out])


def evolve(options, seed):
    """A search in which children inherit, still open, so that its lineage can be drawn."""
    scheduler = ag.scheduler.FIFOScheduler(
        train_fn,
        args={"data": options.data, "init": seed},
        # What starts before the first one has ended has no parent: on a large machine, all of it.
        local=ag.Node("localhost", num_cpus=min(os.cpu_count() or 1, options.population)),
        searcher="evolution",
        search_options={"population": options.population, "sample": 4, "inherit": True},
        seed=seed,
        verbose=0,  # configurations are long here
    )
    scheduler.run(num_trials=options.trials)
    scheduler.join_jobs()
    return scheduler


def from_scratch(options, seed, configs):
    """The same architectures, with the same random beginnings, but nobody's weights."""
    with ag.scheduler.FIFOScheduler(
        train_fn,
        args={"data": options.data, "init": seed},
        points_to_evaluate=configs,
        seed=seed,
        verbose=0,
    ) as scheduler:
        scheduler.run(num_trials=len(configs))
        scheduler.join_jobs()
        return [reports[0] for _, reports in sorted(scheduler.training_history.items())]


def main():
    parser = argparse.ArgumentParser(description="Evolution with inherited weights.")
    parser.add_argument("--data", help="an mnist.npz; without it, scikit-learn's digits")
    parser.add_argument("--trials", type=int, default=40, help="of each search (default: 40)")
    parser.add_argument("--population", type=int, default=8)
    parser.add_argument("--seeds", type=int, default=3, help="how many searches (default: 3)")
    options = parser.parse_args()
    if options.trials <= options.population:
        parser.error(f"--trials={options.trials}: the first {options.population} have no parents")
    # Trials need not run where this program does, so they get the whole path.
    options.data = None if options.data is None else os.path.abspath(options.data)

    pairs = []  # of each child: its report, and that of the same network from scratch
    for seed in range(options.seeds):
        print(f"search {seed + 1} of {options.seeds}: children inherit, then all from scratch")
        with evolve(options, seed) as scheduler:
            lineage, history = scheduler.lineage(), scheduler.training_history
            children = [task for task, of in lineage.items() if of.parents and task in history]
            print(f"    {len(lineage)} trials, of which {len(children)} are children")
            alone = from_scratch(options, seed, [lineage[child].config for child in children])
            of_seed = list(zip([history[child][0] for child in children], alone, strict=True))
            report_medians(f"    search {seed + 1}", of_seed)
            pairs += of_seed
            if seed == 0:
                first, best = scheduler, scheduler.get_best_task_id()
                picture = Path(scheduler.folder) / "lineage.png"
                scheduler.draw_lineage(picture)

    print()
    layers = [mine["inherited_layers"] for mine, _ in pairs]
    print(f"a child inherited {median(layers):g} of {2 * CELLS} layers (median)")
    report_medians("all searches", pairs)
    better = sum(mine["loss"] < other["loss"] for mine, other in pairs)
    print(f"{better} of {len(pairs)} children are better than the same network from scratch")
    print("(their inherited layers have been trained for more than this epoch: by their ancestors)")
    generation = first.lineage()[best].generation
    print(f"best of the first search: task {best}, of generation {generation}")
    draw(pairs, Path(first.folder) / "inheritance.png")
    print(f"picture of the lineage: {picture}")
    print(f"picture of the losses: {Path(first.folder) / 'inheritance.png'}")


def report_medians(of, pairs):
    for when, name in (("before", "loss_before"), ("after", "loss")):
        inherited, scratch = (median(one[side][name] for one in pairs) for side in (0, 1))
        print(
            f"{of}: median loss {when} the first epoch: {inherited:.3f} with inheritance, "
            f"{scratch:.3f} from scratch"
        )


def draw(pairs, picture):
    """Each child as a dot: its loss from scratch across, with inheritance up."""
    from matplotlib.figure import Figure

    figure = Figure(figsize=(11, 5.2), layout="constrained")
    for axes, when, name in zip(
        figure.subplots(1, 2), ("before", "after"), ("loss_before", "loss"), strict=True
    ):
        inherited, scratch = ([one[side][name] for one in pairs] for side in (0, 1))
        layers = [mine["inherited_layers"] for mine, _ in pairs]
        dots = axes.scatter(scratch, inherited, c=layers, cmap="viridis", s=24, zorder=3)
        ends = min(scratch + inherited), max(scratch + inherited)
        axes.plot(ends, ends, color="grey", ls=":", label="no difference")
        axes.axhline(median(inherited), color="tab:red", lw=1, label="medians")
        axes.axvline(median(scratch), color="tab:red", lw=1)
        axes.set(title=f"{when} the first epoch", aspect="equal")
        axes.set(xlabel="validation loss from scratch", ylabel="validation loss with inheritance")
        axes.legend(frameon=False)
    figure.colorbar(dots, ax=axes, label=f"inherited layers of {2 * CELLS}")
    figure.suptitle(f"{len(pairs)} children, below the line: better than without inheritance")
    figure.savefig(picture, dpi=110)


if __name__ == "__main__":
    main()
