"""Which of the driver's packages a node is to have: `setup` installs them, a search looks for them.

    environment = environment_of(["torch", "sklearn"])     # modules that trials import
    environment.wanted      # ('cloudpickle==3.1.2', ..., 'scikit-learn==1.7.2', 'torch==2.9.1')
    environment.name        # 'environment-3f9c...', which depends on the versions

Versions have no local part: `torch==2.9.1` may be `2.9.1+cu128` on a node, from whatever index the
node uses. Packages that the driver did not get from an index are left out: an index may have a
stranger's package of the same name.
"""

from __future__ import annotations

import functools
import hashlib
import re
import sys
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from importlib.metadata import (
    Distribution,
    PackageNotFoundError,
    distribution,
    packages_distributions,
)

from .versions import NODE_PACKAGES

GPU_FACTS = "nvidia-ml-py"  # without it a node has no GPUs
PREFIX = "environment-"


@dataclass(frozen=True)
class Environment:
    """Packages in the driver's versions, as pip reads them.

    `left_out`: the modules that `setup` cannot get from an index.
    """

    wanted: tuple[str, ...]
    left_out: tuple[str, ...] = ()

    @functools.cached_property
    def constraints(self) -> tuple[str, ...]:
        """The further packages that the wanted ones need, in the driver's versions."""
        names = [pinned.partition("==")[0] for pinned in self.wanted]
        found = {name: package for name in names if (package := _installed(name)) is not None}
        return _pinned({n: one for n, one in _needed_by(found).items() if n not in found})

    @property
    def name(self) -> str:
        """The name of this environment's folder on a node."""
        parts = [*sys.version_info[:2], *self.wanted, "", *self.constraints]
        return PREFIX + hashlib.sha256("\n".join(map(str, parts)).encode()).hexdigest()[:16]


def environment_of(modules: Iterable[str] = ()) -> Environment:
    """What distsearch needs on a node, and the packages from which the driver has these modules."""
    found: dict[str, Distribution] = {}
    left_out = []
    for name in (*NODE_PACKAGES, GPU_FACTS):
        package = _installed(name)
        if package is not None:
            found[_canonical(name)] = package
    own = __name__.partition(".")[0]
    for module in sorted({name.partition(".")[0] for name in modules} - {own}):
        package = distribution_of(module)
        if package is None or not _is_from_an_index(package):
            left_out.append(module)
        else:
            found[_canonical(package.name)] = package
    return Environment(_pinned(found), tuple(left_out))


@functools.cache
def least_environment() -> Environment:
    """What distsearch needs on a node."""
    return environment_of()


def distribution_of(module: str) -> Distribution | None:
    """The package from which the driver has a module, by the module's top name; None if unknown."""
    package = _installed(module)  # (most have the name of their module, and to list all takes long)
    if package is not None and _holds(package, module):
        return package
    names = _packages_of_all_modules().get(module)
    return distribution(names[0]) if names else None


def pin(package: Distribution) -> str:
    """A package and its version, as pip reads them: `torch==2.9.1`."""
    return f"{_canonical(package.name)}=={package.version.partition('+')[0]}"


@functools.cache
def _packages_of_all_modules() -> dict[str, list[str]]:
    return dict(packages_distributions())


def _installed(name: str) -> Distribution | None:
    try:
        return distribution(name)
    except (PackageNotFoundError, ValueError):
        return None


def _holds(package: Distribution, module: str) -> bool:
    record = package.read_text("RECORD") or ""
    return f"\n{module}/" in f"\n{record}" or f"\n{module}.py," in f"\n{record}"


def _is_from_an_index(package: Distribution) -> bool:
    return package.read_text("direct_url.json") is None  # (pip writes it for paths and URLs)


def _needed_by(packages: dict[str, Distribution]) -> dict[str, Distribution]:
    """Some packages of the driver, and all packages that these need."""
    found = dict(packages)
    waiting = list(packages.values())
    while waiting:
        for name in _requirements(waiting.pop()):
            package = None if name in found else _installed(name)
            if package is not None:
                found[name] = package
                waiting.append(package)
    return found


def _requirements(package: Distribution) -> Iterator[str]:
    from packaging.requirements import (
        Requirement,  # (here, as a search without SSH need not load it)
    )

    for text in package.requires or ():
        requirement = Requirement(text)
        if requirement.marker is None or requirement.marker.evaluate({"extra": ""}):
            yield _canonical(requirement.name)


def _pinned(packages: dict[str, Distribution]) -> tuple[str, ...]:
    return tuple(sorted(pin(one) for one in packages.values() if _is_from_an_index(one)))


def _canonical(name: str) -> str:
    return re.sub(r"[-_.]+", "-", name).lower()
