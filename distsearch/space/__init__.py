"""Search spaces: what may vary, and how a configuration becomes the values a trial sees.

>>> space = Dict(lr=Real(1e-4, 1e-1, log=True), act=Choice('relu', 'gelu'), epochs=10)
>>> space.size, space.dimension
(inf, 3)
"""

from __future__ import annotations

from distsearch.space.base import Config, Space, differences
from distsearch.space.containers import Dict, List
from distsearch.space.domains import Bool, Categorical, Choice, Int, Real
from distsearch.space.namespace import Namespace
from distsearch.space.objects import Lazy, func, obj

__all__ = [
    "Bool",
    "Categorical",
    "Choice",
    "Config",
    "Dict",
    "Int",
    "Lazy",
    "List",
    "Namespace",
    "Real",
    "Space",
    "differences",
    "func",
    "obj",
]
