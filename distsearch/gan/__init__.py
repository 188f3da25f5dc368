"""GANs that coevolve on a grid of cells, each with its neighbours, over all given machines.

    from distsearch.gan import Settings, train

    mixture = train(Settings(data="digits", grid="2x2"), "runs/digits")
    images, makers = mixture.sample(100)

torch is imported when something is trained or read.
"""

from .run import train
from .settings import Settings

__all__ = ["Settings", "train"]
