"""Checks of settings, before anything starts; what is refused is named."""

from __future__ import annotations

import math
from typing import Any

from ..errors import OptionError, suggest


def check_batches(batch_size: int, count: int, world_size: int, what: str) -> None:
    """Raise OptionError where so many images cannot fill one batch of all ranks."""
    if batch_size % world_size:
        raise OptionError(
            f"batch_size={batch_size} is that of all ranks together, but {world_size} ranks do not "
            "divide it"
        )
    if batch_size < 2 * world_size:
        raise OptionError(
            f"batch_size={batch_size} leaves a rank {batch_size // world_size} image; "
            "batch norm needs 2"
        )
    if count < batch_size:
        raise OptionError(
            f"{what} are {count}, too few for one batch of {batch_size}; lower the batch size"
        )


def check_number(
    name: str,
    value: Any,
    kind: type,
    *,
    least: float = -math.inf,
    above: float = -math.inf,
    below: float = math.inf,
) -> None:
    """Raise OptionError for a value that is no number of this kind, or not in these bounds."""
    is_number = isinstance(value, (int, float) if kind is float else int)
    if not is_number or isinstance(value, bool) or not math.isfinite(value):
        raise OptionError(f"{name}={value!r}; give a number")
    for holds, bound in (
        (value >= least, f"at least {least:g}"),
        (value > above, f"above {above:g}"),
        (value < below, f"below {below:g}"),
    ):
        if not holds:
            raise OptionError(f"{name}={value!r}; it has to be {bound}")


def check_choice(name: str, value: Any, valid: tuple[str, ...]) -> None:
    """Raise OptionError, with the nearest name, for a name that is none of these."""
    if value not in valid:
        raise OptionError(f"{name}: there is no {value!r}; {suggest(str(value), valid)}")
