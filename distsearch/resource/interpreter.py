"""Which Python of a node runs the starter, and the command that does it.

Where a node's `python` is not named, several interpreters may do: the driver's own path (homes on a
network, machines of one image), an environment that `setup` has made, `python3`. The first is taken
that has the driver's Python version and Dask; if none has these, the first that is there, which
then says what it lacks.
"""

from __future__ import annotations

import base64
import shlex
import sys
import zlib
from collections.abc import Sequence
from pathlib import Path

from . import starter
from .environment import Environment, least_environment
from .node import Node

MADE_BY_SETUP = "environment"  # stands for the newest environment that has what is wanted
UV = "uv"  # stands for a Python that uv finds or downloads

# Runs before the starter, which older Pythons cannot compile; Python 2 can run this.
_FIRST_LOOK = """
import sys
sys.path[:] = [path for path in sys.path if path]
import json
if sys.version_info < (3, 8):
    hello = {"op": "hello", "python": list(sys.version_info[:3]), "packages": {}}
    hello["executable"] = sys.executable
    sys.stdout.write("\\n" + json.dumps(hello) + "\\n")
    sys.stdout.flush()
    sys.exit(0)
"""
# Exits with 0 if an interpreter has this version of Python, and these modules.
_LOOK = (
    "import sys,importlib.util as u;sys.path[:]=[p for p in sys.path if p];"
    "sys.exit(0 if sys.version_info[:2]=={version} and all(map(u.find_spec,{modules})) else 1)"
)
# $1: the starter; $2: the look; $3: the cache folder, if it is not the usual one; $4, $5: what an
# environment should have, and what it must have; then the interpreters. One line, for all shells.
_FIRST_THAT_WILL_DO = (
    'code="$1"; look="$2"; cache="${3:-${XDG_CACHE_HOME:-$HOME/.cache}}/distsearch"; '
    'wanted="$4"; least="$5"; first=""; shift 5; '
    # (Where others can write, an environment may be a stranger's.)
    'is_own() { [ -O "$1" ] && case "$(ls -ld "$1")" in d????-??-*) true;; *) false;; esac; }; '
    "made() { "
    'for name in $(ls -t "$cache" 2>/dev/null | grep "^environment-"); do '
    'is_own "$cache/$name" || continue; '
    'for one in $1; do grep -qxF -e "$one" "$cache/$name/complete" 2>/dev/null || continue 2; '
    'done; echo "$cache/$name/bin/python"; return; done; }; '
    'for python in "$@"; do case "$python" in '
    'environment) is_own "$cache" || continue; python="$(made "$wanted")"; '
    '[ "$python" ] || python="$(made "$least")"; [ "$python" ] || continue;; '
    'uv) for uv in uv "$HOME/.local/bin/uv" "$HOME/.cargo/bin/uv"; do '
    'command -v "$uv" >/dev/null 2>&1 && '
    'exec "$uv" run --no-project --python VERSION python -u -c "$code"; done; continue;; esac; '
    'command -v "$python" >/dev/null 2>&1 || continue; '
    '"$python" -c "$look" </dev/null >/dev/null 2>&1 && exec "$python" -u -c "$code"; '
    'first="${first:-$python}"; done; '
    '[ "$first" ] && exec "$first" -u -c "$code"; exit 127'
)


def interpreters(node: Node) -> list[str]:
    """Where the interpreter of a node's trials may be: the named one, else these, in order."""
    if node.setup:
        return [MADE_BY_SETUP, *makers(node)]
    return [node.python] if node.python else [sys.executable, MADE_BY_SETUP, "python3"]


def makers(node: Node) -> list[str]:
    """Where the interpreter may be from which `setup` makes an environment."""
    version = f"python{sys.version_info[0]}.{sys.version_info[1]}"
    return [node.python] if node.python else [sys.executable, version, "python3", UV]


def in_words(python: str) -> str:
    """An interpreter, as messages name it."""
    return "environment made by `distsearch setup`" if python == MADE_BY_SETUP else repr(python)


def starter_command(node: Node, environment: Environment | None = None) -> str:
    """The command, one line for any shell, that runs the starter with a node's interpreter.

    `environment`: the packages that its trials want.
    """
    if node.python is not None and not node.setup:
        return _named(node.python)
    return _first_that_will_do(node, interpreters(node), ["distributed"], environment)


def maker_command(node: Node) -> str:
    """The command that runs the starter with an interpreter that can make an environment."""
    if node.python is not None:
        return _named(node.python)
    return _first_that_will_do(node, makers(node), [])


def _named(python: str) -> str:
    home = "~/" if python.startswith("~/") else ""  # (shells replace no ~ in quotes)
    return f"exec {home}{shlex.quote(python[len(home) :])} -u -c {shlex.quote(_code())}"


def _first_that_will_do(
    node: Node,
    names: Sequence[str],
    modules: Sequence[str],
    environment: Environment | None = None,
) -> str:
    version = tuple(sys.version_info[:2])
    look = _LOOK.format(version=version, modules=list(modules)).replace("'", '"')
    choose = _FIRST_THAT_WILL_DO.replace("VERSION", f"{version[0]}.{version[1]}")
    cache, least = node.env.get("XDG_CACHE_HOME", ""), " ".join(least_environment().wanted)
    wanted = least if environment is None else " ".join(environment.wanted)
    given = [_code(), look, cache, wanted, least, *names]
    return f"exec {shlex.join(['sh', '-c', choose, 'sh', *given])}"


def _code() -> str:
    first, source = map(_packed, (_FIRST_LOOK.encode(), Path(starter.__file__).read_bytes()))
    return f"import base64,zlib;exec({first});exec({source})"


def _packed(source: bytes) -> str:
    """A Python expression that gives a source text, without any sign that shells interpret."""
    packed = base64.b64encode(zlib.compress(source, 9)).decode()
    return f'zlib.decompress(base64.b64decode("{packed}"))'
