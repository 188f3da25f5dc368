"""The driver's own distsearch, as it is sent to nodes over SSH: no index is asked for it."""

from __future__ import annotations

import functools
import io
import zipfile
from pathlib import Path
from typing import NamedTuple

from .starter import content_of

_PACKAGE = Path(__file__).parents[1]


class Parcel(NamedTuple):
    """The Python files of this package: a hash of their contents, and a zip of them."""

    content: str
    zipped: bytes


@functools.cache
def parcel() -> Parcel:
    """The files that this process imports; read once, for the first node."""
    packed = io.BytesIO()
    with zipfile.ZipFile(packed, "w", zipfile.ZIP_DEFLATED, compresslevel=9) as file:
        for path in sorted(_PACKAGE.rglob("*.py")):
            file.write(path, f"{_PACKAGE.name}/{path.relative_to(_PACKAGE)}")
    return Parcel(content_of(str(_PACKAGE)), packed.getvalue())
