"""The examples in the docstrings."""

from __future__ import annotations

import doctest
import importlib

import numpy as np
import pytest

from distsearch import space

NAMES = {"np": np, **{name: getattr(space, name) for name in space.__all__}}
MODULES = ["space", *(f"space.{m}" for m in ("base", "containers", "domains", "namespace"))]


@pytest.mark.parametrize("module", [*MODULES, "space.objects", "core.decorators"])
def test_the_examples_of_the_docstrings_are_true(module):
    results = doctest.testmod(importlib.import_module(f"distsearch.{module}"), extraglobs=NAMES)
    assert results.attempted > 0
    assert results.failed == 0
