"""Small images and settings, with which a step takes milliseconds."""

from __future__ import annotations

import pytest

from distsearch.space import Namespace


@pytest.fixture
def images():
    """64 random images of 3 classes, 8 x 8 pixels."""
    torch = pytest.importorskip("torch")
    from distsearch.data import Images

    drawn = torch.Generator().manual_seed(0)
    pixels = torch.randint(0, 256, (80, 1, 8, 8), generator=drawn).to(torch.uint8)
    labels = torch.arange(80) % 3
    return Images("noise", ("a", "b", "c"), pixels[:64], labels[:64], pixels[64:], labels[64:])


@pytest.fixture
def tiny():
    """The settings of the smallest search."""
    from distsearch.nas.pc_darts.settings import SMALL

    return Namespace(
        {
            **SMALL,
            "channels": 4,
            "layers": 3,
            "part": 2,
            "batch_size": 16,
            "epochs": 3,
            "warm_up": 1,
            "seed": 0,
            "num_gpus": 0,
            "data": "noise",
            "data_root": None,
        }
    )
