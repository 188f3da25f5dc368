"""Images that networks learn from: loaded by name or from a folder, split and changed.

    from distsearch.data import load_images

    images = load_images("digits")      # or 'mnist', 'cifar10', a folder with a folder per class
    images.train.shape                  # (1437, 1, 8, 8), uint8

Nothing is ever downloaded. torch is imported when images are loaded, and `facts_of` tells what a
data set is like without it. How batches are standardised and augmented is in `data/augment.py`.
"""

from .images import NAMES, facts_of, load_images
from .source import Facts, Images
from .splits import halves, permutation, shard, split

__all__ = [
    "NAMES",
    "Facts",
    "Images",
    "facts_of",
    "halves",
    "load_images",
    "permutation",
    "shard",
    "split",
]
