"""PC-DARTS on digits: a step, accuracy, weak scaling, an ablation, and a planted operation.

    python -m benchmarks.pc_darts --only step       # or accuracy, scaling, ablation, planted, all

- step: one search step (C=8, 5 layers, batch 100 of 8 x 8) beside the same step written edge by
  edge for one process (`pc_darts_peer.py`), in turns; goal: at most 1.05 of its time.
- accuracy: searches with three seeds (12 epochs); goal: 0.90 of the test images.
- scaling: images per second of one rank, and of two with twice the batch, one thread each.
- ablation: with and without edge normalisation, and K = 1 and 4, of two seeds and 6 epochs each;
  accuracy, time of the search and peak memory of its process.
- planted: images whose class only a dilated 5 x 5 convolution among the offered operations can see
  well; goals: its alpha is the largest, and it is on half of the normal cell's edges or more (one
  in four by chance).

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
from distsearch.nas.pc_darts.runs import run_search
from distsearch.nas.runs import Machines

PLANTED = "dil_conv_5x5"
OTHERS = "none,max_pool_3x3,avg_pool_3x3,skip_connect"
PLANTED_SETTINGS = {"layers": 3, "batch_size": 50, "epochs": 8, "warm_up": 2, "arch_lr": 0.02}


def main() -> None:
    options = parser(__doc__, repeats=5)
    parts = ("step", "accuracy", "scaling", "ablation", "planted")
    options.add_argument("--only", choices=(*parts, "all"), default="all")
    given = options.parse_args()
    for part in parts:
        if given.only in (part, "all"):
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
    figure = Figure(compared.name, compared.values, "x", below=1.05)
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
    figures = []
    for name, settings in (
        ("K=4, edge normalisation", {}),
        ("K=4, without", {"edge_normalisation": False}),
        ("K=1, edge normalisation", {"part": 1}),
        ("K=1, without", {"part": 1, "edge_normalisation": False}),
    ):
        runs = [_search(seed, epochs=6, warm_up=2, **settings) for seed in (1, 2)]
        figures += [
            Figure(f"{name}: test accuracy", [r["test_accuracy"] for r, _ in runs]),
            Figure(f"{name}: time", [seconds for _, seconds in runs], "s"),
            Figure(f"{name}: memory", [max(r["peak_memory_mb"]) for r, _ in runs], "MB"),
        ]
    show("PC-DARTS: ablation on digits", figures, given.json)


def planted(given) -> None:
    """Whether the one operation that sees far enough gets the largest alpha."""
    seen, blind, weights, rivals, shares = [], [], [], [], []
    for seed in (1, 2, 3):
        with tempfile.TemporaryDirectory() as folder:
            data, out = Path(folder) / "far.npz", Path(folder) / "out"
            np.savez(data, **far_apart(seed))
            common = {"data": data, "seeds": (seed,), "verbose": 0, **PLANTED_SETTINGS}
            found = run_search(out, operations=f"{OTHERS},{PLANTED}", **common)
            *others, own = _mean_weights(distsearch.open(out).load_checkpoint())
            without = run_search(Path(folder) / "without", operations=OTHERS, **common)
        seen.append(found.report["test_accuracy"])
        blind.append(without.report["test_accuracy"])
        weights.append(own)
        rivals.append(max(others))
        named = [name for name, _ in found.report["genotype"]["normal"]]
        shares.append(named.count(PLANTED) / len(named))
    weight = Figure(f"mean weight of {PLANTED}", weights)
    rival = Figure("largest of another operation", rivals)
    figures = [
        Figure(f"test accuracy with {PLANTED}", seen),
        Figure("test accuracy without", blind),
        weight,
        rival,
        ratio("of the other's", weight, rival, at_least=1.0),
        Figure("share of the genotype's edges", shares, at_least=0.5),
    ]
    show("PC-DARTS: a planted operation, normal cell", figures, given.json)


def _mean_weights(checkpoint) -> list[float]:
    """The softmax of alpha of each operation, its mean over the edges of the normal cell."""
    return checkpoint["architecture"]["alpha_normal"].softmax(1).mean(0).tolist()


def far_apart(seed: int, count: int = 2400, redrawn: float = 0.4) -> dict[str, np.ndarray]:
    """Noise in which pixels 4 apart are equal: in columns (class 0) or in rows (class 1).

    A share of the pixels is drawn anew: a loss that fell to 0 in the warm-up would leave nothing
    for alpha to improve.
    """
    rng = np.random.default_rng(seed)
    labels = np.arange(count) % 2
    noise = rng.integers(0, 2, (count, 12, 12))
    noise[:, 4:8], noise[:, 8:] = noise[:, :4], noise[:, :4]
    turned = labels == 1
    noise[turned] = noise[turned].transpose(0, 2, 1)
    noise = np.where(rng.random(noise.shape) < redrawn, rng.integers(0, 2, noise.shape), noise)
    images = (noise * 200 + rng.integers(0, 40, noise.shape)).astype(np.uint8)
    part = count * 5 // 6
    return {
        "x_train": images[:part],
        "y_train": labels[:part],
        "x_test": images[part:],
        "y_test": labels[part:],
    }


def _search(seed: int, **settings) -> tuple[dict, float]:
    """The last report of a search by one rank, and the seconds that it took."""
    start = time.perf_counter()
    with tempfile.TemporaryDirectory() as folder:
        found = run_search(Path(folder) / "out", seeds=(seed,), verbose=0, **settings)
    return dict(found.report), time.perf_counter() - start


if __name__ == "__main__":
    main()
