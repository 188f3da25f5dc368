"""What a coevolution of GANs is made with: every setting, its default and what it may be."""

from __future__ import annotations

import json
import os
from collections.abc import Mapping
from dataclasses import asdict, dataclass, fields
from numbers import Integral, Real
from typing import Any

from ..errors import OptionError, suggest
from ..resource.toml import read_toml
from ..scheduler.coevolution import graph_of

LOSSES = ("bce", "mse", "heuristic", "wgan", "mustangs")
CHOICES: dict[str, tuple[str, ...]] = {
    "network": ("mlp", "dcgan"),
    "loss": LOSSES,
    "mustangs": ("always", "at_creation"),
    "fitness": ("average", "worst", "best"),
    "replacement": ("elitist", "always"),
    "mixture": ("online", "end", "off"),
    "sampling": ("exact", "independent"),
}


@dataclass(frozen=True)
class Settings:
    """The settings of a coevolution; those of the defaults suit scikit-learn's digits.

        Settings(data="mnist", data_root="~/data", grid="3x3", generations=200, lr=2e-4)

    `data`, `data_root`: what is learned; see `gan.examples.load`.
    `grid`: the torus of cells, as '2x2'; `isolated`: every cell is alone, as a baseline.
    `generations`: of each cell; in one it sees its part of the data once.
    `network`: 'mlp' (with `hidden` layers of these widths) or 'dcgan'; `latent`: how many random
        numbers an image is made of.
    `lr`, `batch`: the first learning rate, and images a step. (Of `latent`, `lr`, `batch` and
        `sigma` 0 stands for what is usual with the network.)
    `loss`: that of the generator; 'mustangs' draws one of bce, mse and heuristic, `mustangs`:
        'always' anew for each generation, or 'at_creation' of a cell.
    `fitness`: how losses against several opponents become one number. `samples`: real images for
        that. `tournament`: how many are compared to choose the one that is trained.
    `against_neighbours`: the share of steps against a random neighbour's network, as the text of
        the paper has it for all; the others are against the one that is trained with it, as in its
        authors' program. (Neighbours' networks stand still meanwhile, and a generator finds what
        fools one that stands still.)
    `replacement`: whether what was trained takes its cell 'always', or only if it is better.
    `lr_mutation`: the probability that a learning rate changes before a step.
    `skip`: the discriminator learns at every n-th step.
    `dieting`: the share of the data that each cell sees, its own random one.
    `mixture`: whether the weights of a neighbourhood's generators evolve after each generation,
        only at the end, or not; `sigma`: by how much, `sampling`: whether a sample has exactly
        these shares. `score_samples`: images that a generation is scored with.
    `seed`: of all randomness.
    """

    data: str = "digits"
    data_root: str | None = None
    grid: str = "2x2"
    isolated: bool = False
    generations: int = 120
    network: str = "mlp"
    hidden: tuple[int, ...] = (256, 256)
    latent: int = 0
    lr: float = 0.0
    batch: int = 0
    loss: str = "bce"
    mustangs: str = "always"
    fitness: str = "average"
    samples: int = 1000
    tournament: int = 2
    against_neighbours: float = 0.0
    replacement: str = "elitist"
    lr_mutation: float = 0.5
    skip: int = 1
    dieting: float = 1.0
    mixture: str = "online"
    sigma: float = 0.0
    sampling: str = "exact"
    score_samples: int = 1000
    seed: int = 0

    def __post_init__(self) -> None:
        for field in fields(self):
            self._check_kind(field.name, str(field.type))
        for name, valid in CHOICES.items():
            got = getattr(self, name)
            if got not in valid:
                raise OptionError(f"{name}={got!r}; {suggest(str(got), valid)}")
        for name in ("generations", "samples", "tournament", "skip", "score_samples"):
            self._check(name, getattr(self, name) >= 1, "1 or more")
        for name in ("latent", "batch", "lr", "sigma", "seed"):
            self._check(name, getattr(self, name) >= 0, "0 or more")
        self._check("lr_mutation", 0 <= self.lr_mutation <= 1, "from 0 to 1")
        share = self.against_neighbours
        self._check("against_neighbours", 0 <= share <= 1, "from 0 to 1")
        self._check("dieting", 0 < self.dieting <= 1, "above 0, and 1 at most")
        self._check("hidden", bool(self.hidden) and min(self.hidden) >= 1, "widths, as (256, 256)")
        graph_of(self.grid, "grid")
        usual = (64, 5e-4, 100, 0.01) if self.network == "mlp" else (100, 5e-5, 128, 0.05)
        for name, value in zip(("latent", "lr", "batch", "sigma"), usual, strict=True):
            if not getattr(self, name):
                object.__setattr__(self, name, value)

    @classmethod
    def of(cls, given: Mapping[str, Any]) -> Settings:
        """Settings from named values; OptionError for an unknown name, with the nearest known."""
        names = [field.name for field in fields(cls)]
        for name in given:
            if name not in names:
                raise OptionError(f"there is no setting {name!r}; {suggest(name, names)}")
        values = dict(given)
        if isinstance(values.get("hidden"), list):
            values["hidden"] = tuple(values["hidden"])
        return cls(**values)

    @classmethod
    def read(cls, path: str | os.PathLike[str], more: Mapping[str, Any]) -> Settings:
        """Settings from a TOML file; those in `more` count in place of the file's.

        Raises OptionError for a file that is none, and as `of` does.
        """
        return cls.of({**read_toml(path), **more})

    def to_json(self) -> str:
        """All settings as text, for a file and for trials."""
        return json.dumps(asdict(self), indent=1)

    @classmethod
    def from_json(cls, text: str) -> Settings:
        """The settings that `to_json` has written."""
        return cls.of(json.loads(text))

    def differences(self, other: Settings) -> list[str]:
        """The differences to other settings, a line each."""
        ours, theirs = asdict(self), asdict(other)
        return [
            f"{name}: {ours[name]!r} there, {theirs[name]!r} here"
            for name in ours
            if ours[name] != theirs[name]
        ]

    @property
    def graph(self) -> tuple[tuple[int, ...], ...]:
        """The neighbours of each cell; none where cells are isolated."""
        graph = graph_of(self.grid)
        return tuple(() for _ in graph) if self.isolated else graph

    def _check(self, name: str, is_valid: bool, valid: str) -> None:
        if not is_valid:
            raise OptionError(f"{name}={getattr(self, name)!r}, but it must be {valid}")

    def _check_kind(self, name: str, kind: str) -> None:
        got = getattr(self, name)
        wanted: dict[str, tuple[Any, str]] = {
            "bool": (bool, "True or False"),
            "int": (Integral, "a whole number"),
            "float": (Real, "a number"),
            "str": (str, "a text"),
            "str | None": ((str, type(None)), "a text"),
            "tuple[int, ...]": (tuple, "a list of widths"),
        }
        types, in_words = wanted[kind]
        is_odd_bool = isinstance(got, bool) and kind != "bool"
        if not isinstance(got, types) or is_odd_bool:
            raise OptionError(f"{name}={got!r}; give {in_words}")
        if kind == "tuple[int, ...]" and not all(isinstance(one, Integral) for one in got):
            raise OptionError(f"{name}={got!r}; give {in_words}")
