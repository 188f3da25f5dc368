"""PC-DARTS on digits: a step, accuracy, weak scaling, an ablation, and a planted operation.

    python -m benchmarks.pc_darts --only step

or accuracy, scaling, ablation, planted, carried, all of these, or recipe:

- step: one search step (C=8, 5 layers, batch 100 of 8 x 8) beside the same step written edge by
  edge for one process (`pc_darts_peer.py`), in turns; goal: at most 1.05 of its time.
- accuracy: searches with three seeds (12 epochs); goal: 0.90 of the test images.
- scaling: images per second of one rank, and of two with twice the batch, one thread each.
- ablation: with and without edge normalisation, and K = 1 and 4, of `--repeats` seeds and 6 epochs
  each; test accuracy of the supernet and of the network found (trained for 15 epochs), the time
  that the search keeps a CPU busy, and the peak memory of its process.
- planted: images whose class only a dilated 5 x 5 convolution among the offered operations can see,
  on one mixed edge, of ten seeds; goal: its alpha is the largest in each.
- carried: such images in a whole supernet, where other edges may carry what one of them has seen;
  goal: it is on half of the normal cell's edges or more (one in four by chance).
- recipe: steps of the full search (C=16, 8 layers, batch 256) on `--data`, which is CIFAR-10 in
  any form that a search takes; on a GPU, if there is one, with both orders and both precisions;
  goal there: 25 s an epoch.

Settings were chosen on seed 0; the figures are of seeds 1 and more.
"""

from __future__ import annotations

import statistics
import tempfile
import time
from pathlib import Path

import numpy as np

import distsearch
from benchmarks.common import Figure, parser, ratio, show
from benchmarks.pc_darts_planted import BLIND, OFFERED, PLANTED, far_apart, train_edge
from distsearch.core.store import read
from distsearch.nas.pc_darts.runs import run_retrain, run_search
from distsearch.nas.runs import Machines

OTHERS = "none,max_pool_3x3,avg_pool_3x3,skip_connect"
PLANTED_SETTINGS = {"layers": 3, "batch_size": 50, "epochs": 8, "warm_up": 2, "arch_lr": 0.02}


def main() -> None:
    options = parser(__doc__, repeats=5)
    parts = ("step", "accuracy", "scaling", "ablation", "planted", "carried")
    options.add_argument("--only", choices=(*parts, "all", "recipe"), default="all")
    options.add_argument("--data", type=Path, help="of the recipe")
    options.add_argument("--steps", type=int, default=20, help="of the recipe")
    given = options.parse_args()
    if given.only == "recipe" and given.data is None:
        options.error("--only recipe needs --data: CIFAR-10 as a folder or a tar file")
    for part in (*parts, "recipe"):
        if given.only == part or (given.only == "all" and part in parts):
            globals()[part](given)


def step(given) -> None:
    """A step of the search beside the plain one, in turns."""
    import torch

    from benchmarks.pc_darts_peer import PlainSupernet, plain_step
    from distsearch.nas.pc_darts.steps import Steps
    from distsearch.nas.pc_darts.supernet import Architecture, Supernet
    from distsearch.nas.ranks import Ranks
    from distsearch.nas.training import Tally

    torch.set_num_threads(1)
    size = {"channels": 8, "layers": 5, "classes": 10, "channels_in": 1}
    batch = [(torch.randn(100, 1, 8, 8), torch.randint(10, (100,))) for _ in range(2)]

    def optimizers(network, architecture):
        adam = torch.optim.Adam(architecture, lr=3e-3, betas=(0.5, 0.999), weight_decay=1e-3)
        sgd = torch.optim.SGD(network.parameters(), 0.1, momentum=0.9, weight_decay=3e-4)
        return adam, sgd

    supernet, architecture = Supernet(**size), Architecture()
    adam, sgd = optimizers(supernet, architecture.parameters())
    steps = Steps(supernet, architecture, sgd, adam, Ranks())
    tally = Tally(torch.device("cpu"))
    plain = PlainSupernet(**size)
    own = Architecture()
    pairs = [(own.alpha_normal, own.beta_normal), (own.alpha_reduce, own.beta_reduce)]
    theirs = optimizers(plain, own.parameters())

    def ours() -> None:
        steps.architecture(batch[1], batch[0])
        steps.weights(batch[0], tally)

    def by_edge() -> None:
        plain_step(plain, pairs, theirs, batch[0], batch[1])

    times = {ours: [], by_edge: []}
    for repeat in range(given.repeats + 1):
        for one in times:
            start = time.perf_counter()
            one()
            if repeat:  # the first warms up
                times[one].append(time.perf_counter() - start)
    mine = Figure("a step of distsearch", times[ours], "s")
    other = Figure("a step edge by edge, one process", times[by_edge], "s")
    compared = ratio("of its time", mine, other)
    figure = Figure(compared.name, compared.values, "x", at_most=1.05)
    show("PC-DARTS: a step of the search", [mine, other, figure], given.json)


def accuracy(given) -> None:
    """What searches reach on the test images."""
    runs = [_search(seed) for seed in (1, 2, 3)]
    tested = [report["test_accuracy"] for report, _ in runs]
    figures = [
        Figure("test accuracy of the supernet", tested, at_least=0.9),
        Figure("time of the search", [seconds for _, seconds in runs], "s"),
    ]
    show("PC-DARTS: searches on digits", figures, given.json)


def scaling(given) -> None:
    """Images per second of one rank with batches of 50, and of two with 100, in turns."""
    speeds = {1: [], 2: []}
    for _ in range(given.repeats):
        for ranks, found in speeds.items():
            with tempfile.TemporaryDirectory() as folder:
                run_search(
                    Path(folder) / "out",
                    machines=Machines(ranks=ranks),
                    batch_size=50 * ranks,
                    epochs=3,
                    warm_up=0,
                    verbose=0,
                )
                history = distsearch.open(Path(folder) / "out").training_history[0]
            found.append(statistics.mean(report["images_per_s"] for report in history[1:]))
    one = Figure("one rank, batch 50", speeds[1], "images/s")
    two = Figure("two ranks, batch 100", speeds[2], "images/s")
    show("PC-DARTS: weak scaling", [one, two, ratio("of one rank's", two, one)], given.json)


def ablation(given) -> None:
    """What partial channels and edge normalisation are worth."""
    for name, settings in (
        ("K=4, edge normalisation", {}),
        ("K=4, without", {"edge_normalisation": False}),
        ("K=1, edge normalisation", {"part": 1}),
        ("K=1, without", {"part": 1, "edge_normalisation": False}),
    ):
        supernet, network, cpu_s, memory = [], [], [], []
        for seed in range(1, 1 + given.repeats):
            common = {"seeds": (seed,), "verbose": 0}
            with tempfile.TemporaryDirectory() as folder:
                out = Path(folder) / "search"
                found = run_search(out, epochs=6, warm_up=2, **common, **settings)
                trained = run_retrain(Path(folder) / "network", out, **common)
                (ended,) = read(out, "ended")
            supernet.append(found.report["test_accuracy"])
            network.append(trained.accuracy)
            cpu_s.append(ended.body["cpu_s"])
            memory.append(max(found.report["peak_memory_mb"]))
        figures = [
            Figure("test accuracy of the supernet", supernet),
            Figure("test accuracy of the network", network),
            Figure("search: time of one CPU", cpu_s, "s"),
            Figure("search: peak memory", memory, "MB"),
        ]
        show(f"PC-DARTS on digits, ablation: {name}", figures, given.json)


def planted(given) -> None:
    """Whether the one operation that can solve a task gets the largest alpha, on one edge."""
    import torch

    torch.set_num_threads(1)
    seeds = range(1, 11)
    runs = [train_edge(OFFERED, seed) for seed in seeds]
    weights = [run.weights[PLANTED] for run in runs]
    rivals = [max(run.weights[name] for name in BLIND) for run in runs]
    ahead = min(own / other for own, other in zip(weights, rivals, strict=True))
    figures = [
        Figure("accuracy with it", [run.accuracy for run in runs]),
        Figure("accuracy without", [train_edge(BLIND, seed).accuracy for seed in seeds]),
        Figure(f"weight of {PLANTED}", weights),
        Figure("largest of another operation", rivals),
        Figure("times that, in the worst run", [ahead], "x", at_least=1.0),
    ]
    show("PC-DARTS: a planted operation, one edge", figures, given.json)


def carried(given) -> None:
    """The same in a whole supernet, where one such operation on the way of a feature is enough."""
    seen, blind, weights, rivals, strongest, theirs, shares = [], [], [], [], [], [], []
    for seed in (1, 2, 3):
        with tempfile.TemporaryDirectory() as folder:
            data, out = Path(folder) / "far.npz", Path(folder) / "out"
            np.savez(data, **far_apart(seed))
            common = {"data": data, "seeds": (seed,), "verbose": 0, **PLANTED_SETTINGS}
            found = run_search(out, operations=f"{OTHERS},{PLANTED}", **common)
            alpha = distsearch.open(out).load_checkpoint()["architecture"]["alpha_normal"]
            without = run_search(Path(folder) / "without", operations=OTHERS, **common)
        seen.append(found.report["test_accuracy"])
        blind.append(without.report["test_accuracy"])
        *others, own = alpha.softmax(1).mean(0).tolist()
        weights.append(own)
        rivals.append(max(others))
        *others, own = alpha.softmax(1).amax(0).tolist()
        strongest.append(own)
        theirs.append(max(others))
        named = [name for name, _ in found.report["genotype"]["normal"]]
        shares.append(named.count(PLANTED) / len(named))
    figures = [
        Figure(f"test accuracy with {PLANTED}", seen),
        Figure("test accuracy without", blind),
        Figure("its mean weight over the edges", weights),
        Figure("largest mean of another operation", rivals),
        Figure("its weight on its best edge", strongest),
        Figure("largest of another on one edge", theirs),
        Figure("share of the genotype's edges", shares, at_least=0.5),
    ]
    show("PC-DARTS: a planted operation, normal cell of a supernet", figures, given.json)


def recipe(given) -> None:
    """Steps of the search as in the paper: both orders, both precisions on a GPU."""
    import torch

    from distsearch.data import facts_of
    from distsearch.nas.pc_darts.search import HELD_OUT, LEARN, Search
    from distsearch.nas.pc_darts.settings import settings_for
    from distsearch.nas.ranks import Ranks
    from distsearch.nas.training import Tally, peak_memory_mb
    from distsearch.space import Namespace

    on_gpu = torch.cuda.is_available()
    device = torch.device("cuda" if on_gpu else "cpu")
    facts, about = facts_of(given.data), {"data": str(given.data), "data_root": None, "seed": 1}
    for second_order in (False, True) if on_gpu else (False,):
        for precision in ("fp32", "bf16") if on_gpu else ("fp32",):
            changed = {"second_order": second_order, "precision": precision}
            settings = settings_for(facts, changed)
            work = Search(Namespace({**settings, **about}), Ranks(), device)
            if on_gpu:
                torch.cuda.reset_peak_memory_stats()
            pairs = zip(work._batches(0, LEARN), work._batches(0, HELD_OUT), strict=True)
            tally, seconds = Tally(device), []
            for number, (learn, held_out) in enumerate(pairs):
                start = time.perf_counter()
                work.steps.architecture(held_out, learn)
                work.steps.weights(learn, tally)
                tally.sums.tolist()  # waits for the device
                if number:  # the first warms up
                    seconds.append(time.perf_counter() - start)
                if number == given.steps:
                    break
            steps = facts.train // 2 // settings["batch_size"]
            goal = 25.0 if on_gpu else None
            figures = [
                Figure("images", [2 * settings["batch_size"] / s for s in seconds], "images/s"),
                Figure("an epoch, at that", [steps * s for s in seconds], "s", at_most=goal),
                Figure("peak memory", [peak_memory_mb(device)], "MB"),
            ]
            order = "second" if second_order else "first"
            title = f"PC-DARTS, full search on {facts.name}, {order} order, {precision}, {device}"
            show(title, figures, given.json)


def _search(seed: int, **settings) -> tuple[dict, float]:
    """The last report of a search by one rank, and the seconds that it took."""
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        found = run_search(Path(folder) / "out", seeds=(seed,), verbose=0, **settings)
    return dict(found.report), time.perf_counter() - start


if __name__ == "__main__":
    main()
