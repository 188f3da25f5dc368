"""The settings of a search: the usual ones for a data set, and impossible ones."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from ...data import Facts
from ...errors import OptionError, suggest
from ..checks import check_batches, check_choice, check_number
from ..genotype import OPERATIONS
from ..recipes import PRECISIONS, SMALL_SIDE

# The paper's settings for CIFAR: 50 epochs, in the first 15 the architecture does not change.
CIFAR: dict[str, Any] = {
    "channels": 16,
    "layers": 8,
    "epochs": 50,
    "warm_up": 15,
    "batch_size": 256,
    "lr": 0.1,
    "momentum": 0.9,
    "weight_decay": 3e-4,
    "clip": 5.0,
    "arch_lr": 6e-4,
    "arch_weight_decay": 1e-3,
    "part": 4,
    "edge_normalisation": True,
    "second_order": False,
    "operations": ",".join(OPERATIONS),
    "precision": "fp32",
}
# Settings for few images as small as the digits.
SMALL: dict[str, Any] = {
    **CIFAR,
    "channels": 8,
    "layers": 5,
    "epochs": 12,
    "warm_up": 3,
    "batch_size": 100,
    "arch_lr": 3e-3,
}


def settings_for(facts: Facts, given: Mapping[str, Any], world_size: int = 1) -> dict[str, Any]:
    """The usual settings for a data set, with those that are given in their place.

        settings_for(facts_of("digits"), {"epochs": 20})

    Raises OptionError for a name that is no setting, and for settings that cannot be: of this data
    set, or with so many ranks.
    """
    usual = SMALL if max(facts.shape[1:]) < SMALL_SIDE else CIFAR
    for name in given:
        if name not in usual:
            raise OptionError(f"a search has no setting {name!r}; {suggest(name, usual)}")
    settings = {**usual, **given}
    check(settings, facts.train // 2, world_size)
    return settings


def check(settings: Mapping[str, Any], half: int, world_size: int) -> None:
    """Raise OptionError for settings impossible with half of the images and these ranks."""
    for name in ("channels", "layers", "epochs", "batch_size", "part"):
        check_number(name, settings[name], int, least=1)
    check_number("warm_up", settings["warm_up"], int, least=0)
    if settings["warm_up"] >= settings["epochs"]:
        raise OptionError(
            f"warm_up={settings['warm_up']} and epochs={settings['epochs']}: the architecture "
            "would rest in all of them; lower warm_up, or give more epochs"
        )
    for name in ("lr", "clip", "arch_lr"):
        check_number(name, settings[name], float, above=0)
    check_number("momentum", settings["momentum"], float, least=0, below=1)
    for name in ("weight_decay", "arch_weight_decay"):
        check_number(name, settings[name], float, least=0)
    check_choice("precision", settings["precision"], PRECISIONS)
    channels, part, layers = settings["channels"], settings["part"], settings["layers"]
    if channels % part:
        raise OptionError(f"part={part} does not divide channels={channels}")
    if layers < 3:
        raise OptionError(f"layers={layers}; 3 at least, as two of them are reduction cells")
    check_batches(settings["batch_size"], half, world_size, "half of the training images")
    offered = operations_of(settings["operations"])
    for name in offered:
        check_choice("operations", name, OPERATIONS)
    if not {*offered} - {"none"}:
        raise OptionError(f"operations={settings['operations']!r}; name one besides 'none'")


def operations_of(text: str) -> tuple[str, ...]:
    """The operations that a search may choose, from their names with commas between."""
    return tuple(name.strip() for name in text.split(","))
