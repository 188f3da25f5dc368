"""The space of NASNet's cells: 7 nodes, each the sum of two operations on what came before.

Source: Zoph et al., "Learning Transferable Architectures for Scalable Image Recognition", CVPR
(2018), arXiv:1707.07012; with LaNAS's 28 numbers for a cell (arXiv:1906.06832).
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
from numpy.typing import NDArray

from ...errors import OptionError
from ...space import Choice, Dict, List
from ..genotype import Cell, Genotype

NODES = 7
EDGES = 2 * NODES
OPERATIONS = (
    "skip_connect",
    "max_pool_3x3",
    "avg_pool_3x3",
    "conv_1x1",
    "conv_3x3",
    "sep_conv_3x3",
    "sep_conv_5x5",
    "dil_conv_3x3",
    "dil_conv_5x5",
)
# What edge n, whose node is n // 2, may read: the two cells before, then the nodes before it.
SOURCES = tuple(2 + edge // 2 for edge in range(EDGES))
VALIDATION = 0.2  # cells are compared on this part of the training images
MOST = 10_000_000  # a pool has at most so many rows
CHUNK = 200_000


def parts() -> dict[str, Any]:
    """The 28 choices of a cell, as arguments of a train function: 14 operations, 14 inputs."""
    return {
        "operations": List(*(Choice(*OPERATIONS) for _ in range(EDGES))),
        "inputs": List(*(Choice(*range(count)) for count in SOURCES)),
    }


def space() -> Dict:
    """The space of cells alone.

    >>> len(space().parameters)
    28
    """
    return Dict(**parts())


def cell_of(operations: Sequence[str], inputs: Sequence[int]) -> Cell:
    """The cell of 14 operations and their 14 inputs.

    Its output are the nodes that no other one reads, as in NASNet.
    """
    edges = list(zip(operations, map(int, inputs), strict=True))
    nodes = tuple(zip(edges[::2], edges[1::2], strict=True))
    read = set(map(int, inputs))
    loose = tuple(node for node in range(2, 2 + NODES) if node not in read)
    return Cell(nodes, loose)


def genotype_of(operations: Sequence[str], inputs: Sequence[int]) -> Genotype:
    """The network's cells: the same one everywhere, of stride 2 where it halves the images."""
    cell = cell_of(operations, inputs)
    return Genotype(cell, cell)


def genotype_of_config(config: Mapping[str, Any]) -> Genotype:
    """The cells of a trial's configuration, with its parameters 'operations.0' to 'inputs.13'."""
    return genotype_of(
        [config[f"operations.{edge}"] for edge in range(EDGES)],
        [config[f"inputs.{edge}"] for edge in range(EDGES)],
    )


def pool(size: int, seed: int = 0) -> NDArray[np.uint8]:
    """So many different cells, drawn uniformly, as rows of a pool of the searcher 'lanas'.

    >>> pool(1000).shape
    (1000, 28)

    The same seed and size give the same rows, in the same order. Raises OptionError for a size that
    makes no sense.
    """
    if not 1 <= size <= MOST:
        raise OptionError(f"size={size!r}, but a pool has 1 to {MOST:,} rows")
    rng = np.random.default_rng((seed, size))
    options = np.array([len(OPERATIONS)] * EDGES + list(SOURCES))
    found = np.empty((0, 2 * EDGES), dtype=np.uint8)
    while len(found) < size:
        drawn = rng.integers(options, size=(min(CHUNK, size - len(found)), len(options)))
        found = _each_once(np.concatenate([found, drawn.astype(np.uint8)]))
    return found


def _each_once(rows: NDArray[np.uint8]) -> NDArray[np.uint8]:
    """The rows, in their order, without repetitions of earlier rows."""
    keys = np.ascontiguousarray(rows).view(f"V{rows.shape[1]}").ravel()
    _, first = np.unique(keys, return_index=True)
    return rows if len(first) == len(rows) else rows[np.sort(first)]
