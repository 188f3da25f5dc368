"""What a search looks for, as plain data: the log keeps it, and a resumed search has to match it.

description = describe(function="train_fn", space=space, ...)
changes(description, {**description, "time_attr": "step"})   # ["time_attr: 'epoch' -> 'step'"]
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from typing import Any

from ..space import Space, differences
from .objectives import Objectives

LATER = frozenset(
    {"searcher_because", "rule", "constraints", "storage", "search_options"}
)  # older logs lack these
_AS_A_WHOLE = ("searcher", "scheduler", "reward_attr", "mode", "constraints", "time_attr")
_BY_NAME = ("search_options", "rule")


def describe(
    *,
    function: str,
    space: Space,
    searcher: Mapping[str, Any],
    scheduler: str,
    seed: int,
    objectives: Objectives,
    time_attr: str,
    rule: Mapping[str, Any],
    storage: str | None,
) -> dict[str, Any]:
    """What is searched, ready for JSON.

    `searcher`: its name and options, see `Desk.described`. `rule`: what the decisions of the
    scheduler depend on; TypeError for what is not JSON. `storage`: the URL of the checkpoints.
    """
    return {
        "function": function,
        "space": space.describe(),
        **searcher,
        "scheduler": scheduler,
        "seed": seed,
        **objectives.described,
        "time_attr": time_attr,
        "rule": json.loads(json.dumps(rule)),
        "storage": storage,
    }


def changes(earlier: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What keeps a search from going on with an earlier one, a line each; [] when nothing does.

    The seed and the storage are taken over from the earlier one, and a function may be renamed.
    """
    earlier = {"constraints": [], **earlier}
    lines = [
        f"{name}: {earlier[name]!r} -> {now[name]!r}"
        for name in _AS_A_WHOLE
        if earlier[name] != now[name]
    ]
    for part in _BY_NAME:
        then, today = earlier.get(part, now[part]), now[part]
        lines += [
            f"{name}: {then.get(name)!r} -> {today.get(name)!r}"
            for name in sorted(then.keys() | today.keys())
            if then.get(name) != today.get(name)
        ]
    return lines + differences(earlier["space"], now["space"])
