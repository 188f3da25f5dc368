"""How networks of cells are trained: the usual settings for a data set, and impossible ones.

Sources: the recipes of PC-DARTS (arXiv 1907.05737, section 4) for CIFAR-10 and ImageNet.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ..data import Facts
from ..errors import OptionError, suggest
from .checks import check_batches, check_choice, check_number

# Images with fewer pixels a side than the first number are small, from the second on large.
SMALL_SIDE, LARGE_SIDE = 16, 128
SCHEDULES = ("cosine", "linear")
PRECISIONS = ("fp32", "bf16")
CIFAR: dict[str, Any] = {
    "channels": 36,
    "layers": 20,
    "epochs": 600,
    "batch_size": 96,
    "lr": 0.025,
    "schedule": "cosine",
    "momentum": 0.9,
    "weight_decay": 3e-4,
    "clip": 5.0,
    "auxiliary": 0.4,
    "drop_path": 0.3,
    "cutout": 16,
    "label_smoothing": 0.0,
    "validation": 0.0,
    "precision": "fp32",
}
LARGE: dict[str, Any] = {  # for ImageNet, whose images have 224 pixels a side
    **CIFAR,
    "channels": 48,
    "layers": 14,
    "epochs": 250,
    "batch_size": 1024,
    "lr": 0.5,
    "schedule": "linear",
    "weight_decay": 3e-5,
    "drop_path": 0.0,
    "cutout": 0,
    "label_smoothing": 0.1,
}
SMALL: dict[str, Any] = {  # for the digits
    **CIFAR,
    "channels": 8,
    "layers": 5,
    "epochs": 15,
    "lr": 0.1,
    "drop_path": 0.1,
    "cutout": 0,
}


def settings_for(facts: Facts, given: Mapping[str, Any], world_size: int = 1) -> dict[str, Any]:
    """The usual settings for a data set, with those that are given in their place.

        settings_for(facts_of("digits"), {"epochs": 20})

    `auxiliary` is the weight of the auxiliary head's loss, `drop_path` the probability at the last
    epoch, `cutout` a side in pixels, and `validation` the share of the training images that is held
    out to compare epochs (0: they are compared on the test part, and nothing may be chosen by it).

    Raises OptionError for a name that is no setting, and for settings that cannot be: of this data
    set, or with so many ranks.
    """
    side = max(facts.shape[1:])
    usual_ones = SMALL if side < SMALL_SIDE else CIFAR if side < LARGE_SIDE else LARGE
    for name in given:
        if name not in usual_ones:
            raise OptionError(f"a training has no setting {name!r}; {suggest(name, usual_ones)}")
    settings = {**usual_ones, **given}
    check(settings, facts.train, world_size)
    return settings


def check(settings: Mapping[str, Any], images: int, world_size: int) -> None:
    """Raise OptionError for settings that are impossible with so many images and these ranks."""
    for name in ("channels", "layers", "epochs", "batch_size"):
        check_number(name, settings[name], int, least=1)
    check_number("cutout", settings["cutout"], int, least=0)
    for name in ("lr", "clip"):
        check_number(name, settings[name], float, above=0)
    check_number("momentum", settings["momentum"], float, least=0, below=1)
    for name in ("weight_decay", "auxiliary"):
        check_number(name, settings[name], float, least=0)
    for name in ("drop_path", "label_smoothing", "validation"):
        check_number(name, settings[name], float, least=0, below=1)
    check_choice("schedule", settings["schedule"], SCHEDULES)
    check_choice("precision", settings["precision"], PRECISIONS)
    if settings["layers"] < 3:
        raise OptionError(f"layers={settings['layers']}; 3 at least, as two halve the images")
    left = round(images * (1 - settings["validation"]))
    if left == images and settings["validation"]:
        raise OptionError(f"validation={settings['validation']} of {images} images is none")
    check_batches(settings["batch_size"], left, world_size, "the images to train with")
