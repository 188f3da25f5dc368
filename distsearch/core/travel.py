"""What travels from the driver to nodes: the pickled train function, and what trials import."""

from __future__ import annotations

import hashlib
import io
import pickle
import sys
import types
from collections import ChainMap
from collections.abc import Callable, Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Any

import cloudpickle

from ..errors import PicklingError
from ..resource.private import name_of
from . import surroundings
from .arrival import Cargo, namespace, wrapped_in
from .imports import under_way
from .reach import homes, is_in_this_package, is_installed, is_library, own_files, referred
from .surroundings import Output


@dataclass(frozen=True)
class Packed:
    """A train function on its way: its bytes, a name for them, and what launchers prepare.

    `modules`: what trials will import. `surroundings`: what the script has set up. `own`: modules
    of the user's, with their files, that do not travel along.
    """

    data: bytes
    name: str
    modules: tuple[str, ...]
    surroundings: str
    own: Mapping[str, str] = field(default_factory=dict)


def pack(function: Any, *, stays_here: bool = False) -> Packed:
    """Pickle a train function; its module travels along, unless it is of an installed package.

    Trials on this machine (`stays_here`) import the module as the driver did, and so do trials on a
    node that has it. A module that is being imported just now travels in any case: to import it in
    a trial would start this search again. Raises PicklingError, which names what cannot travel.
    """
    module = sys.modules.get(getattr(function, "__module__", None) or "") or sys.modules["__main__"]
    unfinished = [name for name in under_way() if not is_in_this_package(name)]
    around = surroundings.of_this_process()
    outputs = surroundings.outputs_of_this_process(_is_of_library, _can_travel, files=stays_here)
    named = whole = None
    if not _is_in(module.__name__, ["__main__", *unfinished]):
        named = _dumps(function, outputs, unfinished)
    is_there = is_installed(module) or (stays_here and _is_importable(module))
    if named is None or not is_there:
        whole = _dumps(function, outputs, [*unfinished, module.__name__])
    script = getattr(sys.modules["__main__"], "__file__", None)
    source = _source_hash(module) if whole is not None else None
    if whole is not None and source is None:
        named = None
    text = around.text()
    data = pickle.dumps(Cargo(script, module.__name__, source, named, whole, text))
    modules = _modules_of(function) | around.modules()
    modules |= {home for ones in outputs.values() for one in ones for home in one.modules()}
    by_value = [module.__name__, *unfinished, *cloudpickle.list_registry_pickle_by_value()]
    travel = {name.partition(".")[0] for name in by_value}
    own = {name: file for name, file in own_files(function).items() if name not in travel}
    return Packed(data, name_of(data), tuple(sorted(filter(_is_preloaded, modules))), text, own)


def _dumps(function: Any, outputs: dict[str, tuple[Output, ...]], by_value: list[str]) -> bytes:
    """Pickle a function, what belongs into modules, and the outputs of loggers; see `Cargo`."""
    registered = cloudpickle.list_registry_pickle_by_value()
    mine = {*by_value} - {"__main__", *registered}
    for name in mine:
        cloudpickle.register_pickle_by_value(sys.modules[name])
    try:
        with io.BytesIO() as file:
            pickler = _Pickler(file, {"__main__", *by_value, *registered})
            # By one pickler, so that what the three have in common is one object there, too.
            pickler.dump(function)
            pickler.dump(pickler.found)
            pickler.dump(outputs)
            return file.getvalue()
    except Exception as error:
        path = _guilty_path(function, getattr(function, "__name__", "train_fn"))
        raise PicklingError(
            f"the train function cannot be sent to a node: {path} cannot be pickled ({error}). "
            "Make it inside the train function instead, or pass what is needed to make it"
        ) from error
    finally:
        for name in mine:
            cloudpickle.unregister_pickle_by_value(sys.modules[name])


def _can_travel(thing: Any) -> bool:
    try:
        with io.BytesIO() as file:
            _Pickler(file, set()).dump(thing)
    except Exception:
        return False
    return True


def _source_hash(module: types.ModuleType) -> str | None:
    file = getattr(module, "__file__", None) or ""
    if not file.endswith(".py"):
        return None
    try:
        with open(file, "rb") as source:
            return hashlib.sha256(source.read()).hexdigest()
    except OSError:
        return None


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc]
    """cloudpickle's pickler, but functions and classes keep their modules.

    Functions and classes of the modules `by_value` travel themselves. A function has the namespace
    of its module there, which it shares with whatever else comes to that module; `found` is what
    else pickle will look for in these modules. Code keeps the names of its files: cloudpickle
    leaves them out since 3.1.3, so that equal functions have equal pickles, but then tracebacks of
    trials would show no lines, and `inspect.getsource` (`torch.jit.script`) would not work.
    """

    def __init__(self, file: io.BytesIO, by_value: set[str]) -> None:
        super().__init__(file)
        self.found: dict[str, dict[str, Any]] = {}
        self._by_value = by_value

    def reducer_override(self, thing: Any) -> Any:
        """How to pickle a function or a class, of which note is taken."""
        if isinstance(thing, type | types.FunctionType):
            module = sys.modules.get(thing.__module__ or "")
            if module is not None and _is_in(module.__name__, self._by_value):
                contents, name = vars(module), str(thing.__qualname__)
                if contents.get(name) is thing:
                    self.found.setdefault(module.__name__, {})[name] = thing
                if getattr(thing, "__globals__", None) is contents:
                    self.globals_ref.setdefault(id(contents), _Namespace())
            elif module is not None and thing is _wrapped_in(module, thing.__name__):
                return wrapped_in, (module.__name__, thing.__name__)
        return super().reducer_override(thing)


def _wrapped_in(module: types.ModuleType, name: str) -> Any:
    """The function inside a decorated one of a module, such as the function under `@args`."""
    return getattr(vars(module).get(name), "__wrapped__", None)


class _Namespace(dict[str, Any]):
    """The namespace of a module, on its way; it is that of the module of its `__name__` there."""

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return namespace, (self["__name__"], dict(self))


def _is_in(name: str, modules: Iterable[str]) -> bool:
    """Whether a module is one of these, or in a package that is one of them."""
    return any(name == one or name.startswith(f"{one}.") for one in modules)


def _reduce_code(code: types.CodeType) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    make, given = cloudpickle.Pickler.dispatch_table[types.CodeType](code)
    return make, tuple(code.co_filename if one == "<dynamic-code>" else one for one in given)


_Pickler.dispatch_table = ChainMap(
    {types.CodeType: _reduce_code}, cloudpickle.Pickler.dispatch_table
)


def _is_of_library(logger: str) -> bool:
    """Whether a logger has the name of a module of Python or of an installed package."""
    return logger.partition(".")[0] != "__main__" and is_library(logger)


def _is_importable(module: types.ModuleType) -> bool:
    """Whether an import of the module's name, where it is not loaded yet, finds this module."""
    package = sys.modules.get(module.__name__.rpartition(".")[0])
    for finder in sys.meta_path:
        spec = finder.find_spec(module.__name__, getattr(package, "__path__", None))
        if spec is not None:
            return spec.origin == getattr(module, "__file__", None)
    return False


def _modules_of(function: Any) -> set[str]:
    """The modules that a function refers to, imports when it runs, or that its module imports."""
    module = sys.modules.get(getattr(function, "__module__", None) or "__main__")
    found = (
        set(_homes_in(module)) if module is not None and module.__name__ != "__main__" else set()
    )
    found |= homes(function)
    # Some import more when they are first used: torch, with its first optimizer, for 2 s.
    tops = {name.partition(".")[0] for name in found}
    found.update({"numpy.random"} if "numpy" in tops else ())
    found.update({"torch._dynamo"} if "torch" in tops else ())
    return found


def _is_preloaded(module: str) -> bool:
    """Whether a launcher imports a module ahead of trials: one of an installed package."""
    return module not in ("__main__", "builtins") and is_library(module)


def _homes_in(module: types.ModuleType) -> Iterator[str]:
    """The modules that a module has imported, or of which it has a function or class."""
    for value in vars(module).values():
        home = value.__name__ if isinstance(value, types.ModuleType) else value.__class__.__module__
        if isinstance(value, types.FunctionType | type):
            home = value.__module__
        if isinstance(home, str):
            yield home


def _guilty_path(thing: Any, path: str, depth: int = 0) -> str:
    """The innermost part of an object that pickling fails at, as an attribute path."""
    for name, part in _children(thing):
        try:
            cloudpickle.dumps(part)
        except Exception:
            where = f"{path}{name}"
            return _guilty_path(part, where, depth + 1) if depth < 8 else where
    return f"{path} (a {type(thing).__qualname__})"


def _children(thing: Any) -> Iterator[tuple[str, Any]]:
    if isinstance(thing, dict):
        yield from ((f"[{key!r}]", value) for key, value in thing.items())
    elif isinstance(thing, (list, tuple)):
        yield from ((f"[{n}]", value) for n, value in enumerate(thing))
    elif isinstance(thing, types.FunctionType):
        yield from ((f".{name}", value) for name, value in referred(thing).items())
    else:
        attributes = getattr(thing, "__dict__", {}).items()
        yield from (("" if n == "__wrapped__" else f".{n}", v) for n, v in attributes)
