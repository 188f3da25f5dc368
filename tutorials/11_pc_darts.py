"""Let a network be found: PC-DARTS on handwritten digits, from the search to the test.

    pip install torch scikit-learn
    python tutorials/11_pc_darts.py

PC-DARTS (Xu et al., ICLR 2020) trains one network that holds all candidates at once, and beside its
weights how much each candidate operation counts. What counts most in the end is the architecture,
which is then trained from scratch. The same from a shell, where each command goes on after a kill:

    distsearch pc-darts search --data digits --ranks 2 --out runs/search
    distsearch pc-darts retrain --genotype runs/search --data digits --out runs/network
    distsearch pc-darts test runs/network
"""

from __future__ import annotations

import argparse
from pathlib import Path

from distsearch.nas.pc_darts.runs import run_retrain, run_search, run_test
from distsearch.nas.runs import Machines


def main():
    parser = argparse.ArgumentParser(description="Search for a network that reads digits.")
    parser.add_argument("--ranks", type=int, default=2, help="processes that search together")
    parser.add_argument("--search-epochs", type=int, default=10)
    parser.add_argument("--epochs", type=int, default=12, help="of the network that was found")
    parser.add_argument("--out", type=Path, default=Path("pc_darts_results"))
    options = parser.parse_args()

    # Half of the training images teach the weights, the other half decides on the architecture,
    # which rests during the first epochs. `nodes=[...]` would bring in other machines over SSH.
    print(f"Searching, with {options.ranks} processes as the ranks of one trial.")
    found = run_search(
        options.out / "search",
        data="digits",
        machines=Machines(ranks=options.ranks),
        epochs=options.search_epochs,
        warm_up=3,
    )
    for number, node in enumerate(found.genotype.normal.nodes):
        print(f"normal cell, node {number}: " + " + ".join(f"{name}({of})" for name, of in node))
    print(f"Accuracy on the half that chose it: {found.accuracy:.4f}")
    print(f"Picture of both cells:              {found.folder / 'cells.png'}")

    print("\nTraining what was found, from scratch, on all training images.")
    network = run_retrain(
        options.out / "network", found.folder, data="digits", epochs=options.epochs
    )

    # The test part was shown during the training, but nothing was chosen by it: what counts is the
    # network after the last epoch.
    tested = run_test(network.folder)
    print(f"Test accuracy: {tested['accuracy']:.4f} on {tested['images']} images")


if __name__ == "__main__":
    main()
