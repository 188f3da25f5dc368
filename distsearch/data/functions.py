"""Images that a function of the user's own returns."""

from __future__ import annotations

import importlib
import inspect
import os
import sys
from typing import Any

import numpy as np

from ..errors import DataError, suggest
from .source import HELD_OUT, SPLIT_SEED, Images
from .splits import hold_out

FORM = "uint8 images of count x channels x height x width, or (images, labels)"


def of_function(name: str) -> Images:
    """What the function of a name 'package.module:function' returns, as images.

    Of what is no `Images` a fifth is held out for testing. Raises DataError for a name that leads
    to no function, and for what is not of the form.
    """
    found = _find(name)()
    if isinstance(found, Images):
        return found
    pixels, labels = found if isinstance(found, (tuple, list)) else (found, None)
    pixels = np.asarray(pixels)
    if pixels.dtype != np.uint8 or pixels.ndim != 4 or pixels.shape[1] not in (1, 3):
        raise DataError(
            f"{name} returned {pixels.dtype} of the shape {pixels.shape}; return {FORM}"
        )
    groups = np.zeros(len(pixels), np.int64) if labels is None else np.asarray(labels)
    if groups.shape != (len(pixels),) or groups.dtype.kind not in "iu":
        raise DataError(f"{name} returned labels of the shape {groups.shape}; return {FORM}")
    return _split(name, pixels, groups, labels is not None)


def _split(name: str, pixels: Any, groups: Any, has_classes: bool) -> Images:
    import torch

    classes, positions = np.unique(groups, return_inverse=True)
    train, test = hold_out(positions, HELD_OUT, SPLIT_SEED)
    labels = positions if has_classes else np.full(len(positions), -1)
    parts = [
        torch.from_numpy(np.ascontiguousarray(of[part]))
        for part in (train, test)
        for of in (pixels, labels.astype(np.int64))
    ]
    return Images(name, tuple(map(str, classes)) if has_classes else (), *parts)


def _find(name: str) -> Any:
    module_name, _, function_name = name.partition(":")
    if os.getcwd() not in sys.path:  # as for `python -m`
        sys.path.insert(0, os.getcwd())
    try:
        module = importlib.import_module(module_name)
    except ImportError as error:
        raise DataError(f"{name}: {module_name} cannot be imported: {error}") from error
    function = getattr(module, function_name, None)
    if not callable(function):
        known = [one for one in dir(module) if not one.startswith("_")]
        raise DataError(
            f"{module_name} has no function {function_name!r}; {suggest(function_name, known)}"
        )
    try:
        inspect.signature(function).bind()
    except TypeError as error:
        raise DataError(
            f"{name} cannot be called without arguments: {error}; give a function that needs none, "
            f"and returns {FORM}"
        ) from error
    except ValueError:  # some functions in C do not say what they take
        pass
    return function
