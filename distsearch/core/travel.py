"""What travels from the driver to a node: the pickled train function, and what it will import."""

from __future__ import annotations

import dis
import importlib.util
import inspect
import io
import sys
import sysconfig
import types
from collections import ChainMap
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any

import cloudpickle

from ..errors import PicklingError
from ..resource.private import name_of

_LIBRARIES = tuple(
    path
    for key in ("stdlib", "platstdlib", "purelib", "platlib")
    if (path := sysconfig.get_path(key))
)


@dataclass(frozen=True)
class Packed:
    """A train function on its way: the bytes, a name for them, and modules worth preloading."""

    data: bytes
    name: str
    modules: tuple[str, ...]


def pack(function: Any, *, stays_here: bool = False) -> Packed:
    """Pickle a train function; its own module travels with it unless it is an installed one.

    Trials of this machine (`stays_here`) import that module as the driver did. Raises
    PicklingError that names the part which cannot travel.
    """
    module = sys.modules.get(getattr(function, "__module__", None) or "")
    by_value = (
        module is not None
        and module.__name__ not in ("__main__", *cloudpickle.list_registry_pickle_by_value())
        and not _is_installed(module)
        and not (stays_here and _is_importable(module))
    )
    if by_value:
        cloudpickle.register_pickle_by_value(module)
    try:
        data = _dumps(function)
    except Exception as error:
        path = _guilty_path(function, getattr(function, "__name__", "train_fn"))
        raise PicklingError(
            f"the train function cannot be sent to a node: {path} cannot be pickled ({error}). "
            "Make it inside the train function instead, or pass what is needed to make it"
        ) from error
    finally:
        if by_value:
            cloudpickle.unregister_pickle_by_value(module)
    return Packed(data, name_of(data), tuple(sorted(_modules_of(function))))


class _Pickler(cloudpickle.Pickler):  # type: ignore[misc]
    """cloudpickle's, with the names of the files that code comes from.

    Since 3.1.3 it leaves them out, so that equal functions have equal pickles. Tracebacks of trials
    would then show no lines, and `inspect.getsource` (`torch.jit.script`) would not work in them.
    """


def _dumps(thing: Any) -> bytes:
    with io.BytesIO() as file:
        _Pickler(file).dump(thing)
        return file.getvalue()


def _reduce_code(code: types.CodeType) -> tuple[Callable[..., Any], tuple[Any, ...]]:
    make, given = cloudpickle.Pickler.dispatch_table[types.CodeType](code)
    return make, tuple(code.co_filename if one == "<dynamic-code>" else one for one in given)


_Pickler.dispatch_table = ChainMap(
    {types.CodeType: _reduce_code}, cloudpickle.Pickler.dispatch_table
)


def _is_installed(module: types.ModuleType) -> bool:
    """Whether a module belongs to Python or to an installed package, which each node has itself."""
    file = getattr(module, "__file__", None)
    if file is None or module.__name__.partition(".")[0] == __name__.partition(".")[0]:
        return True
    return str(file).startswith(_LIBRARIES)


def _is_importable(module: types.ModuleType) -> bool:
    """Whether importing the module's name finds this very module."""
    try:
        spec = importlib.util.find_spec(module.__name__)
    except (ImportError, ValueError):
        return False
    return spec is not None and spec.origin == getattr(module, "__file__", None)


def _is_library(name: str) -> bool:
    top = name.partition(".")[0]
    if top in sys.stdlib_module_names:
        return True
    module = sys.modules.get(top)
    if module is not None:
        return _is_installed(module)
    try:
        spec = importlib.util.find_spec(top)
    except (ImportError, ValueError):
        return False
    return spec is not None and bool(spec.origin) and str(spec.origin).startswith(_LIBRARIES)


def _modules_of(function: Any) -> set[str]:
    """The installed modules that a function refers to, or imports when it runs."""
    found: set[str] = set()
    seen: set[int] = set()
    waiting = [inspect.unwrap(function)]
    while waiting:
        thing = waiting.pop()
        if id(thing) in seen or len(seen) > 2000:
            continue
        seen.add(id(thing))
        if isinstance(thing, types.ModuleType):
            found.add(thing.__name__)
        elif isinstance(thing, types.CodeType):
            found.update(_imports_in(thing))
            waiting.extend(c for c in thing.co_consts if isinstance(c, types.CodeType))
        elif isinstance(thing, (types.FunctionType, type)):
            found.add(thing.__module__)
            module = sys.modules.get(thing.__module__)
            if module is None or not _is_installed(module) or thing.__module__ == "__main__":
                waiting.extend(_parts(thing))
        else:
            found.add(type(thing).__module__)
    # What these import only when they are used: torch with its first optimizer, in 2 s.
    tops = {name.partition(".")[0] for name in found}
    found.update({"numpy.random"} if "numpy" in tops else ())
    found.update({"torch._dynamo"} if "torch" in tops else ())
    own = ("__main__", "builtins")
    return {name for name in found if name not in own and _is_library(name)}


def _parts(thing: Any) -> Iterator[Any]:
    if isinstance(thing, type):
        yield from thing.__bases__
        yield from (inspect.unwrap(v) for v in vars(thing).values() if inspect.isfunction(v))
        return
    yield thing.__code__
    yield from _referred(thing).values()


def _referred(function: types.FunctionType) -> dict[str, Any]:
    """The globals and closed-over variables that a function uses, by name."""
    names: dict[str, Any] = {}
    codes = [function.__code__]
    while codes:
        code = codes.pop()
        names.update(
            {n: function.__globals__[n] for n in code.co_names if n in function.__globals__}
        )
        codes.extend(c for c in code.co_consts if isinstance(c, types.CodeType))
    for name, cell in zip(function.__code__.co_freevars, function.__closure__ or (), strict=True):
        try:
            names[name] = cell.cell_contents
        except ValueError:
            continue  # not yet bound
    return names


def _imports_in(code: types.CodeType) -> Iterator[str]:
    for instruction in dis.get_instructions(code):
        if instruction.opname == "IMPORT_NAME":
            yield str(instruction.argval)


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
        yield from ((f".{name}", value) for name, value in _referred(thing).items())
    else:
        attributes = getattr(thing, "__dict__", {}).items()
        yield from (("" if n == "__wrapped__" else f".{n}", v) for n, v in attributes)
