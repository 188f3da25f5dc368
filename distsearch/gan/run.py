"""Trains a grid of GANs: prepares the data and the judge, runs the coevolution, keeps the best."""

from __future__ import annotations

import functools
import os
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from ..core.decorators import args as search_args
from ..errors import OptionError
from ..resource.addresses import Addresses
from ..resource.node import Node
from ..resource.private import private
from ..scheduler import CoevolutionScheduler
from .settings import Settings

if TYPE_CHECKING:
    from .examples import Examples
    from .judge import Judge
    from .saved import Mixture


@search_args(settings="", cell=0, generation=0)
def evolve_cell(args: Any, reporter: Any) -> None:
    """One generation of a cell, in a trial; its parents are what the neighbourhood published."""
    import torch

    from .cell import Neighbourhood, Published

    settings = Settings.from_json(args.settings)
    device = "cuda" if args.num_gpus else "cpu"
    examples, judge = _prepared(os.getcwd(), device)
    states = [reporter.load(parent) for parent in reporter.parents]
    published = [
        Published.of_state(state, settings, examples.shape, torch.device(device))
        for state in states
        if state is not None
    ]
    around = Neighbourhood(
        args.cell,
        settings,
        examples,
        judge,
        published,
        seed=(settings.seed, args.cell, args.generation, args.task_id),
    )
    own, measured = around.generation(args.generation)
    reporter.save(own.to_state(), step=args.generation)
    scores = {name: value for name, value in measured.scores._asdict().items() if value is not None}
    reporter(
        generation=args.generation,
        **scores,
        own_fid=measured.own_fid,
        generator_loss=measured.generator_loss,
        discriminator_loss=measured.discriminator_loss,
        lr=measured.lr,
        loss=measured.loss,
        replaced=measured.replaced,
    )


@functools.lru_cache(maxsize=1)
def _prepared(folder: str, device: str) -> tuple[Examples, Judge]:
    """What the driver has sent; each process, which serves many generations, reads it once."""
    from .examples import Examples
    from .judge import Judge
    from .saved import EXAMPLES, JUDGE

    path = Path(folder)
    return Examples.read(path / EXAMPLES, device), Judge.read(path / JUDGE, device)


def train(
    settings: Settings,
    out: str | os.PathLike[str],
    *,
    nodes: Addresses = (),
    local: bool | Node | None = None,
    cpus: int = 1,
    gpus: float = 0,
    minutes: float | None = None,
    ssh_config: Sequence[str | os.PathLike[str]] | None = None,
    verbose: int = 1,
    say: Callable[[str], None] = print,
) -> Mixture:
    """Train a grid of GANs and keep all in a folder; returns the best mixture.

        mixture = train(Settings(grid="2x2"), "runs/digits")
        images, _ = mixture.sample(100)

    The same call goes on with what an earlier one has left in the folder. `nodes`: addresses, for
    more than this machine; what they need is sent to them. `cpus`, `gpus`: of a cell while it
    trains. `minutes`: it ends after so many, and the same call goes on.

    Raises OptionError for a folder that other settings have made, with the differences; DataError,
    SearchFailed when the first generations all fail alike, KeyboardInterrupt.
    """
    from .saved import EXAMPLES, JUDGE, SEARCH, SETTINGS, Run, best_mixture

    if minutes is not None and not minutes > 0:
        raise OptionError(f"minutes={minutes!r}; give a number above 0, or None")
    folder = Path(out).expanduser().absolute()
    _check_folder(folder, settings)
    examples = None if (folder / SETTINGS).is_file() else _examples(settings)
    with CoevolutionScheduler(
        evolve_cell,
        args={"settings": settings.to_json()},
        cells=dict(enumerate(settings.graph)),
        generations=settings.generations,
        resource={"num_cpus": cpus, "num_gpus": gpus},
        reward_attr="fid",
        mode="min",
        time_attr="generation",
        checkpoint=folder / SEARCH,
        seed=settings.seed,
        dist_ip_addrs=nodes,
        local=local,
        ssh_config=ssh_config,
        time_out=None if minutes is None else 60 * minutes,
        verbose=verbose,
    ) as scheduler:
        if examples is not None:
            _prepare(folder, settings, examples, say)
        scheduler.upload_files([folder / EXAMPLES, folder / JUDGE])
        scheduler.run()
        scheduler.join_jobs()
    best = best_mixture(Run(folder))
    best.save(folder)
    return best


def _check_folder(folder: Path, settings: Settings) -> None:
    """Raise OptionError unless the folder is new, or the same settings have made it."""
    from .saved import EXAMPLES, JUDGE, SEARCH, SETTINGS, Run

    if (folder / SETTINGS).is_file():
        differences = Run(folder).settings.differences(settings)
        if differences:
            raise OptionError(
                f"{folder} holds another run, which this one cannot go on with:\n  "
                + "\n  ".join(differences)
                + "\nUndo these changes, or choose another folder"
            )
        return
    begun = {EXAMPLES, JUDGE, SEARCH, f".{EXAMPLES}.part", f".{JUDGE}.part"}
    if folder.exists() and any(path.name not in begun for path in folder.iterdir()):
        raise OptionError(f"{folder} holds something else already; choose an empty or a new folder")


def _examples(settings: Settings) -> Examples:
    """The examples to be imitated, for which the networks can be built."""
    from .examples import load
    from .networks import discriminator, generator

    examples = load(settings.data, settings.data_root)
    for build in (generator, discriminator):
        build(settings, examples.shape)
    return examples


def _prepare(
    folder: Path, settings: Settings, examples: Examples, say: Callable[[str], None]
) -> None:
    """Make the files of the examples and the judge; the settings, which say so, come last."""
    from .judge import Judge
    from .saved import EXAMPLES, JUDGE, SETTINGS

    examples.save(folder / EXAMPLES)
    judge = Judge.trained(examples, settings.seed)
    judge.save(folder / JUDGE)
    with open(folder / SETTINGS, "w", encoding="utf-8", opener=private) as file:
        file.write(settings.to_json())
    say(_in_words(examples, judge))


def _in_words(examples: Examples, judge: Judge) -> str:
    count = len(examples.train)
    accuracy = f"{100 * judge.accuracy:.1f}% of {len(examples.test)} held-out ones"
    if examples.are_points:
        return f"{examples.name}: {count} points; {accuracy} are nearest to their own mode"
    what = "" if examples.classes else " of how images are turned, for want of classes"
    return (
        f"{examples.name}: {count} images; the classifier{what} for scores is right on {accuracy}"
    )
