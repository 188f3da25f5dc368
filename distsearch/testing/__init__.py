"""Kits of properties that every searcher, scheduler, storage or store has to pass.

Derive a test class from a kit and say how one is made:

    from distsearch.testing import SearcherKit

    class TestMySearcher(SearcherKit):
        make = MySearcher

`python -m pytest that_file.py` then runs all tests of the kit. Each kit says what else may be set.
Kits need pytest and hypothesis: `pip install pytest hypothesis`, else MissingPackage is raised.

`distsearch.testing.world` is the simulated world in which distsearch's own searches are tested.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

from ..errors import MissingPackage

if TYPE_CHECKING:
    from .schedulers import SchedulerKit
    from .searchers import SearcherKit, SeveralObjectivesKit
    from .storages import StorageKit
    from .stores import SQLStoreKit, StoreKit

# Where each kit lives: its module, and with it pytest, is imported when the kit is first used.
_HOMES = {
    "SchedulerKit": "schedulers",
    "SearcherKit": "searchers",
    "SeveralObjectivesKit": "searchers",
    "StorageKit": "storages",
    "SQLStoreKit": "stores",
    "StoreKit": "stores",
}

__all__ = [
    "SQLStoreKit",
    "SchedulerKit",
    "SearcherKit",
    "SeveralObjectivesKit",
    "StorageKit",
    "StoreKit",
]


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = f"{__name__}.{_HOMES[name]}"
    try:
        import pytest

        pytest.register_assert_rewrite(home)  # so that a failed test shows what was compared
        kit = getattr(importlib.import_module(home), name)
    except ModuleNotFoundError as error:
        if error.name not in ("pytest", "hypothesis"):
            raise
        raise MissingPackage(
            f"{name} needs {error.name}, which is not installed: pip install pytest hypothesis"
        ) from error
    globals()[name] = kit
    return kit


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
