"""The train function where it arrives: in modules of the names that they have in the driver.

What pickle, worker processes and `isinstance` ask is where a class or a function lives: a module
and a name in it. So in a trial, on whatever node, `__main__` is a module that holds what came along
of the user's script, and a module that has travelled is there under its own name. Where the node
has that very module, as on this machine or after `upload_files`, it is imported instead.

Worker processes of a trial (of `multiprocessing` by spawn or forkserver, of joblib) run as their
own `__main__` what the trial's `__main__` names: `main_of_workers.py`, which loads the same file.
"""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import io
import os
import pickle
import sys
import types
from collections.abc import Mapping
from dataclasses import dataclass
from importlib.machinery import ModuleSpec
from typing import Any

from ..resource.private import name_of, private
from . import surroundings
from .surroundings import Output

FUNCTION = "DISTSEARCH_FUNCTION"  # the file that a trial, and each of its worker processes, loads


@dataclass(frozen=True)
class Cargo:
    """A pickled train function in one form or in two, of which a trial takes the one that suits it.

    `named` refers to the function by its module and name, and suits where `module` can be imported
    with source of the hash `sha256` (where `whole` is None, on every node); `whole` brings along
    what the function needs of its module. Each pickle has three things in turn: the function, what
    else is to be found in modules (names and objects for each), and the outputs of loggers.
    `script` is the file of the user's script, `surroundings` what that has set up: see
    `surroundings.set_up`.
    """

    script: str | None
    module: str
    sha256: str | None
    named: bytes | None
    whole: bytes | None
    surroundings: str

    def unpacked(self) -> tuple[Any, dict[str, dict[str, Any]], dict[str, tuple[Output, ...]]]:
        """The function, what goes to modules with it, and the outputs of loggers."""
        unpickler = pickle.Unpickler(io.BytesIO(self.suited()))
        return unpickler.load(), unpickler.load(), unpickler.load()

    def suited(self) -> bytes:
        """The pickle that suits this process."""
        if self.named is None or (self.whole is not None and not self._finds_the_module()):
            assert self.whole is not None
            return self.whole
        return self.named

    def _finds_the_module(self) -> bool:
        try:
            spec = importlib.util.find_spec(self.module)
            if spec is None or spec.origin is None:
                return False
            with open(spec.origin, "rb") as file:
                return hashlib.sha256(file.read()).hexdigest() == self.sha256
        except Exception:  # raised by a package around it, which is the user's code
            return False


def load(path: str) -> Any:
    """The train function in a file that the driver sent; the modules that came along are in place.

    Raises RuntimeError, before anything is unpickled, where the file is not as the driver sent it.
    """
    with open(path, "rb", opener=private) as file:
        data = file.read()
    if name_of(data) != os.path.basename(path):
        raise RuntimeError(f"{path} is not the train function that the driver sent")
    cargo: Cargo = pickle.loads(data)
    os.environ[FUNCTION] = path
    begin_main(cargo.script)
    function, found, outputs = cargo.unpacked()
    for module, names in found.items():
        namespace(module, names)
    surroundings.set_up(cargo.surroundings)
    surroundings.add_outputs(outputs)
    return function


def begin_main(script: str | None) -> None:
    """Have an empty `__main__`, as it is before a script runs."""
    main = types.ModuleType("__main__")
    if script is not None:
        main.__file__ = script
    main.__spec__ = ModuleSpec(f"{__package__}.main_of_workers", None)
    sys.modules["__main__"] = main


def namespace(name: str, contents: Mapping[str, Any]) -> dict[str, Any]:
    """The namespace of a module, with these contents added; a module that is not here is made.

    Packages around the module are made, too, and stay empty: their code does not run, though other
    modules in them can be imported.
    """
    package, _, last = name.rpartition(".")
    if package and package not in sys.modules:
        namespace(package, {"__path__": _places_of(package)})
    module = sys.modules.get(name)
    if module is None:
        module = sys.modules[name] = types.ModuleType(name)
        if package:
            setattr(sys.modules[package], last, module)
    vars(module).update(contents)
    return vars(module)


def wrapped_in(module: str, name: str) -> Any:
    """The function inside a decorated one, which an importable module has under this name."""
    return getattr(importlib.import_module(module), name).__wrapped__


def _places_of(package: str) -> list[str]:
    try:
        spec = importlib.util.find_spec(package)
    except (ImportError, ValueError):
        return []
    return list(spec.submodule_search_locations or ()) if spec is not None else []
