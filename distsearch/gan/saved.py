"""What a coevolution leaves in its folder, and mixtures of the generators that are in it.

DIR/settings.json, examples.safetensors, judge.safetensors    what it is made with
DIR/search/                                                   the experiment, with all checkpoints
DIR/mixture.safetensors                                       the best mixture
"""

from __future__ import annotations

import json
import os
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn

from ..core.checkpoint import write_durably
from ..core.record import SearchRecord
from ..core.record import open as open_record
from ..core.words import Trial
from ..errors import NoExperiment, NothingReported, OptionError, StoreError
from . import mixture
from .examples import DAMAGED, Examples, read_tensors
from .individual import network_of
from .judge import Judge, Scores
from .networks import draw
from .settings import Settings

SETTINGS, EXAMPLES, JUDGE = "settings.json", "examples.safetensors", "judge.safetensors"
MIXTURE, SEARCH = "mixture.safetensors", "search"
EVOLVED_ON = 2000  # at the end weights evolve on so many examples of each generator
STEPS = 300  # the evolution of weights takes so many steps
SCORED = 10_000  # the scores that users see are of so many fresh examples
AT_ONCE = 1000


@dataclass(frozen=True)
class Generator:
    """A trained generator: its origin, its network, and the numbers it takes."""

    cell: int
    generation: int
    settings: Settings
    shape: tuple[int, ...]
    network: nn.Module

    def make(self, count: int, rng: torch.Generator) -> Tensor:
        """So many examples of this generator: pixels from -1 to 1, or points."""
        parts = []
        with torch.inference_mode():
            for start in range(0, count, AT_ONCE):
                some = min(AT_ONCE, count - start)
                parts.append(draw(self.network, self.settings.latent, some, rng))
        return torch.cat(parts) if parts else torch.empty(0, *self.shape)


@dataclass(frozen=True)
class Mixture:
    """Generators and how often each is asked.

        mixture = Mixture.read("runs/digits")
        images, makers = mixture.sample(100, seed=1)   # which generator has made each

    `scores`: on fresh examples when it was made.
    """

    generators: tuple[Generator, ...]
    weights: tuple[float, ...]
    scores: Scores

    def sample(self, count: int, seed: int = 0) -> tuple[Tensor, Tensor]:
        """So many examples in exact proportion to the weights, and who has made each; shuffled."""
        rng = torch.Generator().manual_seed(seed)
        counts = mixture.shares(self.weights, count)
        parts = [one.make(int(n), rng) for one, n in zip(self.generators, counts, strict=True)]
        makers = torch.repeat_interleave(torch.arange(len(counts)), torch.from_numpy(counts))
        order = torch.from_numpy(np.random.default_rng(seed).permutation(count))
        return torch.cat(parts)[order], makers[order]

    def save(self, folder: Path) -> None:
        """Write the mixture into a folder."""
        from safetensors.torch import save

        tensors = {}
        members = []
        for number, one in enumerate(self.generators):
            members.append(
                {
                    "cell": one.cell,
                    "generation": one.generation,
                    "settings": one.settings.to_json(),
                    "shape": one.shape,
                }
            )
            for name, tensor in one.network.state_dict().items():
                tensors[f"{number}.{name}"] = tensor.cpu().contiguous()
        about = {"members": members, "weights": self.weights, "scores": self.scores}
        folder.mkdir(parents=True, exist_ok=True)
        write_durably(folder / MIXTURE, save(tensors, metadata={"about": json.dumps(about)}))

    @classmethod
    def read(cls, folder: str | os.PathLike[str]) -> Mixture:
        """The mixture of a folder. Raises NoExperiment for none, StoreError for a damaged one."""
        path = Path(folder).expanduser() / MIXTURE
        if not path.is_file():
            raise NoExperiment(f"there is no {path}; give the folder of a run that has ended")
        told, tensors = read_tensors(path)
        about = json.loads(told["about"])
        generators = []
        for number, member in enumerate(about["members"]):
            prefix = f"{number}."
            weights = {
                n.removeprefix(prefix): t for n, t in tensors.items() if n.startswith(prefix)
            }
            settings = Settings.from_json(member["settings"])
            shape = tuple(member["shape"])
            network = network_of("generator", weights, settings, shape)
            place = member["cell"], member["generation"]
            generators.append(Generator(*place, settings, shape, network))
        return cls(tuple(generators), tuple(about["weights"]), Scores(*about["scores"]))


class Run:
    """The folder of a coevolution, which may be going on."""

    def __init__(self, folder: str | os.PathLike[str]) -> None:
        self.folder = Path(folder).expanduser().absolute()
        path = self.folder / SETTINGS
        if not path.is_file():
            raise NoExperiment(
                f"{self.folder} is no folder of `distsearch gan train`: there is no {SETTINGS}"
            )
        try:
            self.settings = Settings.from_json(path.read_text(encoding="utf-8"))
        except json.JSONDecodeError as error:
            raise StoreError(f"{path} {DAMAGED.format(error)}") from error

    @property
    def judge(self) -> Judge:
        """The judge of the coevolution."""
        return Judge.read(self.folder / JUDGE)

    @property
    def examples(self) -> Examples:
        """The examples from which it learns."""
        return Examples.read(self.folder / EXAMPLES)

    @property
    def record(self) -> SearchRecord:
        """The record of its search."""
        return open_record(self.folder / SEARCH)

    def newest(self) -> dict[int, dict[str, Any]]:
        """What each cell has published last (see `Published.to_state`), by cell.

        Raises NothingReported when no cell has finished a generation.
        """
        record = self.record
        newest: dict[int, Trial] = {}
        for trial in record.ledger.trials.values():
            is_whole = trial.status.is_end and not trial.status.is_failure
            if trial.bracket is not None and is_whole and trial.saved_step is not None:
                newest[trial.bracket] = trial
        states = {cell: record.load_checkpoint(trial.id) for cell, trial in newest.items()}
        found = {cell: state for cell, state in states.items() if state is not None}
        if not found:
            raise NothingReported(f"no cell in {self.folder} has finished a generation yet")
        return found

    def mixture(self) -> Mixture:
        """The best mixture: the one saved at the end, or one of what there is so far."""
        if (self.folder / MIXTURE).is_file():
            return Mixture.read(self.folder)
        return best_mixture(self)


def generators_of(run: Run) -> dict[int, Generator]:
    """The best generator that each cell of a run has had, by its FID in its generation."""
    return {
        cell: _generator(run, cell, state["best"]["generation"], state["best"]["weights"])
        for cell, state in run.newest().items()
    }


def newest_generators_of(run: Run) -> dict[int, Generator]:
    """The generator that each cell of a run has published last."""
    return {
        cell: _generator(run, cell, state["generation"], state["generator"]["weights"])
        for cell, state in run.newest().items()
    }


def _generator(run: Run, cell: int, generation: int, weights: Mapping[str, Tensor]) -> Generator:
    shape = run.judge.shape
    network = network_of("generator", weights, run.settings, shape)
    return Generator(cell, generation, run.settings, shape, network)


def best_mixture(run: Run) -> Mixture:
    """The mixture with the lowest FID, of a neighbourhood's best generators or its newest ones.

    Each of the newest may be worse alone, and yet they may make better examples together: early in
    a run the best alone are those that make a little of everything. The weights of each mixture
    begin with what its cell has published, and evolve on fixed examples, unless the settings have
    it off. The scores are those of fresh examples.
    """
    found = [*_mixtures(run, generators_of(run)), *_mixtures(run, newest_generators_of(run))]
    _, members, weights = min(found, key=lambda one: one[0])
    return scored(members, weights, run.judge, run.settings.seed)


def _mixtures(
    run: Run, generators: Mapping[int, Generator]
) -> Iterator[tuple[float, list[Generator], mixture.Weights]]:
    """For each neighbourhood the FID, the members and the evolved weights of its mixture."""
    settings, judge, states = run.settings, run.judge, run.newest()
    features = _features(list(generators.values()), judge, settings.seed)
    by_cell = dict(zip(generators, features, strict=True))
    steps = 0 if settings.mixture == "off" else STEPS
    for cell in sorted(generators):
        around = [cell, *(one for one in settings.graph[cell] if one in generators)]
        weights = mixture.uniform(len(around))
        if len(states[cell]["weights"]) == len(around):
            weights = np.array(states[cell]["weights"])
        rng = np.random.default_rng((settings.seed, cell, 2))
        ours = [by_cell[one] for one in around]
        weights, fid = _evolved(judge, ours, weights, settings.sigma, steps, rng)
        yield fid, [generators[one] for one in around], weights


def ensemble(runs: Sequence[Run], seed: int = 0) -> Mixture:
    """A mixture over all cells' best generators of some runs, judged by the judge of the first.

    Raises OptionError when their examples have other shapes.
    """
    judge = runs[0].judge
    for run in runs[1:]:
        if run.judge.shape != judge.shape:
            raise OptionError(
                f"{run.folder} makes examples of the shape {run.judge.shape}, {runs[0].folder} of "
                f"{judge.shape}; a mixture needs them alike"
            )
    members = [one for run in runs for one in generators_of(run).values()]
    features = _features(members, judge, seed)
    fids = np.array([judge.fid(one) for one in features])
    begin = 1 / (fids + 1e-9)  # (the better a generator is alone, the larger its first weight)
    weights = begin / begin.sum()
    rng = np.random.default_rng((seed, 3))
    weights, _ = _evolved(judge, features, weights, runs[0].settings.sigma, STEPS, rng)
    return scored(members, weights, judge, seed)


def scored(
    members: Sequence[Generator],
    weights: Sequence[float] | mixture.Weights,
    judge: Judge,
    seed: int,
) -> Mixture:
    """A mixture with its scores on fresh examples."""
    nowhere = Scores(float("nan"), None, None)
    unscored = Mixture(tuple(members), tuple(float(one) for one in weights), nowhere)
    examples, _ = unscored.sample(SCORED, seed=seed + 1_000_003)
    return Mixture(unscored.generators, unscored.weights, judge.score(judge.features(examples)))


def _features(members: Sequence[Generator], judge: Judge, seed: int) -> list[Any]:
    rng = torch.Generator().manual_seed(seed + 7)
    return [judge.features(one.make(EVOLVED_ON, rng)) for one in members]


def _evolved(
    judge: Judge,
    features: Sequence[Any],
    weights: mixture.Weights,
    sigma: float,
    steps: int,
    rng: np.random.Generator,
) -> tuple[mixture.Weights, float]:
    def fid(weights: mixture.Weights) -> float:
        return judge.fid(mixture.mixed(features, mixture.shares(weights, EVOLVED_ON)))

    from threadpoolctl import threadpool_limits  # (the import sets an environment variable)

    with threadpool_limits(1):  # (the matrices are too small: several threads would only wait)
        return mixture.evolve(weights, fid, sigma=sigma, steps=steps, rng=rng)
