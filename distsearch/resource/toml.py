"""Files of TOML, as people write them by hand."""

from __future__ import annotations

import os
import sys
from pathlib import Path
from typing import Any

from ..errors import OptionError

if sys.version_info >= (3, 11):
    import tomllib
else:
    import tomli as tomllib  # type: ignore[import-not-found, unused-ignore]


def read_toml(path: str | os.PathLike[str]) -> dict[str, Any]:
    """The tables of a file: `read_toml("nodes.toml")["gpu1"]["port"]`.

    Raises OptionError for a file that cannot be read, or is no TOML, with its name and the line.
    """
    file = Path(path).expanduser()
    try:
        return dict(tomllib.loads(file.read_text(encoding="utf-8")))
    except OSError as error:
        raise OptionError(f"{file} cannot be read: {error.strerror}") from error
    except ValueError as error:  # (no UTF-8, or no TOML)
        raise OptionError(f"{file} is no TOML: {error}") from error
