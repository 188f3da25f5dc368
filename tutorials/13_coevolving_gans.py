"""GANs that coevolve on a grid of cells, until one sees digits.

    pip install torch scikit-learn
    python tutorials/13_coevolving_gans.py                            # two minutes
    python tutorials/13_coevolving_gans.py --baseline                 # and isolated cells, beside
    python tutorials/13_coevolving_gans.py --data mnist.npz --minutes 20     # MNIST, if you have it

A GAN is two networks: a generator makes images of random numbers, and a discriminator tells them
from real ones. Each learns from the mistakes of the other, which often ends badly: the generator
makes one digit only (it has collapsed), or both run in circles. Coevolution trains several of them
on a torus of cells. In each generation a cell

  1. takes the newest networks of its neighbours, and never waits for them,
  2. lets all play against all, and goes on with a copy of a good one,
  3. trains that for one pass over the data,
  4. keeps it if it is better than what the cell had,
  5. changes the weights by which it mixes the generators of the neighbourhood, and keeps the change
     if the mixture comes closer to the real images.

How close is told by the Frechet distance (FID) of the answers that a small classifier gives to real
and to made images: 0 is perfect.

Each generation of a cell is a trial of a search (`CoevolutionScheduler`), whose parents are what
the cell and its neighbours have published. So it runs on many machines (`--nodes`), a cell whose
process or machine dies goes on from its last generation, and the same command goes on after Ctrl-C.
What this program does, the shell does too:

    distsearch gan train --data digits --grid 2x2 --generations 120 --out runs/digits
    distsearch gan generate runs/digits --samples 100 --out samples
"""

from __future__ import annotations

import argparse
import os
from pathlib import Path

import distsearch as ag
from distsearch.gan import Settings, pictures, train
from distsearch.gan.saved import Run


def main():
    parser = argparse.ArgumentParser(description="GANs that coevolve on a grid.")
    parser.add_argument("--data", default="digits", help="a name, a folder or an .npz of images")
    parser.add_argument("--grid", default="2x2", help="WIDTHxHEIGHT (default: 2x2)")
    parser.add_argument("--generations", type=int, default=120)
    parser.add_argument("--minutes", type=float, help="end after so many; run it again to go on")
    parser.add_argument("--nodes", nargs="*", default=[], help="host, or user@host:port")
    parser.add_argument("--baseline", action="store_true", help="train isolated cells too")
    parser.add_argument("--seed", type=int, default=0)
    parser.add_argument("--out", default="distsearch_results/coevolving_gans")
    options = parser.parse_args()

    data = os.path.abspath(options.data) if os.path.exists(options.data) else options.data

    def trained(folder, isolated):
        settings = Settings(
            data=data,
            grid=options.grid,
            generations=options.generations,
            isolated=isolated,
            seed=options.seed,
        )
        # A cell needs one CPU; on a larger machine all cells train at once.
        slots = min(os.cpu_count() or 1, len(settings.graph))
        return train(
            settings,
            folder,
            nodes=options.nodes,
            local=ag.Node("localhost", num_cpus=slots),
            minutes=options.minutes,
        )

    out = Path(options.out)
    baseline = None
    if options.baseline:
        alone = trained(out / "isolated", isolated=True)
        baseline = Run(out / "isolated")
        print(f"isolated cells: FID of the best one {alone.scores.fid:.1f}")
    mixture = trained(out / "coevolving", isolated=False)
    run = Run(out / "coevolving")
    pictures.draw_all(run, mixture, baseline)

    print(f"best mixture: FID {mixture.scores.fid:.1f}, TVD {mixture.scores.tvd:.3f}")
    for generator, weight in zip(mixture.generators, mixture.weights, strict=True):
        print(f"    {weight:.2f} of cell {generator.cell}, generation {generator.generation}")

    # Who descends from whom is in the log, as with every search.
    lineage = run.record.lineage()
    last = max(lineage)
    print(f"task {last} had the parents {lineage[last].parents}: its cell, then its neighbours")

    # Whatever else you want to know, ask the mixture for images: from -1 to 1.
    images, makers = mixture.sample(1000, seed=1)
    print(f"{len(images)} images of {tuple(images.shape[1:])}, made by {len(set(makers.tolist()))}")
    for name in ("samples", "heatmap", "fid"):
        print(f"picture: {run.folder / f'{name}.png'}")


if __name__ == "__main__":
    main()
