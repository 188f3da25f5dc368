"""Hyperparameter and architecture search on many machines as if they were one.

import distsearch as ag

@ag.args(lr=ag.Real(1e-4, 1e-1, log=True))
def train_fn(args, reporter):
    for epoch in range(10):
        reporter(epoch=epoch + 1, accuracy=train_an_epoch(args.lr))

scheduler = ag.scheduler.FIFOScheduler(train_fn, resource={'num_cpus': 2}, num_trials=20)
scheduler.run()
scheduler.join_jobs()
print(scheduler.get_best_config())
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

__version__ = "0.3.0"

if TYPE_CHECKING:
    from . import errors, plots, scheduler, searcher, space, testing, train
    from .commands import command
    from .core.decorators import args
    from .core.record import open
    from .core.rescue import rescue
    from .resource.node import Node
    from .resource.resource import Resource
    from .space import Bool, Categorical, Choice, Dict, Int, List, Real, func, obj

# Where each public name lives: it is imported when it is first used, so that
# `import distsearch` costs nothing, in a train script or on a node.
_HOMES = {
    "args": ".core.decorators",
    "command": ".commands",
    "open": ".core.record",
    "rescue": ".core.rescue",
    "Node": ".resource.node",
    "Resource": ".resource.resource",
    **dict.fromkeys(
        ("Bool", "Categorical", "Choice", "Dict", "Int", "List", "Real", "func", "obj"), ".space"
    ),
}
_ROOMS = ("errors", "plots", "scheduler", "searcher", "space", "testing", "train")

__all__ = [
    "Bool",
    "Categorical",
    "Choice",
    "Dict",
    "Int",
    "List",
    "Node",
    "Real",
    "Resource",
    "args",
    "command",
    "errors",
    "func",
    "obj",
    "open",
    "plots",
    "rescue",
    "scheduler",
    "searcher",
    "space",
    "testing",
    "train",
]


def __getattr__(name: str) -> Any:
    if name in _ROOMS:
        return importlib.import_module(f".{name}", __name__)
    if name in _HOMES:
        value = getattr(importlib.import_module(_HOMES[name], __name__), name)
        globals()[name] = value
        return value
    from .space.autogluon import successor

    raise AttributeError(f"module 'distsearch' has no attribute {name!r}{successor(name)}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
