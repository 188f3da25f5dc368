"""Which imports are under way: a module that starts a search at its top is being imported then."""

from __future__ import annotations

import os
import sys

from ..errors import UnguardedSearch
from .arrival import FUNCTION


def under_way() -> list[str]:
    """The modules whose code is being run by an `import` just now, the outermost first."""
    return [
        name
        for name, module in list(sys.modules.items())
        if getattr(getattr(module, "__dict__", {}).get("__spec__"), "_initializing", False)
    ]


def refuse_search_in_import() -> None:
    """Raise UnguardedSearch where an import in a trial or a worker process starts a search.

    Each trial of such a search would import the module, too, and start a search, without end.
    """
    names = under_way()
    if os.environ.get(FUNCTION) and names:
        raise UnguardedSearch(
            f"the module {names[0]!r} starts a search when it is imported, and a trial imports it; "
            f"put what starts the search under `if __name__ == '__main__':` in that module"
        )
    multiprocessing = sys.modules.get("multiprocessing.process")
    if multiprocessing and getattr(multiprocessing.current_process(), "_inheriting", False):
        raise UnguardedSearch(
            "a worker process of multiprocessing runs the script again, and so would its search; "
            "put what starts the search under `if __name__ == '__main__':` in the script"
        )
