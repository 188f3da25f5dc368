"""A small index of wheels without contents, so that installing needs no network.

make_wheels(folder, ["numpy==2.1.0"])       # then PIP_NO_INDEX=1, PIP_FIND_LINKS=folder
"""

from __future__ import annotations

import zipfile
from collections.abc import Iterable
from pathlib import Path


def make_wheels(folder: Path, pinned: Iterable[str]) -> None:
    """Make a wheel for each `name==version`: a package of that name in which nothing is."""
    folder.mkdir(parents=True, exist_ok=True)
    for name, version in (one.split("==") for one in pinned):
        module = name.replace("-", "_")
        about = f"{module}-{version}.dist-info"
        files = {
            f"{module}/__init__.py": "",
            f"{about}/METADATA": f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n",
            f"{about}/WHEEL": "Wheel-Version: 1.0\nRoot-Is-Purelib: true\nTag: py3-none-any\n",
        }
        record = "".join(f"{file},,\n" for file in [*files, f"{about}/RECORD"])
        with zipfile.ZipFile(folder / f"{module}-{version}-py3-none-any.whl", "w") as wheel:
            for file, text in {**files, f"{about}/RECORD": record}.items():
                wheel.writestr(file, text)
