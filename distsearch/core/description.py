"""What a search looks for, as plain data: the log keeps it, and a resumed search has to match it.

description = describe(function="train_fn", space=space, ...)
changes(description, {**description, "time_attr": "step"})   # ["time_attr: 'epoch' -> 'step'"]
"""

from __future__ import annotations

import json
import os
import shlex
import sys
from collections.abc import Mapping
from typing import Any

from ..space import Space, differences
from ..space.privacy import command_without_secrets
from .objectives import Objectives

LATER = frozenset(
    {"searcher_because", "rule", "constraints", "storage", "search_options", "code", "started"}
)  # what logs of older versions lack
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
    code: str = "",
    started: Mapping[str, Any] | None = None,
) -> dict[str, Any]:
    """What is searched, ready for JSON.

    `searcher`: the searcher's name and options, see `Desk.described`. `rule`: what the decisions of
    the scheduler depend on; TypeError for what is not JSON. `storage`: the URL of the checkpoints.
    `code`: the fingerprint of the train function. `started`: how the program was started, see
    `command`.
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
        "code": code,
        "started": started,
    }


def command(is_interactive: bool, is_named: bool) -> dict[str, Any]:
    """How this program was started, so that `distsearch resume` can start it again.

    Of the result, `words` are the words of the command, None where one is a secret or where
    somebody types (a notebook); `shown` is the command without secrets. `is_named`: whether the
    program itself names the folder of the search.
    """
    shown = command_without_secrets(sys.orig_argv)
    has_secrets = shlex.split(shown) != sys.orig_argv
    return {
        "words": None if has_secrets or is_interactive else sys.orig_argv[1:],
        "shown": shown,
        "python": sys.executable,
        "cwd": os.getcwd(),
        "is_interactive": is_interactive,
        "is_named": is_named,
    }


def changes(earlier: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What keeps a search from going on with an earlier one, a line each; [] when nothing does.

    The seed and the storage are taken over from the earlier search, and a function may be renamed;
    `notices` says what may have changed as well.
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
    return lines + differences(_searched(earlier["space"]), _searched(now["space"]))


def notices(earlier: Mapping[str, Any], now: Mapping[str, Any]) -> list[str]:
    """What has changed, though the search goes on, a line each: code, and constants."""
    constants = differences(earlier["space"], now["space"])
    lines = [f"{line} (for the trials that start from now on)" for line in constants]
    code, before = now["code"], earlier.get("code", "")
    # (Fingerprints by different versions of Python, which is their first part, say nothing.)
    if before != code and before.partition(":")[0] == code.partition(":")[0]:
        lines.append(
            f"the code of {now['function']}, or of what it uses, is not what it was when this "
            "search began: its trials may not be comparable"
        )
    return lines


def _searched(space: Any) -> Any:
    """A described space without its constants."""
    if not isinstance(space, dict):
        return [_searched(one) for one in space] if isinstance(space, list) else space
    described = {name: _searched(part) for name, part in space.items()}
    if isinstance(items := described.get("items"), dict):
        described["items"] = {n: one for n, one in items.items() if one["type"] != "constant"}
    return described
